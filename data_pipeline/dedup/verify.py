"""Near-duplicates among candidates, by exact Jaccard similarity (stage `verify`).

Documents of a cluster are visited in order of preference, and one is dropped only if it is a verified duplicate of a
document that stays: deletion is not transitive. Documents of an index come first and always stay.

Shapes: m candidates of a task, b bands, p permutations, s shingles of all their sets.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import arrays, sets
from data_pipeline.dedup.arrays import Arrays
from data_pipeline.dedup.kernels import visit
from data_pipeline.dedup.sets import Candidates

# Of one shingle: half of the memory is for sets, the other half for what is known of each document.
_BYTES = 16


def path(run_dir: Path, task: int) -> Path:
    """Result of a task."""
    return run_dir / "minhash" / "verified" / f"{task:05d}.arrays"


def verify(run_dir: Path, shards: int, task: int, config: DedupConfig) -> dict[str, int]:
    """Verify the clusters of a task.

    Writes, for the candidates of this run in the order of their numbers: `document` int64 [m], `representative` uint64
    [m, 2] (id of the document that stays; its own where it stays itself), `similarity` float32 [m], `members` int64 [m]
    (documents of its cluster, itself included). Shingle sets beyond half of `memory_mb` lie in a file while it works.

    Returns:
        {"verified"}: pairs whose exact similarity was computed.
    """
    own = int(Arrays(run_dir / "minhash" / "clusters.arrays").read("offset", shards, shards + 1)[0])
    found, start, files = _open(run_dir, task)
    fixed = found.document >= own
    order = np.lexsort((found.id[:, 1], found.id[:, 0], -found.length, found.rank, ~fixed, found.root))
    found, start, fixed = found.take(order), start[order], fixed[order]
    folder = path(run_dir, task).parent
    folder.mkdir(parents=True, exist_ok=True)
    in_memory = config.memory_mb * 2**20 // _BYTES
    shingles, release = _sets(files, folder, in_memory)
    try:
        representative, similarity, verified = choose(
            found, start, fixed, shingles, config, in_memory, release
        )
    finally:
        del shingles
        release()
    members = np.bincount(representative, minlength=len(representative))[representative]
    ours = np.flatnonzero(~fixed)
    ours = ours[np.argsort(found.document[ours])]
    result = {
        "document": found.document[ours],
        "representative": found.id[representative[ours]],
        "similarity": similarity[ours],
        "members": members[ours],
    }
    arrays.write(path(run_dir, task), result)
    return {"verified": verified}


def _open(run_dir: Path, task: int) -> tuple[Candidates, np.ndarray, list[tuple[Arrays, int, int]]]:
    """Candidates of a task, where each one's set starts, and the pieces of files that hold the sets.

    Raises:
        ValueError: there are candidates, and no sets.
    """
    segments = sets.segments(run_dir)
    if not segments and (Arrays(run_dir / "minhash" / "clusters.arrays").map("root") >= 0).any():
        raise ValueError(
            f"the sets in {run_dir / 'minhash'} were removed after their use; remove that folder and run the command again"
        )
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in sets.FIELDS}
    files, start, position = [], [np.zeros(0, np.int64)], 0
    for segment in segments:
        file = Arrays(segment)
        end, set_end = (np.concatenate([[0], file.read(n)])[task : task + 2] for n in ("end", "set_end"))
        if end[0] == end[1]:
            continue
        for name in sets.FIELDS:
            pieces[name].append(file.read(name, int(end[0]), int(end[1])))
        size = pieces["size"][-1]
        start.append(position + np.cumsum(size) - size)
        position += int(set_end[1] - set_end[0])
        files.append((file, int(set_end[0]), int(set_end[1])))
    if not files:
        empty = np.zeros(0, np.int64)
        none = Candidates(
            empty, empty, np.zeros(0), empty, np.zeros((0, 2), np.uint64), np.zeros((0, 1), np.uint64),
            np.zeros((0, 1), np.uint8), empty,
        )  # fmt: skip
        return none, empty, []
    columns = {}
    for name in sets.FIELDS:
        columns[name] = np.concatenate(pieces.pop(name))
    return Candidates(**columns), np.concatenate(start), files


def _sets(
    files: list[tuple[Arrays, int, int]], folder: Path, in_memory: int
) -> tuple[np.ndarray, Callable[[], None]]:
    """Sets of all pieces, one after the other, uint64 [s], and a function that takes their pages out of memory.

    Where there are more than `in_memory` hashes, the sets lie in a file without a name in `folder`.
    """
    total = sum(last - first for _, first, last in files)
    if total <= in_memory:
        found = [np.zeros(0, np.uint64), *(file.read("sets", first, last) for file, first, last in files)]
        return np.concatenate(found), lambda: None
    with tempfile.TemporaryFile(dir=folder) as out:
        for file, first, last in files:
            for low in range(first, last, max(in_memory // 4, 1)):
                file.read("sets", low, min(low + max(in_memory // 4, 1), last)).tofile(out)
        out.flush()
        mapped = mmap.mmap(out.fileno(), 8 * total, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, np.uint64), lambda: mapped.madvise(mmap.MADV_DONTNEED)


def choose(
    found: Candidates,
    start: np.ndarray,
    fixed: np.ndarray,
    shingles: np.ndarray,
    config: DedupConfig,
    in_memory: int,
    release: Callable[[], None],
) -> tuple[np.ndarray, np.ndarray, int]:
    """Representative int64 [m] and similarity float32 [m] of each candidate, and the number of verified pairs.

    Args:
        found: in the order in which they are visited.
        start: int64 [m]: where each one's set starts in `shingles`.
        fixed: bool [m]: stays whatever it resembles.
        shingles: uint64 [s].
        in_memory: hashes after which `release` is called.
    """
    m = len(found.document)
    bucket, buckets = _buckets(found.key)
    p = config.permutations
    # A pair at the threshold whose signatures agree by less than this is a 4-sigma event: not worth an exact look.
    sigma = (config.jaccard * (1 - config.jaccard) / p) ** 0.5
    least = int(np.floor((config.jaccard - 4 * sigma) * p))
    representative, similarity = np.arange(m), np.ones(m, np.float32)
    head = np.full(max(buckets, 1), -1, np.int64)
    entry = np.empty(
        (bucket.size, 2), np.int64
    )  # a document that stays, and the entry before it in its bucket
    entries = verified = 0
    seen = np.full(m, -1, np.int64)
    read = np.cumsum(found.size)
    first = 0
    while first < m:
        done = read[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(read, done + in_memory, side="right")))
        entries, looks = visit(
            first, last, bucket, found.low, fixed, shingles, start, found.size, config.jaccard, least,
            head, entry, entries, seen, representative, similarity,
        )  # fmt: skip
        verified += looks
        release()
        first = last
    return representative, similarity, int(verified)


def _buckets(keys: np.ndarray) -> tuple[np.ndarray, int]:
    """Bucket of each candidate in each band, int32 [m, b], -1 where it is alone in it; number of buckets."""
    m, bands = keys.shape
    bucket = np.full((m, bands), -1, np.int32)
    used = 0
    for band in range(bands if m else 0):
        key = np.ascontiguousarray(keys[:, band])
        order = np.argsort(key)
        key = key[order]
        first = np.concatenate([[True], key[1:] != key[:-1]])
        group = np.cumsum(first) - 1
        shared = np.bincount(group) > 1
        number = np.where(shared, np.cumsum(shared) - 1 + used, -1)
        bucket[order, band] = number[group]
        used += int(shared.sum())
    return bucket, used
