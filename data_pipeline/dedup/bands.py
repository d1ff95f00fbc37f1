"""LSH buckets and clusters of candidates (stages `bands` and `clusters`).

Documents that agree in all rows of a band share a bucket. A cluster is what buckets connect: whatever is compared lies
within one, so clusters can be verified independently of each other. They hold candidates: nothing is dropped for being
in one.

Documents are numbered over all parts (`index.parts`), in the order of parts and rows.
"""

from __future__ import annotations

from pathlib import Path

import numba
import numpy as np

from configs.schema.pipeline import DedupConfig
from data_pipeline.compiled import kernel
from data_pipeline.dedup import arrays, index
from data_pipeline.dedup.arrays import Arrays
from data_pipeline.dedup.kernels import I64
from data_pipeline.packed.files import atomic_file

# Of one document in a bucket's sort: key, number, their sorted copies and the order.
_SORT_BYTES = 48
_READ_EDGES = 1 << 20


def offsets(parts: list[index.Part]) -> np.ndarray:
    """int64 [parts + 1]: number of the first document of each part."""
    return np.cumsum([0, *(Arrays(p.path).meta["documents"] for p in parts)], dtype=np.int64)


def join(run_dir: Path, shards: int, band: int, config: DedupConfig) -> dict[str, int]:
    """Write the edges of a band: each document of a bucket with the bucket's smallest number.

    Keys are sorted a range at a time, so that `memory_mb` holds whatever the number of documents.

    Returns:
        {"buckets", "edges"}.
    """
    parts = index.parts(run_dir, shards, config)
    start = offsets(parts)
    files = [Arrays(p.path) for p in parts]
    total = sum(f.shape("row")[0] for f in files)
    ranges = max(1, -(-total * _SORT_BYTES // (config.memory_mb * 2**19)))
    counts = {"buckets": 0, "edges": 0}
    target = run_dir / "minhash" / "edges" / f"{band:05d}.bin"
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as temporary, temporary.open("wb") as out:
        for k in range(ranges):
            keys, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
            for file, first in zip(files, start[:-1], strict=True):
                key = file.map("key")[band]
                low, high = _slice(key, k, ranges)
                keys.append(np.array(key[low:high]))
                member = file.map("member")[band, low:high]
                numbers.append(file.map("row")[member].astype(np.int64) + first)
            edges, buckets = _edges(np.concatenate(keys), np.concatenate(numbers), int(start[shards]))
            edges.tofile(out)
            counts["buckets"] += buckets
            counts["edges"] += len(edges)
    return counts


def _slice(key: np.ndarray, k: int, ranges: int) -> tuple[int, int]:
    """Where range k of the whole span of keys lies among ascending keys."""
    bounds = [k * 2**64 // ranges, (k + 1) * 2**64 // ranges]
    low = int(np.searchsorted(key, np.uint64(bounds[0])))
    return low, len(key) if k + 1 == ranges else int(np.searchsorted(key, np.uint64(bounds[1])))


def _edges(keys: np.ndarray, numbers: np.ndarray, own: int) -> tuple[np.ndarray, int]:
    """(int64 [e, 2]: number and smallest number of its bucket, buckets) of the buckets that hold a document below `own`."""
    if not len(keys):
        return np.zeros((0, 2), np.int64), 0
    order = np.argsort(keys)
    keys, numbers = keys[order], numbers[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    smallest = np.minimum.reduceat(numbers, first)
    size = np.diff(first, append=len(keys))
    shared = (size > 1) & (smallest < own)
    leader = np.repeat(smallest, size)
    chosen = np.repeat(shared, size) & (leader != numbers)
    return np.stack([numbers[chosen], leader[chosen]], axis=1), int(shared.sum())


@kernel(I64(I64[::1], I64))
def _root(parent: np.ndarray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel(numba.void(I64[::1], I64[:, ::1]))
def _unite(parent: np.ndarray, edges: np.ndarray) -> None:
    for e in range(len(edges)):
        for i in edges[e]:
            if parent[i] < 0:
                parent[i] = i
        a, b = _root(parent, edges[e, 0]), _root(parent, edges[e, 1])
        if a < b:
            parent[b] = a
        else:
            parent[a] = b


@kernel(numba.void(I64[::1]))
def _resolve(parent: np.ndarray) -> None:
    for i in range(len(parent)):
        if parent[i] >= 0:
            parent[i] = _root(parent, i)


def cluster(run_dir: Path, shards: int, config: DedupConfig) -> dict[str, int]:
    """Write `minhash/clusters.arrays`: `root` int64 [n], the smallest number of a document's cluster, -1 for documents
    that share no bucket; and `offset` int64 [parts + 1]. Eight bytes a document are in memory.

    Returns:
        {"candidates", "candidate_clusters"}.
    """
    start = offsets(index.parts(run_dir, shards, config))
    root = np.full(int(start[-1]), -1, np.int64)
    for band in range(config.bands):
        with (run_dir / "minhash" / "edges" / f"{band:05d}.bin").open("rb") as file:
            while len(edges := np.fromfile(file, np.int64, 2 * _READ_EDGES)):
                _unite(root, edges.reshape(-1, 2))
    _resolve(root)
    arrays.write(run_dir / "minhash" / "clusters.arrays", {"root": root, "offset": start})
    candidates = int((root >= 0).sum())
    clusters = int((root == np.arange(len(root))).sum())
    return {"candidates": candidates, "candidate_clusters": clusters}
