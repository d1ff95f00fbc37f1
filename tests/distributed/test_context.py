"""Context parallelism: attention equals its definition, nothing is padded, loads are balanced."""

from __future__ import annotations

import numpy as np
import pytest
import ranks
from context_cases import LENGTH, boundaries, documents, errors

from pretrain.model.context import assign


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_attention_equals_its_definition_over_random_documents(world_size: int) -> None:
    for output, gradient in ranks.run(errors, world_size, list(range(12))):
        assert output <= 1e-6 and gradient <= 1e-5


def load(owner: np.ndarray, bounds: np.ndarray, length: int, rank: int) -> int:
    """(query, key) pairs of a rank."""
    owners = np.repeat(owner, length // len(owner))
    position = np.arange(length) - np.repeat(bounds[:-1], np.diff(bounds))
    return int((position + 1)[owners == rank].sum())


@pytest.mark.parametrize("n", [2, 4, 8])
def test_ranks_get_equal_shares_of_tokens_and_about_equal_loads(n: int) -> None:
    length = 8192
    draw = np.random.default_rng(0)
    for cuts in (0, 3, 40):
        bounds = np.array([0, *sorted(draw.choice(np.arange(1, length), cuts, replace=False)), length])
        owner = assign(bounds, length, n)
        assert (np.bincount(owner, minlength=n) == len(owner) // n).all()
        loads = [load(owner, bounds, length, rank) for rank in range(n)]
        assert max(loads) <= 1.15 * np.mean(loads), (cuts, loads)
        # Neighbouring shares, as a plain split gives, would leave one rank most of the work of a long document.
        if cuts == 0:
            plain = np.repeat(np.arange(n), len(owner) // n)
            assert load(plain, bounds, length, n - 1) > 1.4 * np.mean(loads)


def test_every_rank_finds_the_same_assignment_whatever_padding_follows() -> None:
    bounds = np.array([0, 7, 40, LENGTH])
    padded = np.array([0, 7, 40, LENGTH, LENGTH, LENGTH])
    assert (assign(bounds, LENGTH, 4) == assign(padded, LENGTH, 4)).all()


def test_a_length_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="90 tokens does not divide into 2 chunks for each of 4"):
        assign(np.array([0, 90]), 90, 4)


def test_the_random_documents_reach_the_edges() -> None:
    lengths = [b - a for seed in range(12) for row in documents(boundaries(seed)) for a, b in row]
    assert 1 in lengths and LENGTH in lengths
