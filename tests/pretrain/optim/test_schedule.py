"""Learning-rate schedules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from configs.edge import ConfigError
from configs.schema.train import ScheduleConfig
from pretrain.optim.schedule import check, lr_factor


def test_warm_up_is_linear_and_ends_at_the_peak() -> None:
    schedule = ScheduleConfig(warmup_steps=4)
    assert [lr_factor(schedule, step, 100) for step in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_decay_falls_to_the_minimum_at_the_last_step(name: str) -> None:
    schedule = ScheduleConfig(name=name, warmup_steps=10, min_ratio=0.1)  # type: ignore[arg-type]
    values = [lr_factor(schedule, step, 110) for step in range(10, 111)]
    assert values == sorted(values, reverse=True)
    assert values[50] == pytest.approx(0.55)
    assert values[-1] == pytest.approx(0.1)


def test_wsd_stays_at_the_peak_and_falls_at_the_end() -> None:
    schedule = ScheduleConfig(name="wsd", warmup_steps=10, min_ratio=0.0, decay_share=0.25)
    values = [lr_factor(schedule, step, 200) for step in range(1, 201)]
    assert values[9:150] == [1.0] * 141
    assert values[174] == pytest.approx(0.5) and values[-1] == 0.0
    assert values[149:] == sorted(values[149:], reverse=True)


def test_constant_and_runs_without_or_within_warm_up() -> None:
    assert lr_factor(ScheduleConfig(name="constant", warmup_steps=0), 1, 1) == 1.0
    assert lr_factor(ScheduleConfig(warmup_steps=0, min_ratio=0.0), 5, 5) == pytest.approx(0.0)
    assert lr_factor(ScheduleConfig(warmup_steps=100), 50, 50) == 0.5


@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "wsd"])
def test_annealing_ends_any_schedule_at_zero(name: str) -> None:
    schedule = ScheduleConfig(name=name, warmup_steps=10, min_ratio=0.1)  # type: ignore[arg-type]
    annealed = replace(schedule, anneal_steps=20)
    before = [lr_factor(schedule, step, 100) for step in range(1, 101)]
    values = [lr_factor(annealed, step, 120) for step in range(1, 121)]
    assert values[:100] == before
    assert values[100:] == pytest.approx([before[-1] * (1 - k / 20) for k in range(1, 21)])
    assert values[-1] == 0.0
    alone = ScheduleConfig(name=name, warmup_steps=0, anneal_steps=4)  # type: ignore[arg-type]
    assert [lr_factor(alone, step, 4) for step in (1, 2, 3, 4)] == [0.75, 0.5, 0.25, 0.0]


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="min_ratio"):
        check(ScheduleConfig(min_ratio=1.5), 10)
    with pytest.raises(ConfigError, match="decay_share"):
        check(ScheduleConfig(decay_share=0.0), 10)
    with pytest.raises(ConfigError, match=r"train\.steps"):
        check(ScheduleConfig(), 0)
    with pytest.raises(ConfigError, match=r"are 100 and 20, more than `train\.steps` = 110 together"):
        check(ScheduleConfig(anneal_steps=20), 110)
    with pytest.raises(ConfigError, match=r"anneal_steps` must not be negative"):
        check(ScheduleConfig(anneal_steps=-1), 110)
