"""Sizes and character shares, for prose and for source code."""

from __future__ import annotations

import numpy as np

from data_pipeline.analysis import Batch


def signals(batch: Batch) -> dict[str, np.ndarray]:
    """Signals of a batch (`schema.SIGNALS`), float64 [d] each.

    Mean and maximal line length after Kocetkov et al., 2022 (The Stack), section 3.
    """
    counts, n_chars = batch.counts, np.maximum(batch.n_chars, 1)
    return {
        "bytes": np.diff(batch.offsets),
        "chars": batch.n_chars,
        "words": batch.word_counts["lexical"],
        "lines": counts["lines"],
        "mean_line_length": counts["filled_line_chars"] / np.maximum(counts["filled_lines"], 1),
        "max_line_length": counts["longest_line"],
        "alphanumeric": counts["alnum"] / n_chars,
        "letters": (counts["alnum"] - counts["decimal"]) / n_chars,
        "digits": counts["decimal"] / n_chars,
        "spaces": counts["space"] / n_chars,
        "non_ascii": counts["non_ascii"] / n_chars,
        "encoded": counts["encoded"] / n_chars,
        "replaced": counts["replaced"] / n_chars,
    }
