"""Words, lines, repetition, normalised text and hashes of documents, found once for a batch and shared by all signals.

`analyse` gives arrays over the code points of a batch; nothing in Python is made for a single word. Kernels are compiled
by numba once and cached. Values of a document do not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import xxhash

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
        """Counts of characters and lines by name (`text.COUNTS`): int64 [d] each."""
        from data_pipeline.analysis import text
        from data_pipeline.analysis.characters import table

        out = np.zeros((len(self), len(text.COUNTS)), np.int64)
        text.count(self.cps, self.bounds, table(), out)
        return dict(zip(text.COUNTS, out.T, strict=True))

    @cached_property
    def _words(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        from data_pipeline.analysis import word_rules
        from data_pipeline.analysis.characters import table

        flags, rules = table(), word_rules.rules()
        words = np.zeros(len(self) + 1, np.int64)
        room = len(self.cps) // 3 + 256
        while True:
            start, length, hashes = (
                np.empty(room, np.int32),
                np.empty(room, np.int32),
                np.empty(room, np.uint64),
            )
            if word_rules.find_all(self.cps, self.bounds, flags, rules, start, length, hashes, words) >= 0:
                n = int(words[-1])
                return start[:n], length[:n], hashes[:n], words
            room = min(2 * room, len(self.cps) + 64)  # a word has a character

    @property
    def start(self) -> np.ndarray:
        """Where each word begins in `cps`: int32 [w]."""
        return self._words[0]

    @property
    def length(self) -> np.ndarray:
        """Characters of each word: int32 [w]."""
        return self._words[1]

    @property
    def hashes(self) -> np.ndarray:
        """Hash of each word as it stands (`word_rules.hash_word`), equal on every machine: uint64 [w]."""
        return self._words[2]

    @property
    def words(self) -> np.ndarray:
        """Where the words of documents begin in the arrays of words: int64 [d + 1]."""
        return self._words[3]

    @cached_property
    def content_hashes(self) -> list[str]:
        """`content_hash` of each document."""
        from data_pipeline.analysis.normal import normalised

        return [
            content_hash(self.text(i)) if form is None else xxhash.xxh3_128_hexdigest(form)
            for i, form in enumerate(normalised(self.cps, self.bounds))
        ]

    def word_counts(
        self, stops: np.ndarray | None = None, languages: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Counts of words by name (`word_rules.COUNTS`): int64 [d] each; stop words by table and language of each."""
        from data_pipeline.analysis import word_rules
        from data_pipeline.analysis.characters import table

        out = np.zeros((len(self), len(word_rules.COUNTS)), np.int64)
        if stops is None or languages is None:
            stops, languages = np.zeros((2, 16), np.uint64), np.full(len(self), -1, np.int32)
        start, length, hashes, words = self._words
        word_rules.count(self.cps, table(), start, length, hashes, words, stops, languages, out)
        return dict(zip(word_rules.COUNTS, out.T, strict=True))

    @cached_property
    def _lines(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from data_pipeline.analysis import lines
        from data_pipeline.analysis.characters import table

        found = np.empty((int(self.counts["lines"].sum()), 3), np.int32)
        of = np.zeros(len(self) + 1, np.int64)
        lines.split(self.cps, self.bounds, table(), found, of)
        line_of = np.empty(len(self.start), np.int32)
        lines.number(found, len(found), self.start, len(self.start), line_of)
        return found, of, line_of

    @property
    def lines(self) -> np.ndarray:
        """Beginning and end of each line, and where the next one begins, in `cps`: int32 [l, 3]."""
        return self._lines[0]

    @property
    def lines_of(self) -> np.ndarray:
        """Where the lines of documents begin in `lines`: int64 [d + 1]."""
        return self._lines[1]

    @property
    def line_of(self) -> np.ndarray:
        """Line of each word: int32 [w]."""
        return self._lines[2]

    @cached_property
    def duplicates(self) -> dict[str, np.ndarray]:
        """Repeated lines and paragraphs by name (`repetition.DUPLICATES`): int64 [d] each."""
        from data_pipeline.analysis import repetition
        from data_pipeline.analysis.characters import table

        out = np.zeros((len(self), len(repetition.DUPLICATES)), np.int64)
        repetition.duplicates(self.cps, self.bounds, table(), out)
        return dict(zip(repetition.DUPLICATES, out.T, strict=True))

    @cached_property
    def _n_grams(self) -> tuple[np.ndarray, np.ndarray]:
        from data_pipeline.analysis import repetition

        out = np.zeros((len(self), repetition.LONGEST - 1), np.int64)
        covered = np.zeros(len(self.start), np.uint8)
        repetition.n_grams(self.hashes, self.length, self.words, self.line_of, out, covered)
        return out, covered

    @property
    def n_grams(self) -> np.ndarray:
        """Characters of repeated n-grams (`repetition.n_grams`), n from 2 to 10: int64 [d, 9]."""
        return self._n_grams[0]

    @property
    def covered(self) -> np.ndarray:
        """Words in 3-grams that their line holds more than once: uint8 [w]."""
        return self._n_grams[1]

    @cached_property
    def _judged(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        from data_pipeline.analysis import lines, phrases, word_rules
        from data_pipeline.analysis.characters import table

        out = np.zeros((len(self), len(lines.COLUMNS)), np.int64)
        spans = np.empty((2 * len(self.lines) + 4 * len(self) + 64, 5), np.int32)
        while True:
            n = lines.judge(
                self.cps,
                self.bounds,
                table(),
                word_rules.rules(),
                self.lines,
                self.lines_of,
                self.start,
                self.length,
                self.words,
                self.covered,
                *phrases.notices(),
                phrases.leftovers(),
                out,
                spans,
            )
            if n <= len(spans):
                return dict(zip(lines.COLUMNS, out.T, strict=True)), spans[:n]
            spans = np.empty((n, 5), np.int32)

    @property
    def judged(self) -> dict[str, np.ndarray]:
        """What the line rules say, by name (`lines.COLUMNS`): int64 [d] each."""
        return self._judged[0]

    @property
    def spans(self) -> np.ndarray:
        """Edits that the line rules propose (`lines.judge`): int32 [n, 5]."""
        return self._judged[1]


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
