"""Duplicated n-gram coverage of lines, as Llama 3 uses it (Dubey et al., 2024, section 3.1.1, after Rae et al., 2021).

It finds lines of repeated content, such as logs and error messages, which may be long and unique, so that deduplication of
lines cannot find them. Size of n-grams and threshold are not published; here: 3 words, 60% of the characters, in lines
of at least 30 words. The deletions are the edits `llama3_lines`.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.analysis import Batch

COLUMNS = ("dup_ngram_coverage", "repetitive_lines", "repetitive_chars")


def signals(batch: Batch) -> dict[str, np.ndarray]:
    """Signals of a batch, float64 [d] each.

    `dup_ngram_coverage`: characters of words in 3-grams that their own line holds more than once, each counted once, as
    share of the characters of words; `repetitive_lines repetitive_chars`: lines with a coverage above 60%, as share of
    lines that hold more than white space, of characters.
    """
    found = batch.judged
    return {
        "dup_ngram_coverage": found["covered_chars"] / np.maximum(found["word_chars"], 1),
        "repetitive_lines": found["repetitive_lines"] / np.maximum(found["filled"], 1),
        "repetitive_chars": found["repetitive_chars"] / np.maximum(batch.n_chars, 1),
    }
