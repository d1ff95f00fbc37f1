"""Normalised text, as exact deduplication compares it: NFKC, lower case, white space collapsed.

Most characters keep or change their form one by one, whatever stands beside them. Texts of such characters alone are
normalised by a kernel; the others, with combining marks for instance, by Python.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import regex
from numba import uint32

from data_pipeline.compiled import small

_SPACE = regex.compile(r"\s+")
_SPACED = 0x20
_OTHER = 0xFFFFFFFF
_ELLIPSIS = 0x2026
_SEPARATORS = "\x1c\x1d\x1e\x1f"
"""White space to `str`, but not to `regex`, by which the hashes of normalised text are defined."""


def normalise(text: str) -> str:
    """NFKC, lower case, white space collapsed: texts equal under it are exact duplicates."""
    text = unicodedata.normalize("NFKC", text).lower()
    if any(c in text for c in _SEPARATORS):
        return _SPACE.sub(" ", text).strip()
    return " ".join(text.split())


@cache
def _forms() -> np.ndarray:
    """Normalised form of every code point, `_OTHER` where it depends on its neighbours or is none: uint32 [0x110000]."""
    forms = np.full(0x110000, _OTHER, np.uint32)
    for first, last in ((0x4E00, 0x9FFF), (0xAC00, 0xD7A3)):
        forms[first : last + 1] = np.arange(first, last + 1)
    for point in (*range(0x1100), *range(0x1200, 0x3099), *range(0x30A1, 0x3100), *range(0xFF01, 0xFF5F)):
        character = chr(point)
        form = unicodedata.normalize("NFKC", character)
        lower = form.lower()
        if len(form) == len(lower) == 1 and not any(map(unicodedata.combining, (character, lower))):
            forms[point] = _SPACED if lower.isspace() else ord(lower)
        if unicodedata.category(character).startswith("M") or form in {
            *_SEPARATORS,
            "Σ",
        }:  # Σ: σ, or ς at an end
            forms[point] = _OTHER
    forms[_ELLIPSIS] = _ELLIPSIS  # three full stops
    return forms


@small("int64(uint32[::1], int64[::1], uint32[::1], uint8[::1], int64[::1])")
def _write(cps, bounds, forms, out, ends):
    """Write normalised texts as UTF-8 one behind another; `ends` [d] is where each ends, -1 - begin where it cannot be."""
    n = 0
    for d in range(len(bounds) - 1):
        begin, gap, good = n, False, True
        for i in range(bounds[d], bounds[d + 1]):
            c = forms[cps[i]]
            if c == _SPACED:
                gap = n > begin
                continue
            if gap:
                out[n] = _SPACED
                n += 1
                gap = False
            if c < 0x80:
                out[n] = c
                n += 1
            elif c < 0x800:
                out[n], out[n + 1] = 0xC0 | (c >> uint32(6)), 0x80 | (c & uint32(0x3F))
                n += 2
            elif c == _ELLIPSIS:
                out[n], out[n + 1], out[n + 2] = 0x2E, 0x2E, 0x2E
                n += 3
            elif c != _OTHER:
                out[n], out[n + 1] = 0xE0 | (c >> uint32(12)), 0x80 | ((c >> uint32(6)) & uint32(0x3F))
                out[n + 2] = 0x80 | (c & uint32(0x3F))
                n += 3
            else:
                good = False
                break
        if not good:
            n = begin
        ends[d] = n if good else -1 - n
    return n


def normalised(cps: np.ndarray, bounds: np.ndarray) -> list[memoryview | None]:
    """Normalised texts as UTF-8, None where `normalise` must do it.

    Args:
        cps, bounds: code points of documents, and where they begin: uint32 [n], int64 [d + 1].
    """
    # No form takes more than three bytes, nor follows a space that was not there.
    out, ends = np.empty(3 * len(cps) + 8, np.uint8), np.empty(len(bounds) - 1, np.int64)
    _write(cps, bounds, _forms(), out, ends)
    view, begin, found = out.data, 0, []
    for end in ends.tolist():
        found.append(view[begin:end] if end >= 0 else None)
        begin = max(end, -1 - end)
    return found
