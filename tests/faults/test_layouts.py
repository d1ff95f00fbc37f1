"""A run continued in another layout goes on as it would have."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from toyrun import overrides, train

from pretrain.checkpoint import newest
from pretrain.rundir import read_metrics


@pytest.mark.parametrize(
    ("optim", "first", "then"),
    [
        ("adamw", [], ["parallel.tp=2"]),
        ("muon", ["parallel.pp=2", "parallel.tp=2"], ["parallel.cp=2"]),
    ],
    ids=["fsdp4-tp2", "pp2tp2-cp2"],
)
def test_saved_on_four_ranks_resumed_on_two_in_another_layout(
    toy_packed: Path, tmp_path: Path, optim: str, first: list[str], then: list[str]
) -> None:
    run_dir = tmp_path / "run"
    arguments = overrides(
        toy_packed, run_dir, f"optim={optim}", "train.steps=6", "checkpoint.every=3", "train.eval_sequences=4"
    )
    code, output = train([*arguments, *first], nproc=4)
    assert code == 0, output
    expected = [row["loss"] for row in read_metrics(run_dir)]
    shutil.rmtree(newest(run_dir)[0])
    code, output = train([*arguments, *then], nproc=2)
    assert code == 0, output
    found = [row["loss"] for row in read_metrics(run_dir)]
    assert found[:3] == expected[:3]
    assert found[3:] != expected[3:], "the second run has not computed these steps"
    assert found[3:] == pytest.approx(expected[3:], rel=1e-6)
