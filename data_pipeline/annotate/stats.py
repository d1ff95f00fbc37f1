"""Sizes and character shares, for prose and for source code."""

from __future__ import annotations

import re
from collections.abc import Callable

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

ENCODED_RUN = 120
_ENCODED = re.compile(rf"[A-Za-z0-9+/=\\x]{{{ENCODED_RUN},}}")
"""Runs as base64, hexadecimal and escaped bytes make them; words and identifiers are far shorter."""


def signals(document: Analysis) -> dict[str, float]:
    """Signals of one document.

    Lengths are in characters; `alphanumeric letters digits spaces non_ascii encoded replaced` are shares of the
    characters, 0..1: `encoded` of those in runs of 120 or more that look like encoded bytes, `replaced` of U+FFFD.
    Mean and maximal line length over non-empty lines (Kocetkov et al., 2022, section 3).
    """
    text, n = document.text, max(len(document.text), 1)

    def share(belongs: Callable[[str], bool]) -> float:
        return sum(count for c, count in document.characters.items() if belongs(c)) / n

    # A run holds no white space, so most texts need no search for one.
    suspicious = max(map(len, document.spaced), default=0) >= ENCODED_RUN
    encoded = sum(map(len, _ENCODED.findall(text))) if suspicious else 0
    lengths = [len(line) for line in document.lines if line.strip()]
    return {
        "bytes": document.n_bytes,
        "chars": len(text),
        "words": len(document.lexical),
        "lines": len(document.lines),
        "mean_line_length": sum(lengths) / len(lengths) if lengths else 0.0,
        "max_line_length": max(lengths, default=0),
        "alphanumeric": share(str.isalnum),
        "letters": share(lambda c: c.isalnum() and not c.isdecimal()),
        "digits": share(str.isdecimal),
        "spaces": share(str.isspace),
        "non_ascii": share(lambda c: not c.isascii()),
        "encoded": encoded / n,
        "replaced": document.characters["\ufffd"] / n,
    }
