"""Readers: files of one kind → records, in bounded memory, with everything unreadable set aside and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from configs.schema.pipeline import RecipeConfig

Kind = Literal[
    "warc",
    "jsonl",
    "parquet",
    "csv",
    "arrow",
    "json",
    "text",
    "html",
    "wikitext",
    "stackexchange",
    "python",
    "arxiv",
]


@dataclass(frozen=True)
class Source:
    """One input with the recipe that reads it."""

    name: str
    recipe: RecipeConfig
    input: str


@dataclass(frozen=True)
class Unit:
    """A piece of work that becomes one document shard: part of a file, a file, or several small ones."""

    unit: int
    """Number of the unit and of its shard."""
    source: str
    """Name of the source."""
    kind: Kind
    """Reader."""
    files: tuple[str, ...]
    """Files, in order; for `python`, `distribution<TAB>path` entries below `file`."""
    file: str
    """The file, or the folder that the files share."""
    part: int
    """Number of this part of the file."""
    parts: int
    """Parts the file is cut into."""
    begin: int
    """First byte (or row group) of the part."""
    end: int | None
    """One past the last byte (or row group) of the part; null: to the end."""
    bytes: int
    """Bytes of input."""


@dataclass(frozen=True)
class Record:
    """One raw record. `kind` says what the payload is; `drop` names the rule where it is not worth extracting."""

    file: str
    """File it came from."""
    number: int
    """Number of the record in its file or part, from 0."""
    offset: int
    """Byte where it starts: in the file, or in the decompressed stream where members cannot be located."""
    kind: Literal["html", "text", "wikitext", "latex", "thread"]
    """What the payload is."""
    payload: bytes
    """Raw bytes; text of JSONL and Parquet is encoded as UTF-8."""
    given: str
    """Given id, or else URL, or else empty."""
    url: str | None = None
    """URL or stable name."""
    charset: str | None = None
    """Declared character set, such as that of the HTTP header."""
    language: str | None = None
    """ISO 639-1 where the record states it."""
    licence: str | None = None
    """Licence where the record states it."""
    date: str | None = None
    """ISO 8601 date, with the time (UTC) where the source has one."""
    group: str | None = None
    """What a held-out split keeps together."""
    drop: str | None = None
    """Rule under which the record is dropped unextracted."""
    repaired: int = 0
    """Characters that had to be replaced for the text to be valid Unicode."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Anything else."""


@dataclass(frozen=True)
class SetAside:
    """A record that could not be read: written to `rejected/`, counted, and the rest goes on."""

    file: str
    record: int
    offset: int
    reason: str
    expected: str
    excerpt: str = ""


@dataclass(frozen=True)
class Skipped:
    """A record that holds no document, such as a WARC `request`."""

    reason: str


Item = Record | SetAside | Skipped


def excerpt(data: bytes | str, limit: int = 120) -> str:
    """The start of a record, printable."""
    text = data[: limit * 4].decode("utf-8", "backslashreplace") if isinstance(data, bytes) else data
    return "".join(c if c.isprintable() else " " for c in text[:limit]).strip()


def records(unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Every record of a unit, in file order; never raises for damaged input."""
    from data_pipeline.read import arxiv, jsonl, mediawiki, parquet, python, stackexchange, tables, text, warc

    if unit.kind == "python":
        yield from python.read(unit, recipe)
        return
    readers: dict[str, Callable[[str, Unit, RecipeConfig], Iterator[Item]]] = {
        "warc": warc.read,
        "jsonl": jsonl.read,
        "parquet": parquet.read,
        "csv": tables.read_csv,
        "arrow": tables.read_arrow,
        "json": tables.read_json,
        "text": text.read,
        "html": text.read,
        "wikitext": mediawiki.read,
        "arxiv": arxiv.read,
        "stackexchange": stackexchange.read,
    }
    for file in unit.files:
        yield from readers[unit.kind](file, unit, recipe)
