"""Signature files: the band keys and signatures of a shard, stored a band at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from configs.edge import ConfigError
from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import arrays
from data_pipeline.dedup.arrays import Arrays

FORMAT = 3
"""Of signature files and of the index: to be raised when hashes or arrays change."""
_MOST_TASKS = 256


def check(config: DedupConfig) -> None:
    """Raise ConfigError for parameters that cannot be used together."""
    for name in ("ngram", "permutations", "bands", "rows"):
        if getattr(config, name) < 1:
            raise ConfigError(f"`dedup.{name}` must be at least 1, but it is {getattr(config, name)}")
    if config.bands * config.rows > config.permutations:
        raise ConfigError(
            f"`dedup.bands` × `dedup.rows` = {config.bands} × {config.rows} = {config.bands * config.rows} needs as "
            f"many permutations, but `dedup.permutations` is {config.permutations}"
        )
    if not 0 < config.jaccard <= 1:
        raise ConfigError(f"`dedup.jaccard` must lie in (0, 1], but it is {config.jaccard}")
    if config.memory_mb < 64:
        raise ConfigError(f"`dedup.memory_mb` must be at least 64, but it is {config.memory_mb}")


def parameters(config: DedupConfig) -> dict[str, int]:
    """What two sets of signatures must share to be compared."""
    return {
        "format": FORMAT,
        "ngram": config.ngram,
        "permutations": config.permutations,
        "bands": config.bands,
        "rows": config.rows,
    }


def path(run_dir: Path, shard: int) -> Path:
    """Signature file of a shard."""
    return run_dir / "minhash" / "signatures" / f"{shard:05d}.arrays"


def tasks(shards: int) -> int:
    """Number of tasks that verify: not of workers, and bounded, so that the pieces they read stay linear in the shards."""
    return min(shards, _MOST_TASKS)


def write(
    target: Path,
    config: DedupConfig,
    documents: int,
    rows: np.ndarray,
    halves: np.ndarray,
    keys: np.ndarray,
    low: np.ndarray,
) -> None:
    """Write a signature file.

    Args:
        documents: number of documents of the shard, signed or not.
        rows: uint32 [n], ascending: rows in the shard.
        halves: uint64 [n, 2]: ids.
        keys: uint64 [n, b]: band keys. They are stored a band at a time in ascending order (`key` [b, n]), with the
            position of their document (`member` uint32 [b, n]), so that a range of keys is one piece of the file.
        low: uint8 [n, p]: the low byte of every minimum; what agrees by chance in it (1 in 256) only adds candidates.
    """
    by_band = np.ascontiguousarray(keys.T)
    member = np.argsort(by_band, axis=1, kind="stable").astype(np.uint32)
    found = {
        "row": rows,
        "id": halves,
        "key": np.take_along_axis(by_band, member, axis=1),
        "member": member,
        "low": low,
    }
    arrays.write(target, found, parameters(config) | {"documents": documents})


def keys_by_document(signed: Arrays) -> np.ndarray:
    """Band keys of a signature file, uint64 [n, b], in the order of its documents."""
    bands, n = signed.shape("key")
    keys = np.empty((n, bands), np.uint64)
    for band in range(bands):
        keys[signed.read("member", band, band + 1)[0], band] = signed.read("key", band, band + 1)[0]
    return keys
