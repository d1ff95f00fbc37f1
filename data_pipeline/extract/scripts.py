"""Superscripts and subscripts in plain text: `10^6`, `x_i`, `1 1/2`, and footnote marks that do not touch numbers.

Plain text loses the height of a letter. Exponents get `^`, indices `_`, in brackets where they are more than a number or a
name; ordinals (1st, XXe), chemical formulas and units stay joined. A bare number above a word, a year or a full stop, or
one that links into a page, is the mark of a footnote and is left out; marks in brackets stay. Compiled with the parser.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.compiled import subroutine
from data_pipeline.extract import tags
from data_pipeline.extract.markup import BASIS, PRIME, reference

MAX_SCRIPT_BYTES = 240
"""Bytes of a script's content that are looked at; longer content is ordinary text."""
MAX_NOTE = 4
"""Characters of a footnote mark."""
JOINED, RAISED, BRACKETED, NOTE, APART = range(5)
"""How a script is written: as it stands, behind `^` or `_`, the same in brackets, not at all, behind a space."""
# What a script holds, see `_content`.
_DIGITS, _LETTERS, _SIGNS, _OTHERS, _TAGS, _FRAGMENT, _FIRST, _STOP, _GREEK = range(9)
_FUNCTIONS = "sin cos tan cot sec csc log exp det sinh cosh tanh"
_UNITS = "inch feet foot yard mile meter metre unit"
_NOT_WORDS = np.array(sorted(tags.fnv(word) for word in f"{_FUNCTIONS} {_UNITS}".split()), np.int64)
"""Functions and units, whose raised numbers are exponents."""


@subroutine
def _content(data, start, p, n, names, points, cp1252, found):
    """Fill `found` int64 [9] with what stands between p and the next end tag of the element that starts at `start`.

    Two letters tell end tags apart; the position of the end is -1 where that is too far.
    """
    found[:] = 0
    found[_STOP] = -1
    second = data[start + 2] | 32
    q = p
    limit = min(n, p + MAX_SCRIPT_BYTES)
    while q < limit:
        c = np.int64(data[q])
        if c == 60:
            if (
                q + 3 < n
                and data[q + 1] == 47
                and (data[q + 2] | 32) == (data[start + 1] | 32)
                and ((data[q + 3] | 32) == second or (not 97 <= second <= 122 and data[q + 3] <= 62))
            ):
                found[_STOP] = q
                return
            found[_TAGS] += 1
            while q < limit and data[q] != 62:
                if data[q] == 35:
                    found[_FRAGMENT] = 1
                q += 1
            q += 1
            continue
        q += 1
        if c == 38:
            point, _, behind = reference(data, q, n, names, points, cp1252)
            if point >= 0:
                c, q = np.int64(point), behind
                found[_GREEK] += 0x370 <= c < 0x400
        elif c >= 0xC0:  # one code point
            if c == 0xE2 and q + 1 < n and data[q] == 0x88 and data[q + 1] == 0x92:
                c = np.int64(0x2212)
            else:
                found[_GREEK] += c == 0xCE or c == 0xCF
                c = np.int64(0xC0)
            while q < n and (data[q] & 0xC0) == 0x80:
                q += 1
        if not found[_FIRST]:
            found[_FIRST] = c
        if 48 <= c <= 57:
            found[_DIGITS] += 1
        elif 97 <= (c | 32) <= 122 or c == 0xC0 or 0xC0 < c < 0x2000:
            found[_LETTERS] += 1
        elif c == 43 or c == 45 or c == 0x2212 or c == 0x2013 or c == 0xB1:  # + - − – ±
            found[_SIGNS] += 1
        else:
            found[_OTHERS] += 1


@subroutine
def _before(out, begin, end):
    """What a script is joined to: (letters, digits) of the run before it, hash of the letters, the last byte."""
    q = end
    letters = digits = 0
    while q > begin and letters < 24 and (97 <= (out[q - 1] | 32) <= 122 or out[q - 1] >= 128):
        q -= 1
        if (out[q] & 0xC0) != 0x80:
            letters += 2 if 0xE3 <= out[q] <= 0xED else 1  # an ideograph is as long as two letters
    h = BASIS
    for k in range(q, end):
        c = np.int64(out[k])
        h = ((h ^ (c + 32 if 65 <= c <= 90 else c)) * PRIME) & 0xFFFFFFFF  # type: ignore[assignment]
    if not letters:
        while q > begin and digits < 24 and 48 <= out[q - 1] <= 57:
            q -= 1
            digits += 1
    return letters, digits, h, np.int64(out[end - 1])


@subroutine
def _is_fraction(data, p, n):
    """Whether a fraction bar and a subscript follow the end tag at p."""
    while p < n and data[p] != 62:
        p += 1
    p += 1
    limit = min(n, p + 40)
    bar = False
    while p < limit:
        c = data[p]
        if c == 47:
            bar = True
        elif c == 0xE2 and p + 2 < n and data[p + 1] == 0x81 and data[p + 2] == 0x84:
            bar = True
            p += 2
        elif c == 38:  # &frasl; &#8260; &#x2044;
            bar = True
            while p < limit and data[p] != 59:
                p += 1
        elif c == 60:
            if bar and p + 3 < n and (data[p + 1] | 32) == 115 and (data[p + 2] | 32) == 117:
                return (data[p + 3] | 32) == 98
            while p < limit and data[p] != 62:
                p += 1
        elif c > 32:
            return False
        p += 1
    return False


@subroutine
def _is_referring(data, start, p):
    """Whether a start tag names itself a note or a reference."""
    for q in range(start, min(p - 4, start + MAX_SCRIPT_BYTES)):
        a, b, c, d = data[q] | 32, data[q + 1] | 32, data[q + 2] | 32, data[q + 3] | 32
        if a == 110 and b == 111 and c == 116 and d == 101:  # note
            return True
        if a == 114 and b == 101 and c == 102 and d == 101:  # refe(rence)
            return True
    return False


@subroutine
def superscript(data, start, p, n, begin, out, end, in_link, names, points, cp1252):
    """(form, end of the content) of a `sup` whose tag starts at `start` and ends before p, joined to out[begin:end]."""
    found = np.zeros(9, np.int64)
    _content(data, start, p, n, names, points, cp1252, found)
    stop = found[_STOP]
    length = found[_DIGITS] + found[_LETTERS] + found[_SIGNS] + found[_OTHERS]
    if stop < 0 or not length or end <= begin:
        return JOINED, stop
    letters, digits, h, last = _before(out, begin, end)
    number = found[_DIGITS] == length
    if number and _is_fraction(data, stop, n):
        return (APART if digits else JOINED), stop
    if found[_OTHERS] == 0 and found[_SIGNS] == 0 and length <= MAX_NOTE:
        if found[_FRAGMENT] or in_link or _is_referring(data, start, p):
            return NOTE, stop
        if number and length < MAX_NOTE:
            year = digits == 4 and (
                out[end - 4] == 49 or (out[end - 4] == 50 and (out[end - 3] == 48 or out[end - 3] == 49))
            )
            word = letters >= 4 or (letters == 3 and length == 1)
            if word:
                for k in range(len(_NOT_WORDS)):
                    word = word and _NOT_WORDS[k] != h
            ends = not letters and not digits and last != 93
            if last == 41:  # after a bracket: of words, or of a formula
                inner, _, _, _ = _before(out, begin, end - 1) if end - 1 > begin else (0, 0, BASIS, 0)
                ends = inner >= 4
            if year or word or ends:
                return NOTE, stop
    if not letters and not digits and last != 41 and last != 93:
        return JOINED, stop
    first = found[_FIRST]
    signed = first == 43 or first == 45 or first == 0x2212 or first == 0x2013
    if number or (signed and found[_DIGITS] + found[_SIGNS] == length and found[_SIGNS] == 1):
        return RAISED, stop
    if found[_OTHERS] and not found[_DIGITS] and not found[_SIGNS]:
        return JOINED, stop
    if (
        found[_GREEK] and found[_LETTERS] == length and letters == 1 and last < 128
    ):  # a formula, no ordinal of Greek
        return (RAISED if length == 1 else BRACKETED if found[_TAGS] == 0 else JOINED), stop
    if found[_LETTERS] == length:
        variable = length == 1 and (
            first == 84 or 105 <= first <= 107 or first == 109 or first == 110 or 112 <= first <= 113
            or 120 <= first <= 122
        )  # fmt: skip
        return (RAISED if variable and letters < 2 else JOINED), stop
    if (
        first == 91
        or first == 40
        or (found[_DIGITS] and found[_LETTERS] and not found[_SIGNS] and letters > 1)
    ):
        return JOINED, stop
    return (BRACKETED if found[_TAGS] == 0 else RAISED), stop


@subroutine
def subscript(data, start, p, n, begin, out, end, names, points, cp1252):
    """(form, end of the content) of a `sub` whose tag starts at `start` and ends before p, joined to out[begin:end]."""
    found = np.zeros(9, np.int64)
    _content(data, start, p, n, names, points, cp1252, found)
    stop = found[_STOP]
    length = found[_DIGITS] + found[_LETTERS] + found[_SIGNS] + found[_OTHERS]
    if stop < 0 or not length or end <= begin or found[_OTHERS]:
        return JOINED, stop
    letters, digits, _, last = _before(out, begin, end)
    bar = last == 0x84 and end >= begin + 3 and out[end - 3] == 0xE2  # ⁄
    single = letters == 1 and not bar
    capital = 65 <= last <= 90
    if not digits and not (single and (not capital or found[_LETTERS])):
        return JOINED, stop
    if found[_SIGNS] and length > 1:
        return (BRACKETED if found[_TAGS] == 0 else RAISED), stop
    return RAISED, stop
