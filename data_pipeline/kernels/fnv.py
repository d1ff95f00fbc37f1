"""FNV-1a (Fowler, Noll, Vo), 64 bits: hashes of short words, built up as they are read."""

from __future__ import annotations

import numpy as np
from numba import uint64

from data_pipeline.compiled import small

OFFSET = np.uint64(0xCBF29CE484222325)
"""Hash of nothing."""
_PRIME = np.uint64(0x100000001B3)


@small(uint64(uint64, uint64), inline=True)
def extend(h, value):
    """Hash of a string that goes on with a byte, or with a code point where strings are hashed by these."""
    return (h ^ uint64(value)) * _PRIME
