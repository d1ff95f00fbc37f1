# mypy: disable-error-code="assignment"
"""Words of a text as the tokenisers find them on which the published thresholds were set.

A text is cut at white space. From each piece, affixes are taken off one at a time on both sides (punctuation, quotation
marks, currency, units behind numbers, 's), until an exception or nothing is left to take; what remains is cut at infixes
(hyphens between letters, slashes, operators between digits), unless it is an address. These are the rules of spaCy's
English tokeniser (Honnibal et al.), stated here as a machine over code points; its words are found again in 99.9% of
cases. Scripts written without spaces are cut into characters. Time is linear in the text.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import int32, int64, types, uint32, uint64

from data_pipeline.analysis.addresses import is_address
from data_pipeline.analysis.affixes import infix_length, prefix_length, suffix_length, unit_length
from data_pipeline.analysis.characters import (
    AFFIX,
    ALPHA,
    DIGIT,
    LETTER,
    LOWER_LETTER,
    SPACE,
    SYMBOLIC,
    UNSPACED,
    table,
)
from data_pipeline.analysis.english import exceptions, units
from data_pipeline.analysis.word_tables import (
    COMPLETE,
    RULES,
    STOP_WORDS,
    Rules,
    add_exceptions,
    code_points,
    empty_rules,
    exception_slot,
    hash_of,
    hash_word,
    insert,
    lookup,
    may_be_exception,
    packed_cuts,
    stop_key,
)
from data_pipeline.compiled import kernel, small, small_subroutine
from data_pipeline.kernels.ascii import DOT
from data_pipeline.kernels.hash_table import slot_of
from data_pipeline.kernels.hashing import OFFSET, add_character, extend, mix
from data_pipeline.kernels.records import count_fields, rows

COUNTS = count_fields(
    "lexical",
    "lexical_chars",
    "alpha",
)
"""Counts of `count`: words that hold more than symbols, their characters, words that hold a letter."""
_MAX_PARTS = 12
"""Words that one step of cutting a piece writes at most: an affix, or the parts of an exception."""


class Words(NamedTuple):
    """Words in the order of the text."""

    start: np.ndarray
    """Index of the first character: int32."""
    length: np.ndarray
    """Characters: int32."""
    hashes: np.ndarray
    """`hash_of` the characters: uint64."""


WORDS = types.NamedTuple((int32[::1], int32[::1], uint64[::1]), Words)
"""numba's type of `Words`."""


@small_subroutine
def _write(words, n, begin, end, h):
    """Write a word; the next free place."""
    words.start[n], words.length[n], words.hashes[n] = begin, end - begin, h
    return n + 1


@small_subroutine
def _write_part(cps, words, n, begin, end):
    """Hash a word and write it; the next free place."""
    return _write(words, n, begin, end, hash_of(cps, begin, end))


@small_subroutine
def _write_exception(cps, words, n, begin, end, cuts):
    """Write the parts of an exception, whose `cuts` are packed as `Rules` says."""
    part = begin
    for _ in range(int64(cuts & uint64(0xFF))):
        cuts >>= uint64(8)
        part_end = begin + int64(cuts & uint64(0xFF))
        n = _write_part(cps, words, n, part, part_end)
        part = part_end
    return _write_part(cps, words, n, part, end)


@small_subroutine
def _join(cps, rules, words, first, n):
    """Join words from `first` on that together are an exception, such as a colon and a bracket."""
    i = out = first
    while i < n:
        key = words.hashes[i]
        last, cuts = int64(-1), uint64(0)
        for j in range(i + 1, n):
            key = extend(key, words.hashes[j])
            slot = lookup(rules.patterns, key)
            if slot < 0:
                break
            if rules.pattern_cuts[slot] & COMPLETE:
                last, cuts = j, rules.pattern_cuts[slot] & ~COMPLETE
        if last < 0:
            words.start[out], words.length[out] = words.start[i], words.length[i]
            words.hashes[out] = words.hashes[i]
            out += 1
            i += 1
        else:
            # An exception has no more parts than the rules would give it, so none is overwritten before it is read.
            begin, end = int64(words.start[i]), int64(words.start[last] + words.length[last])
            out = _write_exception(cps, words, out, begin, end, cuts)
            i = last + 1
    return out


@small_subroutine
def _suffix_length(cps, flags, rules, begin, end):
    """Length of the suffix of a piece: punctuation and the like, or a unit; 0: none."""
    n = suffix_length(cps, flags, begin, end)
    if n == 0:
        n = unit_length(cps, flags, begin, end)
        if n and lookup(rules.units, hash_of(cps, end - n, end)) < 0:
            n = 0
    return n


@small_subroutine
def _cut_at_infixes(cps, flags, words, n, top, begin, end):
    """Words of a piece without affixes; -1 where no place is left below `top`."""
    part, i = begin, begin
    is_checked = False
    while i < end:
        if flags[cps[i]] & (LETTER | DIGIT):
            i += 1
            continue
        infix = infix_length(cps, flags, begin, end, i)
        if infix and i > begin:
            if not is_checked:
                if is_address(cps, flags, begin, end):
                    break
                is_checked = True
            if n + 4 > top:
                return int64(-1)
            if i > part:
                n = _write_part(cps, words, n, part, i)
            n = _write_part(cps, words, n, i, i + infix)
            part = i + infix
        i += max(infix, 1)
    if part < end:
        n = _write_part(cps, words, n, part, end)
    return n


@small(int64(uint32[::1], uint32[::1], RULES, int64, int64, WORDS, int64))
def cut(cps, flags, rules, begin, end, words, n):
    """Words of a piece without white space, written from place `n` on; the next free place, or -1: none is left.

    Suffixes are found from the outside in, so they are kept at the end of the arrays until all before them is written.
    """
    first, top = n, len(words.start)
    while begin < end:
        if n + _MAX_PARTS > top:
            return -1
        if exception_slot(rules, cps, begin, end) >= 0:
            break
        prefix = prefix_length(cps, flags, begin, end)
        if prefix and exception_slot(rules, cps, begin + prefix, end) >= 0:
            n = _write_part(cps, words, n, begin, begin + prefix)
            begin += prefix
            break
        suffix = _suffix_length(cps, flags, rules, begin + prefix, end)
        is_exception = suffix > 0 and exception_slot(rules, cps, begin, end - suffix) >= 0
        if prefix and not is_exception:
            n = _write_part(cps, words, n, begin, begin + prefix)
            begin += prefix
        if suffix:
            top -= 1
            words.start[top], words.length[top] = end - suffix, suffix
            end -= suffix
        if is_exception or (prefix == 0 and suffix == 0):
            break
    if n + _MAX_PARTS > top:
        return -1
    if begin < end:
        slot = exception_slot(rules, cps, begin, end)
        if slot >= 0:
            n = _write_exception(cps, words, n, begin, end, rules.cuts[slot])
        else:
            n = _cut_at_infixes(cps, flags, words, n, top, begin, end)
            if n < 0:
                return -1
    # What is read lies behind what is written, so the suffixes may move within the arrays.
    for k in range(top, len(words.start)):
        suffix_begin = int64(words.start[k])
        n = _write_part(cps, words, n, suffix_begin, suffix_begin + words.length[k])
    return _join(cps, rules, words, first, n) if n - first > 1 else n


@small_subroutine
def _cut_unspaced(cps, flags, rules, begin, end, words, n):
    """Words of a piece with characters of unspaced scripts: each of those, and the words of what is between them."""
    part = begin
    for k in range(begin, end + 1):
        if k < end and not flags[cps[k]] & UNSPACED:
            continue
        if k > part:
            n = cut(cps, flags, rules, part, k, words, n)
            if n < 0:
                return int64(-1)
        if k < end:
            if n + 1 > len(words.start):
                return int64(-1)
            n = _write_part(cps, words, n, k, k + 1)
        part = k + 1
    return n


@small(int64(uint32[::1], uint32[::1], RULES, int64, int64, WORDS, int64))
def find(cps, flags, rules, begin, end, words, n):
    """Words of some characters, written from place `n` on; the next free place, or -1 where there is none.

    Args:
        cps: code points, uint32.
        flags: `characters.table()`.
        rules: `rules()`.
        words: written.
    """
    i = begin
    while i < end:
        if flags[cps[i]] & SPACE:
            i += 1
            continue
        if n + 8 > len(words.start):
            return -1
        first = i
        # Hashes of the piece, and of the piece without its last character.
        whole, but_last = OFFSET, OFFSET
        flags_of_any = uint32(0)
        letters = digits = 0
        while i < end:
            c = cps[i]
            f = flags[c]
            if f & SPACE:
                break
            flags_of_any |= f
            but_last = whole
            whole = add_character(whole, c)
            letters += f & LETTER != 0
            digits += f & DIGIT != 0
            i += 1
        size = i - first
        if flags_of_any & UNSPACED:
            n = _cut_unspaced(cps, flags, rules, first, i, words, n)
            if n < 0:
                return -1
            continue
        whole = mix(whole)
        last = cps[i - 1]
        if may_be_exception(rules, cps[first], last, size):
            slot = lookup(rules.exceptions, whole)
            if slot >= 0:
                n = _write_exception(cps, words, n, first, i, rules.cuts[slot])
                continue
        # Nothing is split off letters, nor off digits unless a unit follows them.
        if letters == size or (letters + digits == size and flags[last] & DIGIT):
            n = _write(words, n, first, i, whole)
            continue
        ends = flags[last] & AFFIX or (last == DOT and size > 1 and flags[cps[i - 2]] & LOWER_LETTER)
        if ends and letters == size - 1 and size > 2 and not flags[last] & LETTER:
            # A word and one character behind it, the most frequent piece after plain words.
            but_last = mix(but_last)
            if (
                not may_be_exception(rules, cps[first], cps[i - 2], size - 1)
                or lookup(rules.exceptions, but_last) < 0
            ):
                n = _write(words, n, first, i - 1, but_last)
                n = _write_part(cps, words, n, i - 1, i)
                continue
        n = cut(cps, flags, rules, first, i, words, n)
        if n < 0:
            return -1
    return n


@small(int64(uint32[::1], int64[::1], uint32[::1], RULES, WORDS, int64[::1]))
def find_all(cps, bounds, flags, rules, words, words_of):
    """Words of all documents of a batch; `words_of` (int64 [d + 1], written): where those of each begin. -1: no room."""
    n = int64(0)
    words_of[0] = 0
    for d in range(len(bounds) - 1):
        n = find(cps, flags, rules, bounds[d], bounds[d + 1], words, n)
        if n < 0:
            return -1
        words_of[d + 1] = n
    return n


@small_subroutine
def _kind(cps, flags, begin, end):
    """(whether a word holds a letter, whether it holds more than symbols)."""
    is_lexical = False
    for k in range(begin, end):
        f = flags[cps[k]]
        if f & ALPHA:
            return True, True
        is_lexical = is_lexical or f & SYMBOLIC == 0
    return False, is_lexical


@small(types.void(uint32[::1], uint32[::1], WORDS, int64[::1], rows(COUNTS)))
def count(cps, flags, words, words_of, out):
    """Count words into `out` (COUNTS [d], zeros); `words_of`: int64 [d + 1], where the words of documents begin."""
    for d in range(len(words_of) - 1):
        counts = out[d]
        for w in range(words_of[d], words_of[d + 1]):
            begin, length = int64(words.start[w]), int64(words.length[w])
            holds_letter, is_lexical = _kind(cps, flags, begin, begin + length)
            counts.alpha += holds_letter
            if is_lexical:
                counts.lexical += 1
                counts.lexical_chars += length


@kernel(types.void(WORDS, int64[::1], STOP_WORDS, int32[::1], int64[::1]))
def count_stop_words(words, words_of, stops, languages, out):
    """Count the different stop words of each document into `out` (int64 [d]).

    Args:
        words_of: int64 [d + 1], where the words of documents begin.
        stops: `word_tables.stop_words`; languages: int32 [d], number of the language of each document in it, -1 for none.
    """
    size = len(stops.keys)
    # Document in which each stop word was seen last: different ones are counted.
    seen_in = np.full(size, -1, np.int64)
    for d in range(len(words_of) - 1):
        n_seen, language = 0, int64(languages[d])
        for w in range(words_of[d], words_of[d + 1] if language >= 0 else words_of[d]):
            if words.length[w] > stops.longest:
                continue
            key = stop_key(words.hashes[w], language)
            slot = slot_of(stops.keys, size, key)
            if stops.keys[slot] == key and seen_in[slot] != d:
                seen_in[slot] = d
                n_seen += 1
        out[d] = n_seen


@cache
def rules() -> Rules:
    """The tables of the rules of English.

    Words that the rules without exceptions would cut otherwise are added as patterns too: inside a piece they are found
    by their parts.
    """
    tables = empty_rules()
    for unit in units():
        insert(tables.units, hash_word(unit))
    words = Words(np.empty(64, np.int32), np.empty(64, np.int32), np.empty(64, np.uint64))
    patterns = []
    for word, cuts in exceptions().items():
        n = cut(code_points(word), table(), tables, 0, len(word), words, 0)
        if len(cuts) < n > 1:
            patterns.append((words.hashes[:n].copy(), packed_cuts(cuts)))
    add_exceptions(tables, exceptions())
    for parts, cuts_of_all in patterns:
        key = parts[0]
        for k in range(1, len(parts)):
            key = np.uint64(extend(key, parts[k]))
            slot = lookup(tables.patterns, key)
            held = 0 if slot < 0 else int(tables.pattern_cuts[slot])
            is_last = k == len(parts) - 1
            insert(
                tables.patterns,
                int(key),
                tables.pattern_cuts,
                (int(COMPLETE) | cuts_of_all) if is_last else held,
            )
    return tables
