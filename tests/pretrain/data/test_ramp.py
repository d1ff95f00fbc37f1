"""Which sequences each step consumes: no sequence lost or taken twice, whatever the phases."""

from __future__ import annotations

import itertools

import pytest

from configs.schema.train import PhaseConfig
from pretrain.data import PlanError, Ramp, Span

# Llama 3 405B (report, section 3.4.1): 4M tokens of 4,096, 8M of 8,192 after 252M tokens, 16M after 2.87T.
LLAMA3 = [
    PhaseConfig(sequences=60 * 512, global_batch_size=512, sequence_length=4096),
    PhaseConfig(sequences=342_100 * 1024, global_batch_size=1024),
    PhaseConfig(global_batch_size=2048),
]


def test_ramp_of_llama_3() -> None:
    ramp, tokens = Ramp(LLAMA3, 2048, 8192), 8192
    assert [ramp.span(step).size * tokens for step in (1, 60, 61, 342_160, 342_161)] == [
        2**22,
        2**22,
        2**23,
        2**23,
        2**24,
    ]
    assert [ramp.span(step).length for step in (60, 61)] == [4096, 8192]
    assert ramp.used(60) * tokens == pytest.approx(252e6, rel=0.002)
    assert ramp.used(342_160) * tokens == pytest.approx(2.87e12, rel=1e-4)
    steps = 342_160 + 760_000
    rows = [line.split() for line in ramp.table(steps).splitlines()]
    assert rows[1] == ["1", "1-60", "512", "4,096", "4,194,304", "30,720", "251,658,240"]
    assert sum(int(row[-1].replace(",", "")) for row in rows[1:]) == ramp.used(steps) * tokens


def test_every_sequence_is_consumed_once_and_in_order() -> None:
    phases = [
        PhaseConfig(sequences=12, global_batch_size=4, sequence_length=8),
        PhaseConfig(sequences=10, weights={"web": 1.0}),
        PhaseConfig(sequences=14),
        PhaseConfig(global_batch_size=16),
    ]
    ramp = Ramp(phases, 8, 32)
    spans = list(ramp.spans(1, 20))
    assert spans[0] == Span(0, 4, 8) and spans[3] == Span(12, 8, 32) and spans[6] == Span(36, 16, 32)
    assert all(a.n + a.size == b.n for a, b in itertools.pairwise(spans))
    assert [ramp.used(step) for step in range(21)] == [0, *(s.n + s.size for s in spans)]
    assert list(ramp.spans(5, 7)) == spans[4:7]
    # Phases that change the mixture alone are one stretch: a step may lie in both.
    assert [stretch.phases for stretch in ramp.stretches] == [(0,), (1, 2), (3,)]


def test_without_phases_of_their_own_steps_are_as_they_were() -> None:
    ramp = Ramp([PhaseConfig(sequences=10), PhaseConfig()], 4, 32)
    assert [ramp.span(step) for step in (1, 3, 1000)] == [Span(0, 4, 32), Span(8, 4, 32), Span(3996, 4, 32)]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        (
            [PhaseConfig(sequences=30, global_batch_size=4), PhaseConfig()],
            r"data\.phases\[0\]\.sequences is 30, .* of 4 sequences leave 2 over.*: use 28 or 32 sequences",
        ),
        (
            [PhaseConfig(sequences=3, global_batch_size=4), PhaseConfig()],
            r"leave 3 over.*: use 4 sequences",
        ),
        (
            [PhaseConfig(sequences=3), PhaseConfig(sequences=4), PhaseConfig(sequence_length=16)],
            r"data\.phases\[1\]\.sequences is 4, .* leave 7 over.*: use 5 sequences",
        ),
        ([PhaseConfig(global_batch_size=0)], r"data\.phases\[0\]\.global_batch_size is 0"),
        (
            [PhaseConfig(sequence_length=12)],
            r"data\.phases\[0\]\.sequence_length is 12, which does not divide .* 32 tokens; use 8 or 16",
        ),
        ([PhaseConfig(sequence_length=64)], "use 16 or 32"),
    ],
)
def test_impossible_ramps_are_explained(phases: list[PhaseConfig], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Ramp(phases, 8, 32)
