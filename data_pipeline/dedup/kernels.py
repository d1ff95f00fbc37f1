"""The compiled code of MinHash deduplication: shingles, minima of their hashes, keys of bands, verification.

Shapes: s shingles, d documents, p permutations, b bands, m candidates.
"""

from __future__ import annotations

import numba
import numpy as np

from data_pipeline.compiled import kernel, subroutine
from data_pipeline.kernels.hashing import mix

_BASE = np.uint64(0x9E3779B97F4A7C15)
_SHINGLE_BASE = np.uint64(0xD6E8FEB86659FD93)
UNSPACED, MARK, IGNORED = np.uint32(1 << 31), np.uint32(1 << 30), np.uint32(1)
"""In `shingles.characters`: bit of a character that is a word of its own, bit of one that belongs to the letter before it;
what stands for a character that does not count."""
# Exact looks a document gets at the most, the likeliest first. Without a bound, 5,000 pages that share two thirds of their
# text and are no duplicates cost 11 million looks; a true duplicate is practically never behind 64 likelier candidates.
MOST_VERIFIED = 64
# Documents of a bucket that one is compared with by signature, the last met first. True duplicates meet in several
# buckets, and most of these are small.
MOST_MET = 64
_SAME = 4

I64, U64 = numba.int64, numba.uint64
# Read-only: so that buffers of Arrow and memory maps are taken as they are.
BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
HASHES = numba.types.Array(U64, 1, "C", readonly=True)
_I32, _U32, _F32, _U8 = numba.int32, numba.uint32, numba.float32, numba.uint8


@kernel(I64(BYTES, I64, I64, numba.uint32[::1], I64, U64[::1]))
def _document(data: np.ndarray, start: int, end: int, table: np.ndarray, ngram: int, out: np.ndarray) -> int:
    """Write the shingles of data[start:end] (UTF-8) to `out`, which has (end - start) // 2 + 1 places; how many."""
    words = 0
    inside = alone = False
    h = np.uint64(0)
    i = start
    while i < end:
        c = np.uint32(data[i])
        i += 1
        if c >= 0x80:
            # Arrow's strings are valid UTF-8; whatever else comes is decoded to some code point within the table.
            if c < 0xE0:
                more, c = 1, c & np.uint32(0x1F)
            elif c < 0xF0:
                more, c = 2, c & np.uint32(0x0F)
            else:
                more, c = 3, c & np.uint32(0x07)
            while more > 0 and i < end:
                c = (c << np.uint32(6)) | (np.uint32(data[i]) & np.uint32(0x3F))
                i += 1
                more -= 1
            if c >= 0x110000:
                c = np.uint32(0)
        folded = table[c]
        if IGNORED < folded < MARK:
            if not inside or alone:
                if alone:
                    out[words] = mix(h * _BASE)
                    words += 1
                h = np.uint64(0)
                inside, alone = True, False
            h = h * _BASE + np.uint64(folded)
        elif folded == 0 or folded & UNSPACED:
            if inside:
                out[words] = mix(h * _BASE if alone else h)
                words += 1
            inside = alone = folded != 0
            h = np.uint64(folded)
        elif folded != IGNORED and inside:  # a mark; without a letter before it, it is no word
            h = h * _BASE + np.uint64(folded)
    if inside:
        out[words] = mix(h * _BASE if alone else h)
        words += 1
    if words == 0:
        return 0
    width = min(ngram, words)  # a document of fewer words has one shingle, of all of them
    for k in range(words - width + 1):
        h = np.uint64(0)
        for j in range(k, k + width):
            h = h * _SHINGLE_BASE + out[j]
        out[k] = mix(h)
    return words - width + 1


@kernel(I64(BYTES, I64[::1], numba.uint32[::1], I64, U64[::1], I64[::1]))
def shingle_batch(
    data: np.ndarray, offsets: np.ndarray, table: np.ndarray, ngram: int, out: np.ndarray, ends: np.ndarray
) -> int:
    """Shingles of each document data[offsets[k]:offsets[k + 1]], one after the other; ends int64 [d]."""
    n = 0
    for k in range(len(offsets) - 1):
        n += _document(data, offsets[k], offsets[k + 1], table, ngram, out[n:])
        ends[k] = n
    return n


@kernel("int64(uint64[::1], uint64[::1])")
def _distinct(hashes: np.ndarray, out: np.ndarray) -> int:
    """Write the distinct values of `hashes` in ascending order to `out`; how many.

    Hashes are uniform, so that a counting sort by their high bits leaves next to nothing to the insertion sort.
    """
    n = len(hashes)
    bits = 1
    while (1 << bits) < n:
        bits += 1
    shift = np.uint64(64 - bits)
    at = np.zeros((1 << bits) + 1, np.int64)
    for k in range(n):
        at[np.int64(hashes[k] >> shift) + 1] += 1
    for k in range(1 << bits):
        at[k + 1] += at[k]
    for k in range(n):
        bucket = np.int64(hashes[k] >> shift)
        out[at[bucket]] = hashes[k]
        at[bucket] += 1
    distinct = 0
    for k in range(n):
        value = out[k]
        j = distinct
        while j > 0 and out[j - 1] > value:
            j -= 1
        if j > 0 and out[j - 1] == value:
            continue
        for m in range(distinct, j, -1):
            out[m] = out[m - 1]
        out[j] = value
        distinct += 1
    return distinct


@kernel("int64(uint64[::1], int64[::1], uint64[::1], int64[::1])")
def set_batch(hashes: np.ndarray, ends: np.ndarray, out: np.ndarray, sizes: np.ndarray) -> int:
    n = 0
    start = 0
    for k in range(len(ends)):
        sizes[k] = _distinct(hashes[start : ends[k]], out[n:])
        n += sizes[k]
        start = ends[k]
    return n


@subroutine
def fmix32(x):  # type: ignore[no-untyped-def]
    # The finaliser of MurmurHash3, with which datasketch mixes a hash before it permutes it.
    x = _U32(x ^ (x >> _U32(16)))
    x = _U32(x * _U32(0x85EBCA6B))
    x = _U32(x ^ (x >> _U32(13)))
    x = _U32(x * _U32(0xC2B2AE35))
    return _U32(x ^ (x >> _U32(16)))


@kernel(numba.void(HASHES, I64[::1], _U32[::1], _U32[::1], _U32[:, ::1]))
def minima_batch(
    hashes: np.ndarray, ends: np.ndarray, multiplier: np.ndarray, addend: np.ndarray, minima: np.ndarray
) -> None:
    p = len(multiplier)
    start = 0
    for k in range(len(ends)):
        row = minima[k]
        s = start
        while s + 1 < ends[k]:  # two at a time: a row is then loaded and stored half as often
            x = fmix32(_U32(hashes[s] >> np.uint64(32)))
            y = fmix32(_U32(hashes[s + 1] >> np.uint64(32)))
            for i in range(p):
                low = min(
                    _U32(_U32(x * multiplier[i]) + addend[i]), _U32(_U32(y * multiplier[i]) + addend[i])
                )
                row[i] = min(row[i], low)
            s += 2
        if s < ends[k]:
            x = fmix32(_U32(hashes[s] >> np.uint64(32)))
            for i in range(p):
                row[i] = min(row[i], _U32(_U32(x * multiplier[i]) + addend[i]))
        start = ends[k]


@kernel(numba.void(_U32[:, ::1], I64, I64, U64[:, ::1]))
def band_key_batch(minima: np.ndarray, bands: int, rows: int, keys: np.ndarray) -> None:
    for k in range(len(minima)):
        for band in range(bands):
            key = np.uint64(band)
            for row in range(band * rows, (band + 1) * rows):
                key = mix(key * _BASE + np.uint64(minima[k, row]))
            keys[k, band] = key


@kernel(numba.float64(HASHES, HASHES, numba.float64))
def jaccard_from(a: np.ndarray, b: np.ndarray, least: float) -> float:
    """Jaccard similarity of two sorted sets of hashes, uint64; 0 where one is empty, or where it is below `least`."""
    n, m = len(a), len(b)
    if n == 0 or m == 0 or min(n, m) < least * max(n, m):
        return 0.0
    # J >= t if and only if what only one of them holds is at most (n + m) (1 - t) / (1 + t).
    spare = np.int64((n + m) * (1.0 - least) / (1.0 + least) + 1e-9)
    i = j = common = 0
    while i < n and j < m:
        x, y = a[i], b[j]
        common += x == y
        i += x <= y
        j += y <= x
        if i + j - 2 * common > spare:
            return 0.0
    similarity = common / (n + m - common)
    return similarity if similarity >= least else 0.0


@kernel(numba.types.UniTuple(I64, 2)(
        I64, I64, _I32[:, ::1], _U8[:, ::1], numba.boolean[::1], HASHES, I64[::1], I64[::1], numba.float64, I64,
        I64[::1], I64[:, ::1], I64, I64[::1], I64[::1], _F32[::1],
    ))  # fmt: skip
def visit(
    first, last, bucket, low, fixed, shingles, start, size, threshold, least,
    head, entry, entries, seen, representative, similarity,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Visit candidates [first, last); the number of entries after them, and of verified pairs."""
    bands, p = bucket.shape[1], low.shape[1]
    met = np.empty(bands * MOST_MET, np.int64)
    agreement = np.empty(bands * MOST_MET, np.int64)
    verified = 0
    for i in range(first, last):
        if not fixed[i]:
            n = 0
            for band in range(bands):
                if bucket[i, band] < 0:
                    continue
                at = head[bucket[i, band]]
                for _ in range(MOST_MET):
                    if at < 0:
                        break
                    j = entry[at, 0]
                    at = entry[at, 1]
                    if seen[j] == i:
                        continue
                    seen[j] = i
                    if min(size[i], size[j]) < threshold * max(size[i], size[j]):
                        continue
                    equal = 0
                    for k in range(p):
                        equal += low[i, k] == low[j, k]
                    if equal >= least:
                        met[n], agreement[n] = j, equal
                        n += 1
            for _ in range(min(n, MOST_VERIFIED)):
                best = 0  # the most similar first; equal ones by preference
                for k in range(1, n):
                    if agreement[k] > agreement[best] or (
                        agreement[k] == agreement[best] and met[k] < met[best]
                    ):
                        best = k
                j = met[best]
                agreement[best] = -1
                verified += 1
                exact = jaccard_from(
                    shingles[start[i] : start[i] + size[i]],
                    shingles[start[j] : start[j] + size[j]],
                    threshold,
                )
                if exact > 0:
                    representative[i] = j
                    similarity[i] = exact
                    break
        # In the buckets of a dropped document its representative stands for it, so that documents which met the dropped
        # one, and not the one that stays, are compared with the latter as well.
        stays = representative[i]
        for band in range(bands):
            b = bucket[i, band]
            if b < 0:
                continue
            at = head[b]
            known = False
            for _ in range(_SAME):
                if at < 0 or known:
                    break
                known = entry[at, 0] == stays
                at = entry[at, 1]
            if not known:
                entry[entries, 0], entry[entries, 1] = stays, head[b]
                head[b] = entries
                entries += 1
    return entries, verified
