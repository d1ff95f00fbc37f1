"""The batch script, without a cluster."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from toyrun import overrides

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import ClusterConfig, LaunchRun
from launch import launch
from launch.slurm_request import Node, cpus_of_job, node_of, render, request, step_command


def config(packed: Path, run_dir: Path, *more: str) -> LaunchRun:
    return edge.load("launch", LaunchRun, ["cluster=slurm", *overrides(packed, run_dir), *more])


GPUS = [Node("gpu1", 128, 1_000_000, 8, "h100"), Node("gpu2", 192, 2_000_000, 8, "h100")]
CPUS = [Node("cpu1", 4, 64_000, 0)]


def options(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH ")]


def test_the_script_asks_for_what_the_configuration_says(tmp_path: Path) -> None:
    run_dir = tmp_path / "a run"
    read = config(
        tmp_path,
        run_dir,
        "cluster.nodes=4",
        "cluster.gpus_per_node=8",
        "cluster.cpus_per_task=64",
        "cluster.mem=500G",
        "cluster.partition=gpu",
        "cluster.account=llama",
        "cluster.exclude=[node7,node9]",
        "cluster.signal_before=300",
        "cluster.time='1-12:00:00'",
        "cluster.prolog='module load cuda'",
    )
    text = render(read, run_dir, request(read.cluster, read.device, None))
    for option in (
        "nodes=4",
        "ntasks-per-node=1",
        "gpus-per-node=8",
        "cpus-per-task=64",
        "mem=500G",
        "partition=gpu",
        "account=llama",
        "exclude=node7,node9",
        "time=1-12:00:00",
        "signal=B:USR1@300",
        "requeue",
        "open-mode=append",
    ):
        assert option in options(text)
    limits, prolog, command = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert limits == 'ulimit -S -n "$(ulimit -H -n)" -l "$(ulimit -H -l)"'
    assert prolog == "module load cuda"
    assert command.startswith("exec ") and command.endswith(f"-m launch.slurm '{run_dir}'")
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


@pytest.mark.parametrize(
    ("nproc", "device", "nodes", "gpus", "cpus", "memory", "exclusive"),
    [
        (8, "auto", GPUS, 8, 128, "0", True),  # whole nodes: of the smaller kind, all that it has
        (2, "auto", GPUS, 2, 32, "250000M", False),  # a quarter of a node
        (8, "auto", None, 8, None, "0", True),  # nobody to ask: eight GPUs are a node
        (2, "auto", None, 2, 16, None, False),
        (2, "cpu", CPUS, 0, 2, "32000M", False),
        (2, "cpu", None, 0, 2, None, False),
        (1, "cpu", [Node("n", 4, 1, 0)], 0, 1, None, False),  # a cluster that does not look after memory
    ],
)
def test_a_job_asks_for_the_part_of_a_node_that_goes_with_its_processes(
    nproc: int, device: str, nodes: list[Node] | None, gpus: int, cpus: int, memory: str, exclusive: bool
) -> None:
    asked = request(ClusterConfig(kind="slurm", nproc=nproc), device, nodes)
    assert (asked.gpus, asked.cpus, asked.memory, asked.exclusive) == (gpus, cpus, memory, exclusive)


@pytest.mark.parametrize(
    ("cluster", "device", "nodes", "says"),
    [
        (ClusterConfig(nproc=16), "auto", GPUS, "at most 8; lower cluster.nproc"),
        (ClusterConfig(nproc=2), "auto", CPUS, "has no GPUs"),
        (ClusterConfig(nproc=4, threads=2), "cpu", CPUS, "at most 4"),
        (ClusterConfig(nproc=4, gpus_per_node=2), "cuda", None, "want one each"),
    ],
)
def test_what_no_node_has_is_refused(
    cluster: ClusterConfig, device: str, nodes: list[Node] | None, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        request(cluster, device, nodes)


def test_nodes_are_read_as_sinfo_writes_them() -> None:
    assert node_of("n1", "72", "515000", "gpu:h100:8(S:0-1),lscratch:100") == Node(
        "n1", 72, 515000, 8, "h100"
    )
    assert node_of("n2", "4+", "64000+", "(null)") == Node("n2", 4, 64000, 0)
    assert node_of("n3", "4", "64000", "gpu:2") == Node("n3", 4, 64000, 2)
    assert cpus_of_job("72(x2),36") == "36" and cpus_of_job("4") == "4"


def test_options_are_passed_on_and_win(tmp_path: Path) -> None:
    read = config(
        tmp_path,
        tmp_path / "run",
        "device=cuda",
        "cluster.nproc=8",
        "cluster.options={qos: high, constraint: 'h100|h200', reservation: llama, gres: 'gpu:h100:8', exclusive: false}",
        "cluster.options.requeue=null",
        "cluster.options.mem_per_gpu=100G",
        "cluster.options.comment='two words'",
        "cluster.srun_options={container-image: 'a b.sqsh', no-container-mount-home: true}",
    )
    asked = request(read.cluster, read.device, None)
    shown = options(render(read, tmp_path / "run", asked))
    for option in (
        "qos=high",
        "constraint='h100|h200'",
        "reservation=llama",
        "gres=gpu:h100:8",
        "mem-per-gpu=100G",
    ):
        assert option in shown
    assert "comment='two words'" in shown
    names = [option.split("=")[0] for option in shown]
    # What the given options replace: GPUs and memory in another form, and what they take away.
    assert not {"gpus-per-node", "mem", "exclusive", "requeue"} & set(names)
    assert len(names) == len(set(names))
    command = step_command(read.cluster, tmp_path, tmp_path / "exits", "n:1", "r", "64", 45.0, 8)
    assert "--container-image=a b.sqsh" in command and "--no-container-mount-home" in command
    assert command.index("--container-image=a b.sqsh") < command.index("--exits")


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("cluster.options={nodes: 3}", "cluster.nodes"),
        ("cluster.options={p: gpu}", "long name"),
        ("cluster.options={qos: {a: b}}", "must be a text"),
    ],
)
def test_options_that_arriero_depends_on_are_refused(tmp_path: Path, word: str, says: str) -> None:
    read = config(tmp_path, tmp_path / "run", word)
    with pytest.raises(ConfigError, match=says):
        render(read, tmp_path, request(read.cluster, read.device, None))


def test_a_prolog_has_several_lines(tmp_path: Path) -> None:
    """As the example does it, with what a shell takes and a template might not."""
    read = edge.load("launch", LaunchRun, ["cluster=slurm_example", *overrides(tmp_path, tmp_path / "run")])
    text = render(read, tmp_path / "run", request(read.cluster, read.device, None))
    lines = read.cluster.prolog.splitlines()
    assert len([line for line in lines if not line.startswith("#")]) >= 2
    assert "\n".join(lines) in text and text.index(lines[-1]) < text.index("exec ")
    assert any("$" in line for line in lines)
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_a_dry_run_writes_and_submits_nothing(
    toy_packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert launch.run(config(toy_packed, run_dir, "dry_run=true", "train.steps=4")) == 0
    shown = capsys.readouterr().out
    assert "#SBATCH" in shown and "srun --nodes=1" in shown and "-m launch.worker" in shown
    for part in ("Plan: ", "Memory of a rank", "Time: ", "Disk: ", "before training:"):
        assert part in shown
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
