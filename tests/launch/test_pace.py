"""The length of the demo's training follows from the speed and the time that is left."""

from __future__ import annotations

import os

import pytest

from launch import pace

HELDOUT, LENGTH = 300_000, 512


@pytest.mark.parametrize("speed", [700, 1_500, 2_500, 6_000, 50_000])
@pytest.mark.parametrize("seconds", [120, 250, 400])
def test_training_and_evaluation_fit_the_time_that_is_left(speed: float, seconds: float) -> None:
    length = pace.fit(seconds, speed, HELDOUT, LENGTH)
    tokens = length.steps * length.batch * LENGTH + HELDOUT * pace.EVALUATION
    assert pace.MIN_STEPS <= length.steps <= pace.MAX_STEPS
    assert tokens <= speed * seconds or (length.steps, length.batch) == (pace.MIN_STEPS, min(pace.BATCHES))


def test_a_slow_machine_takes_smaller_steps_and_not_far_fewer() -> None:
    fast, slow = (pace.fit(300, speed, HELDOUT, LENGTH) for speed in (20_000, 2_000))
    assert (fast.steps, fast.batch) == (pace.MAX_STEPS, max(pace.BATCHES))
    assert slow.batch < fast.batch and slow.steps >= pace.MAX_STEPS / 2 - 1


def test_no_time_left_is_the_shortest_training() -> None:
    assert pace.fit(-100, 2_000, HELDOUT, LENGTH) == pace.Length(pace.MIN_STEPS, min(pace.BATCHES))


def test_the_speed_of_this_machine_is_measured() -> None:
    assert pace.measure("demo", 512, {**os.environ, "OMP_NUM_THREADS": "1"}) > 0
