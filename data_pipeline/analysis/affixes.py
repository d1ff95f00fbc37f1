"""What is split off either end of a piece, and where it is cut inside: rules of spaCy for English (Honnibal et al.)."""

from __future__ import annotations

from numba import int64, uint32

from data_pipeline.analysis.characters import (
    AFFIX,
    DIGIT,
    ICON,
    LETTER,
    LOWER_LETTER,
    PREFIX,
    QUOTE,
    STOP_BEFORE,
    UPPER_LETTER,
)
from data_pipeline.compiled import small_subroutine
from data_pipeline.kernels.ascii import (
    APOSTROPHE,
    ASTERISK,
    CARET,
    COLON,
    COMMA,
    DOLLAR,
    DOT,
    EQUALS,
    GT,
    HYPHEN,
    LT,
    PLUS,
    SLASH,
    TILDE,
)

ELLIPSIS, EN_DASH, EM_DASH = ord("…"), ord("–"), ord("—")
RIGHT_QUOTE, DEGREE = ord("’"), ord("°")
UPPER_U, UPPER_S, LOWER_S = ord("U"), ord("S"), ord("s")
UPPER_A, UPPER_C, UPPER_F, UPPER_K = ord("A"), ord("C"), ord("F"), ord("K")
MAX_UNIT = 4
"""Characters of a unit behind a number."""


@small_subroutine
def _repeats(cps, i, end, c):
    """How often a character stands in a row from `i` on."""
    n = 0
    while i + n < end and cps[i + n] == c:
        n += 1
    return n


@small_subroutine
def prefix_length(cps, flags, begin, end):
    """Length of the prefix of a piece, or 0: punctuation, `...`, a plus sign before no digit, `US$ A$ C$`."""
    c = cps[begin]
    if flags[c] & PREFIX:
        return 1
    if c == DOT:
        n = _repeats(cps, begin, end, DOT)
        return n if n > 1 else 0
    if c == PLUS:
        return 0 if begin + 1 < end and flags[cps[begin + 1]] & DIGIT else 1
    if c == UPPER_U and begin + 2 < end and cps[begin + 1] == UPPER_S and cps[begin + 2] == DOLLAR:
        return 3
    if (c in (UPPER_A, UPPER_C)) and begin + 1 < end and cps[begin + 1] == DOLLAR:
        return 2
    return 0


@small_subroutine
def _final_dots(cps, flags, begin, end):
    """Length of the full stops that are split off the end of a piece, or 0: of several all, of one by what is before it.

    It stays with abbreviations (`e.g.`): a letter in upper case counts as one unless another is before it.
    """
    n = 1
    while end - n - 1 >= begin and cps[end - n - 1] == DOT:
        n += 1
    if n > 1:
        return n
    if end - 2 < begin:
        return 0
    last = cps[end - 2]
    if flags[last] & STOP_BEFORE:
        return 1
    if end - 3 < begin:
        return 0
    before = cps[end - 3]
    if flags[last] & UPPER_LETTER and flags[before] & UPPER_LETTER:
        return 1
    return 1 if before == DEGREE and (last in (UPPER_C, UPPER_F, UPPER_K)) else 0


@small_subroutine
def suffix_length(cps, flags, begin, end):
    """Length of the suffix of a piece that its characters alone decide, or 0; units: `is_before_unit`."""
    if end <= begin:
        return 0
    c = cps[end - 1]
    if c == DOT:
        return _final_dots(cps, flags, begin, end)
    if flags[c] & AFFIX:
        return 2 if c == ELLIPSIS and end - 2 >= begin and cps[end - 2] == ELLIPSIS else 1
    if end - 2 < begin:
        return 0
    previous = cps[end - 2]
    if (c in (LOWER_S, UPPER_S)) and (previous in (APOSTROPHE, RIGHT_QUOTE)):
        return 2
    return 1 if c == PLUS and flags[previous] & DIGIT else 0


@small_subroutine
def unit_length(cps, flags, begin, end):
    """Characters behind the last digit of a piece, which may be a unit; 0: none, or more than a unit has."""
    if end - 2 < begin or flags[cps[end - 1]] & (AFFIX | DIGIT) or cps[end - 1] in (DOT, PLUS):
        return 0
    for n in range(1, MAX_UNIT + 1):
        if end - n - 1 < begin:
            return 0
        if flags[cps[end - n - 1]] & DIGIT:
            return n
    return 0


@small_subroutine
def infix_length(cps, flags, begin, end, i):
    """Length of the infix at `i` of a piece, or 0; letters and digits are none, which callers know."""
    c = cps[i]
    f = flags[c]
    if f & LETTER:
        return 0
    if f & ICON or c == ELLIPSIS:
        return 1
    before = flags[cps[i - 1]] if i > begin else uint32(0)
    after = flags[cps[i + 1]] if i + 1 < end else uint32(0)
    if c == DOT:
        n = _repeats(cps, i, end, DOT)
        if n > 1:
            return n
        return 1 if before & (LOWER_LETTER | QUOTE) and after & (UPPER_LETTER | QUOTE) else 0
    if c in (PLUS, HYPHEN, ASTERISK, CARET):
        follows_digit = before & DIGIT and i + 1 < end
        if follows_digit and (after & DIGIT or cps[i + 1] == HYPHEN):
            return 1
    if c == COMMA:
        return 1 if before & LETTER and after & LETTER else 0
    if not before & (LETTER | DIGIT):
        return 0
    if c in (HYPHEN, EN_DASH, EM_DASH, TILDE):
        return _dash_length(cps, flags, end, i)
    if c in (COLON, LT, EQUALS, GT, SLASH):
        return 1 if after & LETTER else 0
    return 0


@small_subroutine
def _dash_length(cps, flags, end, i):
    """Length of a dash that a letter follows, or 0: one of any kind, two or three hyphens, two em dashes."""
    c = cps[i]
    most = 3 if c == HYPHEN else 2 if c == EM_DASH else 1
    n = int64(1)
    while n < most and i + n < end and cps[i + n] == c:
        n += 1
    return n if i + n < end and flags[cps[i + n]] & LETTER else 0
