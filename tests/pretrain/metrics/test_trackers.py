"""Trackers are views: one id over restarts, and none of their troubles ends a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs import edge
from configs.schema.train import TrainRun
from pretrain.metrics import trackers as module
from pretrain.metrics.trackers import Tracker, Trackers, run_id


def config(run_dir: Path, *more: str) -> TrainRun:
    return edge.load("train", TrainRun, ["data.path=x", f"run.dir={run_dir}", "tracker=none", *more])


def test_run_id_stays_over_restarts(tmp_path: Path) -> None:
    first = run_id(tmp_path)
    assert run_id(tmp_path) == first and len(first) == 12


def test_tensorboard_gets_every_row(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first in (1, 3):
        trackers = Trackers(config(tmp_path, "tracker.tensorboard=true"), tmp_path, lambda text: None)
        for step in (first, first + 1):
            trackers.log(step, {"loss": float(step)})
        trackers.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(s, float(s)) for s in (1, 2, 3, 4)]


def test_missing_package_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.INSTALL, "trackio", "a_package_that_is_not_there")
    warnings: list[str] = []
    trackers = Trackers(config(tmp_path, "tracker.trackio=true"), tmp_path, warnings.append)
    trackers.log(1, {"loss": 1.0})
    trackers.close()
    assert len(warnings) == 1
    assert "tracker.trackio=true" in warnings[0] and "pip install" in warnings[0]


def test_failing_tracker_is_told_once_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail(step: int, row: dict[str, float]) -> None:
        calls.append(step)
        raise ConnectionError("no server")

    def opened(config: TrainRun, run_dir: Path) -> Tracker:
        return Tracker("tensorboard", fail, lambda: None)

    monkeypatch.setitem(module.OPEN, "tensorboard", opened)
    warnings: list[str] = []
    trackers = Trackers(config(tmp_path, "tracker.tensorboard=true"), tmp_path, warnings.append)
    for step in range(100):
        trackers.log(step, {"loss": 1.0})
    trackers.close()
    assert len(calls) == module.GIVE_UP_AFTER
    assert warnings == ["tracker tensorboard failed (ConnectionError: no server); training goes on"]
