"""The loop: steps that are not finite, continued pretraining, a full disk, what is written down."""

from __future__ import annotations

import gc
import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toyrun import overrides, train

from pretrain import train as trainer
from pretrain.checkpoint import load_into, newest, open_checkpoint, step_path
from pretrain.ledger import read_ledger
from pretrain.metrics.meter import Meter
from pretrain.parallel.engine import Engine
from pretrain.rundir import read_evaluations, read_metrics
from pretrain.trainer import Step, Trainer


def tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint but the generators'."""
    checkpoint = open_checkpoint(path)
    into = {
        name: torch.zeros(rows[0]["shape"], dtype=getattr(torch, rows[0]["dtype"]))
        for name, rows in checkpoint.chunks.items()
        if not name.startswith("rng.")
    }
    load_into(checkpoint, into)
    return into


def test_run_writes_what_the_architecture_promises(toy_packed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    more = ("train.steps=4", "checkpoint.every=2", "train.eval_every=2", "train.eval_sequences=4")
    assert trainer.main(overrides(toy_packed, run_dir, *more)) == 0
    rows = read_metrics(run_dir)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    keys = (
        "step loss tokens batch_sequences grad_norm lr perplexity tokens_per_second tokens_per_second_per_device "
        "tflop_per_second_per_device mfu mfu_full memory_peak_bytes memory_interval_peak_bytes memory_resident_bytes "
        "step_seconds data_wait_seconds forward_backward_seconds optimizer_seconds comm_share time_unix_seconds"
    )
    assert all(list(row) == keys.split() for row in rows)
    # Valid tokens: those that end a document are not counted.
    assert all(200 < row["tokens"] <= 256 for row in rows)
    assert all(row["loss"] == pytest.approx(math.log(320), rel=0.05) for row in rows)
    evaluations = read_evaluations(run_dir)
    assert [(row["step"], row["source"]) for row in evaluations] == [
        (2, "email"),
        (2, "json"),
        (4, "email"),
        (4, "json"),
    ]
    for row in evaluations:
        ratio = row["nats_per_token"] / math.log(2) * row["tokens"] / row["bytes"]
        assert row["bits_per_byte"] == pytest.approx(ratio, rel=0.01) and row["split"] == "heldout"
    names = [event["event"] for event in read_ledger(run_dir)]
    assert names[0] == "started" and names[-1] == "finished"
    assert names.count("saved") == 2 and names.count("evaluated") == 2
    assert (run_dir / "tokenizer" / "tokenizer.json").read_bytes() == (
        toy_packed / "tokenizer" / "tokenizer.json"
    ).read_bytes()
    assert (run_dir / "config.yaml").is_file() and (run_dir / "heartbeats" / "rank-0.json").is_file()


def test_step_that_is_not_finite_changes_nothing_but_the_data_position(
    toy_packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, steps = Engine.forward_backward, iter(range(1, 100))

    def strike(engine: Engine, *arguments: object) -> Tensor:
        loss = real(engine, *arguments)  # type: ignore[arg-type]
        if next(steps) == 3:
            for _, p in engine.named_parameters():
                p.grad.mul_(math.inf)  # type: ignore[union-attr]
        return loss

    # No computation here overflows by itself at a step of our choice, so a fault is put in.
    monkeypatch.setattr(Engine, "forward_backward", strike)
    run_dir = tmp_path / "run"
    more = ("train.steps=4", "checkpoint.every=1", "checkpoint.keep=0", "train.eval_sequences=1")
    assert trainer.main(overrides(toy_packed, run_dir, *more)) == 0
    before, struck, after = (tensors(step_path(run_dir, step)) for step in (2, 3, 4))
    assert all(torch.equal(before[name], struck[name]) for name in before)
    assert not torch.equal(struck["model.norm.weight"], after["model.norm.weight"])
    assert before["optim.norm.weight.step"] == struck["optim.norm.weight.step"] == 2
    assert after["optim.norm.weight.step"] == 3
    (skipped,) = [event for event in read_ledger(run_dir) if event["event"] == "skipped"]
    assert skipped["step"] == 3 and skipped["in_a_row"] == 1
    assert read_metrics(run_dir)[2]["grad_norm"] is None
    assert open_checkpoint(step_path(run_dir, 3)).state["n"] == 12


def test_run_that_diverges_stops_itself(
    toy_packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    more = ("optim.lr=1e30", "schedule.warmup_steps=0", "resilience.max_skipped=3", "train.steps=50")
    assert trainer.main(overrides(toy_packed, run_dir, *more)) == 1
    assert "3 steps in a row were not finite (resilience.max_skipped=3)" in capsys.readouterr().err
    events = read_ledger(run_dir)
    assert [event["in_a_row"] for event in events if event["event"] == "skipped"] == [1, 2, 3]
    assert [event["event"] for event in events[-2:]] == ["stopped", "failed"]


def test_continued_pretraining_begins_with_the_weights_and_nothing_else(
    toy_packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    more = ("train.steps=2", "train.eval_sequences=1")
    assert trainer.main(overrides(toy_packed, first, *more, "optim.lr=0.05")) == 0
    # With a learning rate of next to nothing, the weights at the end are those at the beginning.
    for source in (first, newest(first)[0]):
        still = [*more, "optim.lr=1e-30", "optim.weight_decay=0", f"model.init_from={source}"]
        run_dir = second / source.name
        assert trainer.main(overrides(toy_packed, run_dir, *still)) == 0
        given, begun = tensors(newest(first)[0]), tensors(newest(run_dir)[0])
        assert all(torch.equal(given[n], begun[n]) for n in given if n.startswith("model."))
        assert begun["optim.norm.weight.step"] == 2
    capsys.readouterr()
    third = overrides(toy_packed, tmp_path / "third", *more, f"model.init_from={tmp_path}/nothing")
    assert trainer.main(third) == 2
    assert (
        "there is no such folder; expected a run directory, one of its checkpoints" in capsys.readouterr().err
    )
    other = overrides(toy_packed, tmp_path / "fourth", *more, f"model.init_from={first}", "model.dim=48")
    assert trainer.main(other) == 2
    error = capsys.readouterr().err
    assert (
        "computes another function: model.dim is 48, there 32" in error and "model.init_allow=[dim]" in error
    )


@pytest.mark.parametrize(("dtype", "optim"), [("bf16", "muon"), ("fp64", "adamw"), ("bf16_pure", "adamw")])
def test_resumed_steps_are_bit_identical(toy_packed: Path, tmp_path: Path, dtype: str, optim: str) -> None:
    run_dir, resumed = tmp_path / "run", tmp_path / "resumed"
    more = (
        f"optim={optim}",
        f"train.dtype={dtype}",
        "train.steps=6",
        "checkpoint.every=3",
        "train.eval_sequences=2",
    )
    assert trainer.main(overrides(toy_packed, run_dir, *more)) == 0
    shutil.copytree(run_dir, resumed)
    shutil.rmtree(newest(resumed)[0])
    (resumed / "metrics.jsonl").unlink()
    assert trainer.main(overrides(toy_packed, resumed, *more)) == 0
    numbers = [(r["step"], r["loss"], r["grad_norm"], r["lr"]) for r in read_metrics(run_dir)]
    assert numbers[3:] == [(r["step"], r["loss"], r["grad_norm"], r["lr"]) for r in read_metrics(resumed)]
    ends = [tensors(step_path(d, 6)) for d in (run_dir, resumed)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_longer_run_in_other_micro_batches_goes_on(toy_packed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert trainer.main(overrides(toy_packed, run_dir, "train.steps=2", "train.eval_sequences=1")) == 0
    changed = ("train.steps=4", "train.micro_batch_size=2", "checkpoint.every=1", "train.eval_sequences=2")
    assert trainer.main(overrides(toy_packed, run_dir, *changed)) == 0
    assert [row["step"] for row in read_metrics(run_dir)] == [1, 2, 3, 4]
    assert open_checkpoint(newest(run_dir)[0]).state["config"]["train"]["micro_batch_size"] == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"mounting a tmpfs needs root: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_full_disk_is_one_error_and_leaves_the_checkpoint_before_it(
    toy_packed: Path, tmp_path: Path, small_disk: Path
) -> None:
    run_dir = small_disk / "run"
    more = ("train.steps=6", "checkpoint.every=2", "checkpoint.keep=0", "train.eval_sequences=1")
    # A checkpoint takes about 0.48 MB: two fit on the disk, with the logs, and the third does not.
    code, output = train(overrides(toy_packed, run_dir, *more), nproc=1)
    assert code == 1
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in output, output
    assert "no space left on the disk, where" in errors[0] and "could not be written" in errors[0]
    assert re.search(r"where 0\.[3-9] MiB are needed and 0\.\d MiB are free; free some", errors[0])
    assert "the newest whole checkpoint is" in errors[0]
    whole = [path.name for path in newest(run_dir)]
    assert whole == sorted((p.name for p in (run_dir / "checkpoints").iterdir()), reverse=True)
    assert f"checkpoints/{whole[0]}. A lower checkpoint.keep needs less space" in errors[0]
    # With room again, the run goes on from there.
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert trainer.main(overrides(toy_packed, run_dir, *more)) == 0
    events = read_ledger(run_dir)
    (restored,) = [event for event in events if event["event"] == "restored"]
    assert restored["path"] == whole[0]
    assert [row["step"] for row in read_metrics(run_dir)] == [1, 2, 3, 4, 5, 6]


def test_batches_and_sequences_grow_and_a_longer_run_goes_on_the_same(
    toy_packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a slow machine every step would be written down alone, and no range could hold two batch sizes.
    monkeypatch.setattr(Meter, "due", lambda meter: False)
    phases = (
        "data.phases=[{sequences:4,global_batch_size:2,sequence_length:16},{sequences:4,sequence_length:32},"
        "{global_batch_size:8}]"
    )
    more = (phases, "schedule=constant", "train.eval_sequences=1", "checkpoint.every=2", "checkpoint.keep=0")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert trainer.main(overrides(toy_packed, whole, *more, "train.steps=5")) == 0
    for steps, micro in ((1, 1), (2, 2), (4, 1), (5, 2)):
        words = (*more, f"train.steps={steps}", f"train.micro_batch_size={micro}")
        assert trainer.main(overrides(toy_packed, parts, *words)) == 0
    rows, again = read_metrics(whole), read_metrics(parts)
    assert (
        [row["batch_sequences"] for row in rows]
        == [2, 2, 4, 8, 8]
        == [row["batch_sequences"] for row in again]
    )
    assert [row["tokens"] for row in rows] == [row["tokens"] for row in again]
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in again], rel=1e-6)
    assert [row["grad_norm"] for row in rows] == pytest.approx([row["grad_norm"] for row in again], rel=1e-5)
    assert open_checkpoint(newest(parts)[0]).state["n"] == 24
    for run_dir in (whole, parts):
        events = [event for event in read_ledger(run_dir) if event["event"] == "step_range"]
        covered = [(e["first_n"], e["last_n"], e["last_step"] - e["first_step"] + 1) for e in events]
        assert [c[0] for c in covered] == [0, *(c[1] for c in covered[:-1])] and covered[-1][1] == 24
        # All steps of a range have one batch size, so that a reader can tell which step consumed a sequence.
        sizes = {row["step"]: row["batch_sequences"] for row in rows}
        assert all(
            {sizes[step] for step in range(e["first_step"], e["last_step"] + 1)}
            == {(e["last_n"] - e["first_n"]) // (e["last_step"] - e["first_step"] + 1)}
            for e in events
        )


def test_phases_may_be_added_on_resume_but_not_change_what_was_consumed(
    toy_packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    more = ("train.eval_sequences=1", "checkpoint.every=1")
    assert trainer.main(overrides(toy_packed, run_dir, *more, "train.steps=2")) == 0
    for phases in (
        "[{global_batch_size:2}]",
        "[{sequences:4},{global_batch_size:8}]",
        "[{weights:{json:1}}]",
    ):
        changed = overrides(toy_packed, run_dir, *more, "train.steps=4", f"data.phases={phases}")
        assert trainer.main(changed) == 2
        assert "data.phases[0] began at sequence 0, and 8 are consumed" in capsys.readouterr().err
    annealed = "data.phases=[{sequences:8},{weights:{json:1},global_batch_size:2}]"
    assert trainer.main(overrides(toy_packed, run_dir, *more, "train.steps=4", annealed)) == 0
    assert [row["batch_sequences"] for row in read_metrics(run_dir)] == [4, 4, 2, 2]
    (amended,) = [event for event in read_ledger(run_dir) if event["event"] == "amended"]
    assert amended["n"] == 8 and amended["phases"][1]["weights"] == {"json": 1.0}
    assert trainer.main(overrides(toy_packed, run_dir, *more, "train.steps=5", annealed)) == 0
    assert open_checkpoint(newest(run_dir)[0]).state["n"] == 14


def test_garbage_is_collected_at_the_chosen_steps_and_never_between(
    toy_packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, collected = Trainer.end_step, {}

    def watched(self: Trainer, step: Step, *arguments: object) -> None:
        real(self, step, *arguments)  # type: ignore[arg-type]
        collected[step.number] = [generation["collections"] for generation in gc.get_stats()]
        # As much as would make Python collect.
        for _ in range(2000):
            knot: list[object] = []
            knot.append(knot)

    monkeypatch.setattr(Trainer, "end_step", watched)
    words = ("train.steps=7", "train.gc_every=3", "train.eval_sequences=1", "checkpoint.every=100")
    assert trainer.main(overrides(toy_packed, tmp_path / "run", *words)) == 0
    changes = [step for step in range(2, 8) if collected[step] != collected[step - 1]]
    assert changes == [4, 7], "collected after steps 3 and 6"
    assert gc.isenabled() and gc.get_freeze_count() == 0
