"""Hash tables that word rules look up: exceptions, what the rules would make of them, units, stop words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numba import boolean, int64, types, uint32, uint64

from data_pipeline.compiled import small
from data_pipeline.kernels.hash_table import n_slots, slot_of
from data_pipeline.kernels.hashing import OFFSET, add_character, mix

SLOTS = 8192
"""Slots of each table of `Rules`, a power of two above twice the entries of the largest."""
LONGEST_EXCEPTION = 13
"""Characters of the longest exception: longer words are not looked up."""
COMPLETE = np.uint64(1 << 62)
"""Marks the cuts of a complete pattern; an entry without it is the beginning of a longer one."""


class Rules(NamedTuple):
    """Exceptions to the word rules and units, uint64 [SLOTS] each but the lengths.

    Cuts hold their number in the lowest byte, then, a byte each, the characters before each of them.
    """

    exceptions: np.ndarray
    """Hashes of words that are cut, or kept whole, against the rules."""
    cuts: np.ndarray
    """Where each of them is cut."""
    patterns: np.ndarray
    """Hashes of the sequences of words that the rules would make of exceptions, and of the beginnings of sequences."""
    pattern_cuts: np.ndarray
    """Where the exception of each is cut, with COMPLETE; 0 for beginnings."""
    units: np.ndarray
    """Hashes of units, which are split off numbers."""
    lengths_by_first: np.ndarray
    """Bits of the lengths of exceptions by the low seven bits of their first character: uint64 [128]."""
    lengths_by_last: np.ndarray
    """The same by their last character."""


RULES = types.NamedUniTuple(uint64[::1], 7, Rules)
"""numba's type of `Rules`."""


@small(uint64(uint32[::1], int64, int64), inline=True)
def hash_of(cps, begin, end):
    """64-bit hash of some characters; equal on every machine."""
    h = OFFSET
    for i in range(begin, end):
        h = add_character(h, cps[i])
    return mix(h)


@small(boolean(RULES, uint32, uint32, int64), inline=True)
def may_be_exception(rules, first, last, size):
    """Whether an exception of this length begins and ends with such characters; rules out most words at once."""
    lengths = rules.lengths_by_first[first & uint32(127)] & rules.lengths_by_last[last & uint32(127)]
    return size >= 2 and size <= LONGEST_EXCEPTION and (lengths >> uint64(size)) & uint64(1) != uint64(0)


@small(int64(uint64[::1], uint64), inline=True)
def lookup(keys, key):
    """Slot of a key in one of the tables, or -1."""
    slot = slot_of(keys, SLOTS, key)
    return slot if keys[slot] == key else int64(-1)


@small(int64(RULES, uint32[::1], int64, int64))
def exception_slot(rules, cps, begin, end):
    """Slot of some characters among the exceptions, or -1."""
    if end - begin < 2 or not may_be_exception(rules, cps[begin], cps[end - 1], end - begin):
        return -1
    return lookup(rules.exceptions, hash_of(cps, begin, end))


def code_points(text: str) -> np.ndarray:
    """Code points of a text, lone surrogates included: uint32 [n]."""
    return np.frombuffer(bytearray(text.encode("utf-32-le", "surrogatepass")), "<u4")


def hash_word(word: str) -> int:
    """Hash of a word as `words.find` gives it."""
    return int(hash_of(code_points(word), 0, len(word)))


def empty_rules() -> Rules:
    """Tables without entries."""
    return Rules(*(np.zeros(n, np.uint64) for n in (SLOTS,) * 5 + (128,) * 2))


def insert(keys: np.ndarray, key: int, values: np.ndarray | None = None, value: int = 0) -> None:
    """Insert a key, and its value, into a table."""
    slot = int(slot_of(keys, len(keys), np.uint64(key)))
    keys[slot] = key
    if values is not None:
        values[slot] = np.uint64(value)


def packed_cuts(cuts: Sequence[int]) -> int:
    """Cuts of an exception as one number, see `Rules`."""
    return len(cuts) + sum(cut << 8 * (i + 1) for i, cut in enumerate(cuts))


def add_exceptions(rules: Rules, exceptions: dict[str, tuple[int, ...]]) -> None:
    """Add words and their cuts."""
    for word, cuts in exceptions.items():
        insert(rules.exceptions, hash_word(word), rules.cuts, packed_cuts(cuts))
        for lengths, character in (
            (rules.lengths_by_first, word[0]),
            (rules.lengths_by_last, word[-1]),
        ):
            lengths[ord(character) & 127] |= np.uint64(1 << len(word))


class StopWords(NamedTuple):
    """Stop words of some languages as one hash table."""

    keys: np.ndarray
    """`stop_key` of each word: uint64 [slots]."""
    longest: int
    """Characters of the longest word."""


STOP_WORDS = types.NamedTuple((uint64[::1], int64), StopWords)
"""numba's type of `StopWords`."""


@small(uint64(uint64, int64), inline=True)
def stop_key(word, language):
    """Key of a stop word: its hash, and the number of its language."""
    return mix(word + uint64(language) + uint64(1))


def stop_words(by_language: Sequence[Collection[str]]) -> StopWords:
    """Hash table of the stop words of some languages, which are numbered by their place in the list."""
    keys = np.zeros(n_slots(sum(map(len, by_language))), np.uint64)
    for language, words in enumerate(by_language):
        for word in sorted(words):
            insert(keys, int(stop_key(np.uint64(hash_word(word)), language)))
    return StopWords(keys, max((len(word) for words in by_language for word in words), default=0))
