"""A rank that fails or falls silent in the middle of a step: the others do not wait longer than a collective may take."""

from __future__ import annotations

import pytest
import ranks
from failing_cases import desert
from parity_cases import Case
from parity_layouts import case

TIMEOUT = 15.0
"""Seconds that a collective may take: more than ranks come apart on a busy machine while they are built."""


@pytest.mark.parametrize(
    "layout",
    [case(pp=2, tp=2, tied=True), pytest.param(case(shard=2, cp=2), marks=pytest.mark.full)],
    ids=lambda one: one.layout,
)
def test_nobody_waits_longer_for_a_silent_rank_than_the_timeout(layout: Case) -> None:
    # The silent rank goes on when the others have left: had one waited for it, none would end.
    errors = ranks.run(desert, 4, layout, 1, collective=TIMEOUT)
    assert errors.pop(1).startswith("Deserted")
    assert all(error.startswith("RuntimeError") for error in errors), errors
