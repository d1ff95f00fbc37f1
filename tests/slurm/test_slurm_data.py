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

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]

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


def test_a_slurm_array_makes_the_same_bytes_as_this_machine(cluster: Cluster, tmp_path: Path) -> None:
    source = tmp_path / "books.jsonl"
    source.write_text(
        "".join(json.dumps({"text": t, "id": str(i)}) + "\n" for i, t in enumerate(documents()))
    )
    data(source, tmp_path / "local", "executor.kind=local", "executor.workers=2")
    data(source, tmp_path / "slurm", "executor.kind=slurm", "executor.partition=main", "executor.poll_seconds=0.2",
         "executor.mem_gb=1", "executor.time=00:10:00")  # fmt: skip
    units = json.loads((tmp_path / "local" / "units.json").read_text())
    assert len(units) > 1  # an array of one task would show nothing
    local, slurm = digests(tmp_path / "local"), digests(tmp_path / "slurm")
    assert any(name.startswith("packed/train") for name in local)
    assert slurm == local
