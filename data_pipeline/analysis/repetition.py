"""Repeated lines, paragraphs and n-grams.

n-grams grow from n to n + 1: where n words repeat, their first and their last n - 1 do, so only those few places are
looked at again. Everything is compared by 64-bit hashes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int32, int64, types, uint8, uint32, uint64

from data_pipeline.analysis.characters import SPACE
from data_pipeline.compiled import kernel, small_subroutine
from data_pipeline.kernels.ascii import LF
from data_pipeline.kernels.hash_table import insert, n_slots
from data_pipeline.kernels.hashing import OFFSET, add_character, extend, mix
from data_pipeline.kernels.records import count_fields, rows

DUPLICATES = count_fields(
    "lines",
    "dup_lines",
    "dup_line_chars",
    "dup_filled_line_chars",
    "paragraphs",
    "dup_paragraphs",
    "dup_paragraph_chars",
)
"""Counts of `count_duplicates`: pieces between runs of line feeds, and between two or more; `dup_` counts those that an
earlier one of the document equals, *filled* lines hold more than white space."""
MOST_FREQUENT = (2, 3, 4)
"""Words of n-grams of which the most frequent one counts."""
REPEATED = (5, 6, 7, 8, 9, 10)
"""Words of n-grams of which every repeated one counts."""
SHORTEST, LONGEST = MOST_FREQUENT[0], REPEATED[-1]
MAX_WORDS = 2**22
"""Words of a document whose n-grams are looked at, which bounds memory; those behind them count as not repeated."""
COVERAGE = 3
"""Words of the n-grams whose repetition within a line is measured."""


@small_subroutine
def _count_duplicate_lines(cps, flags, begin, end, keys, size, counts):
    """Lines are separated by runs of line feeds; a run at either end of the text leaves an empty line there."""
    empty = 0
    line, is_filled, h = begin, False, OFFSET
    for i in range(begin, end + 1):
        if i < end and cps[i] != LF:
            h = add_character(h, cps[i])
            is_filled = is_filled or flags[cps[i]] & SPACE == 0
            continue
        if i > line:
            counts.lines += 1
            # The hash table marks empty slots by 0.
            if insert(keys, size, mix(h) | uint64(1)):
                counts.dup_lines += 1
                counts.dup_line_chars += i - line
                counts.dup_filled_line_chars += i - line if is_filled else 0
        elif i in (begin, end):
            empty += 1
        line, is_filled, h = i + 1, False, OFFSET
    counts.lines += empty
    counts.dup_lines += max(empty - 1, 0)


@small_subroutine
def _count_duplicate_paragraphs(cps, flags, begin, end, keys, size, counts):
    """Paragraphs of the stripped text are separated by two or more line feeds; a single one is part of its paragraph."""
    while begin < end and flags[cps[begin]] & SPACE:
        begin += 1
    while end > begin and flags[cps[end - 1]] & SPACE:
        end -= 1
    paragraph, h, line_feeds = begin, OFFSET, 0
    for i in range(begin, end + 1):
        if i < end and cps[i] == LF:
            line_feeds += 1
            continue
        if i == end or line_feeds > 1:
            counts.paragraphs += 1
            if insert(keys, size, mix(h) | uint64(1)):
                counts.dup_paragraphs += 1
                counts.dup_paragraph_chars += i - line_feeds - paragraph
            paragraph, h = i, OFFSET
        elif line_feeds == 1:
            h = add_character(h, uint32(LF))
        line_feeds = 0
        if i < end:
            h = add_character(h, cps[i])


@kernel(types.void(uint32[::1], int64[::1], uint32[::1], rows(DUPLICATES)))
def count_duplicates(cps, bounds, flags, out):
    """Count repeated lines and paragraphs into `out` (DUPLICATES [d], zeros)."""
    keys = np.zeros(1024, np.uint64)
    for d in range(len(bounds) - 1):
        begin, end = bounds[d], bounds[d + 1]
        line_feeds = 0
        for i in range(begin, end):
            line_feeds += cps[i] == LF
        size = n_slots(line_feeds + 4)
        if size > len(keys):
            keys = np.zeros(size, np.uint64)
        else:
            keys[:size] = 0
        _count_duplicate_lines(cps, flags, begin, end, keys, size, out[d])
        keys[:size] = 0
        _count_duplicate_paragraphs(cps, flags, begin, end, keys, size, out[d])


class _Grams(NamedTuple):
    """n-grams of a document at the places that are still of interest, and the hash table that groups equal ones."""

    hashes: np.ndarray
    """Hash of the n-gram that begins at each word: uint64."""
    places: np.ndarray
    """Words at which n-grams of interest begin, in order: int32."""
    groups: np.ndarray
    """Slot of each place's n-gram in the hash table: int32."""
    keys: np.ndarray
    """n-gram of a slot: uint64."""
    counts: np.ndarray
    """How often it occurs: int32, 0 for an empty slot."""
    marks: np.ndarray
    """Free for use by slot: int32."""


@small_subroutine
def _grow(grams, n_places, n, n_words, hashes, first):
    """Extend the (n - 1)-grams to n-grams where those may repeat; how many places are left.

    Where n words repeat, the first and the last n - 1 of them do.
    """
    left = 0
    for k in range(n_places):
        i = grams.places[k]
        if i + n > n_words:
            break
        if n > 2 and (k + 1 == n_places or grams.places[k + 1] != i + 1):
            continue
        grams.hashes[i] = extend(grams.hashes[i], hashes[first + i + n - 1])
        grams.places[left] = i
        left += 1
    return left


@small_subroutine
def _group(grams, n_places, slots):
    """Count equal n-grams: `counts` of the slots, and the slot of each place in `groups`."""
    grams.counts[:slots] = 0
    for k in range(n_places):
        key = grams.hashes[grams.places[k]]
        slot = int64(key) & (slots - 1)
        while grams.counts[slot] and grams.keys[slot] != key:
            slot = (slot + 1) & (slots - 1)
        grams.keys[slot] = key
        grams.counts[slot] += 1
        grams.groups[k] = slot


@small_subroutine
def _chars(length, first, n):
    """Characters of `n` words."""
    chars = 0
    for w in range(first, first + n):
        chars += length[w]
    return chars


@small_subroutine
def _most_frequent_chars(grams, n_places, n, length, first):
    """Characters of the most frequent n-gram, of several the first, times its count."""
    most, place = int64(1), int64(0)
    for k in range(n_places):
        if grams.counts[grams.groups[k]] > most:
            most, place = int64(grams.counts[grams.groups[k]]), int64(grams.places[k])
    return (_chars(length, first + place, n) + n - 1) * most


@small_subroutine
def _repeated_chars(grams, n_places, n, slots, length, first):
    """Characters of n-grams that occurred before; a counted one and the next do not overlap."""
    occurred, free, chars = grams.marks, 0, 0
    occurred[:slots] = 0
    for k in range(n_places):
        i, group = grams.places[k], grams.groups[k]
        if grams.counts[group] < 2 or i < free:
            continue
        if occurred[group]:
            chars += _chars(length, first + i, n)
            free = i + n
        else:
            occurred[group] = 1
    return chars


@small_subroutine
def _mark_covered(grams, n_places, n, slots, line_of, first, covered):
    """Mark the words of n-grams that lie within one line and that this line holds more than once."""
    previous = grams.marks
    previous[:slots] = -1
    for k in range(n_places):
        i, group = grams.places[k], grams.groups[k]
        line = line_of[first + i]
        if grams.counts[group] < 2 or line != line_of[first + i + n - 1]:
            continue
        earlier = previous[group]
        if earlier >= 0 and line_of[first + earlier] == line:
            for w in range(n):
                covered[first + earlier + w] = 1
                covered[first + i + w] = 1
        previous[group] = i


@small_subroutine
def _keep_repeated(grams, n_places):
    """Keep the places whose n-gram occurs more than once; how many they are."""
    left = 0
    for k in range(n_places):
        if grams.counts[grams.groups[k]] > 1:
            grams.places[left] = grams.places[k]
            left += 1
    return left


@kernel(types.void(uint64[::1], int32[::1], int64[::1], int32[::1], int64[:, ::1], uint8[::1]))
def count_n_grams(hashes, length, words, line_of, out, covered):
    """Characters of repeated n-grams.

    Args:
        hashes, length: of all words of the batch; `words`: int64 [d + 1], where the words of documents begin.
        line_of: int32, line of each word.
        out: int64 [d, n - SHORTEST], written: for MOST_FREQUENT n, characters of the most frequent n-gram, spaces between
            its words included, times its count; for REPEATED n, characters of n-grams that occurred before, from left to
            right without overlap.
        covered: uint8, per word, written: 1 where it is part of a 3-gram that its line holds more than once.
    """
    room = 0
    for d in range(len(words) - 1):
        room = min(max(room, words[d + 1] - words[d]), MAX_WORDS)
    slots = n_slots(room)
    grams = _Grams(
        np.empty(room, np.uint64),
        np.empty(room, np.int32),
        np.empty(room, np.int32),
        np.empty(slots, np.uint64),
        np.empty(slots, np.int32),
        np.empty(slots, np.int32),
    )
    for d in range(len(words) - 1):
        first, n_words = words[d], min(words[d + 1] - words[d], MAX_WORDS)
        out[d, :] = 0
        for i in range(n_words):
            grams.hashes[i] = hashes[first + i]
            grams.places[i] = i
        n_places = n_words
        for n in range(SHORTEST, min(LONGEST, n_words) + 1):
            n_places = _grow(grams, n_places, n, n_words, hashes, first)
            slots = n_slots(n_places)
            _group(grams, n_places, slots)
            if n <= MOST_FREQUENT[-1]:
                out[d, n - SHORTEST] = _most_frequent_chars(grams, n_places, n, length, first)
            else:
                out[d, n - SHORTEST] = _repeated_chars(grams, n_places, n, slots, length, first)
            if n == COVERAGE:
                _mark_covered(grams, n_places, n, slots, line_of, first, covered)
            n_places = _keep_repeated(grams, n_places)
            if n_places == 0 and n >= MOST_FREQUENT[-1]:
                break
