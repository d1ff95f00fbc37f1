"""Planning: inputs → units of work, the same ones whatever runs them."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from configs.schema.pipeline import RecipeConfig
from data_pipeline import fingerprint
from data_pipeline.packed.files import write_atomically
from data_pipeline.read import (
    Kind,
    Source,
    Unit,
    excerpt,
    parquet,
    sevenzip,
    stackexchange,
    storage,
    tables,
    warc,
)
from data_pipeline.read.members import has_members, starts_record
from data_pipeline.read.streams import codec_of, expand

MIN_UNIT_BYTES = 4 * 2**20
UNITS_WANTED = 32
"""Inputs are cut into about so many units where units are not too small then, so that many workers have something to
do. The number of workers itself must not count: the output would depend on it."""
PROBES = 16
"""Remote files looked at in parallel."""
MAX_FILES = 2000
"""Files of one unit at the most."""
_NAMES = re.compile(
    r"\.(warc|arc|wet|wat|jsonl|ndjson|json|parquet|csv|tsv|arrow|feather|ipc|txt|text|md|rst|html?|xml)(?:\.(?:gz|bz2|xz|zst|lz4))?$",
    re.I,
)
_KIND_OF_NAME: dict[str, Kind] = {
    "warc": "warc",
    "arc": "warc",
    "wet": "warc",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "jsonl",
    "parquet": "parquet",
    "csv": "csv",
    "tsv": "csv",
    "arrow": "arrow",
    "feather": "arrow",
    "ipc": "arrow",
    "txt": "text",
    "text": "text",
    "md": "text",
    "rst": "text",
    "html": "html",
    "htm": "html",
    "xml": "wikitext",
}


@dataclass(frozen=True)
class Plan:
    """Units of all sources, and the files that no reader takes."""

    units: tuple[Unit, ...]
    unknown: tuple[tuple[str, str, str], ...]
    """(source, file, what was found)."""
    inputs: str
    """Fingerprint of every input file."""


def plan(sources: list[Source], unit_bytes: int, output: Path | None = None) -> Plan:
    """Units of work of all sources, in the order of the sources and of their files' names.

    Args:
        output: the folder of the run, which is never input.

    Raises:
        ValueError: an input does not exist, cannot be read, is empty, or holds nothing that a reader takes.
    """
    units: list[Unit] = []
    unknown: list[tuple[str, str, str]] = []
    hashes: list[Any] = []
    for source in sources:
        if source.recipe.reader == "python":
            found = _python_units(source, unit_bytes, len(units))
            hashes.append([source.name, fingerprint.of([u.files for u in found], [u.bytes for u in found])])
        else:
            listed = storage.find(source.input, output)
            unknown += [(source.name, name, why) for name, why in listed.left_out]
            kinds: list[tuple[str, Kind, storage.Head]] = []
            for file, head in zip(listed.files, _heads(listed.files), strict=True):
                if isinstance(head, OSError):
                    unknown.append((source.name, file, f"it cannot be read: {head.strerror or head}"))
                    continue
                kind, reason = kind_of(file, head, source.recipe)
                if kind is None:
                    unknown.append((source.name, file, reason))
                else:
                    kinds.append((file, kind, head))
            if source.recipe.reader == "arxiv":
                from data_pipeline.read import arxiv

                whole, beside = arxiv.papers([(file, head) for file, _, head in kinds])
                kinds = [(file, "arxiv", head) for file, head in whole]
                unknown += [(source.name, file, why) for file, why in beside]
            if not kinds:
                example = next(
                    (f"{f}: {r}" for n, f, r in unknown if n == source.name),
                    "none outside of the output folder",
                )
                raise ValueError(
                    f"input {source.input} of source `{source.name}` holds nothing that can be read "
                    f"({len(listed.files)} files; {example})"
                )
            found = _file_units(source, kinds, unit_bytes, len(units))
            hashes.append([source.name, [[f, head.version] for f, _, head in kinds]])
        units += found
    return Plan(tuple(units), tuple(unknown), fingerprint.of(hashes))


def _heads(files: tuple[str, ...]) -> list[storage.Head | OSError]:
    """What each file starts with, or why it cannot be read."""

    def look(file: str) -> storage.Head | OSError:
        try:
            return storage.head(file)
        except OSError as error:
            return error

    if not any(map(storage.is_remote, files)):
        return [look(file) for file in files]
    with ThreadPoolExecutor(PROBES) as pool:
        return list(pool.map(look, files))


def kind_of(file: str, head: storage.Head, recipe: RecipeConfig) -> tuple[Kind | None, str]:
    """Reader of a file by its first bytes, then by its name; None and what was found where there is none."""
    if not head.size:
        return None, "an empty file"
    if recipe.reader not in ("auto", "python", "stackexchange"):
        return recipe.reader, ""  # type: ignore[return-value]
    start = expand(head.start, 4096)
    if recipe.reader == "stackexchange":
        reason = stackexchange.refusal(file, head, start, recipe)
        return (None, reason) if reason else ("stackexchange", "")
    name = storage.base_name(file)
    named = _NAMES.search(name)
    by_name = _KIND_OF_NAME.get(named.group(1).lower()) if named else None
    if start.startswith((b"WARC/", b"filedesc://")):
        return "warc", ""
    if start.startswith(b"PAR1"):
        return "parquet", ""
    if start.startswith((tables.ARROW_FILE, b"\xff\xff\xff\xff")) or by_name == "arrow":
        return "arrow", ""
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return None, "a zip archive; unpack it"
    if start.startswith(sevenzip.MAGIC):
        return None, "a 7z archive; unpack it, or read dumps of Stack Exchange with recipe=stackexchange"
    if start[257:262] == b"ustar":
        return None, "a tar archive; unpack it"
    if codec_of(start) is not None and codec_of(head.start) is not None:
        return None, "compressed twice; unpack it"
    stripped = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if stripped.startswith(b"<mediawiki"):
        return "wikitext", ""
    if by_name == "jsonl" and (stripped.startswith(b"[") or re.match(rb"\{[ \t]*\r?\n", stripped)):
        return "json", ""  # an array, or objects of several lines
    if by_name in ("warc", "parquet", "jsonl", "csv"):
        return by_name, ""  # damaged at its start perhaps; the reader says where
    if stripped.startswith(b"{") and by_name is None:
        return "jsonl", ""
    if re.match(rb"<(?:!doctype\s+html|html)\b", stripped[:64], re.I):
        return "html", ""
    if by_name == "wikitext":
        return None, "XML that is no MediaWiki export (posts of Stack Exchange: recipe=stackexchange)"
    if by_name is not None:
        return by_name, ""
    if not start:
        return None, "a compressed file without contents, or damaged at its start"
    if b"\0" in start or codec_of(start) is not None:
        return None, f"a binary file ({excerpt(start, 16)})"
    suffix = Path(name).suffix
    if not suffix:
        return "text", ""
    return None, f"an unknown name `{excerpt(suffix, 20)}`; set `recipe.reader` to read it"


def _file_units(
    source: Source, files: list[tuple[str, Kind, storage.Head]], unit_bytes: int, first: int
) -> list[Unit]:
    sizes = {f: head.size for f, _, head in files}
    target = min(unit_bytes, max(MIN_UNIT_BYTES, sum(sizes.values()) // UNITS_WANTED))
    units: list[Unit] = []
    gathered: list[str] = []
    gathered_kind: Kind = "text"

    def add(
        kind: Kind, members: list[str], part: int, parts: int, begin: int, end: int | None, size: int
    ) -> None:
        shown = members[0] if len(members) == 1 else members[0].rsplit("/", 1)[0]
        names = tuple(members)
        units.append(Unit(first + len(units), source.name, kind, names, shown, part, parts, begin, end, size))

    def flush() -> None:
        if gathered:
            add(gathered_kind, list(gathered), 0, 1, 0, None, sum(sizes[f] for f in gathered))
            gathered.clear()

    for file, kind, head in files:
        size = sizes[file]
        cuts = _cuts(file, kind, head, target) if size > target else [0]
        if len(cuts) > 1:
            flush()
            ends: list[int | None] = [*cuts[1:], None]
            for part, (begin, end) in enumerate(zip(cuts, ends, strict=True)):
                add(kind, [file], part, len(cuts), begin, end, size // len(cuts))
            continue
        if gathered and (
            kind != gathered_kind
            or sum(sizes[f] for f in gathered) + size > target
            or len(gathered) >= MAX_FILES
        ):
            flush()
        gathered_kind = kind
        gathered.append(file)
        if kind == "stackexchange":
            flush()  # a site is a unit
    flush()
    return units


def _cuts(file: str, kind: Kind, head: storage.Head, target: int) -> list[int]:
    """Where the parts of a file begin: bytes, or row groups of Parquet."""
    parts = max(1, round(head.size / target))
    even = sorted({head.size * i // parts for i in range(parts)})
    plain = codec_of(head.start) is None
    if kind == "parquet":
        try:
            with storage.open_binary(file) as raw:
                groups = parquet.open_parquet(raw).num_row_groups
        except parquet.DAMAGE:
            return [0]  # the reader reports it
        parts = min(parts, groups)
        return sorted({groups * i // parts for i in range(parts)}) if parts else [0]
    if kind == "jsonl":
        return even if plain or has_members(file) else [0]
    if kind == "warc" and plain:
        return [0] if storage.is_remote(file) else warc.record_starts(file, target)
    if kind == "warc":
        return even if has_members(file, starts_record) else [0]
    return [0]


def _python_units(source: Source, unit_bytes: int, first: int) -> list[Unit]:
    from data_pipeline.read import python

    recipe = source.recipe
    entries = python.entries(
        source.input, recipe.documents == "prose", recipe.max_source_bytes, recipe.max_record_bytes
    )
    units: list[Unit] = []
    lines: list[str] = []
    size = 0
    for i, entry in enumerate(entries):
        lines.append(entry.line)
        size += entry.size
        if size >= unit_bytes or len(lines) >= MAX_FILES or i == len(entries) - 1:
            units.append(
                Unit(
                    first + len(units), source.name, "python", tuple(lines), source.input, 0, 1, 0, None, size
                )
            )
            lines, size = [], 0
    return units


def save(units: tuple[Unit, ...], path: Path) -> None:
    """Write units.json, atomically."""
    write_atomically(path, orjson.dumps([dataclasses.asdict(u) for u in units], option=orjson.OPT_INDENT_2))


def load(path: Path) -> list[Unit]:
    """Read units.json."""
    return [Unit(**{**u, "files": tuple(u["files"])}) for u in orjson.loads(path.read_bytes())]


def describe(units: tuple[Unit, ...]) -> str:
    """A line a source: units, files, bytes."""
    lines = []
    for name in dict.fromkeys(u.source for u in units):
        mine = [u for u in units if u.source == name]
        kinds = Counter(u.kind for u in mine)
        files = len({f for u in mine for f in u.files})
        lines.append(
            f"  {name:<16} {files:>7,} files  {sum(u.bytes for u in mine) / 1e6:>10,.1f} MB  {len(mine):>5} units  "
            + ", ".join(sorted(kinds))
        )
    return "\n".join(lines)
