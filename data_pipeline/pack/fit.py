"""Which piece of which document goes where: pure functions of document lengths.

A layout is the list of pieces of one sequence, each (document, offset, length) in tokens. Every layout but the last is
exactly full, and a piece that does not end its document is the last of its layout.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

Piece = tuple[int, int, int]
WINDOW = 4096
"""Pieces that best-fit chooses from."""


def concat(lengths: Iterable[int], sequence_length: int) -> Iterator[list[Piece]]:
    """Concatenate documents in order and cut every `sequence_length` tokens (Llama 3)."""
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


def best_fit(lengths: Iterable[int], sequence_length: int, window: int = WINDOW) -> Iterator[list[Piece]]:
    """Best-fit packing: fewer split documents, no padding (after Ding et al. 2024, "Fewer Truncations", section 3).

    Documents longer than a sequence give whole sequences first. The rest is packed from a pool of at least `window`
    pieces: the largest that fits is taken until none does; the slack is then filled with the beginning of the longest
    piece, whose remainder returns to the pool. The paper pads the slack; here every sequence is full.
    """
    # Sorted by (length, −document), so that among equals the one that waits longest is taken first.
    pool: list[tuple[int, int, int]] = []
    waiting = 0
    documents = enumerate(lengths)
    exhausted = False
    while True:
        while not exhausted and (len(pool) < window or waiting < 4 * sequence_length):
            document, length = next(documents, (-1, 0))
            if document < 0:
                exhausted = True
                break
            offset = 0
            while length - offset >= sequence_length:
                yield [(document, offset, sequence_length)]
                offset += sequence_length
            if offset < length:
                insort(pool, (length - offset, -document, offset))
                waiting += length - offset
        if not pool:
            return
        layout: list[Piece] = []
        room = sequence_length
        while room and pool:
            fitting = bisect_left(pool, (room, 1, 0)) - 1
            length, negative, offset = pool.pop(fitting)
            taken = min(room, length)
            layout.append((-negative, offset, taken))
            if taken < length:
                insort(pool, (length - taken, negative, offset + taken))
            room -= taken
        waiting -= sequence_length - room
        yield layout
