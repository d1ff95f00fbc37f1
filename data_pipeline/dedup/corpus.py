"""What every deduplication step shares: the documents still kept, who stays in a cluster, the decision files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.document import read_table, shard_path, write_table

STEPS = ("a", "exact", "minhash", "semantic")
SCHEMA = pa.schema(
    [("id", pa.string()), ("keep", pa.bool_()), ("rule", pa.string()), ("detail", pa.string())]
)


@dataclass(frozen=True)
class Corpus:
    """The documents that the decisions before a step kept, in order of preference.

    n documents; document i is preferred to document j where i < j: in a cluster the smallest index stays. The order
    depends on the documents alone, never on how they are spread over shards.
    """

    run_dir: Path
    """Directory of the data run."""
    shards: tuple[int, ...]
    """Numbers of the shards, ascending."""
    sizes: tuple[int, ...]
    """Documents of each shard, kept or not."""
    shard: np.ndarray
    """int32 [n]: position in `shards`."""
    row: np.ndarray
    """int32 [n]: row in the shard."""
    id: np.ndarray
    """uint64 [n, 2]: the 128 bits of the id, high half first."""

    def __len__(self) -> int:
        return len(self.shard)

    def name(self, i: int) -> str:
        """Id of document i, 32 hexadecimal digits."""
        return f"{int(self.id[i, 0]):016x}{int(self.id[i, 1]):016x}"

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
            rows = self.row[documents]
            first = 0
            with pq.ParquetFile(shard_path(self.run_dir, "documents", shard)) as file:
                for batch in file.iter_batches(batch_size=2048, columns=["text"]):
                    low, high = np.searchsorted(rows, (first, first + len(batch)))
                    if high > low:
                        column = batch.column(0).take(pa.array(rows[low:high] - first))
                        yield documents[low:high], [text or "" for text in column.to_pylist()]
                    first += len(batch)


def load(run_dir: Path, shards: list[int], step: str, keep: Literal["quality", "longest", "first"]) -> Corpus:
    """The documents of these shards that every decision before `step` kept, in order of preference.

    Preference: `quality` – higher quality score (none: last), `first` – earlier date (none: last), then in all cases
    longer text, then smaller id.

    Raises:
        FileNotFoundError: a decision exists for some shards and not for others.
        ValueError: a sidecar is not row-aligned with its shard.
    """
    shards = sorted(shards)
    before = [s for s in STEPS[: STEPS.index(step)] if (run_dir / "decisions" / s).is_dir()]
    sizes, columns = [], []
    for position, shard in enumerate(shards):
        path = shard_path(run_dir, "documents", shard)
        with pq.ParquetFile(path) as file:
            # The text is read batch by batch, for its length only.
            batches = [
                (batch.column("id"), pc.utf8_length(batch.column("text")), batch.column("date"))
                for batch in file.iter_batches(batch_size=2048, columns=["id", "text", "date"])
            ]
        ids = pa.chunked_array([b[0] for b in batches], pa.string())
        n = len(ids)
        sizes.append(n)
        kept = np.ones(n, bool)
        for earlier in before:
            table = aligned(shard_path(run_dir, f"decisions/{earlier}", shard), ids, ["keep"])
            kept &= table["keep"].to_numpy(zero_copy_only=False).astype(bool)
        length = np.concatenate([b[1].fill_null(0).to_numpy() for b in batches]) if batches else np.zeros(0)
        if keep == "quality":
            rank = -_quality(run_dir, shard, ids)
        elif keep == "first":
            dates = [str(d) if d else "9999" for b in batches for d in b[2].to_pylist()]
            rank = np.array(dates, dtype="U32")
        else:
            rank = np.zeros(n)
        index = np.flatnonzero(kept)
        hexadecimal = ids.take(pa.array(index)).to_pylist()
        halves = np.array([(int(h[:16], 16), int(h[16:], 16)) for h in hexadecimal], dtype=np.uint64).reshape(
            -1, 2
        )
        columns.append(
            (
                np.full(len(index), position, np.int32),
                index.astype(np.int32),
                halves,
                -length[index].astype(np.int64),
                rank[index],
            )
        )
    if not columns:
        empty = np.zeros(0, np.int32)
        return Corpus(run_dir, (), (), empty, empty, np.zeros((0, 2), np.uint64))
    at, row, identity, shorter, rank = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    order = np.lexsort((row, at, identity[:, 1], identity[:, 0], shorter, rank))
    return Corpus(run_dir, tuple(shards), tuple(sizes), at[order], row[order], identity[order])


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


def _quality(run_dir: Path, shard: int, ids: pa.ChunkedArray) -> np.ndarray:
    path = shard_path(run_dir, "signals/quality", shard)
    if not path.parent.is_dir():
        return np.zeros(len(ids))
    score = aligned(path, ids, ["score"])["score"].cast(pa.float64())
    return np.nan_to_num(score.to_numpy(zero_copy_only=False).astype(np.float64), nan=-1.0)


def write(corpus: Corpus, step: str, representative: np.ndarray, similarity: np.ndarray) -> dict[str, int]:
    """Write the decisions of a step for every shard, row-aligned with it, each by atomic rename.

    Args:
        representative: int64 [n], the document that stays instead; the document's own index where it stays itself.
        similarity: float32 [n], similarity to the representative; ignored for documents that stay.

    A dropped document has `rule` = step and `detail` = "<id that stays> <similarity>". One that stays for others has
    `detail` = "<m> documents" of its cluster, itself included. A document that an earlier decision dropped has keep
    false and neither rule nor detail.

    Returns:
        {"considered", "kept", "dropped", "clusters"}.
    """
    n = len(corpus)
    own = np.arange(n)
    dropped = representative != own
    members = np.bincount(representative, minlength=n)
    documents = dict(corpus.by_shard())
    for position, shard in enumerate(corpus.shards):
        ids = shard_ids(corpus.run_dir, shard)
        size = corpus.sizes[position]
        keep = np.zeros(size, bool)
        rules: list[str | None] = [None] * size
        details: list[str | None] = [None] * size
        for i in documents.get(shard, ()):
            row = corpus.row[i]
            if dropped[i]:
                rules[row] = step
                details[row] = f"{corpus.name(int(representative[i]))} {similarity[i]:.4f}"
            else:
                keep[row] = True
                details[row] = f"{members[i]} documents" if members[i] > 1 else None
        table = pa.table(
            [ids, pa.array(keep), pa.array(rules, pa.string()), pa.array(details, pa.string())], SCHEMA
        )
        write_table(table, shard_path(corpus.run_dir, f"decisions/{step}", shard))
    return {
        "considered": n,
        "kept": int(n - dropped.sum()),
        "dropped": int(dropped.sum()),
        "clusters": int((members > 1).sum()),
    }
