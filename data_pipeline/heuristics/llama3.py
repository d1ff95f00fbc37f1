"""Llama 3's duplicated n-gram coverage of lines (Dubey et al., 2024, section 3.1.1, after Rae et al., 2021).

It finds lines of repeated content, such as logs and error messages, which may be long and unique, so that deduplication of
lines cannot find them. Size of n-grams (`repetition.COVERAGE`) and thresholds are not published. The deletions are the edits
`llama3_lines`.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.analysis import Batch
from data_pipeline.compiled import small_subroutine
from data_pipeline.heuristics.deletions import LLAMA3, delete
from data_pipeline.kernels.records import count_fields

MIN_WORDS = 30
"""Words of a line that is judged: short ones repeat a phrase by chance."""
MAX_COVERAGE = 0.6
"""Share of the characters of words in repeated 3-grams from which on a line is deleted."""

COUNTS = count_fields(
    "word_chars",
    "covered_chars",
    "repetitive_lines",
    "repetitive_chars",
)
"""Counts of a document: characters of words, of those in repeated 3-grams; lines that are deleted, their characters."""


@small_subroutine
def apply(text, line, counts, deletions, document):
    """Judge and count a line, and propose its deletion."""
    word_chars = covered_chars = 0
    for w in range(line.first_word, line.end_word):
        word_chars += text.words.length[w]
        if text.covered[w]:
            covered_chars += text.words.length[w]
    counts.word_chars += word_chars
    counts.covered_chars += covered_chars
    n_words = line.end_word - line.first_word
    if n_words >= MIN_WORDS and covered_chars > MAX_COVERAGE * word_chars:
        counts.repetitive_lines += 1
        counts.repetitive_chars += line.end - line.begin
        delete(deletions, LLAMA3, document, line.whole_begin, line.next_begin)


def signals(batch: Batch, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Signals of a batch (`schema.SIGNALS`), float64 [d] each; counts: COUNTS [d], of `lines.judge`."""
    return {
        "dup_ngram_coverage": counts["covered_chars"] / np.maximum(counts["word_chars"], 1),
        "repetitive_lines": counts["repetitive_lines"] / np.maximum(batch.counts["filled_lines"], 1),
        "repetitive_chars": counts["repetitive_chars"] / np.maximum(batch.n_chars, 1),
    }
