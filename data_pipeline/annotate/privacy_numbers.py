# mypy: disable-error-code="no-untyped-def"
"""Numbers of persons in UTF-8: addresses of machines, telephones, payment cards, bank accounts, social security.

One pass without regular expressions; every look around a digit is of bounded length. Helpers take and return positions in
bytes; 0 or -1 means that nothing was found.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.annotate.privacy_checked import card, iban
from data_pipeline.annotate.privacy_tables import (
    ADDRESS,
    DIGIT,
    HEX,
    LINK,
    LOWER,
    NATIONAL,
    OTHER_NUMBER,
    UPPER,
    VERSION,
    WORD_CARD,
    WORD_PHONE,
    lookup,
    word_hash,
)
from data_pipeline.compiled import kernel, subroutine

IP, PHONE, CARD, IBAN, SSN = 1, 2, 3, 4, 5
LOOK_BEHIND = 32
"""Bytes before a number in which a word may say what it is."""

_CURRENCIES = np.frombuffer(b"EURUSDGBPCHFDKKNOKSEKXPFFJDWST", np.uint8).reshape(-1, 3)
_NO_PHONE_AFTER = (45, 46, 44, 47, 35, 36, 95, 61, 37, 38, 43, 126)


@subroutine
def _words_before(data, low, at, cls, keys, values):
    """(what the nearest word that says something says, what all of them say), looking back from `at`.

    What kind of number follows is said by a word right before it, or with such as `no.` or `is` between; other words
    between make it a word like others, except that a word for addresses is heard from farther.
    """
    begin = max(low, at - LOOK_BEHIND)
    nearest, every, between = 0, 0, 0
    k = at
    while k > begin:
        k -= 1
        c = data[k]
        if c == 10 and k > begin and data[k - 1] == 10:
            break  # another paragraph
        if cls[c] & DIGIT and not (k > begin and cls[data[k - 1]] & DIGIT):
            between += 1
        if not (cls[c] & (UPPER | LOWER) or c >= 128):
            continue
        end = k + 1
        while k > begin and (cls[data[k - 1]] & (UPPER | LOWER) or data[k - 1] >= 128):
            k -= 1
        if k == begin and k > low and cls[data[k - 1]] & (UPPER | LOWER):
            break  # the window cuts a word
        found = lookup(keys, values, word_hash(data, k, end))
        every |= found
        if found == LINK:
            continue
        if not nearest:
            nearest = found if between == 0 else found & (ADDRESS | WORD_CARD | NATIONAL)
        between += found == 0
    return nearest, every


@subroutine
def _ipv4(data, low, high, i, cls):
    """End of four numbers from 0 to 255 between dots, and those numbers; 0 where there are none."""
    octets = 0
    k = i
    for part in range(4):
        value, n = 0, 0
        first = k
        while k < high and cls[data[k]] & DIGIT and n < 4:
            value = value * 10 + data[k] - 48
            k += 1
            n += 1
        if n == 0 or n > 3 or value > 255 or (n > 1 and data[first] == 48):
            return 0, 0
        octets = octets * 256 + value
        if part < 3:
            if k >= high or data[k] != 46:
                return 0, 0
            k += 1
    if k < high and (cls[data[k]] & (DIGIT | UPPER | LOWER) or data[k] == 95):
        return 0, 0
    if k + 1 < high and (data[k] == 46 or data[k] == 45) and cls[data[k + 1]] & (DIGIT | UPPER | LOWER):
        return 0, 0
    return k, octets


@subroutine
def _public(octets):
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
def _ipv6(data, low, high, i, cls):
    """End of a global unicast IPv6 address (2000::/3 without documentation) that begins at `i`; 0: none."""
    groups, size, doubled, value = 0, 0, False, 0
    first = second = 0
    k = i
    end = 0
    while k < high and k - i < 40:
        c = data[k]
        if cls[c] & HEX:
            digit = c - 48 if c < 58 else (c | 32) - 87
            value = value * 16 + digit
            size += 1
            if size > 4:
                return 0
            k += 1
            end = k
            continue
        if c != 58:
            break
        if size:
            groups += 1
            first = value if groups == 1 else first
            second = value if groups == 2 else second
        if k + 1 < high and data[k + 1] == 58:
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
    if end < high and (cls[data[end]] & (UPPER | LOWER | DIGIT) or data[end] == 95):
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


@subroutine
def _groups(data, high, i, cls, out):
    """Groups of digits from `i` on, with at most three separating bytes between: (how many, 0 where it is too long).

    Writes (begin, end, separator before) of each to `out`; a separator is the sum of what stands there: 1 space, 2 `-`,
    4 `.`, 8 `/`, 16 parenthesis, 32 two of a kind.
    """
    n = 0
    k = i
    separator = 0
    while True:
        begin = k
        while k < high and cls[data[k]] & DIGIT:
            k += 1
            if k - begin > 19:
                return 0
        out[n, 0], out[n, 1], out[n, 2] = begin, k, separator
        n += 1
        if n == len(out):
            return n
        separator = 0
        j = k
        while j < high and j - k < 6:
            c = data[j]
            kind, size = 0, 1
            if c == 32:
                kind = 1
            elif c == 45:
                kind = 2
            elif c == 46:
                kind = 4
            elif c == 47:
                kind = 8
            elif c == 40 or c == 41:
                kind = 16
            elif c == 0xC2 and j + 1 < high and data[j + 1] == 0xA0:
                kind, size = 1, 2
            elif c == 0xE2 and j + 2 < high and data[j + 1] == 0x80 and 0x90 <= data[j + 2] <= 0x93:
                kind, size = 2, 3
            elif c == 0xE2 and j + 2 < high and data[j + 1] == 0x80 and data[j + 2] in (0xAF, 0x89):
                kind, size = 1, 3
            if kind == 0:
                break
            separator |= 32 if separator & kind and kind != 16 and kind != 1 else kind
            j += size
        if j == k or j >= high or not cls[data[j]] & DIGIT or separator & 32:
            return n
        k = j


@subroutine
def _plain_date(g, n):
    """Whether groups look like a date, or a year and something."""
    if n < 3 or g[1, 2] & 1 or g[1, 2] != g[2, 2]:
        return False
    a, b, c = g[0, 1] - g[0, 0], g[1, 1] - g[1, 0], g[2, 1] - g[2, 0]
    return (a == 4 and b <= 2 and c <= 2) or (a <= 2 and b <= 2 and (c == 4 or c == 2))


@subroutine
def _is_amount(data, high, end):
    """Whether what stands behind a number makes it an amount: percent or a currency."""
    k = end + 1 if end < high and data[end] == 32 else end
    if k >= high:
        return False
    c = data[k]
    if c == 37 or c == 36 or c == 0xC2 or (c == 0xE2 and k + 1 < high and data[k + 1] == 0x82):
        return True
    for currency in _CURRENCIES:
        if (
            k + 3 <= high
            and data[k] == currency[0]
            and data[k + 1] == currency[1]
            and data[k + 2] == currency[2]
        ):
            return True
    return False


@subroutine
def _international(data, high, g, n, cls, countries, skip):
    """End of an E.164 number whose country code begins `skip` digits into the first group; 0: none."""
    first = g[0, 0] + skip
    one = data[first] - 48
    two = three = 0
    code = 0
    if one == 1 or one == 7:
        code = 1
    elif first + 2 <= g[0, 1]:
        two = one * 10 + data[first + 1] - 48
        if countries[two]:
            code = 2
        elif first + 3 <= g[0, 1]:
            three = two * 10 + data[first + 2] - 48
            code = 3 if countries[three] else 0
    if code == 0:
        return 0
    # Numbers behind 1 and 7 have ten digits.
    fewest = 11 if code == 1 else code + countries[three if code == 3 else two]
    digits = -skip
    best, zeros, trunk = 0, 0, 0
    for m in range(n):
        # A full stop and a space end a sentence; a parenthesis that was not opened belongs to what is around.
        if m and (g[m, 2] & 5 == 5 or (data[g[m - 1, 1]] == 41 and data[g[m - 1, 0] - 1] not in (40, 43))):
            break
        for k in range(g[m, 0], g[m, 1]):
            zeros = zeros + 1 if data[k] == 48 else 0
        digits += g[m, 1] - g[m, 0]
        if m and g[m, 1] - g[m, 0] == 1 and data[g[m, 0]] == 48 and g[m, 2] & 16:
            trunk = 1  # the zero of +49 (0) 30
        size = digits - trunk
        if size > 15:
            break
        whole = size == 11 if code == 1 else fewest <= size
        if m + 1 < n and not (g[m + 1, 2] & 1 or data[g[m, 1]] == 41):
            whole = False
        if whole and zeros < 6:
            best = g[m, 1]
    if best and code == 3 and fewest < 10 and _is_amount(data, high, best):
        return 0
    if best and one == 1:
        # North America: area and exchange begin with 2 to 9.
        n_seen = 0
        for k in range(first, best):
            if cls[data[k]] & DIGIT:
                n_seen += 1
                if (n_seen == 2 or n_seen == 5) and data[k] < 50:
                    return 0
    return best


@subroutine
def _phone(data, low, high, i, g, n, nearest, cls, countries):
    """(begin, end) of a telephone number whose first digit stands at `i`; begin -1: none."""
    begin = i
    closing = n > 1 and data[g[0, 1]] == 41
    opened = closing and begin > low and data[begin - 1] == 40
    if opened:
        begin -= 1
    before = data[begin - 1] if begin > low else np.uint8(32)
    if before == 43:  # +
        begin -= 1
        if begin > low and (cls[data[begin - 1]] & (DIGIT | UPPER | LOWER) or data[begin - 1] == 43):
            return -1, 0
        if closing and begin > low and data[begin - 1] == 40:
            begin -= 1
        end = _international(data, high, g, n, cls, countries, 0)
        return (begin, end) if end else (-1, 0)
    # Fractions, prices, paths and references are no numbers of telephones; `Tel.030…`, `tel:…`, `Phone-212…` are.
    odd = cls[before] & (DIGIT | UPPER | LOWER) or before in _NO_PHONE_AFTER
    said = nearest == WORD_PHONE and begin - 1 > low and not cls[data[begin - 2]] & DIGIT
    if odd and not (said and before in (46, 47, 61, 45)):
        return -1, 0
    # A euro sign, a dash.
    three = before in (0xAC, 0x90, 0x91, 0x93) and begin - 3 >= low and data[begin - 3] == 0xE2
    if three and data[begin - 2] in (0x80, 0x82):
        return -1, 0
    if nearest & (OTHER_NUMBER | VERSION) and not nearest & WORD_PHONE:
        return -1, 0
    if g[0, 1] - g[0, 0] >= 4 and data[i] == 48 and data[i + 1] == 48 and data[i + 2] != 48:
        end = _international(data, high, g, n, cls, countries, 2)
        if end and (nearest & WORD_PHONE or n > 2):
            return begin, end
    said = nearest & WORD_PHONE != 0
    a = g[0, 1] - g[0, 0]
    b = g[1, 1] - g[1, 0] if n > 1 else 0
    c = g[2, 1] - g[2, 0] if n > 2 else 0
    d = g[3, 1] - g[3, 0] if n > 3 else 0
    # North America: 212-555-0123, (212) 555-0123, 1-212-555-0123.
    m = 1 if n > 3 and a == 1 and data[i] == 49 else 0
    if (
        n >= m + 3
        and g[m, 1] - g[m, 0] == 3
        and g[m + 1, 1] - g[m + 1, 0] == 3
        and g[m + 2, 1] - g[m + 2, 0] == 4
    ):
        area, exchange = data[g[m, 0]], data[g[m + 1, 0]]
        x, y = g[m + 1, 2], g[m + 2, 2]
        dashed = y in (2, 4) and (x == y or x & 16 or x == 1)
        fits = (
            area >= 50 and exchange >= 50 and (dashed or (x == y and x == 1 and said) or (x & 16 and y & 7))
        )
        ends = n == m + 3 or g[m + 3, 2] & 1
        tail = g[m + 2, 1]
        free = tail >= high or not (cls[data[tail]] & (UPPER | LOWER) or data[tail] == 95)
        if fits and ends and (free or data[tail] | 32 == 120):  # an extension: x12
            return begin, tail
    total = 0
    for k in range(n):
        total += g[k, 1] - g[k, 0]
    tail = g[n - 1, 1]
    closed = tail >= high or not (cls[data[tail]] & (UPPER | LOWER) or data[tail] == 95 or data[tail] == 37)
    comma = tail + 1 < high and data[tail] == 44 and cls[data[tail + 1]] & DIGIT
    fraction = n == 2 and g[1, 2] == 4
    if not closed or comma or fraction or _plain_date(g, n):
        return -1, 0
    if data[i] == 48 and a >= 2 and data[i + 1] != 48:
        x = g[1, 2] if n > 1 else 0
        same = True
        for k in range(2, n):
            same = same and g[k, 2] == x
        pairs = n >= 5 and a == 2 and b == 2 and c == 2 and d == 2 and g[4, 1] - g[4, 0] == 2 and same
        if pairs and x in (1, 4, 2) and (n == 5 or g[5, 2] & 1):
            return begin, g[4, 1]  # France
        if opened and x & 16 and 9 <= total <= 12 and n <= 5:
            return begin, tail  # (030) 1234567
        british = (
            x == 1
            and total == 11
            and (
                (n == 3 and ((a == 3 and b == 4) or (a == 4 and b == 3) or (a == 5 and b == 3)))
                or (n == 2 and a == 5)
            )
        )
        japanese = x == 2 and same and n == 3 and c == 4 and 10 <= total <= 11 and a <= 4
        slashed = n == 2 and x & 8 and 9 <= total <= 12 and b >= 5
        mobile = (
            n >= 2 and total == 11 and a == 4 and data[i + 1] == 49 and 53 <= data[i + 2] <= 55 and x & 11
        )
        if british or japanese or slashed or mobile:
            return begin, tail
    if said and total >= 7 and n <= 7:
        digits, best = 0, 0
        for k in range(n):
            digits += g[k, 1] - g[k, 0]
            if digits > 15:
                break
            if digits >= 7 and (k + 1 == n or g[k + 1, 2] & 1):
                best = g[k, 1]
            if (
                digits >= 10
                and best
                and k + 1 < n
                and data[g[k + 1, 0]] == 48
                and g[k + 1, 1] - g[k + 1, 0] > 2
            ):
                break  # the next number begins
        if best:
            return begin, best
    return -1, 0


@subroutine
def _social_security(data, low, high, i, g, n, nearest, every, cls):
    """End of a US social security number; 0: none. The numbers that are never issued are left out."""
    if n < 3 or g[1, 2] != g[2, 2] or g[1, 2] not in (1, 2):
        return 0
    if g[0, 1] - g[0, 0] != 3 or g[1, 1] - g[1, 0] != 2 or g[2, 1] - g[2, 0] != 4:
        return 0
    said = every & NATIONAL != 0
    if (g[1, 2] == 1 and not said) or (n > 3 and not g[3, 2] & 1) or (nearest & OTHER_NUMBER and not said):
        return 0
    area = (int(data[i]) - 48) * 100 + (int(data[i + 1]) - 48) * 10 + int(data[i + 2]) - 48
    middle = (int(data[g[1, 0]]) - 48) * 10 + int(data[g[1, 0] + 1]) - 48
    last = 0
    for k in range(g[2, 0], g[2, 1]):
        last = last * 10 + int(data[k]) - 48
    before = data[i - 1] if i > low else np.uint8(32)
    tail = g[2, 1]
    if before in (45, 46, 47, 95, 61, 35) or (
        tail < high and (cls[data[tail]] & (UPPER | LOWER) or data[tail] == 95)
    ):
        return 0
    if area == 0 or area == 666 or area >= 900 or middle == 0 or last == 0:
        return 0
    return tail


@subroutine
def _number(data, origin, low, high, i, cls, word_keys, word_values, countries, ibans, g):
    """(begin, end, kind) of what the digit at `i` begins; begin -1: nothing."""
    if i + 1 >= high or not (cls[data[i + 1]] & (DIGIT | HEX) or data[i + 1] in (32, 40, 41, 45, 46)):
        return -1, 0, 0
    before = data[i - 1] if i > low else np.uint8(32)
    letter = cls[before] & (UPPER | LOWER) != 0
    if letter:
        two = i - 2 >= low and cls[before] & UPPER and cls[data[i - 2]] & UPPER and cls[data[i + 1]] & DIGIT
        if two and (i - 2 == low or not cls[data[i - 3]] & (DIGIT | UPPER | LOWER)):
            end = iban(data, high, i - 2, cls, ibans)
            if end:
                return i - 2, end, IBAN
        return -1, 0, 0
    if before == 95 or (before == 46 and i - 1 > low and cls[data[i - 2]] & DIGIT):
        return -1, 0, 0
    if i + 4 < high and 50 <= data[i] <= 51 and data[i + 4] == 58 and before != 58:
        end = _ipv6(data, low, high, i, cls)
        if end:
            return i, end, IP
    n = _groups(data, high, i, cls, g)
    if n == 0:
        return -1, 0, 0
    total = 0
    for k in range(n):
        total += g[k, 1] - g[k, 0]
    if total < 7 and not (n >= 4 and g[1, 2] == 4):
        return -1, 0, 0
    nearest, every = _words_before(data, origin, i, cls, word_keys, word_values)
    if n >= 4 and g[1, 2] == 4 and g[2, 2] == 4 and g[3, 2] == 4:
        end, octets = _ipv4(data, low, high, i, cls)
        if end:
            large = 0
            for k in range(4):
                large += octets >> (8 * k) & 255 >= 32
            small = large <= 1  # numbers of sections and versions
            path = before == 47 and not (i - 2 >= low and data[i - 2] == 47)
            stated = nearest & ADDRESS != 0
            if _public(octets) and not path and before != 45 and (stated or not (small or nearest & VERSION)):
                return i, end, IP
            return -1, 0, 0
    if total >= 9:
        end = _social_security(data, low, high, i, g, n, nearest, every, cls)
        if end:
            return i, end, SSN
    # Of a table of numbers.
    column = i - 5 >= low and before == 32
    for k in range(i - 5, i - 1):
        column = column and cls[data[k]] & DIGIT != 0
    if total >= 14 and not column and before not in (46, 44, 47, 45, 61, 43, 35):
        other = nearest & (OTHER_NUMBER | WORD_PHONE) != 0 and not every & WORD_CARD
        end = card(data, g, n, cls, other)
        if end and not (end < high and (cls[data[end]] & (UPPER | LOWER) or data[end] == 95)):
            return i, end, CARD
    begin, end = _phone(data, low, high, i, g, n, nearest, cls, countries)
    return begin, end, PHONE


@kernel(
    "int64(uint8[::1], int64[::1], uint8[::1], uint64[::1], int64[::1], uint8[::1], uint8[:, ::1], int32[:, ::1])"
)
def scan(data, offsets, cls, word_keys, word_values, countries, ibans, out):
    """Numbers of documents: rows of (document, begin, end, kind), in code points; how many there are.

    Args:
        data: uint8, documents one behind another; `offsets`: int64 [d + 1], where they begin.
        cls, word_keys, word_values, countries, ibans: of `privacy_tables`.
        out: int32 [room, 4], written; where it is too small the number says so.
    """
    g = np.zeros((10, 3), np.int64)
    n = 0
    for d in range(len(offsets) - 1):
        origin, high = offsets[d], offsets[d + 1]
        low, i, characters, inside = origin, origin, 0, False
        while i < high:
            c = data[i]
            digit = cls[c] & DIGIT != 0
            if not digit or inside:
                inside = digit
                characters += c & 0xC0 != 0x80
                i += 1
                continue
            inside = True
            begin, end, kind = _number(
                data, origin, low, high, i, cls, word_keys, word_values, countries, ibans, g
            )
            if begin < 0:
                characters += 1
                i += 1
                continue
            first = characters
            for k in range(begin, i):
                first -= data[k] & 0xC0 != 0x80
            while i < end:
                characters += data[i] & 0xC0 != 0x80
                i += 1
            inside = False
            if n < len(out):
                out[n, 0], out[n, 1], out[n, 2], out[n, 3] = d, first, characters, kind
            n += 1
            low = end  # nothing is found twice
    return n
