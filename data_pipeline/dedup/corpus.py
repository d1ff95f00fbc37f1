"""What every deduplication step shares: the documents still kept, who stays in a cluster, the decision files.

A document is preferred to another by `rank` (ascending), then `length` (descending), then id (ascending). The order
depends on the documents alone, never on how they are spread over shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.document import DECISION_SCHEMA, read_table, shard_path, write_table

STEPS = ("a", "url", "exact", "minhash", "lines", "semantic")
Keep = Literal["quality", "longest", "first"]
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_BATCH_ROWS = 2048


@dataclass(frozen=True)
class Corpus:
    """The documents that the decisions before a step kept, in order of preference: document 0 is the most preferred."""

    run_dir: Path
    """Directory of the data run."""
    shards: tuple[int, ...]
    """Numbers of the shards, ascending."""
    shard: np.ndarray
    """int32 [n]: position in `shards`."""
    row: np.ndarray
    """int32 [n]: row in the shard."""
    id: np.ndarray
    """uint64 [n, 2]: the 128 bits of the id, high half first."""

    def __len__(self) -> int:
        return len(self.shard)

    def by_shard(self, chosen: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """(shard number, documents of that shard in row order), for all documents or those where `chosen` is true."""
        index = np.arange(len(self)) if chosen is None else np.flatnonzero(chosen)
        index = index[np.lexsort((self.row[index], self.shard[index]))]
        ends = np.searchsorted(self.shard[index], np.arange(len(self.shards)), side="right")
        start = 0
        for shard, end in zip(self.shards, ends, strict=True):
            if end > start:
                yield shard, index[start:end]
            start = end

    def texts(self, chosen: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Batches of (documents, their texts), by shard and row; one row group of a shard is in memory at a time."""
        for shard, documents in self.by_shard(chosen):
            for which, column in texts_of(self.run_dir, shard, self.row[documents]):
                yield documents[which], [text or "" for text in column.to_pylist()]


def texts_of(run_dir: Path, shard: int, rows: np.ndarray) -> Iterator[tuple[slice, pa.Array]]:
    """Texts of ascending rows of a shard, in batches: (which of `rows`, their texts); batches without any are left out."""
    first = 0
    with pq.ParquetFile(shard_path(run_dir, "documents", shard)) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=["text"]):
            low, high = np.searchsorted(rows, (first, first + len(batch)))
            if high - low == len(batch):
                yield slice(low, high), batch.column(0)
            elif high > low:
                yield slice(low, high), batch.column(0).take(pa.array(rows[low:high] - first))
            first += len(batch)


@dataclass(frozen=True)
class Preference:
    """By what the m chosen documents of a shard are preferred to one another."""

    rank: np.ndarray
    """float64 [m]: the smaller one stays."""
    length: np.ndarray
    """int64 [m], characters: of equal ranks the longer one stays."""


def preference(run_dir: Path, shard: int, ids: pa.ChunkedArray, rows: np.ndarray, keep: Keep) -> Preference:
    """Preference of ascending rows of a shard.

    `quality`: higher quality score (none: last). `first`: earlier date (none: last). Then in all cases longer text.

    Raises:
        ValueError, FileNotFoundError: a sidecar is not row-aligned with its shard, or missing for this shard alone.
    """
    index = pa.array(rows)
    rank = np.zeros(len(rows))
    if keep == "quality":
        column = _sidecar(run_dir, shard, ids, "quality", "score")
        if column is not None:
            rank = -np.nan_to_num(_floats(column.take(index)), nan=-1.0)
    elif keep == "first":
        rank = np.nan_to_num(moments(run_dir, shard, rows), nan=np.inf)
    chars = _sidecar(run_dir, shard, ids, "stats", "chars")
    if chars is not None:
        length = chars.take(index).fill_null(0).to_numpy().astype(np.int64)
    else:
        length = np.zeros(len(rows), np.int64)
        for which, texts in texts_of(run_dir, shard, rows):
            length[which] = pc.utf8_length(texts).fill_null(0).to_numpy()
    return Preference(rank, length)


def _sidecar(
    run_dir: Path, shard: int, ids: pa.ChunkedArray, name: str, column: str
) -> pa.ChunkedArray | None:
    path = shard_path(run_dir, f"signals/{name}", shard)
    return aligned(path, ids, [column])[column] if path.parent.is_dir() else None


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)


def moments(run_dir: Path, shard: int, rows: np.ndarray) -> np.ndarray:
    """ISO 8601 dates of rows of a shard as numbers in the order of time, to the second, float64 [m]; NaN: none."""
    dates = read_table(shard_path(run_dir, "documents", shard), ["date"])["date"].take(pa.array(rows))
    dates = pc.if_else(pc.match_substring_regex(dates, r"^[0-9]{4}"), dates, None)
    digits = pc.utf8_slice_codeunits(pc.replace_substring_regex(dates, r"[^0-9]", ""), 0, 14)
    numbers = pc.utf8_rpad(digits, 14, "0").cast(pa.float64())
    return pc.fill_null(numbers, np.nan).to_numpy().astype(np.float64)


def load(run_dir: Path, shards: list[int], step: str, keep: Keep) -> Corpus:
    """The documents of these shards that every decision before `step` kept, in order of preference.

    About 60 bytes a document while it is sorted, 24 afterwards.

    Raises:
        FileNotFoundError: a decision exists for some shards and not for others.
        ValueError: a sidecar is not row-aligned with its shard.
    """
    shards = sorted(shards)
    at, row, identity = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], [np.zeros((0, 2), np.uint64)]
    rank, length = [np.zeros(0)], [np.zeros(0, np.int64)]
    for position, shard in enumerate(shards):
        ids = shard_ids(run_dir, shard)
        rows = np.flatnonzero(kept_before(run_dir, shard, step, ids)).astype(np.int32)
        by = preference(run_dir, shard, ids, rows, keep)
        at.append(np.full(len(rows), position, np.int32))
        row.append(rows)
        identity.append(id_halves(ids.take(pa.array(rows))))
        rank.append(by.rank)
        length.append(by.length)
    halves = np.concatenate(identity)
    order = order_of(np.concatenate(rank), np.concatenate(length), halves)
    return Corpus(
        run_dir, tuple(shards), np.concatenate(at)[order], np.concatenate(row)[order], halves[order]
    )


def order_of(rank: np.ndarray, length: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """int64 [n]: documents in order of preference."""
    return np.lexsort((halves[:, 1], halves[:, 0], -length, rank))


def first_of_equal(keys: np.ndarray, by: np.ndarray | None = None) -> np.ndarray:
    """int64 [n]: for each row of `keys` (uint64 [n, 2]) the first of the equal rows, by `by` [n], then by position."""
    n = len(keys)
    order = np.lexsort((np.arange(n), np.zeros(n) if by is None else by, keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    new = np.ones(n, bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(n, np.int64)
    first[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return first


def kept_before(run_dir: Path, shard: int, step: str, ids: pa.ChunkedArray) -> np.ndarray:
    """bool [n]: documents of a shard that every decision before `step` kept.

    Raises:
        FileNotFoundError: a decision exists for some shards and not for others.
    """
    kept = np.ones(len(ids), bool)
    for earlier in STEPS[: STEPS.index(step)]:
        if (run_dir / "decisions" / earlier).is_dir():
            table = aligned(shard_path(run_dir, f"decisions/{earlier}", shard), ids, ["keep"])
            kept &= table["keep"].to_numpy(zero_copy_only=False).astype(bool)
    return kept


def shard_ids(run_dir: Path, shard: int) -> pa.ChunkedArray:
    """Ids of a shard's documents, in row order."""
    return read_table(shard_path(run_dir, "documents", shard), ["id"])["id"]


def aligned(path: Path, ids: pa.ChunkedArray, columns: list[str]) -> pa.Table:
    """Read columns of a sidecar, checked against the ids of its shard.

    Raises:
        FileNotFoundError: no such file.
        ValueError: other ids, or in another order, or columns that are not there.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist, but other shards have it; rerun the stage that writes it"
        )
    schema = pq.read_schema(path)
    missing = [c for c in columns if c not in schema.names]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}; it has {', '.join(schema.names)}")
    table = read_table(path, ["id", *columns])
    if not table["id"].combine_chunks().equals(ids.combine_chunks()):
        raise ValueError(
            f"{path} ({len(table)} rows) does not belong to its shard of documents ({len(ids)} rows): the ids differ; "
            "delete it and rerun the stage that writes it"
        )
    return table


def id_halves(ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """128-bit hexadecimal strings as uint64 [n, 2], high half first.

    Raises:
        ValueError: a string is null or is not 32 hexadecimal digits; the first such one is named.
    """
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    n = len(ids)
    lengths = pc.fill_null(pc.binary_length(ids), 0).to_numpy(zero_copy_only=False)
    bad = lengths != 32
    if not bad.any() and n:
        dtype = np.int64 if pa.types.is_large_string(ids.type) else np.int32
        _, offsets, values = ids.buffers()
        start = int(np.frombuffer(offsets, dtype)[ids.offset])
        nibbles = _NIBBLE[np.frombuffer(values, np.uint8, 32 * n, start)].reshape(n, 32)
        bad = (nibbles > 15).any(axis=1)
        if not bad.any():
            packed = (nibbles[:, 0::2] << np.uint8(4)) | nibbles[:, 1::2]
            return packed.view(">u8").astype(np.uint64)
    if bad.any():
        raise ValueError(f"{ids[int(np.flatnonzero(bad)[0])].as_py()!r} is not 32 hexadecimal digits")
    return np.zeros((0, 2), np.uint64)


_NIBBLE = np.full(256, 255, np.uint8)
_NIBBLE[_HEX] = np.arange(16)
_NIBBLE[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)


def id_strings(halves: np.ndarray) -> pa.Array:
    """uint64 [n, 2] as strings of 32 hexadecimal digits."""
    return _strings(_digits(halves))


def _digits(halves: np.ndarray) -> np.ndarray:
    packed = halves.astype(">u8").view(np.uint8).reshape(len(halves), 16)
    digits = np.empty((len(halves), 32), np.uint8)
    digits[:, 0::2], digits[:, 1::2] = _HEX[packed >> 4], _HEX[packed & 15]
    return digits


def _strings(characters: np.ndarray) -> pa.Array:
    """ASCII uint8 [n, width] as n strings."""
    n, width = characters.shape
    offsets = np.arange(n + 1, dtype=np.int32) * np.int32(width)
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(characters.tobytes()))


@dataclass(frozen=True)
class Choice:
    """What a step decided about the m documents of a shard that it looked at."""

    row: np.ndarray
    """int [m], ascending: rows in the shard."""
    dropped: np.ndarray
    """bool [m]."""
    representative: np.ndarray
    """uint64 [m, 2]: id of the document that stays instead; ignored for those that stay."""
    similarity: np.ndarray
    """float32 [m]: similarity to the representative; ignored for those that stay."""
    members: np.ndarray
    """int [m]: documents of its cluster, itself included."""


def write_shard(run_dir: Path, shard: int, step: str, ids: pa.ChunkedArray, choice: Choice) -> None:
    """Write the decisions of a step for a shard, row-aligned with it, by atomic rename.

    A dropped document has `rule` = step and `detail` = "<id that stays> <similarity>". One that stays for others has
    `detail` = "<m> documents" of its cluster, itself included. A document that an earlier decision dropped has keep
    false and neither rule nor detail.
    """
    keep = np.zeros(len(ids), bool)
    keep[choice.row[~choice.dropped]] = True
    out = choice.dropped
    detail = scatter(len(ids), choice.row[out], _reasons(choice.representative[out], choice.similarity[out]))
    heads = ~out & (choice.members > 1)
    sizes = pa.array(choice.members[heads].astype(np.int64)).cast(pa.string())
    sizes = pc.binary_join_element_wise(sizes, pa.scalar("documents"), " ")
    detail = pc.coalesce(detail, scatter(len(ids), choice.row[heads], sizes))
    rules = np.zeros(len(ids), bool)
    rules[choice.row[out]] = True
    rule = pc.if_else(pa.array(rules), pa.scalar(step), pa.scalar(None, pa.string()))
    table = pa.table([ids, pa.array(keep), rule, detail], DECISION_SCHEMA)
    write_table(table, shard_path(run_dir, f"decisions/{step}", shard))


def _reasons(representative: np.ndarray, similarity: np.ndarray) -> pa.Array:
    """ "<id> <similarity>" with four decimals."""
    line = np.empty((len(representative), 39), np.uint8)
    line[:, :32] = _digits(representative)
    line[:, 32] = ord(" ")
    parts = np.rint(np.clip(similarity, 0, 1).astype(np.float64) * 10_000).astype(np.int64)
    line[:, 33] = parts // 10_000 + ord("0")
    line[:, 34] = ord(".")
    for k in range(4):
        line[:, 35 + k] = parts // 10 ** (3 - k) % 10 + ord("0")
    return _strings(line)


def scatter(n: int, rows: np.ndarray, values: pa.Array) -> pa.Array:
    """n values: values[k] at rows[k] (ascending), null elsewhere."""
    index = np.zeros(n, np.int64)
    index[rows] = np.arange(len(rows))
    empty = np.ones(n, bool)
    empty[rows] = False
    return values.take(pa.array(index, mask=empty))


def write(corpus: Corpus, step: str, representative: np.ndarray, similarity: np.ndarray) -> dict[str, int]:
    """Write the decisions of a step for every shard (`write_shard`).

    Args:
        representative: int64 [n], the document that stays instead; the document's own index where it stays itself.
        similarity: float32 [n], similarity to the representative; ignored for documents that stay.

    Returns:
        {"considered", "kept", "dropped", "clusters"}.
    """
    n = len(corpus)
    dropped = representative != np.arange(n)
    members = np.bincount(representative, minlength=n)
    documents = dict(corpus.by_shard())
    none = np.zeros(0, np.int64)
    for shard in corpus.shards:
        chosen = documents.get(shard, none)
        stays = representative[chosen]
        choice = Choice(
            corpus.row[chosen], dropped[chosen], corpus.id[stays], similarity[chosen], members[stays]
        )
        write_shard(corpus.run_dir, shard, step, shard_ids(corpus.run_dir, shard), choice)
    return {
        "considered": n,
        "kept": int(n - dropped.sum()),
        "dropped": int(dropped.sum()),
        "clusters": int((members > 1).sum()),
    }
