# mypy: disable-error-code="no-untyped-def"
"""Numbers of persons in UTF-8: addresses of machines, telephones, payment cards, bank accounts, social security.

One pass without regular expressions; every look around a digit is of bounded length. Helpers take and return positions in
bytes; 0 or -1 means that nothing was found.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.annotate.privacy_addresses import ipv4, ipv6, is_public
from data_pipeline.annotate.privacy_checked import card, iban
from data_pipeline.annotate.privacy_tables import (
    ADDRESS,
    DASHES,
    DIGIT,
    DOTS,
    GROUP,
    HEX,
    LINK,
    LOWER,
    MAX_GROUPS,
    NATIONAL,
    OTHER_NUMBER,
    PARENTHESES,
    SLASHES,
    SPACES,
    TWICE,
    UPPER,
    VERSION,
    WORD_CARD,
    WORD_PHONE,
    lookup,
    word_hash,
)
from data_pipeline.compiled import kernel, subroutine
from data_pipeline.kernels.ascii import (
    AMPERSAND,
    BLANK,
    CASE_BIT,
    CLOSE_PARENTHESIS,
    COLON,
    COMMA,
    DOLLAR,
    DOT,
    EQUALS,
    FIVE,
    HASH,
    HYPHEN,
    LF,
    LOWER_X,
    ONE,
    OPEN_PARENTHESIS,
    PERCENT,
    PLUS,
    SEVEN,
    SLASH,
    THREE,
    TILDE,
    TWO,
    UNDERSCORE,
    ZERO,
)

IP, PHONE, CARD, IBAN, SSN = 1, 2, 3, 4, 5
LOOK_BEHIND = 32
"""Bytes before a number in which a word may say what it is."""

_CURRENCIES = np.frombuffer(b"EURUSDGBPCHFDKKNOKSEKXPFFJDWST", np.uint8).reshape(-1, 3)
_NO_PHONE_AFTER = (
    HYPHEN,
    DOT,
    COMMA,
    SLASH,
    HASH,
    DOLLAR,
    UNDERSCORE,
    EQUALS,
    PERCENT,
    AMPERSAND,
    PLUS,
    TILDE,
)


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
        if c == LF and k > begin and data[k - 1] == LF:
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
def _groups(data, high, i, cls, out):
    """Groups of digits from `i` on, with at most three separating bytes between: (how many, 0 where it is too long).

    Writes each to `out` (GROUP).
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
        group = out[n]
        group.begin, group.end, group.size, group.separator = begin, k, k - begin, separator
        n += 1
        if n == len(out):
            return n
        separator = 0
        j = k
        while j < high and j - k < 6:
            c = data[j]
            kind, size = 0, 1
            if c == BLANK:
                kind = SPACES
            elif c == HYPHEN:
                kind = DASHES
            elif c == DOT:
                kind = DOTS
            elif c == SLASH:
                kind = SLASHES
            elif c in (OPEN_PARENTHESIS, CLOSE_PARENTHESIS):
                kind = PARENTHESES
            elif c == 0xC2 and j + 1 < high and data[j + 1] == 0xA0:
                kind, size = SPACES, 2
            elif c == 0xE2 and j + 2 < high and data[j + 1] == 0x80 and 0x90 <= data[j + 2] <= 0x93:
                kind, size = DASHES, 3
            elif c == 0xE2 and j + 2 < high and data[j + 1] == 0x80 and data[j + 2] in (0xAF, 0x89):
                kind, size = SPACES, 3
            if kind == 0:
                break
            may_repeat = kind in (SPACES, PARENTHESES)
            separator |= TWICE if separator & kind and not may_repeat else kind
            j += size
        if j == k or j >= high or not cls[data[j]] & DIGIT or separator & TWICE:
            return n
        k = j


@subroutine
def _plain_date(groups, n):
    """Whether groups look like a date, or a year and something."""
    if n < 3 or groups[1].separator & SPACES or groups[1].separator != groups[2].separator:
        return False
    a, b, c = groups[0].size, groups[1].size, groups[2].size
    return (a == 4 and b <= 2 and c <= 2) or (a <= 2 and b <= 2 and (c == 4 or c == 2))


@subroutine
def _is_amount(data, high, end):
    """Whether what stands behind a number makes it an amount: percent or a currency."""
    k = end + 1 if end < high and data[end] == BLANK else end
    if k >= high:
        return False
    c = data[k]
    if c in (PERCENT, DOLLAR) or c == 194 or (c == 226 and k + 1 < high and data[k + 1] == 130):
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
def _international(data, high, groups, n, cls, countries, skip):
    """End of an E.164 number whose country code begins `skip` digits into the first group; 0: none."""
    first = groups[0].begin + skip
    one = data[first] - ZERO
    two = three = 0
    code = 0
    if one == 1 or one == 7:
        code = 1
    elif first + 2 <= groups[0].end:
        two = one * 10 + data[first + 1] - ZERO
        if countries[two]:
            code = 2
        elif first + 3 <= groups[0].end:
            three = two * 10 + data[first + 2] - ZERO
            code = 3 if countries[three] else 0
    if code == 0:
        return 0
    # Numbers behind 1 and 7 have ten digits.
    fewest = 11 if code == 1 else code + countries[three if code == 3 else two]
    digits = -skip
    best, zeros, trunk = 0, 0, 0
    for m in range(n):
        # A full stop and a space end a sentence; a parenthesis that was not opened belongs to what is around.
        if m and (
            groups[m].separator & (SPACES | DOTS) == SPACES | DOTS
            or (
                data[groups[m - 1].end] == CLOSE_PARENTHESIS
                and data[groups[m - 1].begin - 1] not in (OPEN_PARENTHESIS, PLUS)
            )
        ):
            break
        for k in range(groups[m].begin, groups[m].end):
            zeros = zeros + 1 if data[k] == ZERO else 0
        digits += groups[m].size
        if m and groups[m].size == 1 and data[groups[m].begin] == ZERO and groups[m].separator & PARENTHESES:
            trunk = 1  # the zero of +49 (0) 30
        size = digits - trunk
        if size > 15:
            break
        whole = size == 11 if code == 1 else fewest <= size
        if m + 1 < n and not (groups[m + 1].separator & SPACES or data[groups[m].end] == CLOSE_PARENTHESIS):
            whole = False
        if whole and zeros < 6:
            best = groups[m].end
    if best and code == 3 and fewest < 10 and _is_amount(data, high, best):
        return 0
    if best and one == 1:
        # North America: area and exchange begin with 2 to 9.
        n_seen = 0
        for k in range(first, best):
            if cls[data[k]] & DIGIT:
                n_seen += 1
                if (n_seen == 2 or n_seen == 5) and data[k] < TWO:
                    return 0
    return best


@subroutine
def _is_free(data, high, end, cls):
    """Whether no letter and no `_` follows a number."""
    return end >= high or not (cls[data[end]] & (UPPER | LOWER) or data[end] == UNDERSCORE)


@subroutine
def _forbids_phone(data, low, begin, nearest, cls):
    """Whether what precedes a number at `begin` makes it a fraction, a price, a path or a reference."""
    before = data[begin - 1] if begin > low else np.uint8(BLANK)
    # `Tel.030…`, `tel:…`, `Phone-212…` are telephones all the same.
    follows_word = nearest == WORD_PHONE and begin - 1 > low and not cls[data[begin - 2]] & DIGIT
    is_odd = cls[before] & (DIGIT | UPPER | LOWER) or before in _NO_PHONE_AFTER
    if is_odd and not (follows_word and before in (DOT, SLASH, EQUALS, HYPHEN)):
        return True
    # The last byte of a euro sign or of a dash: E2 82 AC, E2 80 90 to 93.
    is_last_byte = before in (0xAC, 0x90, 0x91, 0x93) and begin - 3 >= low and data[begin - 3] == 0xE2
    if is_last_byte and data[begin - 2] in (0x80, 0x82):
        return True
    return nearest & (OTHER_NUMBER | VERSION) != 0 and not nearest & WORD_PHONE


@subroutine
def _north_american(data, high, groups, n, is_stated, cls):
    """End of a number such as 212-555-0123, (212) 555-0123, 1-212-555-0123; 0: none.

    Area and exchange begin with 2 to 9. With spaces alone a word before it must say that it is a telephone.
    """
    first = 1 if n > 3 and groups[0].size == 1 and data[groups[0].begin] == ONE else 0
    if n < first + 3:
        return 0
    area, exchange, line = groups[first], groups[first + 1], groups[first + 2]
    if area.size != 3 or exchange.size != 3 or line.size != 4:
        return 0
    if data[area.begin] < TWO or data[exchange.begin] < TWO:
        return 0
    left, right = exchange.separator, line.separator
    dashed = right in (DASHES, DOTS) and (left in (right, SPACES) or left & PARENTHESES)
    spaced = left == right and left == SPACES and is_stated
    in_parentheses = left & PARENTHESES and right & (SPACES | DASHES | DOTS)
    if not (dashed or spaced or in_parentheses):
        return 0
    if n > first + 3 and not groups[first + 3].separator & SPACES:
        return 0
    has_extension = line.end < high and data[line.end] | CASE_BIT == LOWER_X  # x12
    return line.end if has_extension or _is_free(data, high, line.end, cls) else 0


@subroutine
def _national(data, groups, n, total, in_parentheses):
    """End of a number that begins with one zero, in the form of some country; 0: none."""
    a, b, c = groups[0].size, groups[1].size if n > 1 else 0, groups[2].size if n > 2 else 0
    begin, end = groups[0].begin, groups[n - 1].end
    separator = groups[1].separator if n > 1 else 0
    is_even = True
    for k in range(2, n):
        is_even = is_even and groups[k].separator == separator
    # France: 01 23 45 67 89.
    pairs = 0
    while pairs < n and pairs < 5 and groups[pairs].size == 2:
        pairs += 1
    if (
        pairs == 5
        and is_even
        and separator in (SPACES, DOTS, DASHES)
        and (n == 5 or groups[5].separator & SPACES)
    ):
        return groups[4].end
    # Germany, among others: (030) 1234567, 030/1234567, 0171 1234567.
    german = in_parentheses and separator & PARENTHESES and 9 <= total <= 12 and n <= 5
    slashed = n == 2 and separator & SLASHES and 9 <= total <= 12 and b >= 5
    is_mobile = a == 4 and data[begin + 1] == ONE and FIVE <= data[begin + 2] <= SEVEN
    mobile = n >= 2 and total == 11 and is_mobile and separator & (SPACES | DASHES | SLASHES)
    # Great Britain: 020 7946 0958, 0161 496 0000, 01632 960 000, 01632 960000.
    three = n == 3 and ((a == 3 and b == 4) or (a == 4 and b == 3) or (a == 5 and b == 3))
    british = separator == SPACES and total == 11 and (three or (n == 2 and a == 5))
    # Japan: 03-1234-5678.
    japanese = separator == DASHES and is_even and n == 3 and c == 4 and 10 <= total <= 11 and a <= 4
    return end if german or slashed or mobile or british or japanese else 0


@subroutine
def _stated(data, groups, n):
    """End of the 7 to 15 digits behind a word for telephones; 0: none."""
    digits, end = 0, 0
    for k in range(n):
        digits += groups[k].size
        if digits > 15:
            break
        if digits >= 7 and (k + 1 == n or groups[k + 1].separator & SPACES):
            end = groups[k].end
        begins_next = k + 1 < n and data[groups[k + 1].begin] == ZERO and groups[k + 1].size > 2
        if digits >= 10 and end and begins_next:
            break
    return end


@subroutine
def _phone(data, low, high, i, groups, n, nearest, cls, countries):
    """(begin, end) of a telephone number whose first digit stands at `i`; begin -1: none."""
    begin = i
    closes = n > 1 and data[groups[0].end] == CLOSE_PARENTHESIS
    in_parentheses = closes and begin > low and data[begin - 1] == OPEN_PARENTHESIS
    if in_parentheses:
        begin -= 1
    if begin > low and data[begin - 1] == PLUS:
        begin -= 1
        if begin > low and (cls[data[begin - 1]] & (DIGIT | UPPER | LOWER) or data[begin - 1] == PLUS):
            return -1, 0
        if closes and begin > low and data[begin - 1] == OPEN_PARENTHESIS:
            begin -= 1
        end = _international(data, high, groups, n, cls, countries, 0)
        return (begin, end) if end else (-1, 0)
    if _forbids_phone(data, low, begin, nearest, cls):
        return -1, 0
    is_stated = nearest & WORD_PHONE != 0
    size = groups[0].size
    if size >= 4 and data[i] == ZERO and data[i + 1] == ZERO and data[i + 2] != ZERO:
        end = _international(data, high, groups, n, cls, countries, 2)
        if end and (is_stated or n > 2):
            return begin, end
    end = _north_american(data, high, groups, n, is_stated, cls)
    if end:
        return begin, end
    total = 0
    for k in range(n):
        total += groups[k].size
    tail = groups[n - 1].end
    is_percentage = tail < high and data[tail] == PERCENT
    has_decimals = tail + 1 < high and data[tail] == COMMA and cls[data[tail + 1]] & DIGIT
    is_fraction = n == 2 and groups[1].separator == DOTS
    if not _is_free(data, high, tail, cls) or is_percentage or has_decimals or is_fraction:
        return -1, 0
    if _plain_date(groups, n):
        return -1, 0
    if data[i] == ZERO and size >= 2 and data[i + 1] != ZERO:
        end = _national(data, groups, n, total, in_parentheses)
        if end:
            return begin, end
    end = _stated(data, groups, n) if is_stated and total >= 7 and n <= 7 else 0
    return (begin, end) if end else (-1, 0)


@subroutine
def _social_security(data, low, high, i, groups, n, nearest, every, cls):
    """End of a US social security number; 0: none. The numbers that are never issued are left out."""
    if n < 3 or groups[1].separator != groups[2].separator or groups[1].separator not in (SPACES, DASHES):
        return 0
    if groups[0].size != 3 or groups[1].size != 2 or groups[2].size != 4:
        return 0
    said = every & NATIONAL != 0
    if (
        (groups[1].separator == SPACES and not said)
        or (n > 3 and not groups[3].separator & SPACES)
        or (nearest & OTHER_NUMBER and not said)
    ):
        return 0
    area = (int(data[i]) - ZERO) * 100 + (int(data[i + 1]) - ZERO) * 10 + int(data[i + 2]) - ZERO
    middle = (int(data[groups[1].begin]) - ZERO) * 10 + int(data[groups[1].begin + 1]) - ZERO
    last = 0
    for k in range(groups[2].begin, groups[2].end):
        last = last * 10 + int(data[k]) - ZERO
    before = data[i - 1] if i > low else np.uint8(BLANK)
    tail = groups[2].end
    if before in (HYPHEN, DOT, SLASH, UNDERSCORE, EQUALS, HASH) or not _is_free(data, high, tail, cls):
        return 0
    if area == 0 or area == 666 or area >= 900 or middle == 0 or last == 0:
        return 0
    return tail


@subroutine
def _number(data, origin, low, high, i, cls, word_keys, word_values, countries, ibans, groups):
    """(begin, end, kind) of what the digit at `i` begins; begin -1: nothing."""
    if i + 1 >= high or not (
        cls[data[i + 1]] & (DIGIT | HEX)
        or data[i + 1] in (BLANK, OPEN_PARENTHESIS, CLOSE_PARENTHESIS, HYPHEN, DOT)
    ):
        return -1, 0, 0
    before = data[i - 1] if i > low else np.uint8(BLANK)
    letter = cls[before] & (UPPER | LOWER) != 0
    if letter:
        two = i - 2 >= low and cls[before] & UPPER and cls[data[i - 2]] & UPPER and cls[data[i + 1]] & DIGIT
        if two and (i - 2 == low or not cls[data[i - 3]] & (DIGIT | UPPER | LOWER)):
            end = iban(data, high, i - 2, cls, ibans)
            if end:
                return i - 2, end, IBAN
        return -1, 0, 0
    if before == UNDERSCORE or (before == DOT and i - 1 > low and cls[data[i - 2]] & DIGIT):
        return -1, 0, 0
    if i + 4 < high and TWO <= data[i] <= THREE and data[i + 4] == COLON and before != COLON:
        end = ipv6(data, low, high, i, cls)
        if end:
            return i, end, IP
    n = _groups(data, high, i, cls, groups)
    if n == 0:
        return -1, 0, 0
    total = 0
    for k in range(n):
        total += groups[k].size
    if total < 7 and not (n >= 4 and groups[1].separator == DOTS):
        return -1, 0, 0
    nearest, every = _words_before(data, origin, i, cls, word_keys, word_values)
    if n >= 4 and groups[1].separator == DOTS and groups[2].separator == DOTS and groups[3].separator == DOTS:
        end, octets = ipv4(data, low, high, i, cls)
        if end:
            large = 0
            for k in range(4):
                large += octets >> (8 * k) & 255 >= 32
            small = large <= 1  # numbers of sections and versions
            path = before == SLASH and not (i - 2 >= low and data[i - 2] == SLASH)
            stated = nearest & ADDRESS != 0
            if (
                is_public(octets)
                and not path
                and before != HYPHEN
                and (stated or not (small or nearest & VERSION))
            ):
                return i, end, IP
            return -1, 0, 0
    if total >= 9:
        end = _social_security(data, low, high, i, groups, n, nearest, every, cls)
        if end:
            return i, end, SSN
    # Of a table of numbers.
    column = i - 5 >= low and before == BLANK
    for k in range(i - 5, i - 1):
        column = column and cls[data[k]] & DIGIT != 0
    if total >= 14 and not column and before not in (DOT, COMMA, SLASH, HYPHEN, EQUALS, PLUS, HASH):
        other = nearest & (OTHER_NUMBER | WORD_PHONE) != 0 and not every & WORD_CARD
        end = card(data, groups, n, cls, other)
        if end and not (end < high and (cls[data[end]] & (UPPER | LOWER) or data[end] == UNDERSCORE)):
            return i, end, CARD
    begin, end = _phone(data, low, high, i, groups, n, nearest, cls, countries)
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
    groups = np.zeros(MAX_GROUPS, GROUP)
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
                data, origin, low, high, i, cls, word_keys, word_values, countries, ibans, groups
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
