"""Words of a text as the tokenisers find them on which the published thresholds were set.

A text is cut at white space. From each piece, affixes are taken off one at a time on both sides (punctuation, quotation
marks, currency, units behind numbers, 's), until an exception or nothing is left to take; what remains is cut at infixes
(hyphens between letters, slashes, operators between digits), unless it is an address. These are the rules of spaCy's
English tokeniser (Honnibal et al.), stated here as a machine over code points; its words are found again in 99.9% of
cases. Scripts written without spaces are cut into characters. Time is linear in the text.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

import numpy as np
from numba import int64, uint32, uint64

from data_pipeline.analysis.characters import (
    AFFIX,
    ALPHA,
    DIGIT,
    HOST,
    ICON,
    LETTER,
    LOWER_LETTER,
    PREFIX,
    QUOTE,
    SPACE,
    STOP_BEFORE,
    SYMBOLIC,
    UNSPACED,
    UPPER_LETTER,
    WORD,
    table,
)
from data_pipeline.analysis.english import exceptions, units
from data_pipeline.compiled import kernel, small

COUNTS = ("lexical", "lexical_chars", "alpha", "stop_words")
"""Columns of `count`: words that hold more than symbols, their characters, words that hold a letter, stop words."""
_OFFSET = np.uint64(0x9E3779B97F4A7C15)
_PRIME = np.uint64(0xD6E8FEB86659FD93)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)

_SLOTS = 8192
_PATTERNS = 2 * _SLOTS
_UNITS = 4 * _SLOTS
_MASKS = 5 * _SLOTS
_LONGEST = 13
"""Characters of the longest exception: longer words are not looked up."""
_WHOLE = np.uint64(1 << 62)
"""Marks a complete pattern; an entry without it is the beginning of a longer one."""

_DOT, _ELLIPSIS, _PLUS, _HYPHEN = 0x2E, 0x2026, 0x2B, 0x2D


@small(uint64(uint64), inline=True)
def mix(x):
    """Finaliser of splitmix64: neighbouring numbers become unrelated hashes."""
    x = (x ^ (x >> _30)) * _MIX_1
    x = (x ^ (x >> _27)) * _MIX_2
    return x ^ (x >> _31)


@small(uint64(uint32[::1], int64, int64), inline=True)
def hash_of(cps, a, b):
    """64-bit hash of the characters `a` to `b`; equal on every machine."""
    h = _OFFSET
    for i in range(a, b):
        h = (h ^ uint64(cps[i])) * _PRIME
    return mix(h)


@small(int64(uint64[::1], int64, uint64), inline=True)
def _find(rules, base, key):
    """Slot of a key in the table that starts at `base`, or -1."""
    slot = int64(key & uint64(_SLOTS - 1))
    while True:
        held = rules[base + slot]
        if held == key:
            return slot
        if held == uint64(0):
            return -1
        slot = (slot + 1) & (_SLOTS - 1)


@small("boolean(uint64[::1], uint32, uint32, int64)", inline=True)
def _may_be(rules, first, last, size):
    """Whether an exception of this length begins and ends with such characters; rules out most words at once."""
    masks = rules[_MASKS + int64(first & uint32(127))] & rules[_MASKS + 128 + int64(last & uint32(127))]
    return size >= 2 and size <= _LONGEST and (masks >> uint64(size)) & uint64(1) != uint64(0)


@small(int64(uint64[::1], uint32[::1], int64, int64))
def _exception(rules, cps, a, b):
    """Slot of the characters `a` to `b` among the exceptions, or -1."""
    if b - a < 2 or not _may_be(rules, cps[a], cps[b - 1], b - a):
        return -1
    return _find(rules, 0, hash_of(cps, a, b))


@small(int64(uint32[::1], uint32[::1], int64, int64))
def _prefix(cps, flags, a, b):
    """Length of the prefix of a piece, or 0."""
    c = cps[a]
    if flags[c] & PREFIX:
        return 1
    if c == _DOT:
        n = 1
        while a + n < b and cps[a + n] == _DOT:
            n += 1
        return n if n > 1 else 0
    if c == _PLUS:
        return 0 if a + 1 < b and flags[cps[a + 1]] & DIGIT else 1
    if c == 0x55 and a + 2 < b and cps[a + 1] == 0x53 and cps[a + 2] == 0x24:
        return 3
    if (c == 0x41 or c == 0x43) and a + 1 < b and cps[a + 1] == 0x24:
        return 2
    return 0


@small(int64(uint64[::1], uint32[::1], uint32[::1], int64, int64))
def _suffix(rules, cps, flags, a, b):
    """Length of the suffix of a piece, or 0."""
    if b <= a:
        return 0
    c = cps[b - 1]
    if c == _DOT:
        n = 1
        while b - n - 1 >= a and cps[b - n - 1] == _DOT:
            n += 1
        if n > 1:
            return n
        if b - 2 < a:
            return 0
        before = flags[cps[b - 2]]
        if before & STOP_BEFORE:
            return 1
        if b - 3 >= a:
            if before & UPPER_LETTER and flags[cps[b - 3]] & UPPER_LETTER:
                return 1
            if cps[b - 3] == 0xB0 and (cps[b - 2] == 0x43 or cps[b - 2] == 0x46 or cps[b - 2] == 0x4B):
                return 1
        return 0
    if flags[c] & AFFIX:
        return 2 if c == _ELLIPSIS and b - 2 >= a and cps[b - 2] == _ELLIPSIS else 1
    if b - 2 < a:
        return 0
    previous = cps[b - 2]
    if (c == 0x73 or c == 0x53) and (previous == 0x27 or previous == 0x2019):
        return 2
    if c == _PLUS:
        return 1 if flags[previous] & DIGIT else 0
    for n in range(1, 5):
        if b - n - 1 < a:
            return 0
        if flags[cps[b - n - 1]] & DIGIT:
            return n if _find(rules, _UNITS, hash_of(cps, b - n, b)) >= 0 else 0
    return 0


@small(int64(uint32[::1], uint32[::1], int64, int64, int64))
def _infix(cps, flags, a, b, i):
    """Length of the infix at `i` of the piece `a` to `b`, or 0."""
    c = cps[i]
    f = flags[c]
    if f & LETTER:
        return 0
    if f & ICON or c == _ELLIPSIS:
        return 1
    before = flags[cps[i - 1]] if i > a else uint32(0)
    after = flags[cps[i + 1]] if i + 1 < b else uint32(0)
    if c == _DOT:
        n = 1
        while i + n < b and cps[i + n] == _DOT:
            n += 1
        if n > 1:
            return n
        return 1 if before & (LOWER_LETTER | QUOTE) and after & (UPPER_LETTER | QUOTE) else 0
    between = before & DIGIT and i + 1 < b and (after & DIGIT or cps[i + 1] == _HYPHEN)
    if between and c in (_PLUS, _HYPHEN, 0x2A, 0x5E):
        return 1
    if c == 0x2C:
        return 1 if before & LETTER and after & LETTER else 0
    if not before & (LETTER | DIGIT):
        return 0
    if c == _HYPHEN or c == 0x2013 or c == 0x2014 or c == 0x7E:
        if after & LETTER:
            return 1
        if c == _HYPHEN and i + 2 < b and cps[i + 1] == _HYPHEN:
            if flags[cps[i + 2]] & LETTER:
                return 2
            if cps[i + 2] == _HYPHEN and i + 3 < b and flags[cps[i + 3]] & LETTER:
                return 3
        if c == 0x2014 and i + 2 < b and cps[i + 1] == 0x2014 and flags[cps[i + 2]] & LETTER:
            return 2
        return 0
    if c == 0x3A or c == 0x3C or c == 0x3D or c == 0x3E or c == 0x2F:
        return 1 if after & LETTER else 0
    return 0


@small(int64(uint32[::1], uint32[::1], int64, int64))
def _ends_address(cps, flags, i, b):
    """Whether a port, a path or nothing follows the host of an address."""
    if i < b and cps[i] == 0x3A:
        n = 1
        while i + n < b and flags[cps[i + n]] & DIGIT:
            n += 1
        if n < 3 or n > 6:
            return 0
        i += n
    return 1 if i == b or cps[i] == 0x2F or cps[i] == 0x3F or cps[i] == 0x23 else 0


@small(int64(uint32[::1], uint32[::1], int64, int64))
def _is_host(cps, flags, a, b):
    """Whether `a` to `b` is a host with an optional port and path."""
    label, labels, i, quad = a, 0, a, 0
    while i < b:
        f = flags[cps[i]]
        if cps[i] == _DOT:
            if i == label or i - label > 64 or not flags[cps[label]] & HOST or not flags[cps[i - 1]] & HOST:
                return 0
            labels += 1
            label = i + 1
        elif not (f & HOST or cps[i] == _HYPHEN or cps[i] == 0x5F):
            break
        i += 1
    if labels == 0 or i == label:
        return 0
    lower = True
    for k in range(label, i):
        lower = lower and flags[cps[k]] & LOWER_LETTER != 0
        quad += flags[cps[k]] & DIGIT != 0
    if lower:
        return _ends_address(cps, flags, i, b) if 2 <= i - label <= 63 else 0
    if labels != 3 or quad != i - label or cps[a] == 0x30:
        return 0
    value, first, n = 0, 0, 0
    for k in range(a, i + 1):
        if k == i or cps[k] == _DOT:
            if value > 255 or n == 0 or (k == i and value == 0):
                return 0
            if first == 0:
                first = value
                if value > 223 or value == 10 or value == 127:
                    return 0
            value, n = 0, 0
        elif flags[cps[k]] & DIGIT:
            value = value * 10 + int64(cps[k]) - 0x30
            n += 1
            if n > 3:
                return 0
        else:
            return 0
    return _ends_address(cps, flags, i, b)


@small(int64(uint32[::1], uint32[::1], int64, int64))
def _is_address(cps, flags, a, b):
    """Whether a piece is a URL, a host name or an e-mail address."""
    if _is_host(cps, flags, a, b):
        return 1
    i = a
    while i < b and (flags[cps[i]] & WORD or cps[i] == _HYPHEN or cps[i] == _DOT or cps[i] == _PLUS):
        i += 1
    has_scheme = i - a >= 2 and i + 2 < b and cps[i] == 0x3A and cps[i + 1] == 0x2F and cps[i + 2] == 0x2F
    if has_scheme and _is_host(cps, flags, i + 3, b):
        return 1
    # Only the last few of many @ can stand before a host: more are no address, and would take quadratic time.
    tried = 0
    for k in range(b - 2, a, -1):
        if cps[k] == 0x40:
            if _is_host(cps, flags, k + 1, b):
                return 1
            tried += 1
            if tried == 4:
                break
    return 0


_ARRAYS = (
    "int64(uint32[::1], uint32[::1], uint64[::1], int64, int64, int32[::1], int32[::1], uint64[::1], int64)"
)


@small("int64(uint32[::1], int64, int64, int32[::1], int32[::1], uint64[::1], int64)", inline=True)
def _emit(cps, a, b, start, length, hashes, n):
    start[n] = a
    length[n] = b - a
    hashes[n] = hash_of(cps, a, b)
    return n + 1


@small("int64(uint32[::1], int64, int64, uint64, int32[::1], int32[::1], uint64[::1], int64)")
def _emit_cut(cps, a, b, cuts, start, length, hashes, n):
    """Emit the parts of an exception; `cuts` holds their number and, a byte each, where they begin."""
    at = a
    count = int64(cuts & uint64(0xFF))
    for _ in range(count):
        cuts >>= uint64(8)
        n = _emit(cps, at, a + int64(cuts & uint64(0xFF)), start, length, hashes, n)
        at = a + int64(cuts & uint64(0xFF))
    return _emit(cps, at, b, start, length, hashes, n)


@small("int64(uint32[::1], uint64[::1], int64, int32[::1], int32[::1], uint64[::1], int64)")
def _join(cps, rules, first, start, length, hashes, n):
    """Join parts of a piece that together are an exception, such as a colon and a bracket."""
    i = out = first
    while i < n:
        key = hashes[i]
        best, cuts = -1, uint64(0)
        for j in range(i + 1, n):
            key = mix(key * _PRIME + hashes[j])
            slot = _find(rules, _PATTERNS, key)
            if slot < 0:
                break
            if rules[_PATTERNS + _SLOTS + slot] & _WHOLE:
                best, cuts = j, rules[_PATTERNS + _SLOTS + slot] & ~_WHOLE
        if best < 0:
            start[out], length[out], hashes[out] = start[i], length[i], hashes[i]
            out += 1
            i += 1
        else:
            # An exception has no more parts than the rules would give it, so none is overwritten before it is read.
            a, b = int64(start[i]), int64(start[best] + length[best])
            out = _emit_cut(cps, a, b, cuts, start, length, hashes, out)
            i = best + 1
    return out


@small(_ARRAYS)
def _cut(cps, flags, rules, a, b, start, length, hashes, n):
    """Words of a piece without white space; -1 where the arrays are full."""
    first, top = n, len(start)
    while a < b:
        if n + 12 > top:
            return -1
        if _exception(rules, cps, a, b) >= 0:
            break
        before = _prefix(cps, flags, a, b)
        if before and _exception(rules, cps, a + before, b) >= 0:
            n = _emit(cps, a, a + before, start, length, hashes, n)
            a += before
            break
        behind = _suffix(rules, cps, flags, a + before, b)
        if behind and _exception(rules, cps, a, b - behind) >= 0:
            top -= 1
            start[top], length[top] = b - behind, behind
            b -= behind
            break
        if before == 0 and behind == 0:
            break
        if before:
            n = _emit(cps, a, a + before, start, length, hashes, n)
            a += before
        if behind:
            top -= 1
            start[top], length[top] = b - behind, behind
            b -= behind
    if n + 12 > top:
        return -1
    if a < b:
        slot = _exception(rules, cps, a, b)
        if slot >= 0:
            n = _emit_cut(cps, a, b, rules[_SLOTS + slot], start, length, hashes, n)
        else:
            at, i = a, a
            is_address = -1
            while i < b:
                if flags[cps[i]] & (LETTER | DIGIT):
                    i += 1
                    continue
                found = _infix(cps, flags, a, b, i)
                if found and i > a:
                    if is_address < 0:
                        is_address = _is_address(cps, flags, a, b)
                    if is_address:
                        break
                    if n + 4 > top:
                        return -1
                    if i > at:
                        n = _emit(cps, at, i, start, length, hashes, n)
                    n = _emit(cps, i, i + found, start, length, hashes, n)
                    at = i + found
                i += max(found, 1)
            if at < b:
                n = _emit(cps, at, b, start, length, hashes, n)
    # What is read lies behind what is written, so the suffixes may move within the arrays.
    for k in range(top, len(start)):
        n = _emit(cps, int64(start[k]), int64(start[k] + length[k]), start, length, hashes, n)
    return _join(cps, rules, first, start, length, hashes, n) if n - first > 1 else n


@small(_ARRAYS)
def find(cps, flags, rules, a, b, start, length, hashes, n):
    """Words of the characters `a` to `b`, written from place `n` on; the next free place, or -1 where there is none.

    Args:
        cps: code points, uint32.
        flags: `characters.table()`.
        rules: `rules()`.
        start, length, hashes: where words begin, their characters (int32) and hashes (uint64).
    """
    i = a
    while i < b:
        if flags[cps[i]] & SPACE:
            i += 1
            continue
        if n + 8 > len(start):
            return -1
        first = i
        h, whole = _OFFSET, _OFFSET
        some = uint32(0)
        letters = digits = 0
        while i < b:
            c = cps[i]
            f = flags[c]
            if f & SPACE:
                break
            some |= f
            h = whole
            whole = (whole ^ uint64(c)) * _PRIME
            letters += f & LETTER != 0
            digits += f & DIGIT != 0
            i += 1
        size = i - first
        if some & UNSPACED:
            at = first
            for k in range(first, i + 1):
                if k == i or flags[cps[k]] & UNSPACED:
                    if k > at:
                        n = _cut(cps, flags, rules, at, k, start, length, hashes, n)
                        if n < 0:
                            return -1
                    if k < i:
                        if n + 1 > len(start):
                            return -1
                        n = _emit(cps, k, k + 1, start, length, hashes, n)
                    at = k + 1
            continue
        whole = mix(whole)
        last = cps[i - 1]
        if _may_be(rules, cps[first], last, size):
            slot = _find(rules, 0, whole)
            if slot >= 0:
                n = _emit_cut(cps, first, i, rules[_SLOTS + slot], start, length, hashes, n)
                continue
        # Nothing is split off letters, nor off digits unless a unit follows them.
        if letters == size or (letters + digits == size and flags[last] & DIGIT):
            start[n], length[n], hashes[n] = first, size, whole
            n += 1
            continue
        ends = flags[last] & AFFIX or (last == _DOT and size > 1 and flags[cps[i - 2]] & LOWER_LETTER)
        if ends and letters == size - 1 and size > 2 and not flags[last] & LETTER:
            # A word and one mark behind it, the most frequent piece after plain words.
            h = mix(h)
            if not _may_be(rules, cps[first], cps[i - 2], size - 1) or _find(rules, 0, h) < 0:
                start[n], length[n], hashes[n] = first, size - 1, h
                n = _emit(cps, i - 1, i, start, length, hashes, n + 1)
                continue
        n = _cut(cps, flags, rules, first, i, start, length, hashes, n)
        if n < 0:
            return -1
    return n


@small(
    "int64(uint32[::1], int64[::1], uint32[::1], uint64[::1], int32[::1], int32[::1], uint64[::1], int64[::1])"
)
def find_all(cps, bounds, flags, rules, start, length, hashes, words):
    """Words of all documents of a batch; `words` (int64 [d + 1], written) says where those of each begin."""
    n = int64(0)
    words[0] = 0
    for d in range(len(bounds) - 1):
        n = find(cps, flags, rules, bounds[d], bounds[d + 1], start, length, hashes, n)
        if n < 0:
            return -1
        words[d + 1] = n
    return n


@kernel(
    "void(uint32[::1], uint32[::1], int32[::1], int32[::1], uint64[::1], int64[::1], uint64[:, ::1], int32[::1], "
    "int64[:, ::1])"
)
def count(cps, flags, start, length, hashes, words, stops, languages, out):
    """Count words into `out` [d, len(COUNTS)].

    Args:
        stops: hash table of stop words as `stop_words` makes it; languages: int32 [d], number of the language of each
            document in it, -1 for none.
    """
    size, longest = stops.shape[1], int64(stops[1, 0])
    seen = np.full(size, -1, np.int64)
    for d in range(len(words) - 1):
        lexical = chars = alpha = found = 0
        language = uint64(languages[d] + 1)
        for w in range(words[d], words[d + 1]):
            i = int64(start[w])
            holds_letter, holds_word = False, False
            for k in range(i, i + length[w]):
                f = flags[cps[k]]
                holds_word = holds_word or f & SYMBOLIC == 0
                if f & ALPHA:
                    holds_letter = holds_word = True
                    break
            alpha += holds_letter
            if holds_word:
                lexical += 1
                chars += length[w]
            if language > 0 and length[w] <= longest:
                key = mix(hashes[w] + language)
                slot = int64(key) & (size - 1)
                while stops[0, slot] != uint64(0):
                    if stops[0, slot] == key:
                        if seen[slot] != d:
                            seen[slot] = d
                            found += 1
                        break
                    slot = (slot + 1) & (size - 1)
        out[d, 0], out[d, 1], out[d, 2], out[d, 3] = lexical, chars, alpha, found


def stop_words(listed: Sequence[Collection[str]]) -> np.ndarray:
    """Hash table of the stop words of some languages, by their place in the list: uint64 [2, slots].

    The second row begins with the characters of the longest of them.
    """
    size = 16
    while size < 2 * sum(map(len, listed)):
        size *= 2
    table = np.zeros((2, size), np.uint64)
    table[1, 0] = max((len(word) for words in listed for word in words), default=0)
    for language, words in enumerate(listed):
        for word in sorted(words):
            key = int(mix(np.uint64((hash_word(word) + language + 1) % 2**64)))
            slot = key & (size - 1)
            while int(table[0, slot]) not in (0, key):
                slot = (slot + 1) & (size - 1)
            table[0, slot] = key
    return table


def code_points(text: str) -> np.ndarray:
    """Code points of a text, lone surrogates included: uint32 [n]."""
    return np.frombuffer(bytearray(text.encode("utf-32-le", "surrogatepass")), "<u4")


def hash_word(word: str) -> int:
    """Hash of a word as `find` gives it."""
    return int(hash_of(code_points(word), 0, len(word)))


@cache
def rules() -> np.ndarray:
    """Exceptions, what the rules would make of them, and units, as hash tables in one array."""
    found = np.zeros(_MASKS + 256, np.uint64)

    def insert(base: int, key: int, value: int | None) -> None:
        slot = key & (_SLOTS - 1)
        while found[base + slot] not in (0, key):
            slot = (slot + 1) & (_SLOTS - 1)
        found[base + slot] = key
        if value is not None:
            found[base + _SLOTS + slot] = np.uint64(value)

    for unit in units():
        insert(_UNITS, hash_word(unit), None)
    flags, patterns = table(), []
    start, length, hashes = np.empty(64, np.int32), np.empty(64, np.int32), np.empty(64, np.uint64)
    for word, cuts in exceptions().items():
        packed = len(cuts) + sum(cut << 8 * (i + 1) for i, cut in enumerate(cuts))
        n = _cut(code_points(word), flags, found, 0, len(word), start, length, hashes, 0)
        if len(cuts) < n > 1:
            patterns.append((hashes[:n].copy(), packed))
    for word, cuts in exceptions().items():
        packed = len(cuts) + sum(cut << 8 * (i + 1) for i, cut in enumerate(cuts))
        insert(0, hash_word(word), packed)
        for place, character in ((0, word[0]), (128, word[-1])):
            found[_MASKS + place + (ord(character) & 127)] |= np.uint64(1 << len(word))
    for parts, packed in patterns:
        key = parts[0]
        for k in range(1, len(parts)):
            with np.errstate(over="ignore"):
                key = np.uint64(mix(key * _PRIME + parts[k]))
            slot = _find(found, _PATTERNS, key)
            held = 0 if slot < 0 else int(found[_PATTERNS + _SLOTS + slot])
            insert(_PATTERNS, int(key), (int(_WHOLE) | packed) if k == len(parts) - 1 else held)
    return found
