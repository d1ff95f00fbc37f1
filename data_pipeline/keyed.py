"""Random choices keyed by (stage, seed, id): the same whatever the process, the order or the number of workers."""

from __future__ import annotations

import xxhash


def rank(stage: str, seed: int, identifier: str) -> int:
    """A 64-bit hash of (stage, seed, identifier), uniform over documents."""
    return xxhash.xxh3_64_intdigest(f"{stage}\x1f{seed}\x1f{identifier}".encode())
