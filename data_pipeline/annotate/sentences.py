"""Sentences of a text in any script, counted by the marks that end them."""

from __future__ import annotations

import functools

import numba
import numpy as np
import pyarrow as pa

from data_pipeline.compiled import kernel

SPACED = ".!?…"
"""Marks that end a sentence where white space, a closing mark or the end of the text follows."""
ALONE = (
    "。！？｡．"  # Chinese, Japanese
    "।॥"  # Devanagari, Bengali and others
    "؟۔؛܀܁܂"  # Arabic, Urdu, Syriac
    "։՜՞"  # Armenian
    "።፧፨"  # Ethiopic
    "។៕៚"  # Khmer
    "။၊"  # Myanmar
    "།༎༏"  # Tibetan
    "᠃᠉"  # Mongolian
    "߹᙮꘎꘏"  # NKo, Canadian syllabics, Vai
    "᱾᱿꯫𑅁"  # Ol Chiki, Meetei Mayek, Chakma
)
"""Marks that end a sentence wherever they stand."""
TWICE = "፡"
"""Ethiopic word space, which ends a sentence where it stands twice."""
CLOSING = "\"'”’»›)]}」』】〉》"
_BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
_STARTS = numba.types.Array(numba.int64, 1, "C", readonly=True)
_LIMIT = 0x12000


@functools.cache
def _kinds() -> np.ndarray:
    """1: ends a sentence before a space; 2: ends one anywhere; 3: closing mark; 4: space; 5: `TWICE`; uint8 [_LIMIT]."""
    kinds = np.zeros(_LIMIT, np.uint8)
    for kind, marks in enumerate((SPACED, ALONE, CLOSING), 1):
        kinds[[ord(mark) for mark in marks]] = kind
    kinds[ord(TWICE)] = 5
    kinds[[c for c in range(_LIMIT) if chr(c).isspace()]] = 4
    return kinds


def count(texts: pa.Array) -> np.ndarray:
    """Sentence ends in each text, int64 [n]; runs of marks and marks behind them count once.

    Args:
        texts: large strings without nulls.
    """
    out = np.zeros(len(texts), np.int64)
    if len(texts) == 0:
        return out
    _, offsets, data = texts.buffers()
    starts = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if data is not None and data.size:
        _count(np.frombuffer(data, np.uint8), starts, _kinds(), out)
    return out


@kernel(numba.void(_BYTES, _STARTS, numba.uint8[::1], numba.int64[::1]))
def _count(data, starts, kinds, out):  # type: ignore[no-untyped-def]
    for row in range(len(starts) - 1):
        i, end = starts[row], starts[row + 1]
        found = 0
        # 0: in a sentence; 1: behind marks that need a space; 2: behind an end that is counted.
        state = 0
        last = 0
        while i < end:
            byte = np.int64(data[i])
            if byte < 0x80:
                code = byte
                i += 1
            elif byte < 0xE0:
                code = (byte & 31) << 6 | (np.int64(data[i + 1]) & 63) if i + 1 < end else np.int64(0)
                i += 2
            elif byte < 0xF0:
                code = np.int64(0)
                if i + 2 < end:
                    code = (
                        (byte & 15) << 12 | (np.int64(data[i + 1]) & 63) << 6 | (np.int64(data[i + 2]) & 63)
                    )
                i += 3
            else:
                code = np.int64(0)
                if i + 3 < end:
                    code = (byte & 7) << 18 | (np.int64(data[i + 1]) & 63) << 12
                    code |= (np.int64(data[i + 2]) & 63) << 6 | (np.int64(data[i + 3]) & 63)
                i += 4
            kind = kinds[code] if code < len(kinds) else 0
            if kind == 2 or (kind == 5 and last == 5):
                found += state != 2
                state = 2
            elif kind == 1:
                state = max(state, 1)
            elif kind == 4:
                if state == 1:
                    found += 1
                    state = 2
            elif kind == 0 or kind == 5:
                state = 0
            last = kind
        if state == 1:
            found += 1
        out[row] = found
