"""Word shingles as 64-bit hashes, computed from UTF-8 in one compiled pass.

A word is a maximal run of `\\w` characters, each in lower case (the final sigma is a sigma); in Chinese and Japanese,
which write without spaces, every character is one. A shingle is n consecutive words. Both are hashed as polynomials
modulo 2**64, so no Python object is made for a word.

Shapes: s shingles, d documents.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

import numba
import numpy as np
import pyarrow as pa

_BASE = np.uint64(0x9E3779B97F4A7C15)
_SHINGLE_BASE = np.uint64(0xD6E8FEB86659FD93)
BATCH_BYTES = 1 << 20
# Han, Hiragana, Katakana: Unicode blocks (first, last).
_UNSPACED_BLOCKS = (
    (0x3040, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3134F),
)
_UNSPACED = np.uint32(1 << 31)

I64, U64 = numba.int64, numba.uint64
# Read-only: so that buffers of Arrow and memory maps are taken as they are.
BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
HASHES = numba.types.Array(U64, 1, "C", readonly=True)


@functools.cache
def characters() -> np.ndarray:
    """uint32 [0x110000]: the lower-case form of a word character, with bit 31 where it is a word of its own; else 0."""
    every = np.arange(0x110000, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    # Of all characters, only this one has a lower-case form of two. Equal length keeps the table aligned.
    lower = every.replace("\u0130", "i").replace("\u03c2", "\u03c3").lower()
    table = np.frombuffer(lower.encode("utf-32-le", "surrogatepass"), np.uint32).copy()
    word = np.zeros(0x110000, bool)
    for match in re.finditer(r"\w+", every):
        word[match.start() : match.end()] = True
    table[~word] = 0
    for first, last in _UNSPACED_BLOCKS:
        block = table[first : last + 1]
        block[block > 0] |= _UNSPACED
    return table


@numba.njit("uint64(uint64)", cache=True, inline="always")
def scramble(x):  # type: ignore[no-untyped-def]
    # `mix` in compiled code; its Python form serves arrays.
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al., 2014): a bijection whose output bits all depend on all input bits."""
    return scramble.py_func(x)


@numba.njit(I64(BYTES, I64, I64, numba.uint32[::1], I64, U64[::1]), cache=True, nogil=True)
def _document(data: np.ndarray, start: int, end: int, table: np.ndarray, ngram: int, out: np.ndarray) -> int:
    """Write the shingles of data[start:end] (UTF-8) to `out`, which has (end - start) // 2 + 1 places; how many."""
    words = 0
    inside = False
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
        if folded == 0:
            if inside:
                out[words] = scramble(h)
                words += 1
                inside = False
        elif folded & _UNSPACED:
            if inside:
                out[words] = scramble(h)
                words += 1
                inside = False
            out[words] = scramble(np.uint64(folded) * _BASE)
            words += 1
        else:
            if not inside:
                h = np.uint64(0)
                inside = True
            h = h * _BASE + np.uint64(folded)
    if inside:
        out[words] = scramble(h)
        words += 1
    if words == 0:
        return 0
    width = min(ngram, words)  # a document of fewer words has one shingle, of all of them
    for k in range(words - width + 1):
        h = np.uint64(0)
        for j in range(k, k + width):
            h = h * _SHINGLE_BASE + out[j]
        out[k] = scramble(h)
    return words - width + 1


@numba.njit(I64(BYTES, I64[::1], numba.uint32[::1], I64, U64[::1], I64[::1]), cache=True, nogil=True)
def _batch(
    data: np.ndarray, offsets: np.ndarray, table: np.ndarray, ngram: int, out: np.ndarray, ends: np.ndarray
) -> int:
    """Shingles of each document data[offsets[k]:offsets[k + 1]], one after the other; ends int64 [d]."""
    n = 0
    for k in range(len(offsets) - 1):
        n += _document(data, offsets[k], offsets[k + 1], table, ngram, out[n:])
        ends[k] = n
    return n


def utf8(texts: Sequence[str | None] | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(bytes uint8, offsets int64 [d + 1]) of strings; null is empty. Arrow's strings are not copied."""
    if not isinstance(texts, pa.Array):
        parts = [(text or "").encode("utf-8", "surrogatepass") for text in texts]
        data = np.frombuffer(b"".join(parts), np.uint8)
        return data, np.cumsum([0, *map(len, parts)], dtype=np.int64)
    if texts.null_count:
        texts = texts.fill_null("")
    dtype = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offsets, values = texts.buffers()
    if not len(texts) or values is None:
        return np.zeros(0, np.uint8), np.zeros(len(texts) + 1, np.int64)
    ends = np.frombuffer(offsets, dtype)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(values, np.uint8), ends.astype(np.int64)


def shingle_hashes(
    texts: Sequence[str | None] | pa.Array, ngram: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Shingles of documents, in batches of about `BATCH_BYTES`.

    A document of fewer than `ngram` words has one shingle, of all its words; one without words has none. Repeated
    shingles are repeated in the output.

    Yields:
        (index of the batch's first document, hashes uint64 [s], ends int64 [d]): document k of the batch has the
        shingles hashes[ends[k - 1]:ends[k]].
    """
    data, offsets = utf8(texts)
    table = characters()
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + BATCH_BYTES, side="right")) - 1
        last = min(max(last, first + 1), len(offsets) - 1)
        part = offsets[first : last + 1]
        # A word of one byte needs a separator behind it; an ideograph has three bytes.
        out = np.empty(int(part[-1] - part[0]) // 2 + len(part), np.uint64)
        ends = np.empty(len(part) - 1, np.int64)
        n = _batch(data, part, table, ngram, out, ends)
        yield first, out[:n], ends
        first = last


@numba.njit("int64(uint64[::1], uint64[::1])", cache=True, nogil=True)
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


@numba.njit("int64(uint64[::1], int64[::1], uint64[::1], int64[::1])", cache=True, nogil=True)
def _sets(hashes: np.ndarray, ends: np.ndarray, out: np.ndarray, sizes: np.ndarray) -> int:
    n = 0
    start = 0
    for k in range(len(ends)):
        sizes[k] = _distinct(hashes[start : ends[k]], out[n:])
        n += sizes[k]
        start = ends[k]
    return n


def packed_sets(texts: Sequence[str | None] | pa.Array, ngram: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct shingle hashes of each document, ascending, one after the other: (uint64 [s], sizes int64 [d])."""
    found, sizes = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for _, hashes, ends in shingle_hashes(texts, ngram):
        out, size = np.empty(len(hashes), np.uint64), np.empty(len(ends), np.int64)
        n = _sets(hashes, ends, out, size)
        found.append(out[:n])
        sizes.append(size)
    return np.concatenate(found), np.concatenate(sizes)


def shingle_sets(texts: Sequence[str | None] | pa.Array, ngram: int) -> list[np.ndarray]:
    """The distinct shingle hashes of each document, sorted, uint64."""
    found, sizes = packed_sets(texts, ngram)
    return np.split(found, np.cumsum(sizes)[:-1]) if len(sizes) else []


@numba.njit(numba.float64(HASHES, HASHES, numba.float64), cache=True, nogil=True)
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


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Jaccard similarity of two sorted sets of hashes, uint64; 0 where one is empty."""
    return float(jaccard_from(a, b, 0.0))
