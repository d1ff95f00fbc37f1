"""What a run says at its start and its end, and what becomes of the records of an earlier one."""

from __future__ import annotations

import shutil
from pathlib import Path

from toyrun import overrides, train

from pretrain.ledger import read_ledger
from pretrain.rundir import begin_anew, read_metrics


def test_a_run_says_what_it_prepares_and_at_the_end_what_it_made_and_what_is_next(
    toy_packed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "a run"
    words = overrides(toy_packed, run_dir, "train.steps=3", "profile.steps=[2]")
    status, output = train(words)
    assert status == 0, output
    lines = output.splitlines()
    assert lines[0].startswith("train: debug on ") and "preparing" in lines[0]
    end = lines[lines.index("Next:") :]
    assert f"  arriero report 'run.dir={run_dir}'" in end and "Finished at step 3, loss" in output
    assert "USDT" not in output  # of a traced step

    shutil.rmtree(run_dir / "checkpoints")
    status, output = train(overrides(toy_packed, run_dir, "train.steps=2"))
    assert status == 0, output
    assert "no checkpoint is left of an earlier run" in output
    assert [row["step"] for row in read_metrics(run_dir)] == [1, 2]
    assert [row["step"] for row in read_metrics(run_dir / "earlier-1")] == [1, 2, 3]
    assert [e["event"] for e in read_ledger(run_dir)].count("started") == 1
    assert begin_anew(run_dir) is None  # it has a checkpoint


def test_a_supervised_run_begins_anew_too(toy_packed: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    from toyrun import ROOT

    run_dir = tmp_path / "run"
    for steps in (4, 2):
        words = ["cluster=local", *overrides(toy_packed, run_dir, f"train.steps={steps}")]
        command = [sys.executable, "-m", "launch.cli", "launch", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.rstrip().splitlines()[-1].startswith("  arriero export")
        assert [row["step"] for row in read_metrics(run_dir)][-1] == steps
        events = [e["event"] for e in read_ledger(run_dir)]
        assert events[0] == "launched" and events.count("launched") == 1
        shutil.rmtree(run_dir / "checkpoints")
