"""Open-addressing hash tables with linear probing: the number of slots is a power of two, and key 0 marks an empty one."""

from __future__ import annotations

from numba import int64, uint64

from data_pipeline.compiled import small


@small(int64(int64))
def n_slots(n):
    """Slots of a table for `n` keys: at most half of them are filled."""
    size = 16
    while size < 2 * n:
        size *= 2
    return size


@small("int64(uint64[::1], int64, uint64)", inline=True)
def slot_of(keys, size, key):
    """Slot of a key among the first `size`, or where it would be inserted: there `keys` is 0."""
    slot = int64(key & uint64(size - 1))
    while keys[slot] != uint64(0) and keys[slot] != key:
        slot = (slot + 1) & (size - 1)
    return slot


@small("boolean(uint64[::1], int64, uint64)")
def insert(keys, size, key):
    """Insert a key; whether it was in the table already."""
    slot = slot_of(keys, size, key)
    if keys[slot] == key:
        return True
    keys[slot] = key
    return False
