"""Deletions that rules about lines propose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int64, types

from data_pipeline.compiled import small_subroutine
from data_pipeline.kernels.ascii import LF
from data_pipeline.kernels.records import fields, rows

C4, FINEWEB, REFINEDWEB, LLAMA3 = 0, 1, 2, 3
"""Sets of edits, by their place in `schema.EDITS`."""
DELETION = fields(
    edit_set=np.int32, document=np.int32, begin=np.int32, end=np.int32, leaves_line_feed=np.int32
)
"""A deletion in code points of its document; `leaves_line_feed`: a line feed takes its place."""


class Deletions(NamedTuple):
    """Deletions of a batch; beyond the end of the array they are only counted."""

    rows: np.ndarray
    """DELETION [room]."""
    n_proposed: np.ndarray
    """How many were proposed: int64 [1]."""


DELETIONS = types.NamedTuple((rows(DELETION), int64[::1]), Deletions)
"""numba's type of `Deletions`."""


class Document(NamedTuple):
    """A document of the batch."""

    number: int
    begin: int
    """Where it begins in the batch's code points."""
    end: int


class Kept(NamedTuple):
    """The last line that a rule set kept so far; positions -1: none."""

    end: int
    trimmed_end: int
    """Its end without what is deleted there."""


@small_subroutine
def delete(deletions, edit_set, document, begin, end, leaves_line_feed=False):
    """Propose to delete some code points of the batch; nothing where there are none."""
    if end <= begin:
        return
    n = deletions.n_proposed[0]
    deletions.n_proposed[0] = n + 1
    if n < len(deletions.rows):
        row = deletions.rows[n]
        row.edit_set, row.document = edit_set, document.number
        row.begin, row.end = begin - document.begin, end - document.begin
        row.leaves_line_feed = leaves_line_feed


@small_subroutine
def delete_between(deletions, edit_set, document, cps, previous_end, begin):
    """Delete what lies between two kept lines, but one line feed, which is put there where there is none."""
    line_feed = previous_end
    while line_feed < begin and cps[line_feed] != LF:
        line_feed += 1
    if line_feed == begin:
        delete(deletions, edit_set, document, previous_end, begin, True)
    else:
        delete(deletions, edit_set, document, previous_end, line_feed)
        delete(deletions, edit_set, document, line_feed + 1, begin)


@small_subroutine
def keep_line(deletions, edit_set, document, cps, kept, begin, end, trimmed_begin, trimmed_end):
    """Delete what lies between the line that was kept before and this one; the new `Kept`.

    Args:
        kept: the line that was kept before.
        begin, end: of the line; `trimmed_begin`, `trimmed_end`: without what is deleted at its ends. The first line of a
            text begins there, and its last one ends there; a first line of which nothing is left is no line.
    """
    is_empty = trimmed_begin >= end
    if kept.end >= 0:
        delete_between(deletions, edit_set, document, cps, kept.end, begin)
    elif is_empty:
        return kept
    else:
        delete(deletions, edit_set, document, document.begin, trimmed_begin)
    return Kept(end, kept.trimmed_end if is_empty else trimmed_end)


@small_subroutine
def finish(deletions, edit_set, document, kept):
    """Delete what follows the last kept line; the whole text where there is none."""
    begin = document.begin if kept.trimmed_end < 0 else kept.trimmed_end
    delete(deletions, edit_set, document, begin, document.end)
