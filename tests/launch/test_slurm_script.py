"""The batch script, without a cluster."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from toyrun import overrides

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import LaunchRun
from launch import launch, slurm


def config(packed: Path, run_dir: Path, *more: str) -> LaunchRun:
    return edge.load("launch", LaunchRun, ["cluster=slurm", *overrides(packed, run_dir), *more])


def test_the_script_asks_for_what_the_configuration_says(tmp_path: Path) -> None:
    run_dir = tmp_path / "a run"
    text = slurm.render(
        config(
            tmp_path,
            run_dir,
            "cluster.nodes=4",
            "cluster.gpus_per_node=8",
            "cluster.cpus_per_task=64",
            "cluster.partition=gpu",
            "cluster.account=llama",
            "cluster.exclude=[node7,node9]",
            "cluster.signal_before=300",
            "cluster.time='1-12:00:00'",
            "cluster.prolog='module load cuda'",
        ),
        run_dir,
    )
    for option in (
        "nodes=4",
        "ntasks-per-node=1",
        "gpus-per-node=8",
        "cpus-per-task=64",
        "partition=gpu",
        "account=llama",
        "exclude=node7,node9",
        "time=1-12:00:00",
        "signal=B:USR1@300",
        "requeue",
        "open-mode=append",
    ):
        assert f"#SBATCH --{option}\n" in text
    assert "--mem" not in text  # the cluster's default
    prolog, command = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert prolog == "module load cuda"
    assert command.startswith("exec ") and command.endswith(f"-m launch.slurm '{run_dir}'")
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_a_dry_run_writes_and_submits_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    assert launch.run(config(tmp_path / "nowhere", run_dir, "dry_run=true")) == 0
    shown = capsys.readouterr().out
    assert "#SBATCH" in shown and "srun --nodes=1" in shown and "-m launch.worker" in shown
    assert not run_dir.exists()


def test_a_mesh_that_does_not_fit_is_refused_before_it_waits_in_the_queue(
    toy_packed: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="tp"):
        launch.run(config(toy_packed, tmp_path / "run", "cluster.nodes=2", "parallel.tp=3"))
    assert not (tmp_path / "run").exists()


def test_steps_on_trial_need_no_supervisor(toy_packed: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="start it with torchrun"):
        launch.run(config(toy_packed, tmp_path / "run", "train.dry_run=true"))
    assert not (tmp_path / "run").exists()


def test_a_machine_without_slurm_says_so(
    toy_packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="`sbatch` is not on this machine"):
        launch.run(config(toy_packed, tmp_path / "run"))
