"""Layouts: every token once, a cut document ends its sequence; what each method pads and cuts."""

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
def test_every_token_stands_once(packing, kind: str) -> None:
    lengths, size = lengths_of(kind), 64
    layouts = list(packing(lengths, size))
    seen = [np.zeros(n, int) for n in lengths]
    for number, layout in enumerate(layouts):
        total = sum(taken for _, _, taken in layout)
        full = packing is concat and number < len(layouts) - 1
        assert total == size if full else 0 < total <= size
        for place, (document, offset, taken) in enumerate(layout):
            assert taken > 0
            seen[document][offset : offset + taken] += 1
            if offset + taken < lengths[document]:
                assert place == len(layout) - 1, (
                    "a segment that does not end its document must end its sequence"
                )
    assert all((counts == 1).all() for counts in seen)
    if packing is concat:
        assert len(layouts) == -(-sum(lengths) // size)


@pytest.mark.parametrize("kind", ["mixed", "tiny", "long", "exact", "one", "none"])
def test_best_fit_cuts_only_documents_longer_than_a_sequence(kind: str) -> None:
    lengths, size = lengths_of(kind), 64
    pieces: dict[int, int] = {}
    for layout in best_fit(lengths, size):
        for document, _, _ in layout:
            pieces[document] = pieces.get(document, 0) + 1
    assert all(pieces[document] == -(-length // size) for document, length in enumerate(lengths))


def test_best_fit_chooses_the_sequence_that_is_left_with_the_least_room() -> None:
    layouts = [{d for d, _, _ in layout} for layout in best_fit([50, 30, 60, 10, 14, 4, 33], 64)]
    # Longest first: 60 | 50 | 33 and 30 | then 14 with 50, 10 alone since nothing has room for it, 4 with 60.
    assert layouts == [{0, 4}, {1, 6}, {2, 5}, {3}]


def test_best_fit_pads_little_of_web_text() -> None:
    rng = np.random.default_rng(3)
    lengths = (2 + rng.lognormal(6.4, 1.1, 100_000)).astype(np.int64)
    for size in (2048, 8192):
        sequences = sum(1 for _ in best_fit(lengths, size))
        assert 0 <= sequences * size - lengths.sum() < 0.005 * lengths.sum()


def test_the_beginning_of_a_stream_is_no_sample_of_its_longest_documents() -> None:
    lengths = np.array(lengths_of("mixed"))
    first = [d for layout in list(best_fit(lengths, 64))[:200] for d, _, _ in layout]
    assert lengths[first].mean() < 2 * lengths.mean()
