# mypy: disable-error-code="no-untyped-def"
"""E-mail addresses and keys in UTF-8.

One pass without regular expressions that looks twice only at bytes which mark something (`TRIGGER`), never farther than
some hundred bytes (a private key: 16 KiB). Helpers take and return positions in bytes; 0 or -1 means that nothing was found.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.annotate.privacy_services import dotted, mailchimp, same, telegram, twilio
from data_pipeline.annotate.privacy_tables import (
    DIGIT,
    HEX,
    LOCAL,
    LOWER,
    TOKEN,
    TRIGGER,
    UPPER,
    lookup,
    word_hash,
)
from data_pipeline.compiled import kernel, subroutine
from data_pipeline.kernels.ascii import (
    APOSTROPHE,
    AT,
    BACKSLASH,
    BACKTICK,
    BAR,
    BLANK,
    CASE_BIT,
    CLOSE_BRACKET,
    CLOSE_PARENTHESIS,
    COLON,
    COMMA,
    CR,
    DOT,
    DOUBLE_QUOTE,
    EQUALS,
    GT,
    HYPHEN,
    LF,
    LOWER_A,
    LOWER_C,
    LOWER_E,
    LOWER_G,
    LOWER_I,
    LOWER_N,
    LOWER_P,
    LOWER_S,
    LOWER_T,
    LOWER_U,
    LOWER_X,
    LOWER_Y,
    LOWER_Z,
    LT,
    OPEN_BRACKET,
    OPEN_PARENTHESIS,
    PLUS,
    SIX,
    SLASH,
    TILDE,
    UNDERSCORE,
    UPPER_A,
    UPPER_B,
    UPPER_C,
    UPPER_I,
    UPPER_J,
    UPPER_K,
    UPPER_S,
    UPPER_Z,
)

EMAIL, SECRET = 0, 6
MAX_LOCAL = 64
MAX_DOMAIN = 253
"""RFC 5321, 4.5.3.1."""
MAX_VALUE = 200
"""Longest assigned value that is looked at."""
MAX_PEM = 16384
"""Bytes of a private key that are looked at."""
MAX_PEM_HEADERS = 200
"""Bytes of lines such as `Proc-Type: 4,ENCRYPTED` or `Version: …` before the key itself."""
PEM_LINE = 40
"""Bytes of base64 in a row that are a line of a key and no word."""


def _padded(words):
    found = np.zeros((len(words), 16), np.uint8)
    for row, word in zip(found, words, strict=True):
        row[: len(word)] = np.frombuffer(word.encode(), np.uint8)
    return found


_BEGIN, _END, _MIDDLE, _BLOCK, _DASHES = (
    np.frombuffer(t, np.uint8) for t in (b"-----BEGIN ", b"-----END ", b"PRIVATE KEY", b" BLOCK", b"-----")
)
_NAMES = _padded(("secret", "token", "password", "passwd", "pwd", "apikey", "key"))
_HINTS = _padded(("api", "access", "secret", "private", "auth", "account", "encryption", "signing", "master"))


@subroutine
def _host_end(data, at, high, cls, keys, values):
    """End of a host name with a plausible top-level domain that begins at `at`; 0 where there is none."""
    limit = min(high, at + MAX_DOMAIN)
    end, label, dots = at, at, 0
    last = 0
    k = at
    while k <= limit:
        c = data[k] if k < limit else np.uint8(BLANK)
        wide = 0xC3 <= c <= 0xCA and k + 1 < limit
        if cls[c] & (DIGIT | UPPER | LOWER) or wide or (c == HYPHEN and k > label):
            k += 2 if wide else 1
            continue
        # A label ends here.
        if k == label or (data[k - 1] == HYPHEN and dots == 0) or k - label > 63:
            break
        stop = k
        while stop > label and data[stop - 1] == HYPHEN:
            stop -= 1
        if dots:
            letters = stop - label >= 2 and stop - label <= 24
            for j in range(label, stop):
                letters = letters and cls[data[j]] & (UPPER | LOWER) != 0
            punycode = (
                stop - label > 4
                and data[label] | CASE_BIT == LOWER_X
                and data[label + 1] | CASE_BIT == LOWER_N
                and data[label + 2] == HYPHEN
            )
            if punycode or (letters and not lookup(keys, values, word_hash(data, label, stop))):
                last = stop
            else:
                last = 0
        end = k
        if c != DOT or k + 1 >= limit:
            break
        dots += 1
        k += 1
        label = k
    return last if end else 0


@subroutine
def _local_begin(data, low, at, cls):
    """Where the local part of an address begins that ends at `at`; -1: there is none."""
    begin = at
    while begin > low and at - begin < MAX_LOCAL:
        c = data[begin - 1]
        if c == DOT and begin < at and data[begin] == DOT:
            # Two full stops are no part of an address: leaders of a table of contents.
            begin += 1
            break
        if cls[c] & LOCAL:
            begin -= 1
        elif c >= 0x80 and c < 0xC0 and begin - 2 >= low and 0xC3 <= data[begin - 2] <= 0xD4:
            begin -= 2
        else:
            break
    # Quotation marks, braces and the like may be part of an address by the standard, and never are at its ends.
    while begin < at and data[begin] < 128 and not cls[data[begin]] & (DIGIT | UPPER | LOWER):
        begin += 1
    if begin == at or data[at - 1] == DOT:
        return -1
    if (
        at - begin == 3
        and data[begin] == LOWER_G
        and data[begin + 1] == LOWER_I
        and data[begin + 2] == LOWER_T
    ):
        return -1  # git@host: everybody's
    return begin


@subroutine
def _email(data, low, high, at, after, cls, keys, values):
    """(begin, end) of an address whose at-sign stands at `at` and whose domain begins at `after`; begin -1: none."""
    begin = _local_begin(data, low, at, cls)
    if begin < 0:
        return -1, 0
    if after < high and data[after] == OPEN_BRACKET:
        end = _literal_end(data, after, high, cls)
    else:
        end = _host_end(data, after, high, cls, keys, values)
    return (begin, end) if end else (-1, 0)


@subroutine
def _literal_end(data, at, high, cls):
    """End of an address literal `[1.2.3.4]` or `[IPv6:…]` (RFC 5321, 4.1.3) that begins at `at`; 0: none."""
    k, digits, dots, colons = at + 1, 0, 0, 0
    if (
        k + 5 < high
        and data[k] | CASE_BIT == LOWER_I
        and data[k + 1] | CASE_BIT == LOWER_P
        and data[k + 3] == SIX
    ):
        k += 4
    while k < high and k - at < 48 and (cls[data[k]] & HEX or data[k] == DOT or data[k] == COLON):
        digits += cls[data[k]] & DIGIT != 0
        dots += data[k] == DOT
        colons += data[k] == COLON
        k += 1
    closed = k < high and data[k] == CLOSE_BRACKET
    return k + 1 if closed and (colons >= 3 or (colons == 0 and dots == 3 and 4 <= digits <= 12)) else 0


@subroutine
def _spelled_at(data, i, high):
    """Where the domain begins behind `(at)`, `[at]` or ` -at- ` at `i`; 0 where it is something else."""
    close = (
        CLOSE_PARENTHESIS
        if data[i] == OPEN_PARENTHESIS
        else CLOSE_BRACKET
        if data[i] == OPEN_BRACKET
        else HYPHEN
    )
    k = i + 1
    if k < high and data[k] == BLANK:
        k += 1
    if k + 2 >= high:
        return 0
    if data[k] | CASE_BIT == LOWER_A and data[k + 1] | CASE_BIT == LOWER_T:
        k += 2
    elif data[k] == AT:
        k += 1
    else:
        return 0
    if k < high and data[k] == BLANK:
        k += 1
    if k >= high or data[k] != close:
        return 0
    k += 1
    if k < high and data[k] == BLANK:
        k += 1
    return k


@subroutine
def _credentials(data, low, at, cls):
    """Begin of the password in `scheme://user:password@` with the at-sign at `at`; -1: none."""
    colon = -1
    k = at
    while k > low and at - k < 128:
        k -= 1
        c = data[k]
        if c <= BLANK or c in (AT, DOUBLE_QUOTE, LT, GT) or c >= 128:
            return -1
        if c == COLON:
            if k + 2 < at and data[k + 1] == SLASH and data[k + 2] == SLASH:
                return colon if colon > 0 and colon < at and colon > k + 4 else -1
            colon = k + 1
        elif c == SLASH and not (k > low and (data[k - 1] == SLASH or data[k - 1] == COLON)):
            return -1
    return -1


@subroutine
def _run(data, at, high, cls, limit):
    """End of the run of letters, digits, `-` and `_` from `at` on, or -1 where it is longer than `limit`."""
    k = at
    while k < high and cls[data[k]] & TOKEN:
        k += 1
        if k - at > limit:
            return -1
    return k


MIN_OF_EACH_CASE = 4
"""Capital and small letters of a key without digits: 30 random letters have fewer of either once in 10,000 keys."""


@subroutine
def _prefixed(data, low, high, i, cls, text, sizes):
    """(begin, end) of a key with a known prefix of which the byte at `i` is part; begin -1: none."""
    pair = np.int64(data[i - 1]) << 8 | np.int64(data[i])
    p, after = 0, len(text)
    while p < after:  # the first of those with these two bytes
        middle = (p + after) // 2
        if sizes[middle, 4] < pair:
            p = middle + 1
        else:
            after = middle
    while p < len(text) and sizes[p, 4] == pair:
        size, begin = sizes[p, 0], i - sizes[p, 3]
        p += 1
        if begin < low or begin + size > high or (begin > low and cls[data[begin - 1]] & TOKEN):
            continue
        same = True
        for k in range(size):
            same = same and data[begin + k] == text[p - 1, k]
        if not same:
            continue
        end = _run(data, begin + size, high, cls, sizes[p - 1, 2])
        if end < 0 or end - begin - size < sizes[p - 1, 1]:
            continue
        # An identifier is a row of words in one case; a key has digits, or, as of some alphabets, letters of both cases.
        digits, upper, lower = 0, 0, 0
        for k in range(begin + size, end):
            digits += cls[data[k]] & DIGIT
            upper += (cls[data[k]] & UPPER) != 0
            lower += (cls[data[k]] & LOWER) != 0
        if digits or (upper >= MIN_OF_EACH_CASE and lower >= MIN_OF_EACH_CASE):
            return begin, end
    return -1, 0


@subroutine
def _amazon(data, low, high, i, cls):
    """(begin, end) of an AWS key id, of which the third (K) or second (S) letter stands at `i`; begin -1: none."""
    begin = i - 1
    if begin < low or data[begin] != UPPER_A or begin + 20 > high:
        return -1, 0
    if not (data[begin + 2] == UPPER_I and data[begin + 3] == UPPER_A):  # …IA
        return -1, 0
    if begin > low and cls[data[begin - 1]] & TOKEN:
        return -1, 0
    end = begin
    while end < high and cls[data[end]] & (UPPER | DIGIT):
        end += 1
        if end - begin > 20:
            return -1, 0
    if end - begin != 20 or (end < high and cls[data[end]] & TOKEN):
        return -1, 0
    return begin, end


@subroutine
def _web_token(data, low, high, i, cls):
    """(begin, end) of a JSON web token `eyJ….eyJ….…` whose J stands at `i`; begin -1: none."""
    begin = i - 2
    if (
        begin < low
        or data[begin] != LOWER_E
        or data[begin + 1] != LOWER_Y
        or (begin > low and cls[data[begin - 1]] & TOKEN)
    ):
        return -1, 0
    k = begin
    for part in range(3):
        first = k
        while k < high and cls[data[k]] & TOKEN:
            k += 1
        if k - first < 8 or (part == 1 and not (data[first] == LOWER_E and data[first + 1] == LOWER_Y)):
            return -1, 0
        if part < 2:
            if k >= high or data[k] != DOT:
                return -1, 0
            k += 1
    return begin, k


@subroutine
def _is_break(c):
    """Whether a byte stands between the lines of a key: white space, quotes and commas of source code, marks of quoting."""
    return c <= BLANK or c in (DOUBLE_QUOTE, APOSTROPHE, COMMA, GT, BACKTICK, BAR)


@subroutine
def _base64_end(data, at, high, cls):
    """End of the run of base64 from `at` on; slashes may be escaped."""
    k = at
    while k < high:
        c = data[k]
        if cls[c] & (DIGIT | UPPER | LOWER) or c in (PLUS, SLASH, EQUALS):
            k += 1
        elif c == BACKSLASH and k + 1 < high and data[k + 1] == SLASH:
            k += 2
        else:
            break
    return k


@subroutine
def _private_key(data, high, i, cls):
    """End of a private key in armour (PEM, OpenPGP) that begins at `i`; 0: none.

    A block that is cut counts as far as its base64 goes, and text that only names the first line is none.
    """
    if not same(data, i, high, _BEGIN):
        return 0
    k = i + len(_BEGIN)
    line = min(high, k + 40)
    while k < line and not same(data, k, high, _MIDDLE):
        if not (UPPER_A <= data[k] <= UPPER_Z or data[k] == BLANK):
            return 0
        k += 1
    if k >= line:
        return 0
    k += len(_MIDDLE)
    if same(data, k, high, _BLOCK):
        k += len(_BLOCK)
    if not same(data, k, high, _DASHES):
        return 0
    k += len(_DASHES)
    headers, limit = k + MAX_PEM_HEADERS, min(high, k + MAX_PEM)
    last = 0
    while k < limit:
        if data[k] == HYPHEN and same(data, k, high, _END):
            k += len(_END)
            while k < limit and data[k] != HYPHEN and data[k] != LF:
                k += 1
            while k < limit and data[k] == HYPHEN:
                k += 1
            return k
        if data[k] == HYPHEN and same(data, k, high, _BEGIN):
            return last
        end = _base64_end(data, k, limit, cls)
        is_word = end > k and (end >= limit or _is_break(data[end]) or data[end] == BACKSLASH)
        if is_word and (
            end - k >= PEM_LINE or (last and (end >= limit or data[end] <= CR or data[end] == BACKSLASH))
        ):
            last = end  # a line of the key, or its last one, which may be short
            k = end
        elif data[k] == BACKSLASH:
            k += 2  # the end of a line in source code
        elif is_word or _is_break(data[k]):
            k = max(end, k + 1)
        elif last or k > headers:
            return last
        else:
            k += 1
        if last == 0 and k > headers:
            return 0
    return last


@subroutine
def _spells(data, at, word):
    """Length of a word, if it stands at `at` in either case; 0: it does not."""
    n = 0
    while n < len(word) and word[n]:
        if data[at + n] | CASE_BIT != word[n]:
            return 0
        n += 1
    return n


@subroutine
def _size(word):
    n = 0
    while n < len(word) and word[n]:
        n += 1
    return n


@subroutine
def _keyword(data, low, at, cls):
    """Whether what is assigned at `at` is called secret, token, password, or a key of something."""
    k = at
    while k > low and at - k < 4 and data[k - 1] in (BLANK, DOUBLE_QUOTE, APOSTROPHE, BACKTICK):
        k -= 1
    end = k
    while k > low and end - k < 24 and cls[data[k - 1]] & TOKEN:
        k -= 1
    for w in range(len(_NAMES)):
        n = _size(_NAMES[w])
        if end - k < n or not _spells(data, end - n, _NAMES[w]):
            continue
        if w + 1 < len(_NAMES):
            return True
        # A mere key may be anything: its name must say that it opens something.
        for hint in _HINTS:
            for start in range(k, end - n - _size(hint) + 1):
                if _spells(data, start, hint):
                    return True
    return False


@subroutine
def _assigned(data, low, high, i, cls, counts):
    """(begin, end) of a random value that is assigned at `i` (`=` or `:`) to a secret name; begin -1: none."""
    k = i + 1
    while k < high and k - i < 6 and data[k] in (BLANK, DOUBLE_QUOTE, APOSTROPHE, BACKTICK, GT, EQUALS):
        k += 1
    begin = k
    counts[:] = 0
    digits = letters = odd = changes = 0
    last = earlier = np.uint8(0)
    while k < high and k - begin <= MAX_VALUE:
        c = data[k]
        if not (cls[c] & TOKEN or c in (PLUS, SLASH, EQUALS, DOT, TILDE)):
            break
        counts[c] += 1
        digits += cls[c] & DIGIT != 0
        letters += cls[c] & (UPPER | LOWER) != 0
        kind = cls[c] & (UPPER | LOWER)
        odd += (kind == UPPER and last == UPPER) or (kind == UPPER and last == LOWER and earlier == UPPER)
        changes += kind != 0 and last != 0 and kind != last
        earlier, last = last, kind
        k += 1
    size = k - begin
    # Random letters change case at every second one, and have capitals beside capitals, or one small letter between two;
    # names made of words have little of the one or of the other.
    random = digits >= 2 or (4 * changes > size and 5 * odd >= size)
    if size < 16 or size > MAX_VALUE or not random or letters < 2 or not _keyword(data, low, i, cls):
        return -1, 0
    while k > begin and data[k - 1] == DOT:
        k -= 1
    size = k - begin
    entropy = 0.0
    for c in range(128):
        if counts[c]:
            share = counts[c] / size
            entropy -= share * np.log2(share)
    # Random hexadecimal has 4 bits a character, and short strings cannot show them all; names and words have less.
    return (begin, k) if entropy >= 3.0 and (entropy >= 3.5 or size < 40) else (-1, 0)


@subroutine
def _characters(data, begin, end):
    """Code points of a piece of UTF-8."""
    n = 0
    for k in range(begin, end):
        n += data[k] & 0xC0 != 0x80
    return n


@kernel(
    "int64(uint8[::1], int64[::1], uint8[::1], uint64[::1], int64[::1], uint8[:, ::1], int64[:, ::1], int32[:, ::1])"
)
def scan(data, offsets, cls, file_keys, file_values, prefixes, sizes, out):
    """E-mail addresses and keys of documents: rows of (document, begin, end, kind), in code points; how many there are.

    Args:
        data: uint8, documents one behind another; `offsets`: int64 [d + 1], where they begin.
        cls, file_keys, file_values, prefixes, sizes: of `privacy_tables`.
        out: int32 [room, 4], written; where it is too small the number says so.
    """
    counts = np.zeros(256, np.int64)
    n = 0
    for d in range(len(offsets) - 1):
        low, high = offsets[d], offsets[d + 1]
        i, characters = low, 0
        while i < high:
            c = data[i]
            characters += c & 0xC0 != 0x80
            if not cls[c] & TRIGGER:
                i += 1
                continue
            begin, end, kind = -1, 0, SECRET
            if c == AT:
                password = _credentials(data, low, i, cls)
                if password >= 0:
                    begin, end = password, i
                else:
                    kind = EMAIL
                    begin, end = _email(data, low, high, i, i + 1, cls, file_keys, file_values)
            elif c in (OPEN_PARENTHESIS, OPEN_BRACKET) or (
                c == HYPHEN and i > low and data[i - 1] == BLANK and data[min(i + 4, high - 1)] == BLANK
            ):
                after = _spelled_at(data, i, high)
                if after:
                    kind = EMAIL
                    stop = i - 1 if i > low and data[i - 1] == BLANK else i
                    begin, end = _email(data, low, high, stop, after, cls, file_keys, file_values)
            elif c in (EQUALS, COLON):
                if c == COLON:
                    begin, end = telegram(data, low, high, i, cls)
                if begin < 0:
                    begin, end = _assigned(data, low, high, i, cls, counts)
            elif c == UPPER_J:
                begin, end = _web_token(data, low, high, i, cls)
            elif c in (UPPER_K, UPPER_S):
                begin, end = _amazon(data, low, high, i, cls)
                if begin < 0 and c == UPPER_K:
                    begin, end = twilio(data, low, high, i, cls)
            elif c == UPPER_C:
                if i > low and data[i - 1] == UPPER_A:
                    begin, end = twilio(data, low, high, i, cls)
            # `.slack`, `.com`, or a full stop 7 (Discord) or 23 (SendGrid) bytes on.
            elif (
                c == DOT
                and i + 23 < high
                and (data[i + 1] in (LOWER_S, LOWER_C) or data[i + 7] == DOT or data[i + 23] == DOT)
            ):
                begin, end = dotted(data, low, high, i, cls)
            elif c == HYPHEN and i + 3 < high and data[i + 1] == LOWER_U:
                begin, end = mailchimp(data, low, high, i, cls)
            elif c == HYPHEN and i + 10 < high and data[i + 1] == HYPHEN and data[i + 5] == UPPER_B:
                end = _private_key(data, high, i, cls)
                begin = i if end else -1
            if begin < 0 and c in (HYPHEN, DOT, UNDERSCORE, LOWER_Z) and i > low and cls[data[i - 1]] & TOKEN:
                kind = SECRET
                begin, end = _prefixed(data, low, high, i, cls, prefixes, sizes)
            if begin < low:
                i += 1
                continue
            # The byte at `i` is counted already; what was found begins before, at or behind it.
            first = characters - 1 - _characters(data, begin, i) + _characters(data, i, begin)
            if n < len(out):
                out[n, 0], out[n, 1], out[n, 2], out[n, 3] = (
                    d,
                    first,
                    first + _characters(data, begin, end),
                    kind,
                )
            n += 1
            characters += _characters(data, i + 1, max(end, i + 1))
            i = max(end, i + 1)
            low = i  # nothing is found twice
    return n
