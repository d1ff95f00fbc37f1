"""Training runs on a real Slurm: submitted, moved to other nodes after a loss, requeued before the time limit, cancelled."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import Cluster
from toyrun import PATIENCE, ROOT, overrides

from launch import slurm
from pretrain.ledger import read_ledger
from pretrain.rundir import read_metrics

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(3000)]


def launch(packed: Path, run_dir: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "launch.cli", "launch", "cluster=slurm", *overrides(packed, run_dir), *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: Callable[[], Any], run_dir: Path) -> Any:
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        if time.monotonic() > end:
            logs = [f"== {p}\n{p.read_text()[-3000:]}" for p in sorted(run_dir.glob("logs/*.log"))]
            raise AssertionError(
                f"nothing within {PATIENCE} s; {read_ledger(run_dir)[-5:]}\n" + "\n".join(logs)
            )
        time.sleep(0.2)
    return value


def committed(run_dir: Path) -> list[int]:
    return sorted(int(p.parent.name[5:]) for p in run_dir.glob("checkpoints/step-*/COMMITTED"))


def events(run_dir: Path, name: str) -> list[dict[str, Any]]:
    return [e for e in read_ledger(run_dir) if e["event"] == name]


def nodes_of(job: str) -> list[str]:
    hosts = slurm.slurm("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()
    return slurm.slurm("scontrol", "show", "hostnames", hosts).split()


def test_a_run_moves_to_other_nodes_when_one_loses_power(
    cluster: Cluster, toy_packed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    more = ("cluster.nodes=2", "train.steps=300", "checkpoint.every=50", "run.log_every=50")
    lost = None
    first = launch(toy_packed, run_dir, *more)
    try:
        wait_for(lambda: committed(run_dir), run_dir)
        job = slurm.active_job(run_dir)
        assert job is not None
        lost = nodes_of(job)[-1]
        second = launch(toy_packed, run_dir, *more)  # the same command again attaches to the job
        cluster.power_off(lost)
        output, _ = first.communicate(timeout=PATIENCE)
        assert first.returncode == 0, output
        attached, _ = second.communicate(timeout=PATIENCE)
        assert second.returncode == 0 and "nothing is submitted" in attached
    finally:
        first.kill()
        if lost is not None:
            cluster.power_on(lost)
    launched = events(run_dir, "launched")
    # Before Slurm knows of the loss, the supervisor may have tried again in the same allocation.
    first_launch, *later = [e["again"] for e in launched]
    assert not first_launch and later and all(later)
    assert events(run_dir, "restored")[-1]["step"] >= 50
    assert [row["step"] for row in read_metrics(run_dir)] == list(range(1, 301))
    where = [
        line for line in (run_dir / "logs" / "slurm.log").read_text().splitlines() if "restart 1, on" in line
    ]
    assert (
        len(where) == 1
        and lost not in slurm.slurm("scontrol", "show", "hostnames", where[0].split()[-1]).split()
    )


def test_before_its_time_limit_a_job_checkpoints_and_requeues_itself_and_cancel_stops_it(
    cluster: Cluster, toy_packed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    more = ("train.steps=100000", "checkpoint.every=100000", "cluster.follow=false")
    process = launch(toy_packed, run_dir, *more)
    assert process.wait(PATIENCE) == 0
    job = slurm.active_job(run_dir)
    assert job is not None
    wait_for(lambda: (run_dir / "metrics.jsonl").exists() and read_metrics(run_dir), run_dir)
    # What --signal=B:USR1@N does at its time, now.
    slurm.slurm("scancel", "--batch", "--signal=USR1", job)
    restored = wait_for(lambda: events(run_dir, "restored"), run_dir)
    (saved,) = committed(run_dir)
    assert restored[-1]["step"] == saved > 0
    assert events(run_dir, "preempted") and not events(run_dir, "failed")
    assert slurm.cancel(run_dir, patience=PATIENCE) == 0
    assert slurm.active_job(run_dir) is None
    assert read_ledger(run_dir)[-1]["event"] == "stopped"
    assert max(committed(run_dir)) >= saved


def test_a_host_with_bad_gpus_is_left_out_when_the_job_is_requeued(
    cluster: Cluster, toy_packed: Path, tmp_path: Path
) -> None:
    """nvidia-smi is imitated: it finds one of two GPUs on the first node that it is asked on."""
    run_dir, bad, programs = tmp_path / "run", tmp_path / "bad", tmp_path / "bin"
    programs.mkdir()
    gpu = "<gpu id='00000000:19:00.0'><uuid>GPU-1</uuid></gpu>"
    (programs / "nvidia-smi").write_text(
        f"#!/bin/sh\n[ -e {bad} ] || echo $SLURMD_NODENAME > {bad}\n"
        f'[ "$(cat {bad})" = $SLURMD_NODENAME ] && n=1 || n=2\n'
        f'echo "<log>"; for i in $(seq $n); do echo "{gpu}"; done; echo "</log>"\n'
    )
    (programs / "nvidia-smi").chmod(0o755)
    more = (
        "device=cuda",
        "cluster.nproc=2",
        f"cluster.prolog='export PATH={programs}:$PATH'",
    )
    process = launch(toy_packed, run_dir, *more)
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    host = bad.read_text().strip()
    failed, *others = events(run_dir, "failed")
    assert (failed["kind"], failed["host"]) == ("bad node", host), output
    assert f"{host}: 1 of 2 GPUs answer" in output
    assert f"without {host}" in events(run_dir, "restarting")[0]["reason"]
    job = json.loads((run_dir / "job.json").read_text())["job_id"]
    told = slurm.slurm("scontrol", "show", "job", str(job))
    assert f"ExcNodeList={host}" in told and "Restarts=1" in told
    assert host not in nodes_of(str(job))
    # Elsewhere it was started, and refused: there are none of the GPUs that this test imitates.
    assert [(e["kind"], e["host"] == host) for e in others] == [("configuration", False)], output
