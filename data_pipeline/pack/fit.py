"""Which piece of which document goes where: pure functions of document lengths.

A layout is the list of pieces of one sequence, each (document, offset, length) in tokens. A piece that does not end its
document is the last of its layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from data_pipeline.pack.bins import assign

Piece = tuple[int, int, int]
CHUNK = 1 << 16
"""Pieces that are turned into Python objects at a time."""


def concat(lengths: Iterable[int], sequence_length: int) -> Iterator[list[Piece]]:
    """Concatenate documents in order and cut every `sequence_length` tokens (Llama 3); all but the last is full."""
    layout: list[Piece] = []
    room = sequence_length
    for document, length in enumerate(lengths):
        offset = 0
        while offset < length:
            taken = min(room, length - offset)
            layout.append((document, offset, taken))
            offset += taken
            room -= taken
            if room == 0:
                yield layout
                layout, room = [], sequence_length
    if layout:
        yield layout


def best_fit(lengths: Sequence[int] | np.ndarray, sequence_length: int) -> Iterator[list[Piece]]:
    """Best-fit-decreasing packing: only documents longer than a sequence are cut (Ding et al. 2024, section 3).

    Those give whole sequences first. Their remainders and all other documents, longest first, go each into the sequence
    that it leaves with the least room, or into a new one. Room that nothing fits is padding. Layouts come in the order of
    their first documents, so a stream's beginning is no sample of its longest. Memory: about 100 bytes a piece.
    """
    documents, offsets, sizes, sequences = _pieces(np.asarray(lengths, np.int64), sequence_length)
    # Pieces by sequence, then sequences by the first document in each.
    order = np.lexsort((offsets, documents, sequences))
    documents, offsets, sizes, sequences = (a[order] for a in (documents, offsets, sizes, sequences))
    first = np.flatnonzero(np.diff(sequences, prepend=-1))
    counts = np.diff(first, append=len(sequences))
    by_document = np.argsort(documents[first], kind="stable")
    for begin in range(0, len(first), CHUNK):
        for sequence in by_document[begin : begin + CHUNK].tolist():
            part = slice(int(first[sequence]), int(first[sequence] + counts[sequence]))
            yield list(
                zip(documents[part].tolist(), offsets[part].tolist(), sizes[part].tolist(), strict=True)
            )


def _pieces(
    lengths: np.ndarray, sequence_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(document, offset, size, sequence) of every piece, int64."""
    whole, rest = np.divmod(lengths, sequence_length)
    full = int(whole.sum())
    long = np.repeat(np.arange(len(lengths)), whole)
    # The k-th whole sequence of a document begins at token k · T of it.
    number = np.arange(full) - np.repeat(np.cumsum(whole) - whole, whole)
    partial = np.flatnonzero(rest)
    partial = partial[np.argsort(-rest[partial], kind="stable")]
    bins = assign(rest[partial].astype(np.int32), sequence_length)
    return (
        np.concatenate([long, partial]),
        np.concatenate([number * sequence_length, whole[partial] * sequence_length]),
        np.concatenate([np.full(full, sequence_length, np.int64), rest[partial]]),
        np.concatenate([np.arange(full), bins.astype(np.int64) + full]),
    )
