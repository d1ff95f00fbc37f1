"""Sizes and character shares, for prose and for source code."""

from __future__ import annotations

import numpy as np

from data_pipeline.analysis import Batch

COLUMNS = (
    "bytes",
    "chars",
    "words",
    "lines",
    "mean_line_length",
    "max_line_length",
    "alphanumeric",
    "letters",
    "digits",
    "spaces",
    "non_ascii",
    "encoded",
    "replaced",
)


def signals(batch: Batch) -> dict[str, np.ndarray]:
    """Signals of a batch, float64 [d] each.

    Lengths are in characters; `alphanumeric letters digits spaces non_ascii encoded replaced` are shares of the
    characters, 0..1: `encoded` of those in runs of 120 or more that look like base64, hexadecimal or escaped bytes,
    `replaced` of U+FFFD. Mean and maximal line length over non-empty lines (Kocetkov et al., 2022, section 3).
    """
    counts, n = batch.counts, np.maximum(batch.n_chars, 1)
    return {
        "bytes": np.diff(batch.offsets),
        "chars": batch.n_chars,
        "words": batch.word_counts()["lexical"],
        "lines": counts["lines"],
        "mean_line_length": counts["filled_chars"] / np.maximum(counts["filled"], 1),
        "max_line_length": counts["longest"],
        "alphanumeric": counts["alnum"] / n,
        "letters": (counts["alnum"] - counts["decimal"]) / n,
        "digits": counts["decimal"] / n,
        "spaces": counts["space"] / n,
        "non_ascii": counts["non_ascii"] / n,
        "encoded": counts["encoded"] / n,
        "replaced": counts["replaced"] / n,
    }
