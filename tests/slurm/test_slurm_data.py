"""`arriero data` as arrays of a real Slurm."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from slurm_cluster import Cluster
from toyrun import ROOT, documents

pytestmark = pytest.mark.slurm

# What a data run makes; logs and timings differ between any two runs.
OUTPUT = ("units.json", "documents", "rejected", "signals", "decisions", "tokenizer", "packed")


def data(source: Path, output: Path, *more: str) -> None:
    words = [
        "recipe=books",
        f"input={source}",
        f"output={output}",
        "recipe.filter.rules={}",
        "tokenizer.vocab_size=600",
        "tokenizer.n_special=8",
        "pack.sequence_length=64",
        "pack.heldout_fraction=0.2",
        "unit_bytes=250000",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "launch.cli", "data", *words, *more], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def digests(output: Path) -> dict[str, str]:
    files = [p for name in OUTPUT for p in [output / name, *(output / name).rglob("*")] if p.is_file()]
    return {str(p.relative_to(output)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# A stage takes seconds, most of them waiting for Slurm.
@pytest.mark.parametrize(
    "steps", [["dedup.minhash=false"], pytest.param([], marks=pytest.mark.full)], ids=["short", "whole"]
)
def test_a_slurm_array_makes_the_same_bytes_as_this_machine(
    cluster: Cluster, tmp_path: Path, steps: list[str]
) -> None:
    source = tmp_path / "books.jsonl"
    source.write_text(
        "".join(json.dumps({"text": t, "id": str(i)}) + "\n" for i, t in enumerate(documents()))
    )
    data(source, tmp_path / "local", "executor.kind=local", "executor.workers=2", *steps)
    seen = tmp_path / "seen"
    seen.mkdir()
    prolog = f"export SEEN={seen}\nscontrol show job $SLURM_JOB_ID > $SEEN/$SLURM_ARRAY_JOB_ID-$SLURM_ARRAY_TASK_ID"
    data(source, tmp_path / "slurm köln, (x)", *steps, "executor.kind=slurm", "executor.poll_seconds=0.2",
         "executor.mem_gb=1", "executor.time=00:10:00",
         "executor.options={comment: from the test, nice: 1, exclude: [node3, node4]}",
         "executor.srun_options={input: none}", f"executor.prolog='{prolog}'")  # fmt: skip
    units = json.loads((tmp_path / "local" / "units.json").read_text())
    assert len(units) > 1  # an array of one task would show nothing
    local, slurm = digests(tmp_path / "local"), digests(tmp_path / "slurm köln, (x)")
    assert any(name.startswith("packed/train") for name in local)
    assert slurm == local
    jobs = [path.read_text() for path in seen.iterdir()]
    assert len(jobs) > len(
        units
    )  # every task of every stage began with the prolog, and asked for what was passed on
    for job in jobs:
        assert "Comment=from the test" in job and "ExcNodeList=node[3-4]" in job and "Partition=main" in job
    scripts = list((tmp_path / "slurm köln, (x)" / "logs").glob("*/launch_script.slurm"))
    assert scripts and all("srun --input=none " in path.read_text() for path in scripts)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("executor.partition=nowhere", "invalid partition"),
        ("executor.mem_gb=100000", "Slurm refuses the tasks"),
        ("executor.options={array: 1-3}", "executor.options.array"),
    ],
)
def test_what_slurm_would_refuse_is_refused_before_anything_is_written(
    cluster: Cluster, tmp_path: Path, word: str, says: str
) -> None:
    (tmp_path / "a.txt").write_text("some text")
    words = [
        "recipe=text",
        f"input={tmp_path / 'a.txt'}",
        f"output={tmp_path / 'out'}",
        "executor.kind=slurm",
        word,
    ]
    command = [sys.executable, "-m", "launch.cli", "data", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()
