"""All rules about lines in one pass over a batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int32, int64, types

from data_pipeline.analysis import Batch, words
from data_pipeline.analysis.characters import table
from data_pipeline.compiled import small
from data_pipeline.heuristics import c4, fineweb, llama3, refinedweb
from data_pipeline.heuristics.deletions import (
    C4,
    DELETION,
    DELETIONS,
    FINEWEB,
    Deletions,
    Document,
    Kept,
    finish,
)
from data_pipeline.heuristics.line import TEXT, Text, measure, strip
from data_pipeline.kernels.records import rows


class Counts(NamedTuple):
    """Counts of the lines of each document, one structured array per rule set."""

    c4: np.ndarray
    """`c4.COUNTS` [d]."""
    fineweb: np.ndarray
    """`c4.COUNTS` [d], without the rule on terminal punctuation."""
    refinedweb: np.ndarray
    """`refinedweb.COUNTS` [d]."""
    llama3: np.ndarray
    """`llama3.COUNTS` [d]."""


_DTYPES = (c4.COUNTS, c4.COUNTS, refinedweb.COUNTS, llama3.COUNTS)
"""Of the fields of `Counts`."""
_COUNTS = types.NamedTuple(tuple(rows(dtype) for dtype in _DTYPES), Counts)


@small(
    types.void(
        TEXT,
        int64[::1],
        int64[::1],
        int32[:, ::1],
        int64[::1],
        c4.PHRASES,
        refinedweb.PHRASE_TABLE,
        c4.SCRATCH,
        refinedweb.PIECES,
        _COUNTS,
        DELETIONS,
    )
)
def _judge(text, bounds, words_of, lines, lines_of, notices, leftovers, scratch, pieces, counts, deletions):
    for d in range(len(bounds) - 1):
        document = Document(d, bounds[d], bounds[d + 1])
        kept_by_c4 = kept_by_fineweb = Kept(-1, -1)
        word = words_of[d]
        for k in range(lines_of[d], lines_of[d + 1]):
            whole_begin, next_begin = int64(lines[k, 0]), int64(lines[k, 2])
            first_word = word
            while word < words_of[d + 1] and text.words.start[word] < next_begin:
                word += 1
            begin, end = strip(text, whole_begin, int64(lines[k, 1]))
            if begin == end:
                counts.c4[d].no_terminal_punctuation += 1
                continue
            line = measure(text, begin, end, whole_begin, next_begin, first_word, word)
            clean = c4.clean(text, line, notices, scratch)
            kept_by_c4 = c4.apply(text, line, clean, True, counts.c4[d], deletions, C4, document, kept_by_c4)
            kept_by_fineweb = c4.apply(
                text,
                line,
                clean,
                fineweb.DEMANDS_TERMINAL_PUNCTUATION,
                counts.fineweb[d],
                deletions,
                FINEWEB,
                document,
                kept_by_fineweb,
            )
            refinedweb.apply(text, line, leftovers, pieces, counts.refinedweb[d], deletions, document)
            llama3.apply(text, line, counts.llama3[d], deletions, document)
        finish(deletions, C4, document, kept_by_c4)
        finish(deletions, FINEWEB, document, kept_by_fineweb)


def judge(batch: Batch) -> tuple[Counts, np.ndarray]:
    """Counts of the lines of a batch, and the deletions that the rules propose: DELETION [n], in order in each document."""
    text = Text(
        batch.cps, table(), words.Words(batch.start, batch.length, batch.hashes), batch.covered, words.rules()
    )
    longest_line = int((batch.lines[:, 1] - batch.lines[:, 0]).max(initial=0))
    scratch = c4.scratch(longest_line)
    pieces = np.empty(refinedweb.MAX_LEFTOVER_WORDS, refinedweb.PIECE)
    room = 2 * len(batch.lines) + 4 * len(batch) + 64
    while True:
        counts = Counts(*(np.zeros(len(batch), dtype) for dtype in _DTYPES))
        deletions = Deletions(np.empty(room, DELETION), np.zeros(1, np.int64))
        _judge(
            text,
            batch.bounds,
            batch.words,
            batch.lines,
            batch.lines_of,
            c4.phrases(),
            refinedweb.phrase_table(),
            scratch,
            pieces,
            counts,
            deletions,
        )
        room = int(deletions.n_proposed[0])
        if room <= len(deletions.rows):
            return counts, deletions.rows[:room]
