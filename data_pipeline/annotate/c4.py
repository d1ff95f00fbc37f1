"""Rules of C4 as values (Raffel et al., 2020, section 2.2), and the paragraph rule of mC4 (Xue et al., 2021).

C4 drops single lines and judges what is left. The values say what the line rules would leave (`kept_lines`, `kept_chars`,
`n_sentences`), and policies judge documents by them; the deletions themselves are the edits `c4_lines`.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.analysis import Batch

COLUMNS = (
    "n_sentences",
    "kept_lines",
    "kept_chars",
    "long_word_lines",
    "no_terminal_punctuation",
    "short_lines",
    "javascript_lines",
    "policy_lines",
    "lorem_ipsum",
    "curly_brackets",
    "third_longest_line",
)


def signals(batch: Batch) -> dict[str, np.ndarray]:
    """Signals of a batch, float64 [d] each.

    The line rules are tried in C4's order, and a line counts under the first that drops it: `long_word_lines`,
    `no_terminal_punctuation`, `short_lines` (fewer than 3 words), `javascript_lines`, `policy_lines` are shares of
    the lines, `kept_lines` the share that none drops, `kept_chars` its share of the characters, `n_sentences` its
    sentences. `lorem_ipsum curly_brackets`: surviving lines with the phrase, with `{`. `third_longest_line`: characters
    of the third longest line, 0 with fewer than three.
    """
    found, n_lines = batch.judged, np.maximum(batch.counts["lines"], 1)
    return {
        "n_sentences": found["c4_sentences"],
        "kept_lines": found["c4_kept"] / n_lines,
        "kept_chars": found["c4_kept_chars"] / np.maximum(batch.n_chars, 1),
        "long_word_lines": found["c4_long"] / n_lines,
        "no_terminal_punctuation": found["c4_unterminated"] / n_lines,
        "short_lines": found["c4_short"] / n_lines,
        "javascript_lines": found["c4_script"] / n_lines,
        "policy_lines": found["c4_policy"] / n_lines,
        "lorem_ipsum": found["c4_lorem"],
        "curly_brackets": found["c4_curly"],
        "third_longest_line": batch.counts["third_longest"],
    }
