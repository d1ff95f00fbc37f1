"""Keyed permutations and keys, the same on every machine and in every version of every library."""

from __future__ import annotations

import hashlib

import numpy as np

MASK = (1 << 64) - 1


def key_of(*parts: str | int) -> int:
    """A 64-bit key from a tuple such as (seed, stream, epoch)."""
    digest = hashlib.blake2b("\x1f".join(str(p) for p in parts).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def mix(value: int) -> int:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64-bit integers."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def permute(index: int, size: int, key: int, rounds: int = 6) -> int:
    """Image of `index` under a keyed permutation of range(size), in O(1).

    A balanced Feistel network over the smallest even number of bits that holds size, walked along its cycle until it
    lands inside range(size) (Black and Rogaway 2002); at most 4 steps on average.
    """
    if size == 1:
        return 0
    half = ((size - 1).bit_length() + 1) // 2
    low = (1 << half) - 1
    value = index
    while True:
        left, right = value >> half, value & low
        for r in range(rounds):
            left, right = right, left ^ (mix(key ^ (r << 56) ^ right) & low)
        value = (left << half) | right
        if value < size:
            return value


def shuffle(values: np.ndarray, key: int) -> np.ndarray:
    """`values` in an order that depends on the key alone: sorted by SplitMix64 of (key, position)."""
    with np.errstate(over="ignore"):
        z = np.arange(1, len(values) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return values[np.argsort(z, kind="stable")]
