"""Hashes of words and phrases as line rules compare them."""

from __future__ import annotations

import numpy as np
from numba import uint64

from data_pipeline.analysis.word_rules import mix
from data_pipeline.compiled import small

OFFSET = np.uint64(0x9E3779B97F4A7C15)
PRIME = np.uint64(0xD6E8FEB86659FD93)


@small(uint64(uint64, uint64))
def extend(key, word):
    """Hash of a phrase that goes on with a word."""
    return mix(key * PRIME + word)


def hash_folded(word: str) -> int:
    """Hash of a word as `judge` compares words: letters and digits in lower case."""
    with np.errstate(over="ignore"):
        h = OFFSET
        for c in word:
            if c.isalnum():
                h = (h ^ np.uint64(ord(c.lower()))) * PRIME
        return int(mix(h))
