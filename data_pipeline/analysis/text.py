# mypy: disable-error-code="assignment"
"""UTF-8 to code points, and what is counted character by character: classes, lines, pieces between white space."""

from __future__ import annotations

from numba import int64, uint32

from data_pipeline.analysis.characters import (
    ALNUM,
    ALPHA,
    BREAK,
    DECIMAL,
    ENCODED,
    SPACE,
    TERMINAL,
    UNSPACED,
)
from data_pipeline.compiled import small

COUNTS = (
    "alnum",
    "decimal",
    "space",
    "non_ascii",
    "encoded",
    "replaced",
    "hashes",
    "ellipses",
    "newlines",
    "spaced",
    "alpha_spaced",
    "lines",
    "filled",
    "filled_chars",
    "longest",
    "bullets",
    "ellipsis_lines",
    "third_longest",
    "fw_lines",
    "fw_punct",
    "fw_short",
)
"""Columns of `count`; `spaced`: words that white space separates (below), `filled`: lines that hold more than white space,
`fw_`: those between line feeds alone, with sentence punctuation at the end, of at most 30 characters.

Of scripts without spaces each letter is a word of `spaced`, and so is what lies between them and holds a letter or a digit.
Marks that text extractors write are none: `-` or a number with a full stop at the beginning of a line, `|` alone."""
SHORT_LINE = 30
ENCODED_RUN = 120


@small("int64(uint8[::1], int64[::1], uint32[::1], int64[::1])")
def decode(data, offsets, cps, bounds):
    """Code points of UTF-8 texts; the number of them. Surrogates pass, anything malformed becomes U+FFFD.

    Args:
        data: uint8, the texts one behind another; `offsets`: int64 [d + 1], where they begin.
        cps: uint32, at least as long as `data`, written; `bounds`: int64 [d + 1], where texts begin in it, written.
    """
    n = 0
    bounds[0] = 0
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        while i < end:
            c = uint32(data[i])
            if c < 0x80:
                cps[n] = c
                i += 1
                n += 1
                continue
            size = 4 if c >= 0xF0 else 3 if c >= 0xE0 else 2 if c >= 0xC0 else 0
            value = c & uint32(0x7F >> size)
            good = size > 0 and i + size <= end
            if good:
                for k in range(1, size):
                    follow = uint32(data[i + k])
                    good = good and follow & 0xC0 == 0x80
                    value = (value << uint32(6)) | (follow & uint32(0x3F))
            if good and value <= 0x10FFFF:
                cps[n] = value
                i += size
            else:
                cps[n] = 0xFFFD
                i += 1
            n += 1
        bounds[d + 1] = n
    return n


@small("boolean(uint32[::1], uint32[::1], int64, int64, int64)", inline=True)
def _is_markup(cps, flags, a, b, first):
    """Whether the piece from `a` to `b` is a mark of an extractor, in a line whose first character stands at `first`."""
    if b - a == 1:
        return cps[a] == 0x7C or (cps[a] == 0x2D and a == first)
    if a != first or b - a > 5 or cps[b - 1] != 0x2E:
        return False
    k = a
    while k < b - 1 and flags[cps[k]] & DECIMAL:
        k += 1
    return k == b - 1


@small("void(uint32[::1], int64[::1], uint32[::1], int64[:, ::1])")
def count(cps, bounds, flags, out):
    """Count into `out` [d, len(COUNTS)]."""
    for d in range(len(bounds) - 1):
        a, b = bounds[d], bounds[d + 1]
        alnum = decimal = space = non_ascii = encoded = replaced = hashes = ellipses = newlines = 0
        run = dots = 0
        spaced = alpha_spaced = 0
        # The piece since the last space or unspaced letter: whether and where it began, and whether that was a letter.
        inside = holds_letter = holds_alnum = glued = False
        piece = a
        lines = filled = filled_chars = longest = bullets = ellipsis_lines = 0
        # Of lines by any line break: where the line began, its first and last characters that are no space.
        line, first, last = a, int64(-1), int64(-1)
        # Of lines by line feeds: the three longest, and FineWeb's.
        feed, feed_filled = a, False
        top_1 = top_2 = top_3 = int64(-1)
        fw_lines = fw_punct = fw_short = 0
        for i in range(a, b + 1):
            c = cps[i] if i < b else uint32(10)
            f = flags[c]
            if f & ALNUM:  # most characters: nothing else holds for them
                alnum += 1
                decimal += f & DECIMAL != 0
                non_ascii += c >= 128
                if f & ENCODED:
                    run += 1
                elif run:
                    encoded += run if run >= ENCODED_RUN else 0
                    run = 0
                if dots:
                    ellipses += dots // 3
                    dots = 0
                last = i
                if first < 0:
                    first = i
                feed_filled = True
                if f & UNSPACED and f & ALPHA:
                    spaced += 1 + holds_alnum
                    alpha_spaced += 1 + holds_letter
                    inside = holds_letter = holds_alnum = False
                    glued = True
                    continue
                if not inside:
                    piece = i
                inside = holds_alnum = True
                holds_letter = holds_letter or f & ALPHA != 0
                continue
            if i < b:
                space += f & SPACE != 0
                non_ascii += c >= 128
                replaced += c == 0xFFFD
                hashes += c == 0x23
                newlines += c == 10
            if f & ENCODED and i < b:
                run += 1
            else:
                if run >= ENCODED_RUN:
                    encoded += run
                run = 0
            if c == 0x2E:
                dots += 1
            else:
                ellipses += dots // 3 + (c == 0x2026)
                dots = 0
            if f & SPACE:
                if inside and (holds_alnum if glued else not _is_markup(cps, flags, piece, i, first)):
                    spaced += 1
                    alpha_spaced += holds_letter
                inside = holds_letter = holds_alnum = glued = False
            else:
                if not inside:
                    piece = i
                inside = True
                feed_filled = True
                last = i
                if first < 0:
                    first = i
            if f & BREAK or i == b:
                # CR LF is one break, and the end of a text ends a line only where one was begun.
                if not (c == 10 and i > a and i < b and cps[i - 1] == 13) and not (i == b and line >= b):
                    lines += 1
                    if first >= 0:
                        filled += 1
                        filled_chars += i - line
                        longest = max(longest, i - line)
                        bullets += cps[first] == 0x2022 or cps[first] == 0x2D
                        if cps[last] == 0x2026:
                            ellipsis_lines += 1
                        elif cps[last] == 0x2E and last - 2 >= line:
                            ellipsis_lines += cps[last - 1] == 0x2E and cps[last - 2] == 0x2E
                line, first = i + 1, int64(-1)
            if c == 10:
                size = i - feed
                if size > top_1:
                    top_1, top_2, top_3 = size, top_1, top_2
                elif size > top_2:
                    top_2, top_3 = size, top_2
                elif size > top_3:
                    top_3 = size
                if feed_filled:
                    fw_lines += 1
                    fw_punct += flags[cps[i - 1]] & TERMINAL != 0
                    fw_short += size <= SHORT_LINE
                feed, feed_filled = i + 1, False
        row = out[d]
        # In the order of COUNTS.
        row[0], row[1], row[2], row[3], row[4], row[5] = alnum, decimal, space, non_ascii, encoded, replaced
        row[6], row[7], row[8], row[9], row[10] = hashes, ellipses, newlines, spaced, alpha_spaced
        row[11], row[12], row[13], row[14], row[15] = lines, filled, filled_chars, longest, bullets
        row[16], row[17] = ellipsis_lines, max(top_3, int64(0))
        row[18], row[19], row[20] = fw_lines, fw_punct, fw_short
