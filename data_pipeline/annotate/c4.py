"""Rules of C4 as values (Raffel et al., 2020, section 2.2), and the paragraph rule of mC4 (Xue et al., 2021).

C4 drops single lines and judges what is left. Here the lines stay: the values say what the line rules would leave
(`kept_lines`, `kept_chars`, `n_sentences`), and policies judge documents by them.
"""

from __future__ import annotations

import heapq
import re

from data_pipeline.analysis import Analysis, sentences

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
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_TERMINAL = (".", "?", "!", '"', "'")
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
MAX_WORD = 1000
MIN_WORDS = 3


def signals(document: Analysis) -> dict[str, float]:
    """Signals of one document.

    The line rules are tried in C4's order, and a line counts under the first that drops it: `long_word_lines`,
    `no_terminal_punctuation`, `short_lines` (fewer than 3 words), `javascript_lines`, `policy_lines` are shares of
    the lines, `kept_lines` the share that none drops, `kept_chars` its share of the characters, `n_sentences` its
    sentences. `lorem_ipsum curly_brackets`: surviving lines with the phrase, with `{`. `third_longest_line`: characters
    of the third longest line, 0 with fewer than three.
    """
    dropped = dict.fromkeys(
        ("long_word_lines", "no_terminal_punctuation", "short_lines", "javascript_lines", "policy_lines"), 0
    )
    lorem = curly = n_sentences = kept = kept_chars = 0
    for line in document.lines:
        line = line.strip()
        words = line.split()
        if len(line) > MAX_WORD and any(len(w) > MAX_WORD for w in words):
            dropped["long_word_lines"] += 1
            continue
        line = _CITATION.sub("", line)
        if not line.endswith(_TERMINAL) or line.endswith("..."):
            dropped["no_terminal_punctuation"] += 1
            continue
        if len(words) < MIN_WORDS:
            dropped["short_lines"] += 1
            continue
        lower = line.lower()
        lorem += "lorem ipsum" in lower
        if "javascript" in lower:
            dropped["javascript_lines"] += 1
            continue
        curly += "{" in line
        if any(phrase in lower for phrase in _POLICY):
            dropped["policy_lines"] += 1
            continue
        n_sentences += sentences(line)
        kept += 1
        kept_chars += len(line)
    n = max(len(document.lines), 1)
    lengths = heapq.nlargest(3, map(len, document.text.split("\n")))
    return {
        "n_sentences": n_sentences,
        "kept_lines": kept / n,
        "kept_chars": kept_chars / max(len(document.text), 1),
        "lorem_ipsum": lorem,
        "curly_brackets": curly,
        "third_longest_line": lengths[2] if len(lengths) == 3 else 0,
    } | {name: count / n for name, count in dropped.items()}
