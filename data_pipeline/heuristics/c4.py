"""C4 (Raffel et al., 2020, section 2.2), and the paragraph rule of mC4 (Xue et al., 2021).

C4 drops single lines, then judges what is left of the document. The line rules are tried in its order, and a line counts
under the first that drops it; what they would delete are the edits `c4_lines`. The numbers are those of datatrove's filter.
FineWeb uses the same rules without the one on terminal punctuation.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import int64, types, uint32

from data_pipeline.analysis import Batch
from data_pipeline.analysis.characters import DECIMAL, PUNCTUATION, SPACE, TERMINAL
from data_pipeline.analysis.word_tables import code_points
from data_pipeline.analysis.words import WORDS, Words, find
from data_pipeline.compiled import small_subroutine
from data_pipeline.heuristics.deletions import delete, keep_line
from data_pipeline.kernels.ascii import (
    APOSTROPHE,
    CLOSE_BRACKET,
    DOT,
    DOUBLE_QUOTE,
    EXCLAMATION,
    OPEN_BRACE,
    OPEN_BRACKET,
    QUESTION,
    UPPER_A,
    UPPER_Z,
)
from data_pipeline.kernels.records import count_fields

MAX_WORD_CHARS = 1000
"""A line with a longer word is dropped (datatrove; the code of C4 has the same rule)."""
MIN_LINE_WORDS = 3
"""A line with fewer words is dropped (datatrove; TensorFlow Datasets' C4 asks for 5)."""
LOREM_IPSUM, JAVASCRIPT, POLICY, CURLY_BRACKET, CITATION = 1, 2, 4, 8, 16
"""Bits of what a line mentions."""
NOTICES = {
    "lorem ipsum": LOREM_IPSUM,
    "javascript": JAVASCRIPT,
    "terms of use": POLICY,
    "privacy policy": POLICY,
    "cookie policy": POLICY,
    "uses cookies": POLICY,
    "use of cookies": POLICY,
    "use cookies": POLICY,
}
"""Phrases in any case. Pages with `lorem ipsum` or `{` are dropped, lines with one of the others."""
LOWER_K, KELVIN_SIGN = ord("k"), 0x212A
"""The sign is the only character outside of ASCII that is an ASCII letter (k) in lower case."""
# Why a line is dropped, in C4's order.
LONG_WORD, NO_TERMINAL_PUNCTUATION, FEW_WORDS, MENTIONS_JAVASCRIPT, MENTIONS_POLICY, IS_KEPT = range(6)

COUNTS = count_fields(
    "long_word_lines",
    "no_terminal_punctuation",
    "short_lines",
    "javascript_lines",
    "policy_lines",
    "kept_lines",
    "kept_chars",
    "n_sentences",
    "lorem_ipsum",
    "curly_brackets",
)
"""Counts of a document, see `schema.SIGNALS`."""


class CleanLine(NamedTuple):
    """A line without citations."""

    mentions: int
    """Bits of what it mentions, CITATION where it had any."""
    n_chars: int
    is_terminated: bool
    n_sentences: int
    """0 for a line of too few or too long words."""
    begin: int
    end: int
    """Of the line in the text, without citations and white space at its ends."""


class Scratch(NamedTuple):
    """Room for the characters and words of the longest line of a batch."""

    characters: np.ndarray
    words: Words


SCRATCH = types.NamedTuple((uint32[::1], WORDS), Scratch)
"""numba's type of `Scratch`."""


def scratch(longest_line: int) -> Scratch:
    """Room for a line of so many characters."""
    room = longest_line + 64  # `find` stops where it might run out of room
    words = Words(np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.uint64))
    return Scratch(np.empty(room, np.uint32), words)


@small_subroutine
def judge(line, clean, demands_terminal_punctuation):
    """First rule that drops a line, or IS_KEPT."""
    if line.longest_piece > MAX_WORD_CHARS:
        return LONG_WORD
    if demands_terminal_punctuation and not clean.is_terminated:
        return NO_TERMINAL_PUNCTUATION
    if line.n_pieces < MIN_LINE_WORDS:
        return FEW_WORDS
    if clean.mentions & JAVASCRIPT:
        return MENTIONS_JAVASCRIPT
    if clean.mentions & POLICY:
        return MENTIONS_POLICY
    return IS_KEPT


@small_subroutine
def count(counts, verdict, clean):
    """Add a line to the counts of its document."""
    if verdict == LONG_WORD:
        counts.long_word_lines += 1
    elif verdict == NO_TERMINAL_PUNCTUATION:
        counts.no_terminal_punctuation += 1
    elif verdict == FEW_WORDS:
        counts.short_lines += 1
    elif verdict == MENTIONS_JAVASCRIPT:
        counts.javascript_lines += 1
    elif verdict == MENTIONS_POLICY:
        counts.policy_lines += 1
    else:
        counts.kept_lines += 1
        counts.kept_chars += clean.n_chars
        counts.n_sentences += clean.n_sentences
    # These drop whole pages: C4 looks for them in lines that its earlier rules leave.
    if clean.mentions & LOREM_IPSUM and verdict > FEW_WORDS:
        counts.lorem_ipsum += 1
    if clean.mentions & CURLY_BRACKET and verdict > MENTIONS_JAVASCRIPT:
        counts.curly_brackets += 1


@small_subroutine
def apply(text, line, clean, demands_terminal_punctuation, counts, deletions, edit_set, document, kept):
    """Judge and count a line, and propose its deletion or that of its citations; the last line that is kept."""
    verdict = judge(line, clean, demands_terminal_punctuation)
    count(counts, verdict, clean)
    if verdict != IS_KEPT:
        return kept
    kept = keep_line(
        deletions, edit_set, document, text.cps, kept, line.begin, line.end, clean.begin, clean.end
    )
    if clean.mentions & CITATION:
        i = line.begin
        while i < line.end:
            size = citation_length(text, i, line.end)
            delete(deletions, edit_set, document, i, i + size)
            i += max(size, 1)
    return kept


def signals(batch: Batch, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Signals of a batch (`schema.SIGNALS`), float64 [d] each; counts: COUNTS [d], of `lines.judge`."""
    n_lines = np.maximum(batch.counts["lines"], 1)
    return {
        "n_sentences": counts["n_sentences"],
        "kept_lines": counts["kept_lines"] / n_lines,
        "kept_chars": counts["kept_chars"] / np.maximum(batch.n_chars, 1),
        "long_word_lines": counts["long_word_lines"] / n_lines,
        "no_terminal_punctuation": counts["no_terminal_punctuation"] / n_lines,
        "short_lines": counts["short_lines"] / n_lines,
        "javascript_lines": counts["javascript_lines"] / n_lines,
        "policy_lines": counts["policy_lines"] / n_lines,
        "lorem_ipsum": counts["lorem_ipsum"],
        "curly_brackets": counts["curly_brackets"],
        # mC4 keeps pages with at least three lines of 200 characters or more.
        "third_longest_line": batch.counts["third_longest_feed_line"],
    }


class Phrases(NamedTuple):
    """`NOTICES` for kernels."""

    characters: np.ndarray
    """All phrases, one behind another: uint32."""
    begin: np.ndarray
    """Where each begins: int64."""
    size: np.ndarray
    bit: np.ndarray


PHRASES = types.NamedTuple((uint32[::1], int64[::1], int64[::1], int64[::1]), Phrases)
"""numba's type of `Phrases`."""


_MAY_BEGIN = np.zeros((32, 32), np.uint8)
"""Whether a notice or citation may begin with two characters, by the low five bits of those, which case does not change."""
for _phrase in NOTICES:
    _MAY_BEGIN[ord(_phrase[0]) & 31, ord(_phrase[1]) & 31] = 1
_MAY_BEGIN[[OPEN_BRACE & 31, OPEN_BRACKET & 31]] = 1


@cache
def phrases() -> Phrases:
    """`NOTICES` for kernels."""
    sizes = np.array([len(p) for p in NOTICES], np.int64)
    bits = np.array(list(NOTICES.values()), np.int64)
    return Phrases(code_points("".join(NOTICES)).copy(), np.cumsum(sizes) - sizes, sizes, bits)


@small_subroutine
def to_lower(c):
    """Lower case, for comparison with ASCII phrases."""
    if UPPER_A <= c <= UPPER_Z:
        return c + uint32(32)
    return uint32(LOWER_K) if c == KELVIN_SIGN else c


@small_subroutine
def _stands_at(cps, i, end, phrases, p):
    """Whether phrase number `p` begins at `i`, in any case."""
    size, first = phrases.size[p], phrases.begin[p]
    if i + size > end:
        return False
    k = 0
    while k < size and to_lower(cps[i + k]) == phrases.characters[first + k]:
        k += 1
    return k == size


_EDIT, _CITATION_NEEDED = (code_points(marker).copy() for marker in ("[edit]", "[citation needed]"))


@small_subroutine
def _citation_length(cps, flags, i, end):
    """Characters of `[12]`, `[]`, `[edit]` or `[citation needed]`, whose bracket opens at `i`, or 0."""
    k = i + 1
    while k < end and flags[cps[k]] & DECIMAL:
        k += 1
    if k < end and cps[k] == CLOSE_BRACKET:
        return k + 1 - i
    for marker in (_EDIT, _CITATION_NEEDED):
        k = 0
        while k < len(marker) and i + k < end and cps[i + k] == marker[k]:
            k += 1
        if k == len(marker):
            return k
    return 0


@small_subroutine
def _mentions_at(text, cps, i, end, phrases):
    """Bits of what begins at `i`."""
    if cps[i] == OPEN_BRACE:
        return CURLY_BRACKET
    if cps[i] == OPEN_BRACKET:
        return CITATION if _citation_length(cps, text.flags, i, end) else 0
    for p in range(len(phrases.size)):
        if to_lower(cps[i]) == phrases.characters[phrases.begin[p]] and _stands_at(cps, i, end, phrases, p):
            return phrases.bit[p]
    return 0


@small_subroutine
def _mentions(text, cps, begin, end, phrases):
    """Bits of what some characters hold."""
    bits = CURLY_BRACKET if end > begin and cps[end - 1] == OPEN_BRACE else 0
    for i in range(begin, end - 1):
        if _MAY_BEGIN[cps[i] & 31, cps[i + 1] & 31]:
            bits |= _mentions_at(text, cps, i, end, phrases)
    return bits


@small_subroutine
def citation_length(text, i, end):
    """Characters of a citation of Wikipedia at `i`, or 0."""
    return _citation_length(text.cps, text.flags, i, end) if text.cps[i] == OPEN_BRACKET else 0


@small_subroutine
def is_terminated(cps, begin, end):
    """Whether a line ends with `. ? ! " '` and not with three dots."""
    if end <= begin:
        return False
    c = cps[end - 1]
    if c == DOT:
        return not (end - 3 >= begin and cps[end - 2] == DOT and cps[end - 3] == DOT)
    return c in (QUESTION, EXCLAMATION, DOUBLE_QUOTE, APOSTROPHE)


@small_subroutine
def _is_punctuation(cps, flags, begin, end):
    """Whether a word is punctuation alone."""
    while begin < end and flags[cps[begin]] & PUNCTUATION:
        begin += 1
    return begin == end


@small_subroutine
def _count_sentences(cps, flags, words, first_word, end_word):
    """(sentences, whether the last one has ended): punctuation ends one, and a word that is none begins the next."""
    sentences, has_ended = 1, False
    for w in range(first_word, end_word):
        begin, size = int64(words.start[w]), int64(words.length[w])
        if size == 1 and flags[cps[begin]] & TERMINAL:
            has_ended = True
        elif has_ended and not _is_punctuation(cps, flags, begin, begin + size):
            sentences += 1
            has_ended = False
    return sentences, has_ended


@small_subroutine
def _is_candidate(line):
    """Whether a line is neither too short nor has too long a word: only of such are sentences counted."""
    return line.longest_piece <= MAX_WORD_CHARS and line.n_pieces >= MIN_LINE_WORDS


@small_subroutine
def clean(text, line, phrases, scratch):
    """A line without citations, see `CleanLine`."""
    mentions = _mentions(text, text.cps, line.begin, line.end, phrases)
    if mentions & CITATION:
        return _without_citations(text, line, phrases, scratch)
    n_sentences = 0
    if _is_candidate(line):
        n_sentences, _ = _count_sentences(text.cps, text.flags, text.words, line.first_word, line.end_word)
    is_sentence = is_terminated(text.cps, line.begin, line.end)
    return CleanLine(mentions, line.end - line.begin, is_sentence, n_sentences, line.begin, line.end)


@small_subroutine
def _without_citations(text, line, phrases, scratch):
    """Copy a line without citations and look at that."""
    rest, words = scratch.characters, scratch.words
    size, begin, end = 0, line.end, line.end
    i = line.begin
    while i < line.end:
        cited = citation_length(text, i, line.end)
        if not cited:
            rest[size] = text.cps[i]
            size += 1
            if not text.flags[text.cps[i]] & SPACE:
                begin, end = min(begin, i), i + 1
        i += max(cited, 1)
    n_words = find(rest, text.flags, text.rules, 0, size, words, 0)
    n_sentences, has_ended = _count_sentences(rest, text.flags, words, 0, max(n_words, int64(0)))
    # More than one space at the end is a word to the tokeniser that C4 is counted with.
    ends_in_spaces = size >= 2 and text.flags[rest[size - 1]] & text.flags[rest[size - 2]] & SPACE != 0
    n_sentences += ends_in_spaces and has_ended
    mentions = _mentions(text, rest, 0, size, phrases) | CITATION
    return CleanLine(mentions, size, is_terminated(rest, 0, size), n_sentences, begin, end)
