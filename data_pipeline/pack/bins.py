"""The compiled part of best-fit packing: which bin each piece goes into."""

from __future__ import annotations

import numpy as np

from data_pipeline.compiled import kernel


@kernel("i4[:](i4[:], i8)")
def assign(sizes, room):  # type: ignore[no-untyped-def]
    """Bin of each piece, int32 [pieces]: of the bins that a piece fits, one with the least room, else a new one.

    Args:
        sizes: int32 [pieces], descending, each from 1 to `room`.
        room: of an empty bin.

    A tree over the possible rooms says which hold a bin, so a piece takes O(log room).
    """
    bins = np.empty(len(sizes), np.int32)
    leaves = 1
    while leaves < room + 1:
        leaves *= 2
    occupied = np.zeros(2 * leaves, np.uint8)
    head = np.full(room + 1, -1, np.int32)  # a bin of each room, and through `following` the others
    following = np.empty(len(sizes), np.int32)
    count = 0
    for piece in range(len(sizes)):
        size = np.int64(sizes[piece])
        node = leaves + size
        if not occupied[node]:
            # Up, until there is a neighbour on the right that holds a bin: what is left of it has less room.
            while node > 1 and not (node % 2 == 0 and occupied[node + 1]):
                node //= 2
            node += 1
        if node <= 2:
            left, chosen = room, count
            count += 1
        else:
            while node < leaves:
                node = 2 * node if occupied[2 * node] else 2 * node + 1
            left = node - leaves
            chosen = head[left]
            head[left] = following[chosen]
            if head[left] < 0:
                occupied[node] = 0
                node //= 2
                while node >= 1:
                    occupied[node] = occupied[2 * node] | occupied[2 * node + 1]
                    node //= 2
        bins[piece] = chosen
        left -= size
        if left > 0:
            following[chosen] = head[left]
            head[left] = chosen
            node = leaves + left
            while node >= 1 and not occupied[node]:
                occupied[node] = 1
                node //= 2
    return bins
