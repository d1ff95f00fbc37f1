"""The building blocks of kernels: hashing, hash tables, records."""

from __future__ import annotations

import random

import numpy as np

from data_pipeline.kernels import ascii as characters
from data_pipeline.kernels import fnv
from data_pipeline.kernels.hash_table import insert, n_slots, slot_of
from data_pipeline.kernels.hashing import mix
from data_pipeline.kernels.records import count_fields, fields


def test_mix_is_the_finaliser_of_splitmix64() -> None:
    # The first outputs of SplitMix64 with seed 0, as published with it: its state grows by the golden ratio.
    step = 0x9E3779B97F4A7C15
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(mix(np.uint64((k + 1) * step % 2**64))) for k in range(3)] == published


def test_fnv_hashes_as_published() -> None:
    # Test vectors of the FNV reference (Noll): 64-bit FNV-1a of "", "a" and "foobar".
    for word, published in (
        (b"", 0xCBF29CE484222325),
        (b"a", 0xAF63DC4C8601EC8C),
        (b"foobar", 0x85944171F73967E8),
    ):
        h = fnv.OFFSET
        for byte in word:
            h = np.uint64(fnv.extend(h, np.uint64(byte)))
        assert int(h) == published


def test_a_hash_table_holds_what_was_inserted_and_nothing_else() -> None:
    draw = random.Random(5)
    # Keys that collide in a table of 64 slots, and the last slot, behind which probing goes on at the first.
    added = {draw.randrange(1, 2**64) & ~63 | 62 for _ in range(30)}
    size = n_slots(len(added))
    assert size == 64
    keys = np.zeros(size, np.uint64)
    assert not any(insert(keys, size, np.uint64(key)) for key in added)
    assert all(insert(keys, size, np.uint64(key)) for key in added)
    assert set(keys.tolist()) - {0} == added
    for key in (draw.randrange(1, 2**64) & ~63 | 62 for _ in range(100)):
        assert (int(keys[slot_of(keys, size, np.uint64(key))]) == key) == (key in added)


def test_records_have_a_field_for_every_name() -> None:
    assert count_fields("lines", "words").names == ("lines", "words")
    row = np.zeros(2, fields(begin=np.int64, letter=np.uint8))
    row[1]["letter"] = 3
    assert row["letter"].tolist() == [0, 3] and row.dtype.isalignedstruct


def test_names_of_characters_differ() -> None:
    named = {name: value for name, value in vars(characters).items() if name.isupper() and name != "CASE_BIT"}
    assert len(set(named.values())) == len(named) and max(named.values()) < 128
