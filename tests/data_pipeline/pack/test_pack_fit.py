"""Layouts: every token once, every sequence full, a cut document ends its sequence."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.pack import best_fit, concat


def lengths_of(kind: str) -> list[int]:
    rng = np.random.default_rng(7)
    return {
        "mixed": [int(x) for x in 2 + rng.lognormal(3.5, 1.2, 3000)],
        "tiny": [2 + int(x) for x in rng.integers(0, 4, 3000)],
        "long": [int(x) for x in rng.integers(500, 2000, 50)],
        "exact": [64] * 20 + [128] * 5 + [32] * 9,
        "one": [3],
        "none": [],
    }[kind]


@pytest.mark.parametrize("kind", ["mixed", "tiny", "long", "exact", "one", "none"])
@pytest.mark.parametrize("packing", [concat, best_fit])
def test_every_token_stands_once_in_full_sequences(packing, kind: str) -> None:
    lengths, size = lengths_of(kind), 64
    layouts = list(packing(lengths, size))
    seen = [np.zeros(n, int) for n in lengths]
    for number, layout in enumerate(layouts):
        total = sum(taken for _, _, taken in layout)
        assert total == size or (number == len(layouts) - 1 and 0 < total < size)
        for place, (document, offset, taken) in enumerate(layout):
            assert taken > 0
            seen[document][offset : offset + taken] += 1
            if offset + taken < lengths[document]:
                assert place == len(layout) - 1, (
                    "a segment that does not end its document must end its sequence"
                )
    assert all((counts == 1).all() for counts in seen)
    assert len(layouts) == -(-sum(lengths) // size)


def test_best_fit_splits_fewer_documents() -> None:
    lengths = [n for n in lengths_of("mixed") if n <= 64]
    split = {p: sum(len(layout) for layout in p(lengths, 64)) - len(lengths) for p in (concat, best_fit)}
    assert split[best_fit] < split[concat] / 4


def test_best_fit_is_one_pass_over_its_input() -> None:
    """Bounded memory: no more than a window of documents is drawn before sequences come out."""
    drawn = 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield 20

    next(iter(best_fit(endless(), 64, window=100)))
    assert drawn <= 101
