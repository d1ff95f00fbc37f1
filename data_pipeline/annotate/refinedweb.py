"""Line rules of RefinedWeb as values (Penedo et al., 2023, appendix G.2); the deletions are the edits `refinedweb_lines`."""

from __future__ import annotations

import numpy as np

from data_pipeline.analysis import Batch

COLUMNS = (
    "upper_lines",
    "numeric_lines",
    "counter_lines",
    "single_word_lines",
    "leftover_lines",
    "flagged_words",
)


def signals(batch: Batch) -> dict[str, np.ndarray]:
    """Signals of a batch, float64 [d] each.

    Of lines that hold more than white space, the shares that the rules flag, each line under the first that does:
    `upper_lines` (mainly upper-case letters), `numeric_lines` (digits without letters), `counter_lines` ("3 likes"),
    `single_word_lines`, `leftover_lines` (at most ten words with a phrase of page furniture: `phrases.LEFTOVERS`).
    `flagged_words`: words of flagged lines as share of all; RefinedWeb drops documents above 5%.
    """
    found = batch.judged
    lines = np.maximum(found["filled"], 1)
    return {
        "upper_lines": found["rw_upper"] / lines,
        "numeric_lines": found["rw_numeric"] / lines,
        "counter_lines": found["rw_counter"] / lines,
        "single_word_lines": found["rw_single"] / lines,
        "leftover_lines": found["rw_leftover"] / lines,
        "flagged_words": found["rw_words"] / np.maximum(found["words"], 1),
    }
