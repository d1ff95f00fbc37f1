"""RefinedWeb's line corrections (Penedo et al., 2023, appendix G.2).

A line is flagged under the first rule that applies; the deletions are the edits `refinedweb_lines`, and RefinedWeb drops
documents of which they take more than 5% of the words (`flagged_words`).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import int64, types, uint64

from data_pipeline.analysis import Batch
from data_pipeline.analysis.characters import ALNUM, ALPHA, DECIMAL, SPACE
from data_pipeline.compiled import small_subroutine
from data_pipeline.heuristics.c4 import is_terminated, to_lower
from data_pipeline.heuristics.deletions import REFINEDWEB, delete
from data_pipeline.kernels.hash_table import n_slots, slot_of
from data_pipeline.kernels.hashing import OFFSET, add_character, extend, mix
from data_pipeline.kernels.records import count_fields, fields, rows

MAX_LEFTOVER_WORDS = 10
"""A line of more words is an article's sentence, whatever phrase it holds."""
MAX_COUNTER_WORDS = 6
"""Words of a counter, such as `1,234 views 12.5K likes`."""
LOWER_B, LOWER_K, LOWER_M = map(ord, "bkm")
"""Suffixes of numbers: billions, thousands, millions."""
# Why a line is flagged.
NOT_FLAGGED, UPPER, NUMERIC, COUNTER, SINGLE_WORD, LEFTOVER = range(6)

COUNTS = count_fields(
    "upper_lines",
    "numeric_lines",
    "counter_lines",
    "single_word_lines",
    "leftover_lines",
    "words",
    "flagged_words",
)
"""Counts of a document: lines by the rule that flags them; words as white space separates them, those of flagged lines."""

AT_BEGIN, AT_END, ANYWHERE, WITH_NUMBER = 1, 2, 4, 8
"""Where a phrase makes a short line a leftover; `WITH_NUMBER`: with nothing but numbers, as in `3 likes`."""

PHRASES = {
    AT_BEGIN: "sign in|sign up|signin|signup|log in|login|log out|logout|my account|create account|register now|skip to|"
    "jump to|back to top|go to top|share this|share on|follow us|follow on|tweet this|pin it|print this|email this|"
    "posted in|filed under|tagged with|related posts|related articles|previous post|next post|previous article|"
    "next article|leave a comment|leave a reply|post a comment|write a comment|add comment|add a comment|reply to|"
    "click here|tap here|subscribe to|toggle navigation|main menu|all rights reserved|advertisement|sponsored|close menu",
    AT_END: "read more|read more about|read full article|continue reading|learn more|show more|see more|view more|"
    "load more|find out more|more info|see all|view all|show all|sign in|log in|sign up|add to cart|add to basket|buy now|"
    "shop now|order now|download now|see details|view details|full story|permalink",
    ANYWHERE: "items in cart|item in cart|items in your cart|your cart is empty|add to cart|add to wishlist|"
    "add to wish list|shopping cart|shopping bag|all rights reserved|powered by wordpress|forgot your password|"
    "forgot password|lost your password|remember me|accept cookies|accept all cookies|cookie settings|"
    "subscribe to our newsletter|sign up for our newsletter|share on facebook|share on twitter|share on linkedin|"
    "share on whatsapp|share via email|opens in a new window|opens in new window|opens in new tab|this site uses|"
    "enable javascript|skip to content|skip to main content",
    WITH_NUMBER: "like|likes|share|shares|comment|comments|reply|replies|retweet|retweets|repost|reposts|view|views|"
    "follower|followers|following|subscriber|subscribers|post|posts|point|points|vote|votes|upvote|upvotes|rating|ratings|"
    "review|reviews|reaction|reactions|favorite|favorites|favourite|favourites|download|downloads|member|members|reader|"
    "readers|play|plays|pin|pins|star|stars|tweet|tweets|response|responses|item|items|result|results|photo|photos|read|"
    "reads|minutes|min|mins|hour|hours|day|days|week|weeks|month|months|year|years",
}
"""After the paper, which gives one example of each kind."""


class Verdict(NamedTuple):
    """Why a line is flagged, and the phrase that makes it a leftover."""

    rule: int
    phrase_begin: int
    phrase_end: int


@small_subroutine
def judge(text, line, phrases, pieces):
    """First rule that flags a line, in the paper's order."""
    nowhere = Verdict(NOT_FLAGGED, line.begin, line.end)
    # "if it is mainly composed of uppercase characters"
    if 2 * line.n_upper > line.n_chars:
        return Verdict(UPPER, line.begin, line.end)
    # "if it is only composed of numerical characters"
    if line.flags & (ALPHA | DECIMAL) == DECIMAL:
        return Verdict(NUMERIC, line.begin, line.end)
    leftover = nowhere
    if line.n_pieces <= MAX_LEFTOVER_WORDS:
        n_pieces = _split(text, line, phrases, pieces)
        leftover = _find_phrase(text, line, phrases, pieces, n_pieces)
        # "if it is a counter (e.g. 3 likes)"
        if leftover.rule == NOT_FLAGGED and _is_counter(pieces, n_pieces):
            return Verdict(COUNTER, line.begin, line.end)
    # "if it only contains one word"
    if line.n_pieces == 1:
        return Verdict(SINGLE_WORD, line.begin, line.end)
    # "if it is short (≤ 10 words) and matches a pattern"
    return leftover


@small_subroutine
def count(counts, verdict, line):
    """Add a line to the counts of its document."""
    counts.words += line.n_pieces
    if verdict.rule == NOT_FLAGGED:
        return
    counts.flagged_words += line.n_pieces
    counts.upper_lines += verdict.rule == UPPER
    counts.numeric_lines += verdict.rule == NUMERIC
    counts.counter_lines += verdict.rule == COUNTER
    counts.single_word_lines += verdict.rule == SINGLE_WORD
    counts.leftover_lines += verdict.rule == LEFTOVER


@small_subroutine
def apply(text, line, phrases, pieces, counts, deletions, document):
    """Judge and count a line, and propose its deletion; of a leftover with other words that of the phrase alone."""
    verdict = judge(text, line, phrases, pieces)
    count(counts, verdict, line)
    if verdict.rule == NOT_FLAGGED:
        return
    begin, end = line.whole_begin, line.next_begin
    if verdict.rule == LEFTOVER and (verdict.phrase_begin > line.begin or verdict.phrase_end < line.end):
        # The spaces that would be left over go with the phrase.
        begin, end = verdict.phrase_begin, verdict.phrase_end
        while end < line.end and text.flags[text.cps[end]] & SPACE:
            end += 1
        while end == line.end and begin > line.begin and text.flags[text.cps[begin - 1]] & SPACE:
            begin -= 1
    delete(deletions, REFINEDWEB, document, begin, end)


def signals(batch: Batch, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Signals of a batch (`schema.SIGNALS`), float64 [d] each; counts: COUNTS [d], of `lines.judge`.

    Shares of lines are of those that hold more than white space.
    """
    lines = np.maximum(batch.counts["filled_lines"], 1)
    return {
        "upper_lines": counts["upper_lines"] / lines,
        "numeric_lines": counts["numeric_lines"] / lines,
        "counter_lines": counts["counter_lines"] / lines,
        "single_word_lines": counts["single_word_lines"] / lines,
        "leftover_lines": counts["leftover_lines"] / lines,
        "flagged_words": counts["flagged_words"] / np.maximum(counts["words"], 1),
    }


PIECE = fields(h=np.uint64, begin=np.int64, end=np.int64, bits=np.int64, is_number=np.int64)
"""A word of a short line: hash of its letters and digits in lower case, place, `_bits_of` that, whether it is a number."""
PIECES = rows(PIECE)
"""numba's type of MAX_LEFTOVER_WORDS of them."""


class PhraseTable(NamedTuple):
    """`PHRASES` as a hash table, with the beginnings of phrases: keys as `_phrase_keys` makes them."""

    keys: np.ndarray
    """uint64 [slots]."""
    bits: np.ndarray
    """Where the phrase makes a line a leftover, 0 for the beginning of a longer one: int64 [slots]."""


PHRASE_TABLE = types.NamedTuple((uint64[::1], int64[::1]), PhraseTable)
"""numba's type of `PhraseTable`."""


@small_subroutine
def _bits_of(phrases, key):
    """Where a phrase makes a line a leftover, 0 for the beginning of a longer one, -1 for neither."""
    slot = slot_of(phrases.keys, len(phrases.keys), key)
    return phrases.bits[slot] if phrases.keys[slot] == key else int64(-1)


@small_subroutine
def _split(text, line, phrases, pieces):
    """Words of a short line into `pieces`; those of punctuation alone are left out. Their number."""
    n, i = 0, line.begin
    while i < line.end:
        if text.flags[text.cps[i]] & SPACE:
            i += 1
            continue
        begin, digits, others, h = i, 0, 0, OFFSET
        while i < line.end and not text.flags[text.cps[i]] & SPACE:
            f = text.flags[text.cps[i]]
            if f & ALNUM:
                h = add_character(h, to_lower(text.cps[i]))
                digits += f & DECIMAL != 0
                others += f & DECIMAL == 0
            i += 1
        if digits or others:
            piece = pieces[n]
            piece.h, piece.begin, piece.end = mix(h), begin, i
            piece.bits = _bits_of(phrases, piece.h)
            # 1,234 and 12.5K are numbers.
            last = to_lower(text.cps[i - 1])
            has_suffix = others == 1 and (last in (LOWER_K, LOWER_M, LOWER_B))
            piece.is_number = digits > 0 and (others == 0 or has_suffix)
            n += 1
    return n


@small_subroutine
def _find_phrase(text, line, phrases, pieces, n_pieces):
    """The first phrase that makes a line a leftover."""
    for first in range(n_pieces):
        key, bits, last = pieces[first].h, pieces[first].bits, first
        while bits >= 0:
            # "Read more" and "Read more..." lead away; a sentence may end with "to read more."
            leads_away = (
                bits & AT_END != 0
                and last == n_pieces - 1
                and not is_terminated(text.cps, line.begin, line.end)
            )
            if bits & ANYWHERE or (bits & AT_BEGIN and first == 0) or leads_away:
                return Verdict(LEFTOVER, pieces[first].begin, pieces[last].end)
            last += 1
            if last == n_pieces:
                break
            key = extend(key, pieces[last].h)
            bits = _bits_of(phrases, key)
    return Verdict(NOT_FLAGGED, line.begin, line.end)


@small_subroutine
def _is_counter(pieces, n_pieces):
    """Whether a line consists of numbers and of words that are counted."""
    if n_pieces > MAX_COUNTER_WORDS:
        return False
    numbers = words = 0
    for k in range(n_pieces):
        words += pieces[k].bits > 0 and pieces[k].bits & WITH_NUMBER != 0
        numbers += pieces[k].is_number
    return words > 0 and numbers > 0 and words + numbers == n_pieces


def _hash_folded(word: str) -> np.uint64:
    """Hash of a word as `_split` computes it."""
    h = OFFSET
    for c in word:
        if c.isalnum():
            h = add_character(h, ord(c.lower()))
    return np.uint64(mix(h))


@cache
def phrase_table() -> PhraseTable:
    """`PHRASES` for kernels."""
    bits_of: dict[int, int] = {}
    for bit, listed in PHRASES.items():
        for phrase in listed.split("|"):
            words = list(map(_hash_folded, phrase.split()))
            key = words[0]
            for word in words[1:]:
                bits_of.setdefault(int(key), 0)
                key = np.uint64(extend(key, word))
            bits_of[int(key)] = bits_of.get(int(key), 0) | bit
    table = PhraseTable(*(np.zeros(n_slots(4 * len(bits_of)), kind) for kind in (np.uint64, np.int64)))
    for hashed, bits in bits_of.items():
        slot = int(slot_of(table.keys, len(table.keys), np.uint64(hashed)))
        table.keys[slot], table.bits[slot] = hashed, bits
    return table
