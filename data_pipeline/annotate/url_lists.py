"""URL block lists as an index: sorted 64-bit hashes in a memory map, and the few entries that are no hashes.

Built once for a set of lists. A list of 4.6 million hosts takes 10 bytes an entry, shared by all processes.
"""

from __future__ import annotations

import importlib.resources
import os
import re
import shutil
import tarfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
import xxhash

from data_pipeline import fingerprint
from data_pipeline.annotate import lists
from data_pipeline.annotate.list_formats import plain_entries
from data_pipeline.packed.files import atomic_folder
from data_pipeline.urls import domains

DATATROVE = "datatrove"
"""Name that stands for the lists bundled with datatrove (its URLFilter, and with it FineWeb's)."""
FORMAT = 1
CACHED = 4
"""Indices that the cache keeps: those used last."""
HOST, SUBDOMAINS, ADDRESS, BELOW, ADDRESS_HOST = range(5)
"""Kinds of hashed entries; the kind is the seed of the hash. ADDRESS_HOST: there are addresses of this host."""

_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+\.?")
_EXPRESSION = re.compile(r"[()\[\]|^$\\]")
_FOREIGN = re.compile(r"[\s\"'<>]|^[^/]*,|^[^/?]*=|^[^/]*:$")
"""What stands in no host, address or word."""
_KEYED = re.compile(r"(?:regexp?|keyword|include|geosite|geoip|ext|attr):|[a-z-]+=/")
"""Entries of other tools that are neither a host nor an address."""
HARMLESS = (
    "en.example.org/wiki/river",
    "2024.example.com/05/story.html",
    "123.example.net/x?y=1",
    "a-b.example/",
)
"""Addresses that have nothing in common: an expression that matches all of them, or all but the bare host, matches
everything."""
_GENERIC = ("domains", "urls", "hosts", "expressions")
_NOT_ALPHANUMERIC = re.compile(r"[^a-zA-Z0-9]+")
_CHUNK = 1 << 23


def key(text: bytes, kind: int) -> int:
    """Hash of an entry, 64 bits."""
    return xxhash.xxh3_64_intdigest(text, kind)


def squeeze(text: str) -> str:
    """Letters and digits of ASCII alone, lower case: what parts of words are searched in."""
    return _NOT_ALPHANUMERIC.sub("", text).lower()


@dataclass
class _Builder:
    categories: list[str] = field(default_factory=list)
    keys: list[np.ndarray] = field(default_factory=list)
    codes: list[np.ndarray] = field(default_factory=list)
    words: dict[str, int] = field(default_factory=dict)
    cased_words: dict[str, int] = field(default_factory=dict)
    subwords: dict[str, int] = field(default_factory=dict)
    soft_words: list[str] = field(default_factory=list)
    cased_soft_words: list[str] = field(default_factory=list)
    expressions: list[tuple[str, int]] = field(default_factory=list)
    kinds: set[int] = field(default_factory=set)

    def category(self, name: str) -> int:
        if name not in self.categories:
            self.categories.append(name)
        return self.categories.index(name)

    def add_keys(self, found: np.ndarray, code: int) -> None:
        self.keys.append(found)
        self.codes.append(np.full(len(found), code, np.uint16))

    def add(self, entries: Iterable[tuple[int, bytes]], code: int) -> None:
        hashes = array("Q")
        for kind, entry in entries:
            hashes.append(key(entry, kind))
            self.kinds.add(kind)
            if kind in (ADDRESS, BELOW):
                hashes.append(key(re.split(rb"[/?]", entry, maxsplit=1)[0], ADDRESS_HOST))
                self.kinds.add(ADDRESS_HOST)
        self.add_keys(np.array(hashes, np.uint64), code)


def fingerprint_of(names: tuple[str, ...], soft: tuple[str, ...]) -> str:
    """Hash of what an index is built from: the content of the lists."""
    own = [n for n in names if n != DATATROVE]
    bundled = fingerprint.libraries(["datatrove"]) if DATATROVE in names else {}
    listed = fingerprint.of_paths(own, "url.lists"), fingerprint.of_paths(list(soft), "url.soft_lists")
    return fingerprint.of(FORMAT, names, bundled, *listed)


def build(names: tuple[str, ...], soft: tuple[str, ...], output: Path, cache: Path | None) -> dict[str, int]:
    """Make the index of these lists in the folder `output`, or take it from the cache.

    Args:
        names: `datatrove`, and files or folders (the entries: `docs/data-pipeline.md`, URL lists).
        soft: files or folders of words of which one alone says nothing.
        cache: folder in which indices are kept for other runs; None: nowhere.

    Returns:
        {"entries": hosts and addresses, "words", "expressions"}.

    Raises:
        FileNotFoundError, ValueError: a list that is missing, empty, not UTF-8, or has an impossible expression.
    """
    kept = cache / f"url-{fingerprint_of(names, soft)}" if cache is not None else None
    if kept is None or not _taken(kept, output):
        made = _build(names, soft, output)
        if kept is not None:
            _keep(made, kept)
    index = Index.load(output)
    words = (index.words, index.cased_words, index.subwords, index.soft_words, index.cased_soft_words)
    return {"entries": len(index.keys), "words": sum(map(len, words)), "expressions": len(index.expressions)}


def _taken(kept: Path, output: Path) -> bool:
    """Copy an index from the cache; False where it is not there, or another process has just removed it."""
    try:
        os.utime(kept)  # it was used
        with atomic_folder(output, replace=True) as folder:
            shutil.copytree(kept, folder, dirs_exist_ok=True)
    except (OSError, shutil.Error):
        return False
    return True


def _keep(made: Path, kept: Path) -> None:
    try:
        with atomic_folder(kept) as folder:
            shutil.copytree(made, folder, dirs_exist_ok=True)
        known = sorted(kept.parent.glob("url-*"), key=lambda p: (p.stat().st_mtime_ns, p.name), reverse=True)
        for path in known[CACHED:]:
            shutil.rmtree(path, ignore_errors=True)
    except OSError:  # a cache that cannot be written, or that another process has just filled, is no fault
        return


def _build(names: tuple[str, ...], soft: tuple[str, ...], output: Path) -> Path:
    builder = _Builder()
    for name in names:
        if name == DATATROVE:
            _add_datatrove(builder)
        else:
            for path in lists.files((name,)):
                _add_file(builder, path)
    builder.soft_words = sorted({e.lower() for path in lists.files(soft) for _, e in lists.entries(path)})
    keys = np.concatenate([*builder.keys, np.zeros(0, np.uint64)])
    codes = np.concatenate([*builder.codes, np.zeros(0, np.uint16)])
    order = np.argsort(keys, kind="stable")  # of equal entries the one of the first list stays
    keys, codes = keys[order], codes[order]
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    tables = (
        "categories",
        "words",
        "cased_words",
        "subwords",
        "soft_words",
        "cased_soft_words",
        "expressions",
    )
    kept = {name: getattr(builder, name) for name in tables} | {"kinds": sorted(builder.kinds)}
    with atomic_folder(output, replace=True) as folder:
        np.save(folder / "keys.npy", keys[first])
        np.save(folder / "codes.npy", codes[first])
        (folder / "index.json").write_bytes(orjson.dumps(kept))
    return output


def _add_file(builder: _Builder, path: Path) -> None:
    stem = path.name.removesuffix(".gz").removesuffix(".txt")
    code = builder.category(path.parent.name if stem in _GENERIC else stem)
    builder.add(_hashed(builder, path, code), code)


def _hashed(builder: _Builder, path: Path, code: int) -> Iterator[tuple[int, bytes]]:
    """(kind, entry) of the hosts and addresses of a file; its words and expressions go to the builder."""
    for number, line, entry in _entries(path):
        if _HOST.fullmatch(entry):
            yield HOST, entry.rstrip(".").removeprefix("www.").encode()
        elif _KEYED.match(entry):
            raise _unknown(path, number, line)
        elif len(entry) > 2 and entry.startswith("/") and entry.endswith("/"):
            _add_expression(builder, entry[1:-1], code, path, number)
        elif _EXPRESSION.search(entry):
            _add_expression(builder, entry, code, path, number)
        elif _FOREIGN.search(entry):
            raise _unknown(path, number, line)
        elif entry.startswith("*.") and "*" not in entry[2:] and "/" not in entry:
            yield SUBDOMAINS, domains.ascii_host(entry[2:]).encode()
        elif "/" in entry or "." in entry:
            yield from _address(builder, entry, code, path, number)
        elif entry.startswith("*") or entry.endswith("*"):
            if not squeeze(entry):
                raise ValueError(
                    f"{path}, line {number}: {line!r} holds no letter or digit of ASCII to search for"
                )
            builder.subwords.setdefault(squeeze(entry), code)
        else:
            builder.words.setdefault(entry, code)


def _unknown(path: Path, number: int, line: str) -> ValueError:
    return ValueError(
        f"{path}, line {number}: {line!r} is in no notation that is known; expected a host, an address, a word or an "
        "/expression/ a line, or the lines of Adblock, hosts files, dnsmasq, Unbound, Squid, Clash or V2Ray"
    )


def _entries(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, line, entry) of a list, in lower case, whatever tool's notation it is in."""
    for number, line in lists.entries(path):
        for entry in plain_entries(line):
            yield number, line, entry.lower()


def _add_expression(builder: _Builder, pattern: str, code: int, path: Path, number: int) -> None:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{path}, line {number}: {pattern!r} is no regular expression: {error}") from None
    if all(map(expression.search, HARMLESS[:-1])):
        raise ValueError(
            f"{path}, line {number}: {pattern!r} matches every address, such as {HARMLESS[0]}; it would drop all pages"
        )
    builder.expressions.append((pattern, code))


def _address(
    builder: _Builder, entry: str, code: int, path: Path, number: int
) -> Iterator[tuple[int, bytes]]:
    below = entry.endswith("/*")
    host, rest = domains.split(entry.removesuffix("*"))
    address = (host.removeprefix("www.") + rest.lower()).rstrip("/")
    if "*" in address:
        parts = [re.escape(part) for part in address.split("*")]
        pattern = "^" + ".*".join(parts) + (r"/." if below else r"(?:[/?]|$)")
        _add_expression(builder, pattern, code, path, number)
    elif address and not rest.strip("/"):
        yield BELOW if below else HOST, address.encode()
    elif address:
        yield BELOW if below else ADDRESS, address.encode()


def _add_datatrove(builder: _Builder) -> None:
    """The lists as datatrove's URLFilter reads them: words compared as written, spaces and signs within them left out."""
    code = builder.category(DATATROVE)
    assets = importlib.resources.files("datatrove") / "assets"
    archives = sorted(a.name for a in assets.iterdir() if a.name.startswith("url_filterblacklists"))
    if not archives:
        raise FileNotFoundError(
            f"{assets} holds no url_filterblacklists*.tar.gz: this datatrove bundles no URL lists"
        )
    with importlib.resources.as_file(assets / archives[-1]) as archive, tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            for lines in _chunks(tar, member):
                if Path(member.name).name == "domains":  # kind HOST, without a look at each
                    builder.add_keys(
                        np.fromiter(map(xxhash.xxh3_64_intdigest, lines), np.uint64, len(lines)), code
                    )
                else:
                    found = (line.split(b"://")[-1].strip().lower().rstrip(b"/") for line in lines)
                    builder.add(((ADDRESS, a.removeprefix(b"www.")) for a in found if a), code)
    bundled = {
        name: [squeeze(e) for _, e in lists.entries(Path(str(assets / f"{name}.txt")))]
        for name in ("banned_words", "banned_subwords", "soft_banned_words")
    }
    builder.cased_words |= {w: code for w in bundled["banned_words"] if w}
    builder.subwords |= {w: code for w in bundled["banned_subwords"] if w}
    builder.cased_soft_words = sorted(filter(None, set(bundled["soft_banned_words"])))


def _chunks(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[list[bytes]]:
    file = tar.extractfile(member)
    rest = b""
    while file is not None and (data := file.read(_CHUNK)):
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        yield lines
    if rest:
        yield [rest]


@dataclass(frozen=True)
class Index:
    """Lists that are ready to be asked."""

    keys: np.ndarray
    """uint64 [n], sorted: hosts and addresses."""
    codes: np.ndarray
    """uint16 [n]: category of each."""
    categories: list[str]
    """Names of the lists."""
    words: dict[str, int]
    """Words that stand alone in a URL, in lower case → category."""
    cased_words: dict[str, int]
    """Words compared as they are written in the URL (datatrove's)."""
    subwords: dict[str, int]
    """Parts of words."""
    soft_words: frozenset[str]
    """Words that are counted, in lower case."""
    cased_soft_words: frozenset[str]
    """Words that are counted, as they are written in the URL (datatrove's)."""
    expressions: list[tuple[re.Pattern[str], int]]
    """Expressions searched in host, path and query, in lower case."""
    kinds: frozenset[int]
    """Kinds of hashed entries that occur, besides HOST."""

    @classmethod
    def load(cls, folder: Path) -> Index:
        """Open an index; its hashes stay on disk."""
        tables = orjson.loads((folder / "index.json").read_bytes())
        return cls(
            np.load(folder / "keys.npy", mmap_mode="r"),
            np.load(folder / "codes.npy", mmap_mode="r"),
            tables["categories"],
            tables["words"],
            tables["cased_words"],
            tables["subwords"],
            frozenset(tables["soft_words"]),
            frozenset(tables["cased_soft_words"]),
            [(re.compile(pattern), code) for pattern, code in tables["expressions"]],
            frozenset(tables["kinds"]),
        )
