"""Word shingles as 64-bit hashes, computed for batches of documents in NumPy.

A word is a maximal run of `\\w` characters of the lower-cased text; in Chinese and Japanese, which write without
spaces, every character is one. A shingle is n consecutive words. Both are hashed as polynomials modulo 2**64 over
prefix sums, so no Python object is made for a word.

Shapes: c characters, w words, s shingles, d documents.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

import numpy as np

_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE_BASE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
_SHINGLE_BASE = np.uint64(0xD6E8FEB86659FD93)
_SEPARATOR = "\n"
BATCH_CHARACTERS = 1 << 18
# Han, Hiragana, Katakana: Unicode blocks (first, last).
_UNSPACED_BLOCKS = (
    (0x3040, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3134F),
)

_OTHER, _WORD, _UNSPACED = 0, 1, 2


@functools.cache
def _character_kinds() -> np.ndarray:
    """uint8 [0x110000]: whether a code point is a word character, and of which kind."""
    kinds = np.zeros(0x110000, np.uint8)
    for match in re.finditer(r"\w+", "".join(map(chr, range(0x110000)))):
        kinds[match.start() : match.end()] = _WORD
    for first, last in _UNSPACED_BLOCKS:
        block = kinds[first : last + 1]
        block[block == _WORD] = _UNSPACED
    return kinds


@functools.lru_cache(maxsize=2)
def _powers(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers 0..n-1 of the base and of its inverse modulo 2**64."""
    powers = np.full(n, _BASE, np.uint64)
    inverses = np.full(n, _INVERSE_BASE, np.uint64)
    powers[0] = inverses[0] = 1
    return np.multiply.accumulate(powers), np.multiply.accumulate(inverses)


def mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al., 2014): a bijection whose output bits all depend on all input bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _word_hashes(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes uint64 [w] and start positions int64 [w] of the words of uint32 [c] code points."""
    kinds = _character_kinds()[codes]
    is_word = kinds != _OTHER
    # A word starts where the kind changes to a word's, and at every unspaced character.
    starts = is_word.copy()
    starts[1:] &= (kinds[1:] != kinds[:-1]) | (kinds[1:] == _UNSPACED)
    first = np.flatnonzero(starts)
    if not len(first):
        return np.zeros(0, np.uint64), first
    powers, inverses = _powers(_table_size(len(codes)))
    terms = (codes.astype(np.uint64) + np.uint64(1)) * powers[: len(codes)]
    terms[~is_word] = 0
    total = np.add.reduceat(terms, first)
    return mix(total * inverses[first]), first


def _table_size(n: int) -> int:
    return max(2 * BATCH_CHARACTERS, 1 << (n - 1).bit_length())


def shingle_hashes(texts: Sequence[str], ngram: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Shingles of documents, in batches.

    A document of fewer than `ngram` words has one shingle, of all its words; one without words has none. Repeated
    shingles are repeated in the output.

    Yields:
        (index of the batch's first document, hashes uint64 [s], ends int64 [d]): document k of the batch has the
        shingles hashes[ends[k - 1]:ends[k]].
    """
    batch: list[str] = []
    size = first = 0
    for i, text in enumerate(texts):
        if batch and size + len(text) > BATCH_CHARACTERS:
            yield first, *_batch_shingles(batch, ngram)
            batch, size, first = [], 0, i
        batch.append(text)
        size += len(text) + 1
    if batch:
        yield first, *_batch_shingles(batch, ngram)


def _batch_shingles(texts: list[str], ngram: int) -> tuple[np.ndarray, np.ndarray]:
    lowered = [text.lower() for text in texts]
    joined = _SEPARATOR.join(lowered)
    if joined.isascii():
        codes = np.frombuffer(joined.encode("ascii"), np.uint8)
    else:
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    words, positions = _word_hashes(codes)
    text_ends = np.cumsum([len(text) + 1 for text in lowered])
    word_ends = np.searchsorted(positions, text_ends)
    counts = np.diff(word_ends, prepend=0)
    # Every window of n words, those across documents included: they are left out below.
    padded = np.concatenate([words, np.zeros(ngram - 1, np.uint64)])
    windows = padded[: len(words)].copy()
    for k in range(1, ngram):
        windows *= _SHINGLE_BASE
        windows += padded[k : k + len(words)]
    inside = np.ones(len(words), bool)
    for k in range(1, ngram):  # the last n - 1 words of each document start no window
        last = word_ends[counts >= k] - k
        inside[last] = False
    short = np.flatnonzero((counts > 0) & (counts < ngram))
    for d in short:
        start, end = word_ends[d] - counts[d], word_ends[d]
        value = np.uint64(0)
        with np.errstate(over="ignore"):
            for word in words[start:end]:
                value = value * _SHINGLE_BASE + word
        windows[start] = value
        inside[start] = True
    kept = np.where(counts >= ngram, counts - ngram + 1, (counts > 0).astype(np.int64))
    return mix(windows[inside]), np.cumsum(kept)


def shingle_sets(texts: Sequence[str], ngram: int) -> list[np.ndarray]:
    """The distinct shingle hashes of each document, sorted, uint64."""
    sets: list[np.ndarray] = []
    for _, hashes, ends in shingle_hashes(texts, ngram):
        sets += [np.unique(part) for part in np.split(hashes, ends[:-1])]
    return sets


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Jaccard similarity of two sorted sets of hashes; 0 where one is empty."""
    if not len(a) or not len(b):
        return 0.0
    if len(a) > len(b):
        a, b = b, a
    at = np.searchsorted(b, a)
    common = int(np.count_nonzero(b[np.minimum(at, len(b) - 1)] == a))
    return common / (len(a) + len(b) - common)
