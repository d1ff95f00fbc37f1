"""The supervisor over real torchrun and real training processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from toyrun import PATIENCE, ROOT, overrides

from pretrain.ledger import read_ledger
from pretrain.rundir import read_metrics

LONG = ("train.steps=100000", "checkpoint.every=20")


@contextmanager
def launched(packed: Path, run_dir: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    words = [
        "cluster=local",
        "cluster.nproc=2",
        *overrides(packed, run_dir),
        "resilience.heartbeat_every=0.5",
        *more,
    ]
    with (run_dir.parent / f"{time.time():.3f}.out").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "launch.cli", "launch", *words],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def told(run_dir: Path) -> str:
    return "".join(p.read_text() for p in sorted(run_dir.parent.glob("*.out")))


def events(run_dir: Path, name: str) -> list[dict[str, Any]]:
    return [e for e in read_ledger(run_dir) if e["event"] == name]


def wait_for(
    condition: Callable[[], Any], process: subprocess.Popen[str], run_dir: Path, patience: float = PATIENCE
) -> Any:
    end = time.monotonic() + patience
    while not (value := condition()):
        assert process.poll() is None and time.monotonic() < end, told(run_dir)
        time.sleep(0.05)
    return value


def committed(run_dir: Path) -> int:
    return max((int(p.parent.name[5:]) for p in run_dir.glob("checkpoints/step-*/COMMITTED")), default=0)


def worker(run_dir: Path, rank: int) -> int:
    return json.loads((run_dir / "heartbeats" / f"rank-{rank}.json").read_text())["pid"]


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def agent_seconds(supervisor: subprocess.Popen[str]) -> float:
    """Processor time that torchrun and what watches over its workers have used so far."""
    (agent,) = psutil.Process(supervisor.pid).children()
    assert "launch.agent" in agent.cmdline()
    times = agent.cpu_times()
    return times.user + times.system


def test_a_killed_worker_is_replaced_at_once_and_the_run_goes_on_from_its_checkpoint(
    toy_packed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    with launched(toy_packed, run_dir, "train.steps=120", "checkpoint.every=20") as process:
        wait_for(lambda: committed(run_dir), process, run_dir)
        os.kill(worker(run_dir, 1), signal.SIGKILL)
        assert process.wait(PATIENCE) == 0, told(run_dir)
    (failed,) = [e for e in events(run_dir, "failed") if "kind" in e]
    assert (failed["signal"], failed["rank"], failed["exit_code"]) == ("SIGKILL", 1, -9)
    restored = events(run_dir, "restored")[-1]
    again = next(e for e in events(run_dir, "step_range") if e["time"] > restored["time"])
    assert [e["wait"] for e in events(run_dir, "restarting")] == [0]
    assert not events(run_dir, "hung")
    assert again["first_step"] == restored["step"] + 1 and restored["step"] >= 20
    assert failed["step"] - restored["step"] <= 20 + 1
    assert [row["step"] for row in read_metrics(run_dir)] == list(range(1, 121))
    assert read_ledger(run_dir)[-1]["event"] == "finished"
    assert re.search(r"restarts +1\n", told(run_dir)) and "goodput" in told(run_dir)


def test_a_hang_is_found_by_heartbeat_and_its_stacks_are_kept(toy_packed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    limits = ("resilience.hang_timeout=20", "resilience.max_restarts=1")
    with launched(toy_packed, run_dir, *LONG, *limits) as process:
        wait_for(lambda: committed(run_dir), process, run_dir)
        os.kill(worker(run_dir, 1), signal.SIGSTOP)
        wait_for(lambda: events(run_dir, "restored"), process, run_dir)
        # Interrupted, it checkpoints and says how to go on.
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130, told(run_dir)
    assert events(run_dir, "hung")[0]["seconds"] > 20
    assert "pretrain/train.py" in (run_dir / "logs" / "stacks-rank-0.txt").read_text()
    assert read_ledger(run_dir)[-1]["event"] == "stopped"
    assert events(run_dir, "preempted")[-1]["step"] == committed(run_dir)


def test_one_supervisor_a_run_and_nothing_outlives_it(toy_packed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with launched(toy_packed, run_dir, *LONG) as process:
        wait_for(lambda: (run_dir / "heartbeats" / "rank-1.json").exists(), process, run_dir)
        before = (run_dir / "launch.yaml").read_bytes()
        began, spent = time.monotonic(), agent_seconds(process)
        with launched(toy_packed, run_dir, *LONG, "seed=1") as second:
            assert second.wait(PATIENCE) == 1
        # 0.1% of a core, and below 1% also with many processes on the machine.
        assert agent_seconds(process) - spent < 0.03 * (time.monotonic() - began)
        assert f"error: {run_dir} is in use by process {process.pid}" in told(run_dir)
        assert (run_dir / "launch.yaml").read_bytes() == before
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 3  # torchrun and two ranks
        process.kill()
        process.wait()
        end = time.monotonic() + PATIENCE
        while any(map(runs, family)):  # where no init reaps them, zombies stay
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_wrong_configuration_is_told_once_before_anything_starts(toy_packed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with launched(toy_packed, run_dir, "parallel.tp=3") as process:
        assert process.wait(PATIENCE) == 2, told(run_dir)
    assert not run_dir.exists() or not events(run_dir, "launched")
    assert len(re.findall("^error: .*tp", told(run_dir), re.MULTILINE)) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="ranks find a GPU here")
def test_what_only_ranks_find_wrong_is_told_once_and_never_tried_again(
    toy_packed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    with launched(toy_packed, run_dir, "device=cuda") as process:
        assert process.wait(PATIENCE) == 2, told(run_dir)
    assert len(events(run_dir, "launched")) == 1
    assert len(re.findall("^error: .*no CUDA device", told(run_dir), re.MULTILINE)) == 1


def test_restarts_without_progress_are_bounded(toy_packed: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    shutil.copytree(toy_packed, packed)
    for shard in packed.glob("train/*/tokens-*.bin"):
        shard.write_bytes(bytes(b ^ 1 for b in shard.read_bytes()))
    run_dir = tmp_path / "run"
    with launched(packed, run_dir, *LONG, "resilience.max_restarts=1") as process:
        assert process.wait(PATIENCE) == 1
    assert len(events(run_dir, "launched")) == 2
    assert len(events(run_dir, "restarting")) == 1
    assert "gave up after 1 restarts without a new checkpoint" in told(run_dir)
    assert str(packed) in [line for line in told(run_dir).splitlines() if line.startswith("error: ")][-2]


def test_a_finished_run_is_left_alone_until_it_is_made_longer(toy_packed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    for steps, launches in ((4, 1), (4, 1), (6, 2)):
        with launched(toy_packed, run_dir, f"train.steps={steps}", "checkpoint.every=2") as process:
            assert process.wait(PATIENCE) == 0, told(run_dir)
        assert len(events(run_dir, "launched")) == launches
        assert events(run_dir, "finished")[-1]["step"] == committed(run_dir) == steps
    assert "nothing to do" in told(run_dir)


def test_files_of_the_working_folder_are_not_taken_for_our_packages(toy_packed: Path, tmp_path: Path) -> None:
    for name in ("configs", "pretrain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('of the user')\n")
    (tmp_path / "launch.py").write_text("raise RuntimeError('of the user')\n")
    run_dir = tmp_path / "run"
    words = overrides(toy_packed, run_dir, "train.steps=2", "train.eval_sequences=1")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "launch.cli", "launch", "cluster.nproc=1", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_ledger(run_dir)[-1]["event"] == "finished"
