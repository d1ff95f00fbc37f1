"""Rules of FineWeb as values (Penedo et al., 2024, section 3.6), as datatrove defines them.

FineWeb applies C4's line rules without the one on terminal punctuation: `kept_lines kept_chars n_sentences lorem_ipsum
curly_brackets` are what they leave, and the edits `fineweb_lines` delete the rest.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.analysis import Batch

COLUMNS = (
    "line_punct_ratio",
    "short_line_ratio",
    "char_dup_ratio",
    "list_ratio",
    "n_sentences",
    "kept_lines",
    "kept_chars",
    "lorem_ipsum",
    "curly_brackets",
)


def signals(batch: Batch) -> dict[str, np.ndarray]:
    """Signals of a batch, float64 [d] each.

    Of lines that hold more than white space: `line_punct_ratio`, the share that ends with sentence punctuation,
    `short_line_ratio`, of at most 30 characters, `char_dup_ratio`, characters in repeated lines as share of all but line
    feeds; `list_ratio`: line feeds per word.
    """
    counts, found = batch.counts, batch.judged
    lines, n_lines = np.maximum(counts["fw_lines"], 1), np.maximum(counts["lines"], 1)
    return {
        "line_punct_ratio": counts["fw_punct"] / lines,
        "short_line_ratio": counts["fw_short"] / lines,
        "char_dup_ratio": batch.duplicates["dup_filled_chars"]
        / np.maximum(batch.n_chars - counts["newlines"], 1),
        "list_ratio": counts["newlines"] / np.maximum(np.diff(batch.words), 1),
        "n_sentences": found["fw_sentences"],
        "kept_lines": found["fw_kept"] / n_lines,
        "kept_chars": found["fw_kept_chars"] / np.maximum(batch.n_chars, 1),
        "lorem_ipsum": found["fw_lorem"],
        "curly_brackets": found["fw_curly"],
    }
