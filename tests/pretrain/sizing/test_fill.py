"""The dial at the edge: a run directory holds plain numbers, and a run goes on with those that it began with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from toyrun import train

from configs import edge
from configs.schema.train import TrainRun
from launch import launch
from launch import size as size_verb
from pretrain import train as trainer
from pretrain.rundir import read_metrics
from pretrain.sizing.laws import LARGEST_RATE
from pretrain.sizing.shape import parameters

QUIET = ("train.dtype=fp32", "tracker=none", "device=cpu", "train.eval_sequences=1", "run.progress=false")


def test_a_run_of_a_size_trains_and_goes_on_with_its_numbers_on_other_ranks(
    toy_packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    dial = ["model.size=300k", f"data.path={toy_packed}", f"run.dir={run_dir}", *QUIET]
    assert trainer.main([*dial, "train.steps=10", "checkpoint.every=10"]) == 0
    shown = capsys.readouterr().out
    assert "0.3118 · C^-0.125" in shown and "width / layers" in shown
    begun = edge.read(run_dir / "config.yaml", TrainRun)
    assert parameters(begun.model, 320) == pytest.approx(300e3, rel=0.05)
    assert (begun.schedule.warmup_steps, begun.optim.lr) == (1, LARGEST_RATE)
    # A run of 30 steps would warm up for 3 and read larger batches; this one goes on as it began.
    code, output = train([*dial, "train.steps=30"], nproc=2)
    assert code == 0, output
    assert "set by train.steps=30" in output and "which was begun with it" in output
    assert output.count("Derived") == 1
    went_on = edge.read(run_dir / "config.yaml", TrainRun)
    assert [row["step"] for row in read_metrics(run_dir)] == [*range(1, 31)]
    kept = dataclasses.replace(went_on.train, steps=10, micro_batch_size=begun.train.micro_batch_size)
    assert kept == begun.train
    assert (went_on.model, went_on.optim, went_on.schedule) == (begun.model, begun.optim, begun.schedule)
    # Another size is another model.
    capsys.readouterr()
    assert trainer.main(["model.size=400k", *dial[1:], "train.steps=30"]) == 2
    assert "on resume it cannot change" in capsys.readouterr().err


def test_a_launch_shows_its_numbers_before_anything_starts(
    toy_packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["budget=1e12", f"data.path={toy_packed}", f"run.dir={tmp_path / 'run'}", "cluster.nproc=2"]
    assert launch.main([*arguments, "dry_run=true"]) == 0
    shown = capsys.readouterr().out
    assert "0.299 · C^0.537" in shown and "launch.worker" in shown


def test_a_mistake_in_the_dial_is_one_line(toy_packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"data.path={toy_packed}", "run.dir=r", "budget=1e12", "train.steps=3"]
    assert trainer.main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: `budget` and `train.steps` both fix the length")
    assert trainer.main(["data.path=nowhere", "run.dir=r", "budget=1e12"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_verb_writes_an_experiment_that_gives_the_same_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mine.yaml"
    dial = ["budget=1e21", "cluster.nproc=8", "accelerator=h100", f"output={output}"]
    assert size_verb.main(dial) == 0
    assert "hours on 8 ranks" in capsys.readouterr().out
    text = output.read_text()
    assert text.startswith("# @package _global_\n") and "Llama 3 report" in text
    written = yaml.safe_load(text)
    data = edge.compose("train", ["data.path=d", "run.dir=r"], TrainRun)
    for section, values in written.items():
        data[section] = {**data[section], **values}
    config = edge.build(TrainRun, data)
    assert config.model.dim == written["model"]["dim"] and config.train.steps == written["train"]["steps"]
    # What is written needs no dial any more.
    assert config.model.size is None and config.budget is None
    assert size_verb.main([]) == 2
    assert "give a dial" in capsys.readouterr().err
