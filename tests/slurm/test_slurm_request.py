"""What a job asks for, on a real Slurm whose nodes have GPUs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import rendered_jobs
from readme import commands
from slurm_cluster import Cluster
from toyrun import ROOT, overrides

from launch import slurm
from pretrain.ledger import read_ledger

pytestmark = pytest.mark.slurm


def readme_row() -> list[str]:
    """The words of the README's row for a Slurm cluster, after `arriero`."""
    (row,) = (c.text for c in commands() if c.text.startswith("arriero launch cluster=slurm "))
    return shlex.split(row)[1:]


def arriero(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "launch.cli", *words], cwd=ROOT, capture_output=True, text=True
    )


def asked_of(job: str) -> str:
    return slurm.slurm("scontrol", "show", "job", job)


def test_the_row_of_the_readme_is_run_by_a_cluster(
    cluster: Cluster, toy_packed: Path, tmp_path: Path
) -> None:
    """As it stands but for the size of nodes and model, and its placeholders: no option is added that it does not show."""
    run_dir = tmp_path / "run"
    small = {
        "cluster.nproc": f"cluster.nproc={cluster.gpus}",
        "model": "model=debug",
        "data.path": f"data.path={toy_packed}",
        "run.dir": f"run.dir={run_dir}",
    }
    row = [small.get(word.split("=")[0], word) for word in readme_row()]
    shown = arriero(row)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "start at" in shown.stdout  # Slurm was asked, and would take the job
    assert not run_dir.exists()

    submitted = [word for word in row if word != "dry_run=true"]
    short = ["train.steps=3", "tracker=none", "train.dtype=fp32"]
    done = arriero([*submitted, *short])
    # The GPUs of these nodes are imitated: torch finds none, and the ranks that were given them say so.
    assert done.returncode == 1 and "Slurm gave this node GPUs" in done.stdout + done.stderr, done.stderr
    job = slurm.slurm("squeue", "--noheader", "--states=all", "--format=%i", "--sort=-i").split()[0]
    told = asked_of(job)
    assert "NumNodes=2" in told and "CPUs/Task=4" in told and "OverSubscribe=NO" in told
    assert re.search(r"TRES\S*=\S*gres/gpu[:=]\S*4|TresPerNode=\S*gpu:2", told), told

    on_cpus = [
        f"run.dir={tmp_path / 'on-cpus'}" if word.startswith("run.dir=") else word for word in submitted
    ]
    done = arriero([*on_cpus, *short, "device=cpu"])
    assert done.returncode == 0, done.stdout + done.stderr
    ledger = read_ledger(tmp_path / "on-cpus")
    assert ledger[-1]["event"] == "finished"
    assert {e["world_size"] for e in ledger if e["event"] == "started"} == {2 * cluster.gpus}


def test_more_gpus_than_a_node_has_are_refused_before_submission(
    cluster: Cluster, toy_packed: Path, tmp_path: Path
) -> None:
    done = arriero(
        [
            "launch",
            "cluster=slurm",
            *overrides(toy_packed, tmp_path / "run"),
            "device=auto",
            "cluster.nproc=8",
        ]
    )
    assert done.returncode == 2 and "at most 2; lower cluster.nproc" in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["cluster.partition=nowhere"], "invalid partition"),
        (["cluster.options={constraint: moon}"], "Slurm refuses"),
        # 40 TB of parameters: where Slurm answers, this machine's disk is that of the cluster.
        (["model.dim=1048576", "model.ffn_dim=1048576", "model.n_layers=4"], "the disk is too small"),
    ],
)
def test_slurm_is_asked_before_anything_is_written(
    cluster: Cluster, toy_packed: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    for dry in ("dry_run=true", "dry_run=false"):
        done = arriero(["launch", "cluster=slurm", *overrides(toy_packed, tmp_path / "run"), dry, *words])
        assert done.returncode == 2 and says in done.stderr, done.stderr
        assert "#SBATCH" not in done.stdout
    assert not (tmp_path / "run").exists()


def test_options_reach_the_job_and_the_prolog_its_ranks(
    cluster: Cluster, toy_packed: Path, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    prolog = f"export SEEN={seen}\nscontrol show job $SLURM_JOB_ID > $SEEN"
    done = arriero(
        [
            "launch",
            "cluster=slurm",
            *overrides(toy_packed, tmp_path / "run", "train.steps=2"),
            "cluster.options={comment: from the test, nice: 7, gres: 'gpu:h100:1'}",
            "cluster.srun_options={input: none}",
            f"cluster.prolog='{prolog}'",
        ]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = seen.read_text()
    assert "Comment=from the test" in told and "Nice=7" in told and "gpu:h100:1" in told


@pytest.mark.parametrize("nodes", rendered_jobs.NODES)
def test_slurm_takes_jobs_of_whole_gpu_nodes(cluster: Cluster, tmp_path: Path, nodes: int) -> None:
    config = rendered_jobs.config(nodes)
    # What is asked of nodes as this Slurm lists them is what the file of the job shows.
    shown = slurm.show(config, Path("/runs/llama"), slurm.wanted(config))
    asked = [line for line in shown.splitlines() if line.startswith("#SBATCH") and "--chdir" not in line]
    expected = rendered_jobs.file(nodes).read_text().splitlines()
    assert asked == [line for line in expected if line.startswith("#SBATCH") and "--chdir" not in line]

    refused, start = slurm.refusal(config, tmp_path / "run")
    assert refused is None and "to start at" in start
    assert f"using {192 * nodes} processors" in start and "in partition gpu" in start


def test_slurm_refuses_more_nodes_than_there_are(cluster: Cluster, tmp_path: Path) -> None:
    refused, _ = slurm.refusal(rendered_jobs.config(2049), tmp_path / "run")
    assert refused is not None and "not available" in refused
