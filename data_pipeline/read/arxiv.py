"""arXiv's source packages: a `.tar` with one `.gz` a paper, packages by themselves, folders of one paper.

A package is a gzipped tar of files, or one gzipped TeX file. Archives are read as streams; of a paper its TeX files are
held, up to `max_record_bytes`. Nothing is unpacked to disk. A paper that is damaged, or has no TeX source, is set aside.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, cast

import orjson
import xxhash

from configs.schema.pipeline import RecipeConfig
from data_pipeline.extract.latex.source import Bundle, find_main, safe_name
from data_pipeline.read import Item, Record, SetAside, Unit, excerpt, storage, tar
from data_pipeline.read.charset import decode
from data_pipeline.read.jsonl import repair
from data_pipeline.read.streams import DAMAGE, codec_of, open_stream, stream_of

SUFFIXES = frozenset(
    re.findall(
        r"\S+",
        ".tex .ltx .latex .sty .def .inc .mac .macros .tikz .pgf .txt .pstex_t .pdftex_t .pdf_tex .eps_tex .bbl",
    )
)
"""Files that may hold text of a paper or definitions; others are not read. Names without a suffix are read too."""
GROWTH = 64
"""Decompressed bytes of a package at the most, in `max_record_bytes`."""
_ID = re.compile(r"(?:(\d{4}\.\d{4,5})|([a-z-]+(?:\.[A-Z]{2})?)[/_]?(\d{7}))(v\d+)?$")
_PACKAGE = re.compile(r"\.(?:tar|tgz|tar\.(?:gz|bz2|xz|zst|lz4))$", re.I)
_ENDINGS = re.compile(r"(?:\.tar)?\.(?:gz|bz2|xz|zst|lz4|pdf|ps|tar|tgz|tex|html|docx?)$", re.I)
_ENCODING = re.compile(rb"\\usepackage\s*\[([^\]]*)\]\s*\{inputenc\}")
_TOP_LEVEL = re.compile(r"^\s*(\S+)\s+toplevelfile\s*$", re.M)
_ENCODINGS = {
    "latin1": "iso-8859-1", "latin2": "iso-8859-2", "latin3": "iso-8859-3", "latin4": "iso-8859-4", "latin5": "iso-8859-9",
    "latin9": "iso-8859-15", "latin10": "iso-8859-16", "ansinew": "cp1252", "applemac": "macintosh", "macce": "mac-latin2",
}  # fmt: skip
"""Names of inputenc that are not names of character sets. `utf8` says nothing about a file that is not UTF-8."""


class NoSource(ValueError):
    """A package that is not TeX, or too large."""


@dataclass
class Paper:
    """Files of a paper that may hold text."""

    limit: int
    """Bytes that they may have."""
    files: dict[str, bytes] = field(default_factory=dict)
    size: int = 0
    others: int = 0
    """Files that were not read."""

    def add(self, name: str, data: IO[bytes]) -> None:
        """Take a file, unless its name says that it is no text, or leads out of the archive."""
        safe = safe_name(name)
        suffix = posixpath.splitext(safe or "")[1].lower()
        readme = safe is not None and posixpath.basename(safe).startswith("00README")
        if safe is None or not (suffix in SUFFIXES or not suffix or readme):
            self.others += 1
            return
        content = data.read(self.limit - self.size + 1)
        self.size += len(content)
        if self.size > self.limit:
            raise NoSource(
                f"its TeX files are larger than {self.limit} bytes; raise `recipe.max_record_bytes` to read it"
            )
        if suffix or readme or _may_be_text(content):
            self.files[safe] = content


def read(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Papers of a package, of an archive of packages, or of a folder (a name that ends in `/`)."""
    if file.endswith("/"):
        yield _folder(file, recipe)
        return
    try:
        with open_stream(file, recipe.max_window_bytes) as opened:
            start, stream = _begin(opened)
            if not tar.is_tar(start):
                yield _one(stream, start, file, 0, 0, storage.base_name(file), recipe)
                return
            yield from _archive(stream, file, recipe)
    except DAMAGE as error:
        yield SetAside(file, 0, 0, f"damaged: {error}", "a source package of arXiv")


def _archive(stream: IO[bytes], file: str, recipe: RecipeConfig) -> Iterator[Item]:
    """Papers of a tar archive: each package in it, or itself."""
    paper = Paper(recipe.max_record_bytes)
    number = offset = 0
    packages = False
    size, name = 0, ""
    try:
        for member in tar.members(stream):
            offset, name = member.offset, member.name
            base = posixpath.basename(member.name)
            if not packages and not paper.files and is_package(base):
                packages = True
            if packages:
                if base.startswith("."):
                    continue
                start, inner = _begin(member.data)
                yield _one(inner, start, file, number, offset, member.name, recipe)
                number += 1
                continue
            size += member.size
            if size > GROWTH * recipe.max_record_bytes:
                raise NoSource(f"the package is larger than {GROWTH * recipe.max_record_bytes} bytes")
            paper.add(member.name, member.data)
    except (*DAMAGE, NoSource) as error:
        what = "" if isinstance(error, NoSource) else f"damaged archive, at `{name}` or behind it: "
        rest = "; the packages behind it are lost" if packages else ""
        yield SetAside(file, number, offset, f"{what}{error}{rest}", "a source package of arXiv")
        return
    if not packages:
        yield _record(paper, file, 0, 0, storage.base_name(file), recipe)


def _one(
    stream: IO[bytes], start: bytes, file: str, number: int, offset: int, name: str, recipe: RecipeConfig
) -> Item:
    """The paper of one package, from its (perhaps compressed) bytes."""
    paper = Paper(recipe.max_record_bytes)
    where = f"{name}: " if name != storage.base_name(file) else ""
    try:
        if codec_of(start) is not None:
            start, stream = _begin(stream_of(stream, recipe.max_window_bytes))
        if tar.is_tar(start):
            size = 0
            for member in tar.members(stream):
                size += member.size
                if size > GROWTH * recipe.max_record_bytes:
                    raise NoSource(f"the package is larger than {GROWTH * recipe.max_record_bytes} bytes")
                paper.add(member.name, member.data)
        else:
            found = _not_tex(start)
            if found is not None:
                raise NoSource(found)
            paper.add(_ENDINGS.sub("", posixpath.basename(name)) + ".tex", stream)
    except NoSource as error:
        return SetAside(file, number, offset, f"{where}{error}", "TeX source", excerpt(start))
    except DAMAGE as error:
        return SetAside(
            file,
            number,
            offset,
            f"{where}damaged package: {error}",
            "a source package of arXiv",
            excerpt(start),
        )
    return _record(paper, file, number, offset, name, recipe)


def _folder(folder: str, recipe: RecipeConfig) -> Item:
    """The paper whose files lie in a folder."""
    paper = Paper(recipe.max_record_bytes)
    name = folder.rstrip("/")
    try:
        for file in storage.find(name).files:
            with storage.open_binary(file) as data:
                paper.add(file.removeprefix(folder), data)
    except NoSource as error:
        return SetAside(folder, 0, 0, str(error), "TeX source")
    except DAMAGE as error:
        return SetAside(folder, 0, 0, f"not readable: {error}", "a folder of TeX files")
    return _record(paper, folder, 0, 0, posixpath.basename(name), recipe)


def _record(paper: Paper, file: str, number: int, offset: int, name: str, recipe: RecipeConfig) -> Item:
    identifier, version = arxiv_id(name)
    base = identifier or _ENDINGS.sub("", posixpath.basename(name))
    repaired = 0
    declared = _declared(paper.files)
    texts: dict[str, str] = {}
    for path, content in paper.files.items():
        text, replaced = decode(content, declared, html=False)
        texts[path], removed = repair(text)
        repaired += replaced + removed
    readmes = [p for p in texts if posixpath.basename(p).startswith("00README")]
    wanted = next((w for p in readmes if (w := _wanted(texts[p])) is not None), None)
    for path in readmes:
        del texts[path]
    main = find_main(texts, wanted)
    where = f"{name}: " if name != storage.base_name(file) else ""
    if main is None:
        found = f"{len(texts)} text files of {len(paper.files) + paper.others}"
        reason = "no main file among " + found if texts else f"no TeX file ({found})"
        return SetAside(file, number, offset, where + reason, "a file with \\documentclass, or plain TeX")
    url = f"https://arxiv.org/abs/{identifier}" if identifier else f"file:{base}"
    metadata = {"arxiv_id": identifier, "version": version}
    return Record(
        file=file,
        number=number,
        offset=offset,
        kind="latex",
        payload=Bundle(main, texts).to_bytes(),
        given=url,
        url=url,
        charset="utf-8",
        group=url,
        repaired=repaired,
        metadata={key: value for key, value in metadata.items() if value is not None},
    )


def arxiv_id(name: str) -> tuple[str | None, str | None]:
    """Identifier of a paper (`2103.01234`, `hep-th/9901001`) and its version, from the name of its file; None of others."""
    found = _ID.match(_ENDINGS.sub("", posixpath.basename(name)))
    if found is None:
        return None, None
    new, archive, digits, version = found.groups()
    return new or f"{archive}/{digits}", version


def is_package(base: str) -> bool:
    """Whether a file of this name is a package, not a file of a paper."""
    return _PACKAGE.search(base) is not None or (
        not base.lower().endswith(".tex") and arxiv_id(base)[0] is not None
    )


def papers(
    files: list[tuple[str, storage.Head]],
) -> tuple[list[tuple[str, storage.Head]], list[tuple[str, str]]]:
    """What a plan reads: packages as they are, and one name (with `/` at its end) for each folder of a paper.

    A folder of a paper is the topmost that holds `.tex` files, unless their names are arXiv identifiers: those are papers
    by themselves.

    Returns:
        (name, head) in order of names, and (file, reason) of files that are neither.
    """
    suffix = {file: posixpath.splitext(file)[1].lower() for file, _ in files}
    single = {f for f, _ in files if suffix[f] == ".tex" and arxiv_id(f)[0] is not None}
    tops: set[str] = set()
    for folder in sorted({posixpath.dirname(f) for f, _ in files if suffix[f] == ".tex" and f not in single}):
        if not any(folder.startswith(top + "/") for top in tops):
            tops.add(folder)
    found: dict[str, storage.Head] = {}
    parts: dict[str, list[storage.Head]] = {}
    unknown: list[tuple[str, str]] = []
    for file, head in files:
        top = next((t for t in _ancestors(file) if t in tops), None)
        if file in single or is_package(storage.base_name(file)):
            found[file] = head
        elif top is not None:
            parts.setdefault(top + "/", []).append(head)
        elif codec_of(head.start) is not None or tar.is_tar(head.start):
            found[file] = head
        else:
            unknown.append((file, "no source package, and no .tex file lies beside it"))
    for folder, heads in parts.items():
        version = xxhash.xxh3_128_hexdigest("".join(h.version for h in heads).encode())
        found[folder] = storage.Head(sum(h.size for h in heads), b"", version)
    return sorted(found.items()), unknown


def _ancestors(file: str) -> Iterator[str]:
    folder = posixpath.dirname(file)
    while folder and folder != posixpath.dirname(folder):
        yield folder
        folder = posixpath.dirname(folder)


def _begin(stream: IO[bytes]) -> tuple[bytes, IO[bytes]]:
    """The first bytes, and the whole stream."""
    start = b""
    while len(start) < tar.BLOCK and (block := stream.read(tar.BLOCK - len(start))):
        start += block
    return start, cast(IO[bytes], io.BufferedReader(tar.Part(stream, None, start), 2**16))


def _not_tex(start: bytes) -> str | None:
    """What a package is that is no TeX."""
    if start.startswith(b"%PDF"):
        return "a PDF without its source"
    if start.startswith((b"%!PS", b"\x04%!PS")):
        return "PostScript without its source"
    if start.startswith(b"PK\x03\x04"):
        return "a zip or Office file without TeX source"
    if re.match(rb"\s*<(?:!doctype|html|\?xml)", start, re.I):
        return "HTML without TeX source"
    if not start.strip():
        return "an empty package (a withdrawn paper?)"
    return None if _may_be_text(start) else "a binary file"


def _may_be_text(data: bytes) -> bool:
    return b"\0" not in data[:4096]


def _declared(files: dict[str, bytes]) -> str:
    for name in sorted(files):
        for found in _ENCODING.finditer(files[name][: 2**16]):
            label = found[1].decode("ascii", "replace").split(",")[-1].strip().lower()
            if not label.startswith("utf8"):
                return _ENCODINGS.get(label, label)
    return "iso-8859-1"


def _wanted(readme: str) -> str | None:
    """The main file that an author has declared."""
    if readme.lstrip().startswith("{"):
        try:
            sources = orjson.loads(readme).get("sources", [])
            names = [s.get("filename") for s in sources if s.get("usage") == "toplevel"]
        except (orjson.JSONDecodeError, AttributeError, TypeError):
            return None
        return names[0] if names and isinstance(names[0], str) else None
    found = _TOP_LEVEL.search(readme)
    return safe_name(found[1]) if found else None
