"""Text kernels: words, lines, repetition, normalised text and hashes, computed once a batch and shared by all signals.

`analyse` gives arrays over the code points of a batch; nothing in Python is made for a single word. Kernels are compiled
by numba once and cached. Values of a document do not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import xxhash

if TYPE_CHECKING:
    from data_pipeline.analysis.word_tables import StopWords
    from data_pipeline.analysis.words import Words

BATCH_BYTES = 2**19
"""UTF-8 bytes of a batch: its arrays then stay in the cache of one core."""


def content_hash(text: str) -> str:
    """xxh3-128 of the normalised text (`normal.normalise`), 32 hexadecimal digits."""
    from data_pipeline.analysis.normal import normalise

    return xxhash.xxh3_128_hexdigest(normalise(text).encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class Batch:
    """Some documents as arrays: d documents, n characters, w words, l lines."""

    data: np.ndarray
    """UTF-8 of the documents, one behind another: uint8."""
    offsets: np.ndarray
    """Where their bytes begin in it: int64 [d + 1]."""
    cps: np.ndarray
    """Code points: uint32 [n]."""
    bounds: np.ndarray
    """Where documents begin in `cps`: int64 [d + 1]."""

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def text(self, i: int) -> str:
        """Document i as a string."""
        return self.data[self.offsets[i] : self.offsets[i + 1]].tobytes().decode("utf-8", "surrogatepass")

    @cached_property
    def n_chars(self) -> np.ndarray:
        """Characters of each document: int64 [d]."""
        return np.diff(self.bounds)

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """Counts of characters, words between white space and lines by name (`text.COUNTS`): int64 [d] each."""
        from data_pipeline.analysis import text
        from data_pipeline.analysis.characters import table

        out = np.zeros(len(self), text.COUNTS)
        text.count(self.cps, self.bounds, table(), self.lines, self.lines_of, out)
        return by_name(out)

    @cached_property
    def _words(self) -> tuple[Words, np.ndarray]:
        from data_pipeline.analysis import words
        from data_pipeline.analysis.characters import table

        flags, rules = table(), words.rules()
        words_of = np.zeros(len(self) + 1, np.int64)
        room = len(self.cps) // 3 + 256
        while True:
            found = words.Words(np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.uint64))
            if words.find_all(self.cps, self.bounds, flags, rules, found, words_of) >= 0:
                n = int(words_of[-1])
                return words.Words(*(column[:n] for column in found)), words_of
            room = min(2 * room, len(self.cps) + 64)  # a word has a character

    @property
    def start(self) -> np.ndarray:
        """Where each word begins in `cps`: int32 [w]."""
        return self._words[0].start

    @property
    def length(self) -> np.ndarray:
        """Characters of each word: int32 [w]."""
        return self._words[0].length

    @property
    def hashes(self) -> np.ndarray:
        """Hash of each word as it stands (`word_tables.hash_word`), equal on every machine: uint64 [w]."""
        return self._words[0].hashes

    @property
    def words(self) -> np.ndarray:
        """Where the words of documents begin in the arrays of words: int64 [d + 1]."""
        return self._words[1]

    @property
    def n_words(self) -> np.ndarray:
        """Words of each document, lexical or not: int64 [d]."""
        return np.diff(self.words)

    @cached_property
    def content_hashes(self) -> list[str]:
        """`content_hash` of each document."""
        from data_pipeline.analysis.normal import normalised

        return [
            content_hash(self.text(i)) if form is None else xxhash.xxh3_128_hexdigest(form)
            for i, form in enumerate(normalised(self.cps, self.bounds))
        ]

    @cached_property
    def word_counts(self) -> dict[str, np.ndarray]:
        """Counts of words by name (`words.COUNTS`): int64 [d] each."""
        from data_pipeline.analysis import words
        from data_pipeline.analysis.characters import table

        out = np.zeros(len(self), words.COUNTS)
        words.count(self.cps, table(), *self._words, out)
        return by_name(out)

    def n_stop_words(self, stops: StopWords, languages: np.ndarray) -> np.ndarray:
        """Different stop words of each document: int64 [d].

        Args:
            languages: number of each document's language in `stops`, -1 for none: int32 [d].
        """
        from data_pipeline.analysis import words

        out = np.zeros(len(self), np.int64)
        words.count_stop_words(*self._words, stops, languages, out)
        return out

    @cached_property
    def _lines(self) -> tuple[np.ndarray, np.ndarray]:
        from data_pipeline.analysis import text
        from data_pipeline.analysis.characters import table

        lines_of = np.zeros(len(self) + 1, np.int64)
        room = len(self.cps) // 16 + len(self) + 64
        while True:
            lines = np.empty((room, 3), np.int32)
            n = text.split(self.cps, self.bounds, table(), lines, lines_of)
            if n <= room:
                return lines[:n], lines_of
            room = n

    @property
    def lines(self) -> np.ndarray:
        """Beginning and end of each line, and where the next one begins, in `cps`: int32 [l, 3]."""
        return self._lines[0]

    @property
    def lines_of(self) -> np.ndarray:
        """Where the lines of documents begin in `lines`: int64 [d + 1]."""
        return self._lines[1]

    @cached_property
    def duplicates(self) -> dict[str, np.ndarray]:
        """Repeated lines and paragraphs by name (`repetition.DUPLICATES`): int64 [d] each."""
        from data_pipeline.analysis import repetition
        from data_pipeline.analysis.characters import table

        out = np.zeros(len(self), repetition.DUPLICATES)
        repetition.count_duplicates(self.cps, self.bounds, table(), out)
        return by_name(out)

    @cached_property
    def _n_grams(self) -> tuple[np.ndarray, np.ndarray]:
        from data_pipeline.analysis import repetition, text

        line_of = np.empty(len(self.start), np.int32)
        text.number_lines(self.lines, len(self.lines), self.start, len(self.start), line_of)
        out = np.zeros((len(self), repetition.LONGEST - repetition.SHORTEST + 1), np.int64)
        covered = np.zeros(len(self.start), np.uint8)
        repetition.count_n_grams(self.hashes, self.length, self.words, line_of, out, covered)
        return out, covered

    def n_grams(self, n: int) -> np.ndarray:
        """Characters of repeated n-grams (`repetition.count_n_grams`), n from 2 to 10: int64 [d]."""
        from data_pipeline.analysis import repetition

        column: np.ndarray = self._n_grams[0][:, n - repetition.SHORTEST]
        return column

    @property
    def covered(self) -> np.ndarray:
        """Words in 3-grams that their line holds more than once: uint8 [w]."""
        return self._n_grams[1]


def by_name(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of a structured array."""
    assert counts.dtype.names is not None
    return {name: counts[name] for name in counts.dtype.names}


def _decoded(data: np.ndarray, offsets: np.ndarray) -> Batch:
    from data_pipeline.analysis import text

    cps = np.empty(len(data), np.uint32)
    bounds = np.empty(len(offsets), np.int64)
    n = text.decode(data, offsets, cps, bounds)
    return Batch(data, offsets, cps[:n], bounds)


def analyse(texts: Sequence[str]) -> Batch:
    """A batch of texts; lone surrogates are characters like others."""
    encoded = [t.encode("utf-8", "surrogatepass") for t in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(e) for e in encoded], out=offsets[1:])
    return _decoded(np.frombuffer(bytearray(b"".join(encoded)), np.uint8), offsets)


def batches(texts: pa.ChunkedArray, size: int = BATCH_BYTES) -> Iterator[Batch]:
    """The documents of a column of strings, in batches of about `size` bytes; null is an empty text."""
    for chunk in texts.chunks:
        filled = chunk.fill_null("")
        if len(filled) == 0:
            continue
        kind = np.int64 if pa.types.is_large_string(filled.type) else np.int32
        _, ends, data = filled.buffers()
        offsets = np.frombuffer(ends, kind)[filled.offset : filled.offset + len(filled) + 1].astype(np.int64)
        every = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        first = 0
        while first < len(filled):
            last = int(np.searchsorted(offsets, offsets[first] + size, side="right")) - 1
            last = min(max(last, first + 1), len(filled))
            a, b = int(offsets[first]), int(offsets[last])
            yield _decoded(every[a:b].copy(), offsets[first : last + 1] - a)
            first = last
