# mypy: disable-error-code="no-untyped-def"
"""Addresses of machines in UTF-8: IPv4, IPv6, and which of them may belong to somebody.

Positions are in bytes; 0 means that nothing was found.
"""

from __future__ import annotations

from data_pipeline.annotate.privacy_tables import DIGIT, HEX, LOWER, UPPER
from data_pipeline.compiled import subroutine
from data_pipeline.kernels.ascii import CASE_BIT, COLON, DOT, HYPHEN, LOWER_A, NINE, UNDERSCORE, ZERO


@subroutine
def ipv4(data, low, high, i, cls):
    """End of four numbers from 0 to 255 between dots, and those numbers; 0 where there are none."""
    octets = 0
    k = i
    for part in range(4):
        value, n = 0, 0
        first = k
        while k < high and cls[data[k]] & DIGIT and n < 4:
            value = value * 10 + data[k] - ZERO
            k += 1
            n += 1
        if n == 0 or n > 3 or value > 255 or (n > 1 and data[first] == ZERO):
            return 0, 0
        octets = octets * 256 + value
        if part < 3:
            if k >= high or data[k] != DOT:
                return 0, 0
            k += 1
    if k < high and (cls[data[k]] & (DIGIT | UPPER | LOWER) or data[k] == UNDERSCORE):
        return 0, 0
    if k + 1 < high and (data[k] == DOT or data[k] == HYPHEN) and cls[data[k + 1]] & (DIGIT | UPPER | LOWER):
        return 0, 0
    return k, octets


@subroutine
def is_public(octets):
    """Whether an IPv4 address may belong to somebody (RFC 6890)."""
    a, b, c = octets >> 24, octets >> 16 & 255, octets >> 8 & 255
    if a == 0 or a == 10 or a == 127 or a >= 224:
        return False
    if (a == 100 and 64 <= b < 128) or (a == 169 and b == 254) or (a == 172 and 16 <= b < 32):
        return False
    if a == 192 and (b == 168 or (b == 0 and (c == 0 or c == 2)) or (b == 88 and c == 99)):
        return False
    return not (
        (a == 198 and (18 <= b <= 19 or (b == 51 and c == 100))) or (a == 203 and b == 0 and c == 113)
    )


@subroutine
def ipv6(data, low, high, i, cls):
    """End of a global unicast IPv6 address (2000::/3 without documentation) that begins at `i`; 0: none."""
    groups, size, doubled, value = 0, 0, False, 0
    first = second = 0
    k = i
    end = 0
    while k < high and k - i < 40:
        c = data[k]
        if cls[c] & HEX:
            digit = c - ZERO if c <= NINE else (c | CASE_BIT) - LOWER_A + 10
            value = value * 16 + digit
            size += 1
            if size > 4:
                return 0
            k += 1
            end = k
            continue
        if c != COLON:
            break
        if size:
            groups += 1
            first = value if groups == 1 else first
            second = value if groups == 2 else second
        if k + 1 < high and data[k + 1] == COLON:
            if doubled or size == 0:
                return 0
            doubled = True
            k += 1
            end = k + 1
        elif k + 1 >= high or not cls[data[k + 1]] & HEX:
            break
        size = value = 0
        k += 1
    if size:
        groups += 1
        second = value if groups == 2 else second
    if end < high and (cls[data[end]] & (UPPER | LOWER | DIGIT) or data[end] == UNDERSCORE):
        return 0
    if (
        first < 0x2000
        or first > 0x3FFF
        or (first == 0x2001 and second == 0xDB8)
        or (first == 0x3FFF and second < 0x1000)
    ):
        return 0
    if doubled:
        return end if 3 <= groups <= 7 else 0
    return end if groups == 8 else 0
