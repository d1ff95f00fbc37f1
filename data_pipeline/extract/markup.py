"""Markup in bytes: names, character references, words of attributes. Compiled with the parser."""

from __future__ import annotations

import numpy as np

from data_pipeline.compiled import subroutine
from data_pipeline.extract.layout import MAX_NUMBER

MAX_ATTRIBUTE = 600
"""Bytes of an attribute that are looked at."""
BASIS, PRIME = 2166136261, 16777619
"""FNV-1a, as in `tags.fnv`."""


@subroutine
def lookup(table, key):
    """Value of a hash in a table of `tags.table`; -1 where it is not."""
    mask = table.shape[0] - 1
    i = key & mask
    while table[i, 1]:
        if table[i, 0] == key:
            return np.int64(table[i, 1]) - 1
        i = (i + 1) & mask
    return -1


@subroutine
def name_at(data, p, end):
    """(hash of a tag or attribute name in lower case, position behind it)."""
    h = BASIS
    while p < end:
        c = data[p]
        if c == 62 or c == 47 or c == 61 or c <= 32:
            break
        if 65 <= c <= 90:
            c += 32
        h = ((h ^ c) * PRIME) & 0xFFFFFFFF
        p += 1
    return h, p


@subroutine
def put(out, o, cp):
    """Write a code point as UTF-8; position behind it."""
    if cp < 0x80:
        out[o] = cp
        return o + 1
    if cp < 0x800:
        out[o] = 0xC0 | (cp >> 6)
        out[o + 1] = 0x80 | (cp & 63)
        return o + 2
    if cp < 0x10000:
        out[o] = 0xE0 | (cp >> 12)
        out[o + 1] = 0x80 | ((cp >> 6) & 63)
        out[o + 2] = 0x80 | (cp & 63)
        return o + 3
    out[o] = 0xF0 | (cp >> 18)
    out[o + 1] = 0x80 | ((cp >> 12) & 63)
    out[o + 2] = 0x80 | ((cp >> 6) & 63)
    out[o + 3] = 0x80 | (cp & 63)
    return o + 4


@subroutine
def reference(data, p, end, names, points, cp1252):
    """A character reference behind `&` at p: (first code point or -1, second or 0, position behind it)."""
    q = p
    if q < end and data[q] == 35:
        q += 1
        value, digits = 0, 0
        if q < end and (data[q] == 120 or data[q] == 88):
            q += 1
            while q < end:
                c = data[q] | 32
                if 48 <= data[q] <= 57:
                    d = data[q] - 48
                elif 97 <= c <= 102:
                    d = c - 87
                else:
                    break
                value = min(value * 16 + d, 0x200000)
                digits += 1
                q += 1
        else:
            while q < end and 48 <= data[q] <= 57:
                value = min(value * 10 + (data[q] - 48), 0x200000)
                digits += 1
                q += 1
        if not digits:
            return -1, 0, p
        if q < end and data[q] == 59:
            q += 1
        if 128 <= value < 160:
            value = np.int64(cp1252[value - 128])  # type: ignore[assignment]
        if value == 0 or value > 0x10FFFF or 0xD800 <= value < 0xE000:
            value = 0xFFFD
        return value, 0, q
    h = BASIS
    best, behind = -1, p
    while q < end and q - p < 32:
        c = data[q]
        if not (48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122):
            break
        h = ((h ^ c) * PRIME) & 0xFFFFFFFF
        q += 1
        if q < end and data[q] == 59:
            found = lookup(names, h)
            if found >= 0:
                return np.int64(points[found, 0]), np.int64(points[found, 1]), q + 1
        elif q - p <= 6:
            found = lookup(names, h)
            if found >= 0 and points[found, 2]:
                best, behind = found, q
    if best >= 0:
        return np.int64(points[best, 0]), np.int64(points[best, 1]), behind
    return -1, 0, p


@subroutine
def generated(data, p, end):
    """Whether letters and digits at p, up to other characters, are a name that a build tool made up: `1x2ab3`, `bdVaJa`.

    People write words: long runs of letters, digits at their ends, humps of three letters and more.
    """
    letters = run = longest = humps = entries = 0
    before = 0  # 1 digit, 2 capital, 3 small letter
    while p < end:
        c = data[p]
        kind = 3 if 97 <= c <= 122 or c >= 128 else (2 if 65 <= c <= 90 else (1 if 48 <= c <= 57 else 0))
        if kind == 0:
            break
        if kind == 1:
            run = 0
        else:
            letters += 1
            run += 1
            longest = max(longest, run)
            if before == 1:
                entries += 1  # a letter behind a digit
            if before == 0 or (kind == 2 and before != 2):
                humps += 1
        before = kind
        p += 1
    if entries and longest <= 3 and (entries >= 2 or letters >= 3):
        return True
    return (humps >= 3 or (humps == 2 and letters <= 5)) and letters < 3 * humps


@subroutine
def add_words(data, p, end, seed, node, tokens, t, limit, sought):
    """Words of an attribute as tokens, whole and in parts (camelCase and punctuation part them; digits go).

    Names that are `generated` are no words.

    Returns the number of tokens, the hash of all words, and what the table `sought` has for one of them, or -1.
    """
    every = BASIS
    found = -1
    end = min(end, p + MAX_ATTRIBUTE)
    while p < end:
        while p < end and data[p] <= 32:
            p += 1
        whole, piece = seed, seed
        letters, in_piece, pieces = 0, 0, 0
        lower = False
        made_up, in_run = False, False
        limit_here = limit
        while p < end and data[p] > 32:
            c = data[p]
            in_name = 97 <= (c | 32) <= 122 or c >= 128 or 48 <= c <= 57
            if in_name and not in_run:
                part = generated(data, p, end)
                made_up = made_up or part
                limit_here = -1 if part else limit
            in_run = in_name
            p += 1
            upper = 65 <= c <= 90
            if upper:
                c += 32
            letter = 97 <= c <= 122 or c >= 128
            if letter:
                if upper and lower and in_piece:
                    if t < limit_here and in_piece > 1:
                        tokens[t, 0], tokens[t, 1] = node, piece
                        t += 1
                    piece, in_piece = seed, 0
                    pieces += 1
                whole = ((whole ^ c) * PRIME) & 0xFFFFFFFF
                piece = ((piece ^ c) * PRIME) & 0xFFFFFFFF
                in_piece += 1
                letters += 1
            else:
                if in_piece > 1 and t < limit_here:
                    tokens[t, 0], tokens[t, 1] = node, piece
                    t += 1
                if in_piece:
                    pieces += 1
                if not 48 <= c <= 57:
                    whole = ((whole ^ c) * PRIME) & 0xFFFFFFFF
                piece, in_piece = seed, 0
            lower = letter and not upper
        if in_piece > 1 and t < limit_here:
            tokens[t, 0], tokens[t, 1] = node, piece
            t += 1
        if pieces and letters > 1 and t < limit and not made_up:
            tokens[t, 0], tokens[t, 1] = node, whole
            t += 1
        every = ((every ^ whole) * PRIME) & 0xFFFFFFFF
        if found < 0:
            found = lookup(sought, whole)
    return t, every, found


@subroutine
def names_one(data, p, end, sign, sought):
    """Whether `sign` (`.`, `#`) and a word of an attribute, as it is written, are in the table `sought`."""
    basis = ((BASIS ^ sign) * PRIME) & 0xFFFFFFFF
    end = min(end, p + MAX_ATTRIBUTE)
    while p < end:
        while p < end and data[p] <= 32:
            p += 1
        h = basis
        while p < end and data[p] > 32:
            h = ((h ^ data[p]) * PRIME) & 0xFFFFFFFF
            p += 1
        if h != basis and lookup(sought, h) >= 0:
            return True
    return False


@subroutine
def number_at(data, p, end, missing):
    """The integer that an attribute starts with, within MAX_NUMBER of 0; `missing` where there is none."""
    while p < end and data[p] <= 32:
        p += 1
    sign = 1
    if p < end and (data[p] == 45 or data[p] == 43):
        sign = -1 if data[p] == 45 else 1
        p += 1
    value, digits = 0, 0
    while p < end and 48 <= data[p] <= 57:
        value = min(value * 10 + (data[p] - 48), MAX_NUMBER)
        digits += 1
        p += 1
    return sign * value if digits else missing


@subroutine
def find_end_tag(data, p, n, tag_table, tag):
    """Position of the `</` that ends raw text of an element; n where it never ends."""
    while p < n:
        if data[p] == 60 and p + 2 < n and data[p + 1] == 47:
            h, _ = name_at(data, p + 2, min(n, p + 14))
            if lookup(tag_table, h) == tag:
                return p
        p += 1
    return n


@subroutine
def hides(data, p, end):
    """Whether a style says `display: none` or `visibility: hidden`."""
    end = min(end, p + MAX_ATTRIBUTE)
    while p + 8 < end:
        c = data[p] | 32
        if c == 100 and (data[p + 6] | 32) == 121 and (data[p + 1] | 32) == 105:  # d…y, di
            q, want = p + 7, 110  # n(one)
        elif c == 118 and p + 10 < end and (data[p + 9] | 32) == 121 and (data[p + 2] | 32) == 115:  # v.s…y
            q, want = p + 10, 104  # h(idden)
        else:
            p += 1
            continue
        while q < end and (data[q] <= 32 or data[q] == 58):
            q += 1
        if q < end and (data[q] | 32) == want:
            return True
        p = q
    return False


@subroutine
def shifts(data, p, end):
    """1 where a style says `vertical-align: super`, 2 where it says `sub`, else 0."""
    end = min(end, p + MAX_ATTRIBUTE)
    while p + 17 < end:
        # v…t…-…n
        if (
            (data[p] | 32) == 118
            and (data[p + 3] | 32) == 116
            and data[p + 8] == 45
            and (data[p + 13] | 32) == 110
        ):
            p += 14
            while p < end and (data[p] <= 32 or data[p] == 58):
                p += 1
            if p + 2 < end and (data[p] | 32) == 115 and (data[p + 1] | 32) == 117:
                return 1 if (data[p + 2] | 32) == 112 else 2 if (data[p + 2] | 32) == 98 else 0
        p += 1
    return 0
