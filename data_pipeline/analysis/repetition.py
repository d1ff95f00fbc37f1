"""Repeated lines, paragraphs and n-grams.

n-grams grow from n to n + 1: where n words repeat, their first and their last n - 1 do, so only those few places are
looked at again. Everything is compared by 64-bit hashes.
"""

from __future__ import annotations

import numpy as np
from numba import int64, uint64

from data_pipeline.analysis.characters import SPACE
from data_pipeline.analysis.word_rules import mix
from data_pipeline.compiled import kernel, small

DUPLICATES = [
    "lines",
    "dup_lines",
    "dup_line_chars",
    "paragraphs",
    "dup_paragraphs",
    "dup_paragraph_chars",
    "dup_filled_chars",
]
"""Columns of `duplicates`: pieces between runs of line feeds, between two or more; `filled`: lines that hold more than
white space."""
TOP = (2, 3, 4)
DUPLICATE = (5, 6, 7, 8, 9, 10)
LONGEST = 10
MAX_WORDS = 2**22
"""Words of a document whose n-grams are looked at, which bounds memory; those behind them count as not repeated."""
COVERAGE = 3
"""Words of the n-grams whose repetition within a line is measured."""
_OFFSET = np.uint64(0x9E3779B97F4A7C15)
_PRIME = np.uint64(0xD6E8FEB86659FD93)


@small("int64(int64)")
def _slots(n):
    size = 16
    while size < 2 * n:
        size *= 2
    return size


@small("int64(uint64[::1], int64, int64, uint64)")
def _add(keys, base, size, key):
    """Add a key to the set at `base`; 1 where it was there."""
    key = key | uint64(1)
    slot = int64(key >> uint64(32)) & (size - 1)
    while True:
        held = keys[base + slot]
        if held == key:
            return 1
        if held == uint64(0):
            keys[base + slot] = key
            return 0
        slot = (slot + 1) & (size - 1)


@kernel("void(uint32[::1], int64[::1], uint32[::1], int64[:, ::1])")
def duplicates(cps, bounds, flags, out):
    """Count into `out` [d, len(DUPLICATES)]."""
    keys = np.zeros(1024, np.uint64)
    for d in range(len(bounds) - 1):
        a, b = bounds[d], bounds[d + 1]
        feeds = 0
        for i in range(a, b):
            feeds += cps[i] == 10
        size = _slots(feeds + 4)
        if 2 * size > len(keys):
            keys = np.zeros(2 * size, np.uint64)
        else:
            keys[: 2 * size] = 0
        first, end = a, b
        while first < b and flags[cps[first]] & SPACE:
            first += 1
        while end > first and flags[cps[end - 1]] & SPACE:
            end -= 1
        lines = dup_lines = dup_line_chars = paragraphs = dup_paragraphs = dup_paragraph_chars = 0
        dup_filled_chars = 0
        line, filled, h = a, False, _OFFSET
        paragraph, p, run, empty = first, _OFFSET, 0, 0
        for i in range(a, b + 1):
            c = cps[i] if i < b else uint64(10)
            if c == 10:
                # Runs of line feeds separate; at both ends of a text they leave an empty piece.
                if i > line or (i == line and i in (a, b)):
                    if i > line:
                        lines += 1
                        if _add(keys, 0, size, mix(h)):
                            dup_lines += 1
                            dup_line_chars += i - line
                            if filled:
                                dup_filled_chars += i - line
                    else:
                        empty += 1
                line, filled, h = i + 1, False, _OFFSET
            else:
                h = (h ^ uint64(c)) * _PRIME
                filled = filled or flags[c] & SPACE == 0
            if i < first or i > end:
                continue
            if i == end:
                paragraphs += 1
                if _add(keys, size, size, mix(p)):
                    dup_paragraphs += 1
                    dup_paragraph_chars += end - paragraph
                continue
            if c == 10:
                run += 1
                continue
            if run > 1:
                paragraphs += 1
                if _add(keys, size, size, mix(p)):
                    dup_paragraphs += 1
                    dup_paragraph_chars += i - run - paragraph
                paragraph, p = i, _OFFSET
            elif run == 1:
                p = (p ^ uint64(10)) * _PRIME
            run = 0
            p = (p ^ uint64(c)) * _PRIME
        row = out[d]
        row[0], row[1], row[2] = lines + empty, dup_lines + max(empty - 1, 0), dup_line_chars
        row[3], row[4], row[5] = paragraphs, dup_paragraphs, dup_paragraph_chars
        row[6] = dup_filled_chars


@small("int64(uint64[::1], int32[::1], int64, uint64[::1], int32[::1], int32[::1], int64)")
def _group(grams, places, n, keys, counts, groups, size):
    """Count equal n-grams at `n` places; group of each place into `groups`, sizes of groups into `counts`."""
    counts[:size] = 0
    for k in range(n):
        key = grams[places[k]]
        slot = int64(key) & (size - 1)
        while counts[slot] and keys[slot] != key:
            slot = (slot + 1) & (size - 1)
        keys[slot] = key
        counts[slot] += 1
        groups[k] = slot
    return 0


@kernel("void(uint64[::1], int32[::1], int64[::1], int32[::1], int64[:, ::1], uint8[::1])")
def n_grams(hashes, length, words, line_of, out, covered):
    """Characters of repeated n-grams.

    Args:
        hashes, length: of all words of the batch; `words`: int64 [d + 1], where the words of documents begin.
        line_of: int32, line of each word.
        out: int64 [d, 9], written: characters of the most frequent 2-, 3-, 4-gram times its count, spaces between words
            counted; characters of 5- to 10-grams that occurred before, from left to right without overlap.
        covered: uint8, per word, written: 1 where it is part of a 3-gram that its line holds more than once.
    """
    most = 0
    for d in range(len(words) - 1):
        most = min(max(most, words[d + 1] - words[d]), MAX_WORDS)
    room = _slots(most)
    keys = np.empty(room, np.uint64)
    counts = np.empty(room, np.int32)
    marks = np.empty(room, np.int32)
    grams = np.empty(most, np.uint64)
    places = np.empty(most, np.int32)
    groups = np.empty(most, np.int32)
    for d in range(len(words) - 1):
        w, m = words[d], min(words[d + 1] - words[d], MAX_WORDS)
        row = out[d]
        row[:] = 0
        for i in range(m):
            grams[i] = hashes[w + i]
            places[i] = i
        n_places = m
        for n in range(2, min(LONGEST, m) + 1):
            # Where n words repeat, the first and the last n - 1 of them do.
            kept = 0
            for k in range(n_places):
                i = places[k]
                if i + n > m:
                    break
                if n > 2 and (k + 1 == n_places or places[k + 1] != i + 1):
                    continue
                grams[i] = mix(grams[i] * _PRIME + hashes[w + i + n - 1])
                places[kept] = i
                kept += 1
            size = _slots(kept)
            _group(grams, places, kept, keys, counts, groups, size)
            if n <= 4:
                best, at = 1, 0
                for k in range(kept):
                    if counts[groups[k]] > best:
                        best, at = int64(counts[groups[k]]), int64(places[k])
                chars = n - 1
                for i in range(at, at + n):
                    chars += length[w + i]
                row[n - 2] = chars * best
            else:
                marks[:size] = 0
                free, chars = 0, 0
                for k in range(kept):
                    i, group = places[k], groups[k]
                    if counts[group] < 2 or i < free:
                        continue
                    if marks[group]:
                        for j in range(i, i + n):
                            chars += length[w + j]
                        free = i + n
                    else:
                        marks[group] = 1
                row[n - 2] = chars
            if n == COVERAGE:
                marks[:size] = -1
                for k in range(kept):
                    i, group = places[k], groups[k]
                    if counts[group] < 2:
                        continue
                    earlier = marks[group]
                    line = line_of[w + i]
                    if line != line_of[w + i + n - 1]:
                        continue
                    if earlier >= 0 and line_of[w + earlier] == line:
                        for j in range(n):
                            covered[w + earlier + j] = 1
                            covered[w + i + j] = 1
                    marks[group] = i
            n_places = 0
            for k in range(kept):
                if counts[groups[k]] > 1:
                    places[n_places] = places[k]
                    n_places += 1
            if n_places == 0 and n >= 4:
                break
