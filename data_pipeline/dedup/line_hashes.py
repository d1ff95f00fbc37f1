"""Lines and paragraphs of documents as 64-bit hashes of their normalised form, from UTF-8 in one compiled pass.

Normalised after CCNet (Wenzek et al. 2020, section 3.1): lower case, every digit is 0, no accents, no punctuation or
symbols, one space for white space. A line without a letter, a very short one, a line of code, and a row of a table have no
hash: equal ones say nothing about boilerplate, and taking them out would break what they are part of.

Shapes: d documents, u units (lines or paragraphs; empty lines count as units of their own).
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from itertools import pairwise

import numba
import numpy as np
import pyarrow as pa

from data_pipeline.compiled import kernel
from data_pipeline.kernels.hashing import OFFSET, mix

BLANK, TEXT, EXEMPT = 0, 1, 2
MAX_UNITS = 1 << 21
"""Lines of a document that is not looked at: no text has as many, and every line takes 40 bytes of memory."""
_LETTER = np.uint32(1 << 31)
_SPACE = np.uint32(1)
_BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
_I64, _U64, _U8 = numba.int64, numba.uint64, numba.uint8


@dataclass(frozen=True)
class Units:
    """Lines or paragraphs of d documents, in order."""

    hash: np.ndarray
    """uint64 [u]; 0 where the unit has none."""
    kind: np.ndarray
    """uint8 [u]: BLANK, TEXT (has a hash), or EXEMPT."""
    start: np.ndarray
    """int64 [u]: first code point, counted in the document."""
    end: np.ndarray
    """int64 [u]: one past the last code point, without the line feed."""
    document: np.ndarray
    """int64 [u]: index of the document, ascending."""

    def __len__(self) -> int:
        return len(self.hash)


@functools.cache
def _characters() -> np.ndarray:
    """uint32 [65536]: what a character becomes: 0 nothing, 1 a space, else a code point with bit 31 for letters."""
    table = np.zeros(1 << 16, np.uint32)
    for code in range(1 << 16):
        character = chr(code)
        category = unicodedata.category(character)
        if category[0] == "Z" or character in "\t\n\r\v\f\x85":
            table[code] = _SPACE
        elif category == "Nd":
            table[code] = ord("0")
        elif category[0] in "LN" or (category[0] == "M" and not 0x300 <= code < 0x370):
            base = unicodedata.normalize("NFD", character)
            plain = (
                base[0] if len(base) > 1 and all("\u0300" <= c < "\u0370" for c in base[1:]) else character
            )
            table[code] = ord(plain.lower()[0]) | int(_LETTER)
    return table


def units(texts: pa.Array, by_paragraph: bool, shortest: int = 0) -> Units:
    """The lines of texts, or their paragraphs (lines that no empty line parts); none of texts of `MAX_UNITS` lines.

    Args:
        shortest: characters of the normal form from which a unit has a hash; an ideograph counts as three.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    texts = texts.cast(pa.large_string()).fill_null("")
    _, offsets, values = texts.buffers()
    ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(values, np.uint8) if values is not None else np.zeros(0, np.uint8)
    breaks = np.array([np.count_nonzero(data[a:b] == 10) for a, b in pairwise(ends.tolist())], np.int64)
    endless = breaks >= MAX_UNITS
    n = int(breaks[~endless].sum()) + len(texts)
    found = Units(*(np.empty(n, kind) for kind in (np.uint64, np.uint8, np.int64, np.int64, np.int64)))
    sizes = np.empty(n, np.int64)
    used = _lines(
        data,
        ends,
        endless,
        _characters(),
        found.hash,
        found.kind,
        found.start,
        found.end,
        found.document,
        sizes,
    )
    if by_paragraph:
        used = _paragraphs(used, found.hash, found.kind, found.start, found.end, found.document, sizes)
    short = (found.kind[:used] == TEXT) & (sizes[:used] < shortest)
    found.kind[:used][short] = EXEMPT
    found.hash[:used][short] = 0
    return Units(*(getattr(found, name)[:used] for name in ("hash", "kind", "start", "end", "document")))


@kernel(_I64(_BYTES, numba.types.Array(_I64, 1, "C", readonly=True), numba.boolean[::1], numba.uint32[::1],
         _U64[::1], _U8[::1], _I64[::1],
         _I64[::1], _I64[::1], _I64[::1]))  # fmt: skip
def _lines(data, ends, endless, table, hashes, kinds, starts, stops, documents, sizes):  # type: ignore[no-untyped-def]
    used = 0
    for document in range(len(ends) - 1):
        i, end = ends[document], ends[document + 1]
        if i == end or endless[document]:
            continue
        place = 0  # code points of the document so far
        fenced = False
        code_before = True  # the line before is empty, or code: only then does an indented line begin code
        while i <= end:
            # One line: from i to the next line feed, or to the end.
            first = place
            h = OFFSET
            letters, space, written, size = False, False, False, 0
            indent, head, head_2, head_3, head_n = 0, np.uint32(0), np.uint32(0), np.uint32(0), 0
            while i < end:
                c = np.uint32(data[i])
                i += 1
                if c >= 0x80:
                    # Arrow's strings are valid UTF-8.
                    if c < 0xE0:
                        c = ((c & np.uint32(0x1F)) << np.uint32(6)) | (np.uint32(data[i]) & np.uint32(0x3F))
                        i += 1
                    elif c < 0xF0:
                        c = (
                            ((c & np.uint32(0x0F)) << np.uint32(12))
                            | ((np.uint32(data[i]) & np.uint32(0x3F)) << np.uint32(6))
                            | (np.uint32(data[i + 1]) & np.uint32(0x3F))
                        )
                        i += 2
                    else:
                        c = (
                            ((c & np.uint32(0x07)) << np.uint32(18))
                            | ((np.uint32(data[i]) & np.uint32(0x3F)) << np.uint32(12))
                            | ((np.uint32(data[i + 1]) & np.uint32(0x3F)) << np.uint32(6))
                            | (np.uint32(data[i + 2]) & np.uint32(0x3F))
                        )
                        i += 3
                elif c == 10:
                    i -= 1
                    break
                place += 1
                if c < 0x10000:
                    m = table[c]
                elif 0x1F000 <= c < 0x1FC00:  # pictures
                    m = np.uint32(0)
                else:
                    m = c | np.uint32(1 << 31)
                if m == 1:
                    space = True
                    if head_n == 0:
                        indent += 4 if c == 9 else 1
                    continue
                if head_n < 3:
                    if head_n == 0:
                        head = c
                    elif head_n == 1:
                        head_2 = c
                    else:
                        head_3 = c
                    head_n += 1
                if m == 0:
                    continue
                size += 3 if c >= 0x2E80 else 1
                if space and written:
                    size += 1
                    h = (h ^ np.uint64(32)) * np.uint64(0xD6E8FEB86659FD93)
                    h ^= h >> np.uint64(32)
                space = False
                written = True
                if m >= np.uint32(1 << 31):
                    letters = True
                h = (h ^ np.uint64(m)) * np.uint64(0xD6E8FEB86659FD93)
                h ^= h >> np.uint64(32)
            fence = head_n == 3 and head == head_2 and head == head_3 and (head == 96 or head == 126)
            kind = 2
            if head_n == 0:
                kind = 0
            elif fence:
                fenced = not fenced
                code_before = True
            elif fenced or head == 124:  # a row of a table
                code_before = False
            elif indent >= 4 and code_before and not (head == 45 or head == 42 or head == 43 or head == 8226):
                code_before = True
            else:
                code_before = False
                if letters:
                    kind = 1
            if kind == 0:
                code_before = True
            hashes[used] = np.uint64(0)
            if kind == 1:
                h = mix(h)
                hashes[used] = h if h != 0 else np.uint64(1)
            kinds[used] = kind
            starts[used] = first
            stops[used] = place
            documents[used] = document
            sizes[used] = size
            used += 1
            i += 1  # the line feed
            place += 1
            if i > end or (i == end and data[end - 1] == 10):
                break
    return used


@kernel(_I64(_I64, _U64[::1], _U8[::1], _I64[::1], _I64[::1], _I64[::1], _I64[::1]))
def _paragraphs(used, hashes, kinds, starts, stops, documents, sizes):  # type: ignore[no-untyped-def]
    """Join neighbouring lines that are not empty, in place; how many units there are then."""
    joined = 0
    for i in range(used):
        inside = (
            joined > 0
            and kinds[i] != 0
            and kinds[joined - 1] != 0
            and documents[i] == documents[joined - 1]
            and i > 0
            and kinds[i - 1] != 0
        )
        if inside:
            last = joined - 1
            stops[last] = stops[i]
            sizes[last] += sizes[i]
            if kinds[last] == 1 and kinds[i] == 1:
                # `mix` without its second multiplication.
                h = (hashes[last] * np.uint64(0x9E3779B97F4A7C15)) ^ hashes[i]
                h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                h ^= h >> np.uint64(31)
                hashes[last] = h if h != 0 else np.uint64(1)
            else:
                kinds[last] = 2
                hashes[last] = 0
        else:
            hashes[joined], kinds[joined], sizes[joined] = hashes[i], kinds[i], sizes[i]
            starts[joined], stops[joined], documents[joined] = starts[i], stops[i], documents[i]
            joined += 1
    return joined
