"""Planning: inputs → units of work, the same ones whatever runs them."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema.pipeline import RecipeConfig
from data_pipeline import fingerprint
from data_pipeline.read import Kind, Unit, excerpt, python
from data_pipeline.read.members import splits_by_record
from data_pipeline.read.streams import MAGIC, compression, head

MIN_UNIT_BYTES = 1 * 2**20
UNITS_WANTED = 16
"""Small inputs are cut into about so many units, so that a second core has something to do."""
MAX_FILES = 2000
"""Files of one unit at the most."""
_NAMES = re.compile(
    r"\.(warc|arc|wet|wat|jsonl|ndjson|json|parquet|txt|text|md|rst|html?|xml)(?:\.(?:gz|bz2|xz|zst))?$", re.I
)
_KIND_OF_NAME: dict[str, Kind] = {
    "warc": "warc",
    "arc": "warc",
    "wet": "warc",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "jsonl",
    "parquet": "parquet",
    "txt": "text",
    "text": "text",
    "md": "text",
    "rst": "text",
    "html": "html",
    "htm": "html",
    "xml": "wikitext",
}


@dataclass(frozen=True)
class Source:
    """One input with the recipe that reads it."""

    name: str
    recipe: RecipeConfig
    input: str


@dataclass(frozen=True)
class Plan:
    """Units of all sources, and the files that no reader takes."""

    units: tuple[Unit, ...]
    unknown: tuple[tuple[str, str, str], ...]
    """(source, file, what was found)."""
    inputs: str
    """Fingerprint of every input file."""


def plan(sources: list[Source], unit_bytes: int) -> Plan:
    """Units of work of all sources, in the order of the sources and of their files' names.

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
            files = find(source.input)
            kinds: list[tuple[Path, Kind]] = []
            for file in files:
                kind, reason = kind_of(file, source.recipe)
                if kind is None:
                    unknown.append((source.name, str(file), reason))
                else:
                    kinds.append((file, kind))
            if not kinds:
                example = next(f"{f}: {r}" for n, f, r in unknown if n == source.name)
                raise ValueError(
                    f"input {source.input} of source `{source.name}` holds nothing that can be read "
                    f"({len(files)} files; {example})"
                )
            found = _file_units(source, kinds, unit_bytes, len(units))
            hashes.append([source.name, [[str(f), fingerprint.of_input(f)] for f, _ in kinds]])
        units += found
    return Plan(tuple(units), tuple(unknown), fingerprint.of(hashes))


def find(pattern: str) -> list[Path]:
    """Files of a file, folder (searched to the bottom, hidden names left out) or glob, sorted by name."""
    path = Path(pattern).expanduser()
    if path.is_dir():
        files = _below(path)
        if not files:
            raise ValueError(f"input {pattern} is an empty folder; expected files to read")
    elif path.exists():
        files = [path]
    else:
        files = [Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file()]  # noqa: PTH207
        if not files:
            raise ValueError(f"input {pattern} matches no file; expected a file, a folder or a glob")
    for file in files:
        try:
            file.open("rb").close()
        except OSError as error:
            raise ValueError(
                f"input {file} cannot be read: {error.strerror}; check its permissions"
            ) from error
    return sorted(p.resolve() for p in files)


def _below(folder: Path) -> list[Path]:
    """Files of a folder, to the bottom; ValueError for a folder in it that cannot be listed."""

    def refuse(error: OSError) -> None:
        raise ValueError(
            f"input folder {error.filename} cannot be read: {error.strerror}; check its permissions"
        )

    files = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return [file for file in files if file.is_file()]


def kind_of(file: Path, recipe: RecipeConfig) -> tuple[Kind | None, str]:
    """Reader of a file by its first bytes, then by its name; None and what was found where there is none."""
    if file.stat().st_size == 0:
        return None, "an empty file"
    if recipe.reader not in ("auto", "python"):
        return recipe.reader, ""  # type: ignore[return-value]
    start = head(file, 4096)
    named = _NAMES.search(file.name)
    by_name = _KIND_OF_NAME.get(named.group(1).lower()) if named else None
    if start.startswith((b"WARC/", b"filedesc://")):
        return "warc", ""
    if start.startswith(b"PAR1"):
        return "parquet", ""
    stripped = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if stripped.startswith(b"<mediawiki"):
        return "wikitext", ""
    if by_name in ("warc", "parquet", "jsonl"):
        return by_name, ""  # damaged at its start perhaps; the reader says where
    if stripped.startswith(b"{") and by_name is None:
        return "jsonl", ""
    if re.match(rb"<(?:!doctype\s+html|html)\b", stripped[:64], re.I):
        return "html", ""
    if by_name == "wikitext":
        return None, "XML that is no MediaWiki export"
    if by_name is not None:
        return by_name, ""
    if not start:
        return None, "a compressed file without contents" if compression(file) else "an empty file"
    if b"\0" in start or any(start.startswith(m) for m in MAGIC):
        return None, f"a binary file ({excerpt(start, 16)})"
    if not file.suffix:
        return "text", ""
    return None, f"an unknown name `{file.suffix}`; set `recipe.reader` to read it"


def _file_units(source: Source, files: list[tuple[Path, Kind]], unit_bytes: int, first: int) -> list[Unit]:
    sizes = {f: f.stat().st_size for f, _ in files}
    target = min(unit_bytes, max(MIN_UNIT_BYTES, sum(sizes.values()) // UNITS_WANTED))
    units: list[Unit] = []
    gathered: list[Path] = []
    gathered_kind: Kind = "text"

    def add(
        kind: Kind, members: list[Path], part: int, parts: int, begin: int, end: int | None, size: int
    ) -> None:
        shown = str(members[0]) if len(members) == 1 else str(members[0].parent)
        names = tuple(str(m) for m in members)
        units.append(Unit(first + len(units), source.name, kind, names, shown, part, parts, begin, end, size))

    def flush() -> None:
        if gathered:
            add(gathered_kind, list(gathered), 0, 1, 0, None, sum(sizes[f] for f in gathered))
            gathered.clear()

    for file, kind in files:
        size = sizes[file]
        cuts = _cuts(file, kind, size, target) if size > target else [0]
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
    flush()
    return units


def _cuts(file: Path, kind: Kind, size: int, target: int) -> list[int]:
    """Where the parts of a file begin: bytes, or row groups of Parquet."""
    parts = max(1, round(size / target))
    if kind == "parquet":
        try:
            groups = pq.ParquetFile(file).num_row_groups
        except (pa.ArrowException, OSError):
            return [0]  # the reader reports it
        parts = min(parts, groups)
        return sorted({groups * i // parts for i in range(parts)}) if parts else [0]
    if (kind == "jsonl" and compression(file) is None) or (kind == "warc" and splits_by_record(file)):
        return [size * i // parts for i in range(parts)]
    return [0]


def _python_units(source: Source, unit_bytes: int, first: int) -> list[Unit]:
    recipe = source.recipe
    entries = python.entries(source.input, recipe.documents == "prose", recipe.max_source_bytes)
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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(orjson.dumps([dataclasses.asdict(u) for u in units], option=orjson.OPT_INDENT_2))
    temporary.replace(path)


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
