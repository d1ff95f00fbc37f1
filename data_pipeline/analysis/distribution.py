"""Words of a corpus counted in buckets of their hash, and how far a document's words are from that distribution."""

from __future__ import annotations

import numpy as np
from numba import int64

from data_pipeline.compiled import kernel, small

BUCKETS = 2**18
"""Rare words share buckets, which bounds memory and keeps what is rare from looking impossible."""
SMOOTHING = 0.1
"""Count that every bucket has beforehand."""


@small("void(uint64[::1], int64[::1], int64[::1], int64[:, ::1])")
def add(hashes, words, groups, counts):
    """Add the words of documents (`words`: int64 [d + 1]) to the counts of their group: int64 [groups, BUCKETS]."""
    for d in range(len(words) - 1):
        row = counts[groups[d]]
        for w in range(words[d], words[d + 1]):
            row[int64(hashes[w] >> np.uint64(46))] += 1


@kernel("void(uint64[::1], int64[::1], int64[::1], int64[:, ::1], int64[::1], float64[:, ::1])")
def compare(hashes, words, groups, counts, totals, out):
    """Compare documents with the other documents of their group.

    Args:
        counts, totals: int64 [groups, BUCKETS], [groups]; they include the documents themselves, which are taken out.
        out: float64 [d, 3], written: Kullback-Leibler divergence of the document from the others, cross-entropy (both in
            bits a word), share of words in buckets that no other document fills.
    """
    own = np.zeros(counts.shape[1], np.int64)
    for d in range(len(words) - 1):
        a, b = words[d], words[d + 1]
        out[d, :] = 0.0
        if a == b:
            continue
        row, n = counts[groups[d]], float(b - a)
        for w in range(a, b):
            own[int64(hashes[w] >> np.uint64(46))] += 1
        rest = float(totals[groups[d]] - (b - a)) + SMOOTHING * counts.shape[1]
        divergence, cross, unseen = 0.0, 0.0, 0
        for w in range(a, b):
            k = int64(hashes[w] >> np.uint64(46))
            c = own[k]
            if c == 0:
                continue
            others = float(row[k] - c)
            bits = -np.log2((others + SMOOTHING) / rest)
            cross += c * bits
            divergence += c * (bits + np.log2(c / n))
            if others == 0.0:
                unseen += c
            own[k] = 0
        out[d, 0], out[d, 1], out[d, 2] = divergence / n, cross / n, unseen / n
