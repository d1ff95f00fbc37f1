"""FineWeb (Penedo et al., 2024, section 3.6), as datatrove defines it.

FineWeb applies C4's line rules (`c4`) without the one on terminal punctuation; what they would delete are the edits
`fineweb_lines`. Its own rules are about documents.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.analysis import Batch

DEMANDS_TERMINAL_PUNCTUATION = False
"""C4's rule drops three of ten tokens and was left out (section 3.5)."""


def signals(batch: Batch, c4_counts: np.ndarray) -> dict[str, np.ndarray]:
    """Signals of a batch (`schema.SIGNALS`), float64 [d] each; c4_counts: `c4.COUNTS` [d], of `lines.judge`.

    The first three are about lines, between line feeds, that hold more than white space.
    """
    counts = batch.counts
    lines, all_lines = np.maximum(counts["filled_feed_lines"], 1), np.maximum(counts["lines"], 1)
    chars_but_newlines = np.maximum(batch.n_chars - counts["newlines"], 1)
    return {
        # "the fraction of lines ending with punctuation ≤ 0.12"
        "line_punct_ratio": counts["terminated_feed_lines"] / lines,
        # "the fraction of lines shorter than 30 characters ≥ 0.67"
        "short_line_ratio": counts["short_feed_lines"] / lines,
        # "the fraction of characters in duplicated lines ≥ 0.1"; datatrove's code drops at 0.01.
        "char_dup_ratio": batch.duplicates["dup_filled_line_chars"] / chars_but_newlines,
        # datatrove: above 0.3.
        "list_ratio": counts["newlines"] / np.maximum(batch.n_words, 1),
        # C4's rules.
        "n_sentences": c4_counts["n_sentences"],
        "kept_lines": c4_counts["kept_lines"] / all_lines,
        "kept_chars": c4_counts["kept_chars"] / np.maximum(batch.n_chars, 1),
        "lorem_ipsum": c4_counts["lorem_ipsum"],
        "curly_brackets": c4_counts["curly_brackets"],
    }
