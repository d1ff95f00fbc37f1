"""The length of the demo's training follows from the speed of the machine and the time that is left."""

from __future__ import annotations

import pytest

from configs.schema.train import ClusterConfig
from launch import local, pace

HELDOUT, LENGTH = 300_000, 512


def seconds_of(length: pace.Length, speed: dict[str, float]) -> float:
    """Training and the evaluation at its end, by the module's own estimate of a step."""
    work = length.steps * length.batch * LENGTH + pace.EVALUATION * HELDOUT
    return work / (pace.SHARE * speed[length.model])


@pytest.mark.parametrize("speed", [1000.0, 2000.0, 4000.0, 8000.0, 20_000.0, 100_000.0])
@pytest.mark.parametrize("left", [100.0, 200.0, 400.0])
def test_training_and_evaluation_fit_the_time_that_is_left(speed: float, left: float) -> None:
    speeds = {"4m": speed, "2m": 2.2 * speed}
    length = pace.fit(left, speeds, HELDOUT, LENGTH)
    assert length.steps == pace.MIN_STEPS or seconds_of(length, speeds) <= left + 1e-6
    assert length.batch % 2 == 0  # two ranks
    assert pace.MIN_STEPS <= length.steps <= 600


def test_a_slow_machine_trains_the_narrow_model_and_a_fast_one_the_larger() -> None:
    slow = pace.fit(150.0, {"4m": 2000.0, "2m": 4500.0}, HELDOUT, LENGTH)
    fast = pace.fit(300.0, {"4m": 12_000.0, "2m": 25_000.0}, HELDOUT, LENGTH)
    assert (slow.model, slow.batch) == ("2m", 4) and fast == pace.Length("4m", 180, 16)


def test_no_time_left_is_the_shortest_training() -> None:
    assert pace.fit(-100.0, {"4m": 2000.0, "2m": 4500.0}, HELDOUT, LENGTH) == pace.Length(
        "2m", pace.MIN_STEPS, 4
    )


def test_speed_is_measured_of_each_model() -> None:
    speeds = pace.measure("demo", 512, local.environment(ClusterConfig(threads=1)), processes=1)
    assert list(speeds) == [s.model for s in pace.SHAPES] and all(v > 0 for v in speeds.values())
