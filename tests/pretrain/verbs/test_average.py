"""Averaging checkpoints: the mean is exact, what comes out is a run, and what cannot be averaged is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toyrun import overrides

from launch import cli
from pretrain import train as trainer
from pretrain.average import average
from pretrain.checkpoint import load_into, newest, open_checkpoint, step_path, write_checkpoint
from pretrain.checkpoint.chunks import Chunk
from pretrain.rundir import read_evaluations, read_metrics


def weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, as they are stored."""
    checkpoint = open_checkpoint(path)
    into = {
        name: torch.empty(rows[0]["shape"], dtype=getattr(torch, rows[0]["dtype"]))
        for name, rows in checkpoint.chunks.items()
        if name.startswith("model.")
    }
    load_into(checkpoint, into)
    return into


SETTINGS = ("train.steps=24", "checkpoint.every=4", "checkpoint.keep=0", "train.eval_sequences=1")


@pytest.fixture(scope="module")
def trained(toy_packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose steps of 0.05 throw it about; tests must not change it."""
    run_dir = tmp_path_factory.mktemp("average") / "run"
    assert (
        trainer.main(overrides(toy_packed, run_dir, *SETTINGS, "optim.lr=0.05", "schedule.min_ratio=1")) == 0
    )
    return run_dir


def test_mean_is_exact_and_can_be_evaluated_exported_sampled_and_continued(
    trained: Path, toy_packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mean = tmp_path / "mean"
    assert cli.main(["average", f"run.dir={trained}", "last=4", f"output={mean}"]) == 0
    assert "mean of steps 12, 16, 20, 24" in capsys.readouterr().out
    (path,) = newest(mean)
    assert path.name == "step-00000024"
    parts = [weights(step_path(trained, step)) for step in (12, 16, 20, 24)]
    for name, tensor in weights(path).items():
        exact = torch.stack([part[name].double() for part in parts]).mean(0)
        assert tensor.dtype == parts[0][name].dtype and torch.equal(tensor, exact.to(tensor.dtype)), name
    assert not torch.equal(weights(path)["model.norm.weight"], parts[-1]["model.norm.weight"])

    # The mean of steps that overshoot is better than any of them.
    losses = {}
    for run_dir, step in ((trained, 16), (trained, 20), (trained, 24), (mean, 24)):
        assert cli.main(["evaluate", f"run.dir={run_dir}", f"step={step}", "device=cpu", "dtype=fp32"]) == 0
        rows = [row for row in read_evaluations(run_dir) if row["step"] == step]
        losses[run_dir.name, step] = sum(row["nats_per_token"] * row["tokens"] for row in rows)
    assert losses.pop(("mean", 24)) < min(losses.values())

    assert cli.main(["export", f"run.dir={mean}", f"output={tmp_path}/hf"]) == 0
    assert cli.main(["generate", f"run.dir={mean}", "prompt=def", "max_tokens=4", "device=cpu"]) == 0
    still = ["train.steps=1", "optim.lr=1e-30", "optim.weight_decay=0", "train.eval_sequences=1"]
    go_on = overrides(toy_packed, tmp_path / "on", *still, f"model.init_from={mean}")
    assert trainer.main(go_on) == 0
    begun = weights(newest(tmp_path / "on")[0])
    assert all(torch.equal(begun[name], tensor) for name, tensor in weights(path).items())
    assert len(read_metrics(tmp_path / "on")) == 1
    # There is no optimizer and no position in the data to go on with.
    assert trainer.main(overrides(toy_packed, mean, *SETTINGS, "optim.lr=0.05", "schedule.min_ratio=1")) == 2
    assert "holds weights alone (they were imported, or averaged), so there is no run to go on with" in (
        capsys.readouterr().err
    )


def test_checkpoints_of_different_layouts_are_averaged(trained: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(trained, run_dir)
    whole = weights(step_path(run_dir, 24))
    rows = {name: (len(tensor) + 2) // 3 for name, tensor in whole.items()}
    pieces = [
        (Chunk(name, (at, *[0] * (t.ndim - 1)), tuple(t[at : at + n].shape), tuple(t.shape)), t[at : at + n])
        for name, t in whole.items()
        for n in (rows[name],)
        for at in range(0, len(t), n)
    ]
    write_checkpoint(step_path(run_dir, 28), pieces, {"step": 28})
    for steps in ([20, 28], [20, 24]):
        average(run_dir, steps, tmp_path / f"mean-{steps[1]}")
    a, b = (weights(newest(tmp_path / f"mean-{last}")[0]) for last in (24, 28))
    assert all(torch.equal(a[name], b[name]) for name in whole)


def bad(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = cli.main(["average", f"run.dir={trained}", f"output={tmp_path}/mean", *words])
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "mean").exists() and not list(tmp_path.glob(".mean*")), "nothing is left behind"
    return status, error


def test_what_cannot_be_averaged_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        "no checkpoint of step 13 (there are: 4, 8, 12, 16, 20, 24)"
        in (bad(trained, tmp_path, capsys, "steps=[12,13]")[1])
    )
    assert "`last` is 9, but" in bad(trained, tmp_path, capsys, "last=9")[1]
    assert "at least two different" in bad(trained, tmp_path, capsys, "steps=[12,12]")[1]
    assert "either `steps=[…]` or `last=K`" in bad(trained, tmp_path, capsys, "last=2", "steps=[4,8]")[1]
    assert "either `steps=[…]` or `last=K`" in bad(trained, tmp_path, capsys)[1]
    assert "is not a directory" in bad(tmp_path / "none", tmp_path, capsys, "last=2")[1]

    run_dir = tmp_path / "run"
    shutil.copytree(trained, run_dir)
    whole = weights(step_path(run_dir, 24))
    whole["model.norm.weight"] = whole["model.norm.weight"][:16]
    chunks = ((Chunk(n, (0,) * t.ndim, tuple(t.shape), tuple(t.shape)), t) for n, t in whole.items())
    write_checkpoint(step_path(run_dir, 28), chunks, {"step": 28})
    status, error = bad(run_dir, tmp_path, capsys, "last=2")
    assert status == 2 and "are of different models: `model.norm.weight` is float32 (32,) in one" in error

    data = step_path(run_dir, 20) / "__0_0.distcp"
    content = bytearray(data.read_bytes())
    content[len(content) // 6] ^= 1
    data.write_bytes(content)
    status, error = bad(run_dir, tmp_path, capsys, "steps=[16,20,24]")
    assert status == 1 and "is damaged" in error and "step-00000020" in error
