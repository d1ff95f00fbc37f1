"""Sizes and character shares, for prose and for source code."""

from __future__ import annotations

import re

from data_pipeline.analysis import Analysis

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

_ENCODED = re.compile(r"[A-Za-z0-9+/=\\x]{120,}")
"""Runs as base64, hexadecimal and escaped bytes make them; words and identifiers are far shorter."""
_LETTERS = re.compile(r"[^\W\d_]+")
_DIGITS = re.compile(r"\d+")
_ALPHANUMERIC = re.compile(r"[^\W_]+")
_SPACES = re.compile(r"\s+")
_NON_ASCII = re.compile(r"[^\x00-\x7f]+")


def signals(document: Analysis) -> dict[str, float]:
    """Signals of one document.

    Lengths are in characters; `alphanumeric letters digits spaces non_ascii encoded replaced` are shares of the
    characters, 0..1: `encoded` of those in runs of 120 or more that look like encoded bytes, `replaced` of U+FFFD.
    Mean and maximal line length over non-empty lines (Kocetkov et al., 2022, section 3).
    """
    text, n = document.text, max(len(document.text), 1)

    def share(pattern: re.Pattern[str]) -> float:
        return sum(len(m) for m in pattern.findall(text)) / n

    lengths = [len(line) for line in document.lines if line.strip()]
    return {
        "bytes": document.n_bytes,
        "chars": len(text),
        "words": len(document.lexical),
        "lines": len(document.lines),
        "mean_line_length": sum(lengths) / len(lengths) if lengths else 0.0,
        "max_line_length": max(lengths, default=0),
        "alphanumeric": share(_ALPHANUMERIC),
        "letters": share(_LETTERS),
        "digits": share(_DIGITS),
        "spaces": share(_SPACES),
        "non_ascii": share(_NON_ASCII),
        "encoded": share(_ENCODED),
        "replaced": text.count("\ufffd") / n,
    }
