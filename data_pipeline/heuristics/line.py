# mypy: disable-error-code="arg-type"
"""What the rules about lines are given: the text and words of a batch, and one line of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int64, types, uint8, uint32

from data_pipeline.analysis.characters import SPACE, UPPER
from data_pipeline.analysis.word_tables import RULES, Rules
from data_pipeline.analysis.words import WORDS, Words
from data_pipeline.compiled import small_subroutine


class Text(NamedTuple):
    """Characters and words of a batch."""

    cps: np.ndarray
    """Code points: uint32."""
    flags: np.ndarray
    """`characters.table()`."""
    words: Words
    covered: np.ndarray
    """Words in 3-grams that their line repeats (`repetition.count_n_grams`): uint8."""
    rules: Rules
    """`words.rules()`."""


TEXT = types.NamedTuple((uint32[::1], uint32[::1], WORDS, uint8[::1], RULES), Text)
"""numba's type of `Text`."""


class Line(NamedTuple):
    """A line that holds more than white space, which is left out at both ends; positions are indices into `Text`."""

    begin: int
    end: int
    whole_begin: int
    """Where the line begins with its white space."""
    next_begin: int
    """Where the next one does."""
    first_word: int
    end_word: int
    n_pieces: int
    """Words as white space separates them."""
    longest_piece: int
    flags: int
    """Flags (`characters`) of any of its characters."""
    n_upper: int
    n_chars: int
    """Characters without white space."""


@small_subroutine
def strip(text, begin, end):
    """(begin, end) without white space at both ends."""
    while begin < end and text.flags[text.cps[begin]] & SPACE:
        begin += 1
    while end > begin and text.flags[text.cps[end - 1]] & SPACE:
        end -= 1
    return begin, end


@small_subroutine
def measure(text, begin, end, whole_begin, next_begin, first_word, end_word):
    """Count the characters and pieces of a line."""
    n_pieces = longest_piece = n_upper = n_chars = int64(0)
    flags = uint32(0)
    i = begin
    while i < end:
        piece = i
        while i < end:
            f = text.flags[text.cps[i]]
            if f & SPACE:
                break
            flags |= f
            n_upper += f & UPPER != 0
            i += 1
        n_pieces += 1
        n_chars += i - piece
        longest_piece = max(longest_piece, i - piece)
        while i < end and text.flags[text.cps[i]] & SPACE:
            i += 1
    return Line(
        begin,
        end,
        whole_begin,
        next_begin,
        first_word,
        end_word,
        n_pieces,
        longest_piece,
        int64(flags),
        n_upper,
        n_chars,
    )
