"""64-bit hashes of characters, words and numbers, equal on every machine."""

from __future__ import annotations

import numpy as np
from numba import uint32, uint64

from data_pipeline.compiled import small

OFFSET = np.uint64(0x9E3779B97F4A7C15)
"""Hash of nothing: where `add_character` begins."""
PRIME = np.uint64(0xD6E8FEB86659FD93)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


@small(uint64(uint64), inline=True)
def mix(x):
    """Finaliser of SplitMix64 (Steele et al., 2014): neighbouring numbers become unrelated hashes."""
    x = (x ^ (x >> _30)) * _MIX_1
    x = (x ^ (x >> _27)) * _MIX_2
    return x ^ (x >> _31)


@small(uint64(uint64, uint32), inline=True)
def add_character(h, c):
    """Hash of a string that goes on with a code point; `mix` finishes it."""
    return (h ^ uint64(c)) * PRIME


@small(uint64(uint64, uint64), inline=True)
def extend(h, word):
    """Hash of a phrase or an n-gram that goes on with a word's hash."""
    return mix(h * PRIME + word)
