"""Document shards: one Parquet file a unit of work, written by the read stage and read by every stage after it.

Ids never depend on rank, file order or position, so any stage can be re-sharded without renaming a document.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from data_pipeline.packed.files import atomic_file

SCHEMA = pa.schema(
    [
        (name, pa.string())
        for name in ("id", "source", "url", "language", "licence", "date", "group", "text", "metadata")
    ]
)
DECISION_SCHEMA = pa.schema(
    [("id", pa.string()), ("keep", pa.bool_()), ("rule", pa.string()), ("detail", pa.string())]
)
ROW_GROUP_BYTES = 16 * 2**20
"""Bytes of text after which a row group is flushed: bounds the memory of a reader whatever the unit's size."""


@dataclass(frozen=True)
class Document:
    """One row of a document shard."""

    id: str
    """32 hexadecimal digits."""
    source: str
    """Name of the source."""
    text: str
    """Extracted text; empty where `metadata["drop"]` names the rule under which nothing was extracted."""
    url: str | None = None
    """URL, or a stable name in URL form."""
    language: str | None = None
    """ISO 639-1 code where the source states one."""
    licence: str | None = None
    """Licence where the source states one."""
    date: str | None = None
    """ISO 8601 date."""
    group: str | None = None
    """What a held-out split keeps together; null: the id."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Anything else, JSON."""


def document_id(source: str, given: str, payload: bytes) -> str:
    """xxh3-128 of (source, given id or URL, raw payload) as 32 hexadecimal digits.

    Each part is preceded by its length, so no two different triples share their bytes.
    """
    state = xxhash.xxh3_128()
    for part in (source.encode(), given.encode("utf-8", "surrogatepass"), payload):
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def shard_path(run_dir: Path, kind: str, shard: int) -> Path:
    """Path of a shard, such as `shard_path(run_dir, "signals/gopher", 3)`."""
    return run_dir / kind / f"{shard:05d}.parquet"


def read_shard(run_dir: Path, shard: int, columns: list[str] | None = None) -> pa.Table:
    """The document shard as a table with the columns of `SCHEMA`."""
    return read_table(shard_path(run_dir, "documents", shard), columns)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A Parquet table; raises ValueError naming the file where it is damaged."""
    try:
        # A run reads thousands of small sidecars: on one thread and without a dataset around it each takes a third less.
        with pq.ParquetFile(path, pre_buffer=False) as file:
            return file.read(columns, use_threads=False)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as Parquet ({error}); remove it and run `arriero data` again: "
            "the stage that wrote it is then repeated"
        ) from error


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet table by atomic rename, with bytes that depend on the table alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def shard_count(run_dir: Path) -> int:
    """Number of document shards of a run (= units of `units.json`)."""
    return len(orjson.loads((run_dir / "units.json").read_bytes()))


class ShardWriter:
    """Streams documents into a shard in bounded memory; records with an id already seen become `copies` of it.

    The shard appears under its name at the end of the `with` block, and not at all after an error.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            self._temporary = stack.enter_context(atomic_file(path))
            self._writer = stack.enter_context(pq.ParquetWriter(self._temporary, SCHEMA, compression="zstd"))
            self._stack = stack.pop_all()
        self._rows: list[Document] = []
        self._bytes = 0
        self._copies: dict[str, int] = {}

    @property
    def copies(self) -> int:
        """Records merged into an earlier one."""
        return sum(self._copies.values()) - len(self._copies)

    def add(self, document: Document) -> None:
        """Append a document, or count it as a copy."""
        seen = self._copies.get(document.id, 0)
        self._copies[document.id] = seen + 1
        if seen:
            return
        self._rows.append(document)
        self._bytes += len(document.text) + 256
        if self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(_table(self._rows))
        self._rows, self._bytes = [], 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._flush()
            self._writer.close()
            if self.copies:
                self._note_copies()

    def _note_copies(self) -> None:
        with (
            atomic_file(self._temporary) as noted,
            pq.ParquetFile(self._temporary) as shard,
            pq.ParquetWriter(noted, SCHEMA, compression="zstd") as writer,
        ):
            for i in range(shard.num_row_groups):
                table = shard.read_row_group(i)
                metadata = [
                    _with_copies(m, self._copies[d])
                    for d, m in zip(table["id"].to_pylist(), table["metadata"].to_pylist(), strict=True)
                ]
                column = table.schema.get_field_index("metadata")
                writer.write_table(table.set_column(column, "metadata", pa.array(metadata, pa.string())))


def _with_copies(metadata: str, copies: int) -> str:
    if copies == 1:
        return metadata
    return orjson.dumps(orjson.loads(metadata) | {"copies": copies}, option=orjson.OPT_SORT_KEYS).decode()


def _table(rows: list[Document]) -> pa.Table:
    columns = {
        name: pa.array([getattr(r, name) for r in rows], pa.string())
        for name in ("id", "source", "url", "language", "licence", "date", "text")
    }
    columns["group"] = pa.array([r.group or r.id for r in rows], pa.string())
    columns["metadata"] = pa.array(
        [orjson.dumps(r.metadata, option=orjson.OPT_SORT_KEYS).decode() for r in rows], pa.string()
    )
    return pa.table(columns).select(SCHEMA.names).cast(SCHEMA)


def texts(run_dir: Path, shards: int) -> Iterator[tuple[str, str]]:
    """(id, text) of all documents with text, kept or not, in shard order."""
    for shard in range(shards):
        table = read_shard(run_dir, shard, ["id", "text"])
        for identifier, text in zip(table["id"], table["text"], strict=True):
            if value := text.as_py():
                yield identifier.as_py(), value
