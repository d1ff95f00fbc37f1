"""Shingle sets of candidates, handed from the shards that hold the texts to the tasks that verify (stage `sets`).

Clusters are shared out among tasks by a hash; every part writes, in segments that fit in memory, what each task needs:

    minhash/sets/PART-SEGMENT.arrays    sorted by task: `end` and `set_end` int64 [tasks] say where each one's piece ends

`PART` is a shard of this run, or behind them one of an index.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import arrays, index, stored
from data_pipeline.dedup import corpus as corpora
from data_pipeline.dedup.arrays import Arrays
from data_pipeline.dedup.shingles import mix, packed_sets

# Of one shingle: the segment, its sorted copy, the order, and as much for texts.
_BYTES = 64


@dataclass(frozen=True)
class Candidates:
    """m documents that share a bucket with another one; of an index, or of this run."""

    document: np.ndarray
    """int64 [m]: number over all parts."""
    root: np.ndarray
    """int64 [m]: smallest number of the cluster."""
    rank: np.ndarray
    """float64 [m]: see `corpus.Preference`; documents of an index are preferred to all others, whatever it says."""
    length: np.ndarray
    """int64 [m], characters."""
    id: np.ndarray
    """uint64 [m, 2]."""
    key: np.ndarray
    """uint64 [m, b]: band keys."""
    low: np.ndarray
    """uint8 [m, p]: low bytes of the signature."""
    size: np.ndarray
    """int64 [m]: distinct shingles."""

    def take(self, chosen: np.ndarray | slice) -> Candidates:
        """Some of them, in another order."""
        return Candidates(**{name: getattr(self, name)[chosen] for name in FIELDS})


FIELDS = ("document", "root", "rank", "length", "id", "key", "low", "size")


def gather(run_dir: Path, shards: int, part: int, config: DedupConfig) -> dict[str, int]:
    """Write the segments of a part.

    Raises:
        ValueError: the documents beside an index are not those that it was made from.
    """
    source = index.parts(run_dir, shards, config)[part]
    clusters = Arrays(run_dir / "minhash" / "clusters.arrays")
    first, last = clusters.read("offset", part, part + 2)
    root = clusters.read("root", int(first), int(last))
    rows = np.flatnonzero(root >= 0)
    described = _described(source, rows, part < shards, config)
    document, root = rows + first, root[rows]
    segment = 0
    texts, size = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    begin = held = done = 0

    def flush() -> None:
        nonlocal segment, begin, held, texts, size
        if done > begin:
            chosen = slice(begin, done)
            rank, length, halves, key, low = (column[chosen] for column in described)
            candidates = Candidates(
                document[chosen], root[chosen], rank, length, halves, key, low, np.concatenate(size)
            )
            target = run_dir / "minhash" / "sets" / f"{part:05d}-{segment:05d}.arrays"
            _write(target, candidates, np.concatenate(texts), stored.tasks(shards))
            segment += 1
        begin, held, texts, size = done, 0, texts[:1], size[:1]

    for which, column in corpora.texts_of(source.run_dir, source.shard, rows):
        sets, sizes = packed_sets(column, config.ngram)
        texts.append(sets)
        size.append(sizes)
        done, held = which.stop, held + len(sets)
        if held * _BYTES > config.memory_mb * 2**20:
            flush()
    flush()
    return {"candidates": len(rows), "segments": segment}


def _described(
    source: index.Part, rows: np.ndarray, own: bool, config: DedupConfig
) -> tuple[np.ndarray, ...]:
    """Rank, length, id, band keys and low bytes of ascending rows."""
    signed = Arrays(source.path)
    at = np.searchsorted(signed.read("row"), rows)
    halves = signed.read("id")[at]
    ids = corpora.shard_ids(source.run_dir, source.shard)
    same = len(ids) == signed.meta["documents"]
    if not same or not np.array_equal(corpora.id_halves(ids.take(pa.array(rows))), halves):
        raise ValueError(
            f"{source.path} does not belong to the documents of {source.run_dir}: the ids differ; run that run again"
        )
    if own:
        by = corpora.preference(source.run_dir, source.shard, ids, rows, config.keep)
    else:
        by = corpora.Preference(np.zeros(len(rows)), np.zeros(len(rows), np.int64))
    return by.rank, by.length, halves, stored.keys_by_document(signed)[at], signed.read("low")[at]


def _write(target: Path, candidates: Candidates, sets: np.ndarray, n: int) -> None:
    task = (mix(candidates.root.astype(np.uint64)) % np.uint64(n)).astype(np.int64)
    order = np.argsort(task, kind="stable")
    ordered = candidates.take(order)
    end = np.searchsorted(task[order], np.arange(n), side="right")
    ends = np.concatenate([[0], np.cumsum(ordered.size)])
    found = {name: getattr(ordered, name) for name in FIELDS}
    found |= {"sets": permuted(sets, candidates.size, order), "end": end, "set_end": ends[end]}
    arrays.write(target, found)


def permuted(sets: np.ndarray, size: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Sets that lie one after the other, in another order."""
    start = np.cumsum(size) - size
    out_start = np.cumsum(size[order]) - size[order]
    # Position in the output → position in the input: each set moves by one distance.
    return sets[np.arange(len(sets)) + np.repeat(start[order] - out_start, size[order])]


def segments(run_dir: Path) -> list[Path]:
    """Files of all segments, in the order of parts."""
    return sorted((run_dir / "minhash" / "sets").glob("*.arrays"))
