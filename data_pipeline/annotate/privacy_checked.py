# mypy: disable-error-code="no-untyped-def"
"""Numbers that carry a check: payment cards (ISO/IEC 7812) and bank accounts (ISO 13616), in UTF-8.

Positions are in bytes; 0 means that nothing was found.
"""

from __future__ import annotations

from data_pipeline.annotate.privacy_tables import DASHES, DIGIT, LOWER, PARENTHESES, SPACES, UPPER
from data_pipeline.compiled import subroutine
from data_pipeline.kernels.ascii import BLANK, UPPER_A, ZERO


@subroutine
def _luhn(data, begin, end, cls):
    total, odd = 0, False
    for k in range(end - 1, begin - 1, -1):
        if cls[data[k]] & DIGIT:
            value = int(data[k]) - ZERO
            if odd:
                value = value * 2 - (9 if value > 4 else 0)
            total += value
            odd = not odd
    return total % 10 == 0


@subroutine
def _issued(six, digits):
    """Whether a card of so many digits is issued under these first six."""
    two, three, four = six // 10000, six // 1000, six // 100
    if six // 100000 == 4:
        return digits == 16 or digits == 19
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return digits == 16
    if two == 34 or two == 37:
        return digits == 15
    if four == 6011 or 644 <= three <= 649 or two == 65 or two == 62 or two == 81:
        return 16 <= digits <= 19
    if 3528 <= four <= 3589:
        return 16 <= digits <= 19
    if 300 <= three <= 305 or two == 36 or two == 38 or two == 39:
        return digits == 14
    if 2200 <= four <= 2204:
        return digits == 16
    return four in (5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763) and 16 <= digits <= 19


@subroutine
def card(data, groups, n, cls, says_other):
    """End of a payment card number in the groups; 0: none. ISO/IEC 7812: issuer, length, Luhn's check digit."""
    digits = 0
    six = 0
    seen = 0
    for m in range(n):
        if m and (groups[m].separator not in (SPACES, DASHES) or groups[m].separator != groups[1].separator):
            return 0
        for k in range(groups[m].begin, groups[m].end):
            if digits < 6:
                six = six * 10 + data[k] - ZERO
            seen |= 1 << (data[k] - ZERO)
            digits += 1
        if digits > 19:
            return 0
        whole = m == 0
        if m and groups[0].size == 4:
            fours = True
            for j in range(m):
                fours = fours and groups[j].size == 4
            last = groups[m].size
            whole = (fours and last <= 4) or (m == 2 and groups[1].size == 6 and last in (4, 5))
        if (
            not whole
            or digits < 14
            or (m + 1 < n and not groups[m + 1].separator & (SPACES | PARENTHESES))
            or seen & (seen - 1) == 0
        ):
            continue
        if m == 0 and n > 1 and groups[1].separator != SPACES:
            continue
        if m + 1 < n and groups[m + 1].size >= 4 and m > 0:
            continue
        if (not says_other) and _issued(six, digits) and _luhn(data, groups[0].begin, groups[m].end, cls):
            return groups[m].end
    return 0


@subroutine
def iban(data, high, i, cls, lengths):
    """End of an IBAN whose country letters stand at `i`; 0: none. ISO 13616: length by country, remainder 1 by 97."""
    size = lengths[data[i] - UPPER_A, data[i + 1] - UPPER_A]
    if size == 0:
        return 0
    n, k, rest = 0, i, 0
    while k < high and n < size:
        c = data[k]
        if c == BLANK and n % 4 == 0 and n:
            k += 1
            continue
        if cls[c] & DIGIT:
            value = int(c) - ZERO
        elif cls[c] & UPPER:
            value = int(c) - UPPER_A + 10
        else:
            return 0
        if n >= 4:
            rest = (rest * (100 if value > 9 else 10) + value) % 97
        n += 1
        k += 1
    if n < size or (k < high and cls[data[k]] & (DIGIT | UPPER | LOWER)):
        return 0
    # Country and check digits go to the end: six digits, as a letter counts two.
    tail = (
        (int(data[i]) - UPPER_A + 10) * 10000
        + (int(data[i + 1]) - UPPER_A + 10) * 100
        + (int(data[i + 2]) - ZERO) * 10
        + int(data[i + 3])
        - ZERO
    )
    return k if (rest * 1000000 + tail) % 97 == 1 else 0
