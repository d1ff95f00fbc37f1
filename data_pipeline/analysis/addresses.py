"""Which pieces of text are addresses: URLs, host names, e-mail addresses. Their words are not cut at infixes."""

from __future__ import annotations

from numba import boolean, int64, uint32

from data_pipeline.analysis.characters import DIGIT, HOST, LOWER_LETTER, WORD
from data_pipeline.compiled import small, small_subroutine
from data_pipeline.kernels.ascii import AT, COLON, DOT, HASH, HYPHEN, PLUS, QUESTION, SLASH, UNDERSCORE, ZERO

MAX_LABEL, MAX_TOP_LEVEL = 64, 63
"""Characters of a label of a host name, of its last one."""
MIN_PORT, MAX_PORT = 2, 5
"""Digits of a port."""
MAX_AT_SIGNS = 4
"""At-signs that are tried, from the end: more are no address, and would take quadratic time."""


@small_subroutine
def _is_public_ipv4(cps, flags, begin, end):
    """Whether four numbers between full stops are an address outside of 10/8, 127/8 and multicast, and no network."""
    value, first, digits = 0, 0, 0
    for k in range(begin, end + 1):
        if k == end or cps[k] == DOT:
            if value > 255 or digits == 0 or (k == end and value == 0):
                return False
            if first == 0:
                first = value
                if value > 223 or value == 10 or value == 127:
                    return False
            value, digits = 0, 0
        elif flags[cps[k]] & DIGIT:
            value = value * 10 + int64(cps[k]) - ZERO
            digits += 1
            if digits > 3:
                return False
        else:
            return False
    return True


@small_subroutine
def _ends_address(cps, flags, i, end):
    """Whether a port, a path or nothing follows the host of an address."""
    if i < end and cps[i] == COLON:
        digits = 0
        while i + 1 + digits < end and flags[cps[i + 1 + digits]] & DIGIT:
            digits += 1
        if digits < MIN_PORT or digits > MAX_PORT:
            return False
        i += 1 + digits
    return i == end or cps[i] == SLASH or cps[i] == QUESTION or cps[i] == HASH


@small(boolean(uint32[::1], uint32[::1], int64, int64))
def _is_host(cps, flags, begin, end):
    """Whether the characters are a host, by name or IPv4 address, with an optional port and path."""
    label, labels, i = begin, 0, begin
    while i < end:
        if cps[i] == DOT:
            if i == label or i - label > MAX_LABEL or not flags[cps[label]] & flags[cps[i - 1]] & HOST:
                return False
            labels += 1
            label = i + 1
        elif not (flags[cps[i]] & HOST or cps[i] == HYPHEN or cps[i] == UNDERSCORE):
            break
        i += 1
    if labels == 0 or i == label:
        return False
    is_lower, digits = True, 0
    for k in range(label, i):
        is_lower = is_lower and flags[cps[k]] & LOWER_LETTER != 0
        digits += flags[cps[k]] & DIGIT != 0
    if is_lower:
        return 2 <= i - label <= MAX_TOP_LEVEL and _ends_address(cps, flags, i, end)
    if labels != 3 or digits != i - label or cps[begin] == ZERO:
        return False
    return _is_public_ipv4(cps, flags, begin, i) and _ends_address(cps, flags, i, end)


@small(boolean(uint32[::1], uint32[::1], int64, int64))
def is_address(cps, flags, begin, end):
    """Whether a piece is a URL, a host name or an e-mail address."""
    if _is_host(cps, flags, begin, end):
        return True
    i = begin
    while i < end and (flags[cps[i]] & WORD or cps[i] == HYPHEN or cps[i] == DOT or cps[i] == PLUS):
        i += 1
    has_scheme = (
        i - begin >= 2 and i + 2 < end and cps[i] == COLON and cps[i + 1] == SLASH and cps[i + 2] == SLASH
    )
    if has_scheme and _is_host(cps, flags, i + 3, end):
        return True
    tried = 0
    for k in range(end - 2, begin, -1):
        if cps[k] == AT:
            if _is_host(cps, flags, k + 1, end):
                return True
            tried += 1
            if tried == MAX_AT_SIGNS:
                break
    return False
