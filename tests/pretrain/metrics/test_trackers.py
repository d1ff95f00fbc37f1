"""Trackers are views: one id over restarts, and none of their troubles ends a run."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from toyrun import PATIENCE, ROOT

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


def test_local_trackers_write_below_the_run_directory_alone(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    pytest.importorskip("wandb")
    run_dir, home, here = (tmp_path / name for name in ("runs/a", "home", "here"))
    for folder in (run_dir, home, here):
        folder.mkdir(parents=True)
    words = ["data.path=x", f"run.dir={run_dir}", "tracker=local"]
    script = (
        "from pathlib import Path\n"
        "from configs import edge\n"
        "from configs.schema.train import TrainRun\n"
        "from pretrain.metrics.trackers import Trackers\n"
        f"trackers = Trackers(edge.load('train', TrainRun, {words}), Path({str(run_dir)!r}), print)\n"
        "trackers.log(1, {'loss': 1.0})\n"
        "trackers.close(120)\n"
        "import wandb.env\n"
        "assert not wandb.env.error_reporting_enabled()\n"
    )
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRACKIO", "WANDB", "XDG"))
    }
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr
    with sqlite3.connect(run_dir / "trackio" / "arriero.db") as database:
        ((step, metrics),) = database.execute("SELECT step, metrics FROM metrics").fetchall()
    assert step == 1 and json.loads(metrics) == {"loss": 1.0}
    assert list(run_dir.glob("logs/wandb/offline-run-*/*.wandb"))
    assert list(run_dir.glob("tensorboard/events*"))
    assert not list(here.iterdir()) and not list(home.rglob("*trackio*"))


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
