"""A rank that fails or falls silent in the middle of a step: the others do not wait longer than a collective may take."""

from __future__ import annotations

import pytest
import ranks
from failing_cases import desert
from parity_cases import Case
from parity_layouts import case

TIMEOUT, SILENT = 6.0, 20.0


@pytest.mark.parametrize(
    "layout",
    [case(pp=2, tp=2, tied=True), pytest.param(case(shard=2, cp=2), marks=pytest.mark.full)],
    ids=lambda one: one.layout,
)
def test_nobody_waits_longer_for_a_silent_rank_than_the_timeout(layout: Case) -> None:
    told = ranks.run(desert, 4, layout, 1, SILENT, collective=TIMEOUT)
    waited, error = told.pop(1)
    assert waited >= SILENT and error.startswith("Deserted")
    for waited, error in told:
        assert error.startswith("RuntimeError") and waited < SILENT, told
