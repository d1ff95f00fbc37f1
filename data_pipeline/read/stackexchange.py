"""Stack Exchange dumps: `Posts.xml`, plain, compressed or in a 7z archive → one record a question, with its answers.

Rows stand in any order, answers far from their question. So a file is read twice: rows are cut out of the stream and sorted
on disk by question (`runs.Sorter`); then a question and its answers come together. Memory does not grow with the dump.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib.util
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import orjson

from configs.schema.pipeline import RecipeConfig
from data_pipeline.read import Item, Record, SetAside, Skipped, Unit, excerpt, sevenzip, storage
from data_pipeline.read.dates import iso_date
from data_pipeline.read.runs import Sorter
from data_pipeline.read.streams import DAMAGE, blocks, codec_of, open_stream

OWN_DOMAINS = {
    "stackoverflow": "com", "serverfault": "com", "superuser": "com", "askubuntu": "com", "stackapps": "com",
    "mathoverflow": "net",
}  # fmt: skip
"""Sites that are not below stackexchange.com."""
MAX_RATIO = 200
"""A file that decompresses to more than so many times its size is not read further: posts stay below 20."""
RATIO_FREE = 64 * 2**20
"""Decompressed bytes from which that counts."""
QUESTION, ANSWER = "1", "2"
_ROOT = re.compile(rb"<([A-Za-z]\w*)")
_NAME = re.compile(r"(?:-posts)?(?:\.xml)?(?:\.(?:7z|gz|bz2|xz|zst|lz4))?$")
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_ID = re.compile(r"[0-9]{1,18}")
_TAG = re.compile(r"[^<>|]+")
_FORBIDDEN = re.compile(
    rb"&#(?:0*(?:[0-8]|1[124-9]|2\d|3[01]|11)|x0*(?:[0-8bcef]|1[0-9a-f]|fff[ef]|d[89a-f]..));", re.I
)
"""References to characters that XML does not allow and some dumps hold."""


def site_of(name: str) -> str:
    """Host of a site by the name of an archive, a folder or a configuration: `math`, `math.stackexchange.com.7z`."""
    name = _NAME.sub("", name.lower())
    last = name.rsplit(".", 1)[-1]
    if last in ("com", "net"):
        return name
    if last in OWN_DOMAINS:
        return f"{name}.{OWN_DOMAINS[last]}"
    return f"{name}.com" if last == "stackexchange" else f"{name}.stackexchange.com"


def site_of_file(file: str, member: str = "") -> str:
    """Host of the site that a file holds: by the folder of a `Posts.xml`, or the name of its archive."""
    for path in (member, file):
        folder, _, base = path.replace("\\", "/").rstrip("/").rpartition("/")
        if base and _NAME.sub("", base.lower()) != "posts":
            return site_of(base)
        if folder:
            return site_of(folder.rsplit("/", 1)[-1])
    return site_of(file)


def wants(site: str, sites: tuple[str, ...]) -> bool:
    """Whether a site is one of `recipe.sites`; meta sites only where they are named, the others all where none is."""
    if any(site == site_of(name) for name in sites):
        return True
    if "meta" in site.split("."):
        return False
    return not sites or any(
        fnmatch.fnmatchcase(site, p) or fnmatch.fnmatchcase(site, site_of(p)) for p in sites
    )


def refusal(file: str, head: storage.Head, start: bytes, recipe: RecipeConfig) -> str:
    """Why a file is not read, by its first bytes and its name; empty where it is.

    Args:
        start: its first bytes, decompressed.

    Raises:
        ValueError: it is a 7z archive, and the package that reads those is not installed.
    """
    if not head.start.startswith(sevenzip.MAGIC):
        start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
        root = _ROOT.search(start)
        if root is None or not start.startswith(b"<"):
            return "neither XML nor a 7z archive"
        if root[1] != b"posts":
            return f"<{root[1].decode('ascii', 'replace')}>, a table of the dump that holds no posts"
    elif importlib.util.find_spec("py7zr") is None:
        raise ValueError(f"{file} is a 7z archive; to read it: pip install 'arriero[7z]'")
    elif (stem := storage.base_name(file).lower().removesuffix(".7z").rpartition("-")[2]) in _OTHER_TABLES:
        return f"an archive of the table `{stem}`, which holds no posts"
    site = site_of_file(file)
    if not wants(site, recipe.sites):
        shown = ", ".join(recipe.sites[:4]) + (", …" if len(recipe.sites) > 4 else "")
        return f"{site} (by its name) is not among `recipe.sites` ({shown or 'all but meta sites'})"
    return ""


_OTHER_TABLES = frozenset(("badges", "comments", "posthistory", "postlinks", "tags", "users", "votes"))


def read(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Questions with their answers, by id; posts of other kinds are skipped, answers without their question set aside."""
    with Sorter() as sorter, tempfile.TemporaryFile(prefix="arriero-rows-") as asides:
        skipped: Counter[str] = Counter()
        scan = _Scan(file, recipe, sorter, asides, skipped)
        _feed(file, recipe, scan)
        asides.seek(0)
        for line in asides:
            yield SetAside(**orjson.loads(line))
        for (_, site), rows in groupby(sorter.rows(), lambda row: (row[0], row[2].partition(b"\n")[0])):
            yield from _thread(file, site.decode(), rows, recipe, skipped)
        for reason, count in sorted(skipped.items()):
            for _ in range(count):
                yield Skipped(reason)


def _feed(file: str, recipe: RecipeConfig, scan: _Scan) -> None:
    """Give the bytes of every `Posts.xml` of a file to `scan`."""
    try:
        head = storage.head(file)
        if head.start.startswith(sevenzip.MAGIC):
            scan.limit = MAX_RATIO * head.size + RATIO_FREE
            members = sevenzip.feed_members(file, _is_posts, scan.member, recipe.max_window_bytes)
            if not any(map(_is_posts, members)):
                found = ", ".join(members)[:200]
                scan.aside(0, f"no Posts.xml in the archive, which holds: {found}", "Posts.xml of a dump")
                return
        else:
            if codec_of(head.start) is not None:
                scan.limit = MAX_RATIO * head.size + RATIO_FREE
            with open_stream(file, recipe.max_window_bytes) as stream:
                for block in blocks(stream):
                    scan.member("", block)
    except DAMAGE as error:
        scan.aside(scan.offset, f"damaged after this offset: {error}", "a readable file; the rest is lost")
        return
    scan.finish()
    if not scan.number:
        scan.aside(0, "no <row> in the file", "Posts.xml of a Stack Exchange dump")


def _is_posts(member: str) -> bool:
    return member.replace("\\", "/").rpartition("/")[2].lower() == "posts.xml"


class _Scan:
    """Bytes of `Posts.xml` → its rows in a sorter, what is wrong with others in a file."""

    def __init__(
        self, file: str, recipe: RecipeConfig, sorter: Sorter, asides: Any, skipped: Counter[str]
    ) -> None:
        from lxml import etree  # not with the module: verbs that only look at a run import it too

        self._file, self._recipe, self._sorter = file, recipe, sorter
        self._asides, self._skipped = asides, skipped
        self._etree: Any = etree
        self._parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
        self.limit: int | None = None
        """Bytes beyond which the file is taken for a bomb."""
        self.number = 0
        """Rows so far."""
        self._begun: str | None = None  # member
        self._taken = 0  # bytes of all members
        self._site = b""
        self._wanted = False
        self._start()

    def _start(self) -> None:
        self._rest = b""
        self.offset = 0
        """Where the rest begins, in the decompressed stream."""
        self._tag = False  # the rest stands behind a `<`
        self._passing = ""  # what is passed over to the next `<`: `long`, or to the next `-->`: `comment`

    def aside(self, offset: int, reason: str, expected: str, shown: bytes = b"") -> None:
        """Set something aside."""
        item = SetAside(self._file, self.number, offset, reason, expected, excerpt(shown))
        self._asides.write(orjson.dumps(dataclasses.asdict(item)) + b"\n")

    def member(self, member: str, block: bytes) -> None:
        """The next bytes; a new member begins anew."""
        if member != self._begun:
            self.finish()
            self._start()
            self._begun = member
            site = site_of_file(self._file, member)
            self._site, self._wanted = site.encode(), wants(site, self._recipe.sites)
            if not self._wanted:
                self._skipped[f"{site} is not among the sites"] += 1
        self._taken += len(block)
        if self.limit is not None and self._taken > self.limit:
            raise OSError(f"it decompresses to more than {MAX_RATIO} times its size, as no dump does")
        if not self._wanted:
            return
        # A value cannot hold `<`, so a row ends before the next one, whatever stands in it.
        *pieces, rest = (self._rest + block).split(b"<")
        for piece in pieces:
            self._piece(piece)
            self.offset += len(piece) + 1
            self._tag = True
        if len(rest) > self._recipe.max_record_bytes:
            if not self._passing:
                expected = "raise `recipe.max_record_bytes` to read it"
                self.aside(
                    self.offset,
                    f"a row larger than {self._recipe.max_record_bytes} bytes",
                    expected,
                    rest[:500],
                )
                self.number += 1
                self._passing = "long"
            keep = rest[-2:]
            self.offset += len(rest) - len(keep)
            rest = keep
        self._rest = rest

    def finish(self) -> None:
        """The end of a member."""
        if self._tag and self._rest.strip() and not self._passing:
            if self._rest.rstrip().endswith(b">"):
                self._piece(self._rest)
            else:
                self.aside(self.offset, "the file ends inside a row", "<row … />", self._rest[:500])
        self._rest, self._tag = b"", False

    def _piece(self, piece: bytes) -> None:
        """What stands between two `<`."""
        if self._passing == "comment":
            if b"-->" in piece:
                self._passing = ""
        elif self._passing:
            self._passing = ""
        elif not self._tag:
            return
        elif piece.startswith(b"!--"):
            self._passing = "" if b"-->" in piece else "comment"
        elif piece.startswith((b"!DOCTYPE", b"!ENTITY")):
            expected = "no document type: entities are not expanded, rows that use them are set aside"
            self.aside(self.offset - 1, "a document type or entity declaration", expected, piece[:500])
        elif piece[:3] == b"row" and piece[3:4] in (b" ", b"\t", b"\n", b"\r", b"/"):
            self._row(piece)
            self.number += 1

    def _row(self, piece: bytes) -> None:
        etree, data = self._etree, b"<" + piece.rstrip()
        if data.endswith(b">") and not data.endswith(b"/>"):
            data = data[:-1] + b"/>"
        repaired = 0
        try:
            try:
                row = etree.fromstring(data, self._parser)
            except etree.XMLSyntaxError:
                data, repaired = _FORBIDDEN.subn(b"", data)
                if not repaired:
                    raise
                row = etree.fromstring(data, self._parser)
            post = _post(row.attrib)
        except (etree.XMLSyntaxError, ValueError) as error:
            what = f"not XML: {error}" if isinstance(error, etree.XMLSyntaxError) else str(error)
            self.aside(self.offset - 1, what, "<row Id=… PostTypeId=… Body=… />", data)
            return
        if post["type"] not in (QUESTION, ANSWER):
            self._skipped[f"post of type {excerpt(post['type'], 20)}"] += 1
            return
        post |= {"offset": self.offset - 1, "repaired": repaired}
        self._sorter.add(int(post["thread"]), self.number, self._site + b"\n" + orjson.dumps(post))


def _post(row: Any) -> dict[str, Any]:
    """Fields of a row. Raises ValueError, which names the field, where it cannot be placed."""

    def number(key: str, default: str | None = None) -> int:
        value = row.get(key, default)
        pattern = _NUMBER if key == "Score" else _ID
        if value is None or pattern.fullmatch(value) is None:
            raise ValueError(
                f"{key} is {'missing' if value is None else f'`{excerpt(value, 40)}`, no number'}"
            )
        return int(value)

    kind = row.get("PostTypeId")
    if kind is None:
        raise ValueError("PostTypeId is missing")
    if kind not in (QUESTION, ANSWER):
        return {"type": kind}
    identifier = number("Id")
    return {
        "type": kind,
        "id": identifier,
        "thread": identifier if kind == QUESTION else number("ParentId"),
        "score": number("Score", "0"),
        "body": row.get("Body", ""),
        "date": row.get("CreationDate", ""),
        "owner": row.get("OwnerUserId") or row.get("OwnerDisplayName") or "",
        "licence": row.get("ContentLicense", ""),
    } | (
        {
            "title": row.get("Title", ""),
            "tags": _TAG.findall(row.get("Tags", "")),
            "accepted": row.get("AcceptedAnswerId", ""),
        }
        if kind == QUESTION
        else {}
    )


def _thread(
    file: str, site: str, rows: Iterator[tuple[int, int, bytes]], recipe: RecipeConfig, skipped: Counter[str]
) -> Iterator[Item]:
    """The record of one question, from the rows that belong to it in the order of the file."""
    question: dict[str, Any] | None = None
    answers: dict[int, dict[str, Any]] = {}
    size = key = 0
    first = (0, 0)
    for thread, number, payload in rows:
        key = thread
        size += len(payload)
        if size > recipe.max_record_bytes:
            question, answers = None, {}
            continue  # the rest of the question is passed over, held nowhere
        post = orjson.loads(payload.partition(b"\n")[2]) | {"number": number}
        first = (number, post["offset"]) if first == (0, 0) else first
        if post["type"] == QUESTION and question is None:
            question = post
        elif post["type"] == ANSWER and post["id"] not in answers:
            answers[post["id"]] = post
        else:
            reason = f"a second post with the id {post['id']}"
            yield SetAside(file, number, post["offset"], reason, "one row a post; the first is kept")
    if size > recipe.max_record_bytes:
        reason = f"question {key} is larger than {recipe.max_record_bytes} bytes with its answers"
        yield SetAside(file, *first, reason, "raise `recipe.max_record_bytes` to read it")
        return
    if question is None:
        for post in answers.values():
            reason = f"answer {post['id']} belongs to question {key}, which is not in the file"
            yield SetAside(file, post["number"], post["offset"], reason, "a dump that holds both")
        return
    accepted = int(question["accepted"]) if _ID.fullmatch(question["accepted"]) else None
    for identifier in [a for a, post in answers.items() if not post["body"].strip()]:
        del answers[identifier]
        skipped["an answer without text"] += 1
    ordered = sorted(answers.values(), key=itemgetter("id"))
    ordered.sort(key=lambda a: (recipe.accepted_first and a["id"] == accepted, a["score"]), reverse=True)
    yield _record(file, site, question, ordered, accepted)


def _record(
    file: str, site: str, question: dict[str, Any], answers: list[dict[str, Any]], accepted: int | None
) -> Record:
    url = f"https://{site}/questions/{question['id']}"
    payload = {
        "title": question["title"],
        "question": question["body"],
        "answers": [a["body"] for a in answers],
    }
    return Record(
        file=file,
        number=question["number"],
        offset=question["offset"],
        kind="thread",
        payload=orjson.dumps(payload),
        given=url,
        url=url,
        charset="utf-8",
        licence=question["licence"] or "CC-BY-SA",
        date=iso_date(question["date"]),
        repaired=question["repaired"] + sum(a["repaired"] for a in answers),
        metadata={
            "site": site,
            "title": question["title"],
            "tags": question["tags"],
            "score": question["score"],
            "owner": question["owner"],
            "accepted": accepted,
            "answers": [
                {"id": a["id"], "score": a["score"], "date": iso_date(a["date"]), "owner": a["owner"]}
                for a in answers
            ],
        },
    )
