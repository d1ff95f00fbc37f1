"""Word shingles as 64-bit hashes, computed from UTF-8 in one compiled pass.

A word is a maximal run of letters with their marks, digits and connectors (`\\w` of Unicode Technical Standard 18), each
in lower case (the final sigma is a sigma); format characters such as joiners and soft hyphens neither end nor change it
(Unicode Annex 29, WB4). In scripts that are written without spaces every letter is one, with its marks. A shingle is n
consecutive words. Both are hashed as polynomials modulo 2**64, so no Python object is made for a word.

Shapes: s shingles, d documents.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import regex

from data_pipeline.dedup.kernels import (
    IGNORED,
    MARK,
    UNSPACED,
    jaccard_from,
    set_batch,
    shingle_batch,
)
from data_pipeline.kernels import hashing

BATCH_BYTES = 1 << 20
# Han, Hiragana, Katakana; Thai, Lao, Burmese, Khmer: Unicode blocks (first, last).
_UNSPACED_BLOCKS = (
    (0x3040, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3134F),
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
)
# Zero-width space parts words; the others stand before the digits that they belong to.
_IGNORED = r"[\p{Cf}--[\u200b\p{Prepended_Concatenation_Mark}]]+"


@functools.cache
def characters() -> np.ndarray:
    """uint32 [0x110000]: what the kernel does with a character.

    The lower-case form of a word character, with `UNSPACED` where it begins a word of its own and `MARK` where it belongs to
    the letter before; `IGNORED` for what does not count within words; else 0, which ends a word.
    """
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
        block[block > 0] |= UNSPACED
    for pattern, value in ((r"\p{M}+", MARK), (_IGNORED, IGNORED)):
        for match in regex.finditer(pattern, every, regex.V1):
            codes = np.arange(match.start(), match.end(), dtype=np.uint32)
            table[codes] = codes | value if value == MARK else value
    return table


def mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al., 2014): a bijection whose output bits all depend on all input bits."""
    return hashing.mix.py_func(x)


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
        n = shingle_batch(data, part, table, ngram, out, ends)
        yield first, out[:n], ends
        first = last


def packed_sets(texts: Sequence[str | None] | pa.Array, ngram: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct shingle hashes of each document, ascending, one after the other: (uint64 [s], sizes int64 [d])."""
    found, sizes = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for _, hashes, ends in shingle_hashes(texts, ngram):
        out, size = np.empty(len(hashes), np.uint64), np.empty(len(ends), np.int64)
        n = set_batch(hashes, ends, out, size)
        found.append(out[:n])
        sizes.append(size)
    return np.concatenate(found), np.concatenate(sizes)


def shingle_sets(texts: Sequence[str | None] | pa.Array, ngram: int) -> list[np.ndarray]:
    """The distinct shingle hashes of each document, sorted, uint64."""
    found, sizes = packed_sets(texts, ngram)
    return np.split(found, np.cumsum(sizes)[:-1]) if len(sizes) else []


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Jaccard similarity of two sorted sets of hashes, uint64; 0 where one is empty."""
    return float(jaccard_from(a, b, 0.0))
