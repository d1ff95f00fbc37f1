"""Runs that are killed, and checkpoints that are damaged: what comes after is what would have come anyway."""

from __future__ import annotations

import itertools
import random
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from toyrun import PATIENCE, kill_all, overrides, start, train, wait_until

from pretrain import train as trainer
from pretrain.checkpoint import newest, open_checkpoint
from pretrain.ledger import read_ledger, read_lines
from pretrain.resilience import EXIT_PREEMPTED
from pretrain.rundir import read_evaluations, read_metrics

STEPS, EVERY, BATCH = 24, 7, 4
LENGTH = (f"train.steps={STEPS}", f"checkpoint.every={EVERY}", "run.log_every=1", "train.eval_sequences=8")


def losses(run_dir: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in read_metrics(run_dir)}


def events(run_dir: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in read_ledger(run_dir) if event["event"] == name]


def consumed(run_dir: Path) -> list[tuple[int, int]]:
    """Sequences [first, last) that went into the final model, as the ledger tells: later ranges replace earlier."""
    ranges: list[tuple[int, int]] = []
    for event in read_ledger(run_dir):
        if event["event"] == "restored":
            ranges = [r for r in ranges if r[0] < event["n"]]
            ranges = [(first, min(last, event["n"])) for first, last in ranges]
        if event["event"] == "step_range":
            ranges.append((event["first_n"], event["last_n"]))
    return ranges


@pytest.fixture(scope="module")
def undisturbed(toy_packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "undisturbed"
    code, output = train(overrides(toy_packed, run_dir, *LENGTH), nproc=2)
    assert code == 0, output
    return run_dir


def test_kill_of_everything_then_the_same_command(
    undisturbed: Path, toy_packed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "killed"
    arguments = overrides(toy_packed, run_dir, *LENGTH)
    at = random.Random().randrange(EVERY + 2, STEPS - 2)
    process = start(arguments, nproc=2)
    wait_until(lambda: at in losses(run_dir) and bool(newest(run_dir)), process)
    kill_all(process)
    reached = max(losses(run_dir))
    code, output = train(arguments, nproc=2)
    assert code == 0, output
    (restored,) = events(run_dir, "restored")
    assert 0 < restored["step"] <= reached
    assert reached - restored["step"] <= EVERY
    assert losses(run_dir) == losses(undisturbed), f"killed after step {reached}"
    ranges = consumed(run_dir)
    assert ranges[0][0] == 0 and ranges[-1][1] == STEPS * BATCH
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))


def test_a_signal_checkpoints_and_the_run_goes_on(
    undisturbed: Path, toy_packed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "preempted"
    arguments = overrides(toy_packed, run_dir, *LENGTH)
    process = start(arguments)
    wait_until(lambda: 3 in losses(run_dir), process)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_PREEMPTED, output
    (preempted,) = events(run_dir, "preempted")
    assert preempted["signal"] == "SIGUSR1" and preempted["step"] < EVERY
    assert newest(run_dir)[0].name == f"step-{preempted['step']:08d}"
    code, output = train(arguments)
    assert code == 0, output
    # One process adds in another order than two.
    expected = losses(undisturbed)
    assert losses(run_dir) == pytest.approx(expected, rel=1e-6)


def test_running_a_finished_run_again_does_nothing(
    undisturbed: Path, toy_packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = shutil.copytree(undisturbed, tmp_path / "again")
    assert trainer.main(overrides(toy_packed, run_dir, *LENGTH)) == 0
    assert losses(run_dir) == losses(undisturbed)
    assert read_evaluations(run_dir) == read_evaluations(undisturbed)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(
    undisturbed: Path, toy_packed: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = shutil.copytree(undisturbed, tmp_path / damage)
    before, broken = newest(run_dir)[1], newest(run_dir)[0]
    chunk = max(
        (row for rows in open_checkpoint(broken).chunks.values() for row in rows), key=lambda r: r["length"]
    )
    file = broken / chunk["file"]
    data = bytearray(file.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    else:
        data[chunk["at"] + chunk["length"] // 2] ^= 0x10
    file.write_bytes(data)
    assert trainer.main(overrides(toy_packed, run_dir, *LENGTH)) == 0
    (restored,) = events(run_dir, "restored")
    assert restored["path"] == before.name
    assert str(file) in restored["passed_over"][0]
    assert damage == "truncated" or f"`{chunk['name']}`" in restored["passed_over"][0]
    assert str(file) in capsys.readouterr().err
    # Restored from two ranks into one: equal up to the order of additions.
    assert losses(run_dir) == pytest.approx(losses(undisturbed), rel=1e-6)


def test_run_begins_again_when_no_checkpoint_verifies(
    undisturbed: Path, toy_packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = shutil.copytree(undisturbed, tmp_path / "broken")
    for path in newest(run_dir):
        (path / "manifest.json").write_bytes(b"{}")
    assert trainer.main(overrides(toy_packed, run_dir, *LENGTH)) == 0
    (restored,) = events(run_dir, "restored")
    assert restored["step"] == 0
    rows = list(read_lines(run_dir / "metrics.jsonl"))
    assert len(rows) == 2 * STEPS
    assert losses(run_dir) == pytest.approx(losses(undisturbed), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ["model.ffn_dim=96"],
            r"`model\.ffn_dim` is 96, but .* was made with 64; on resume it cannot change",
        ),
        (["optim.lr=1.0"], r"`optim\.lr` is 1\.0, but .*step-00000024 was made with 0\.0003"),
        (["data.phases=[{weights:{json:1.0}}]"], r"`data\.phases`"),
        (["train.steps=10"], r"is at step 24, past `train\.steps` = 10"),
        (["checkpoint.resume=false"], r"checkpoint\.resume=false, but .* has checkpoints"),
    ],
)
def test_what_must_not_change_on_resume_is_one_error(
    undisturbed: Path,
    toy_packed: Path,
    change: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(p.name for p in (undisturbed / "checkpoints").iterdir())
    config = (undisturbed / "config.yaml").read_text()
    assert trainer.main([*overrides(toy_packed, undisturbed, *LENGTH), *change]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(expected, error), error
    assert sorted(p.name for p in (undisturbed / "checkpoints").iterdir()) == before
    assert (undisturbed / "config.yaml").read_text() == config


def test_dataset_of_another_tokenizer_is_refused(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from toyrun import make_packed

    other = make_packed(tmp_path / "other", vocab_size=330)
    assert trainer.main(overrides(other, undisturbed, *LENGTH)) == 2
    error = capsys.readouterr().err
    assert "was trained with another tokenizer" in error and error.count("\n") == 1


def test_tokenizer_that_was_swapped_in_the_dataset_is_refused(
    toy_packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = shutil.copytree(toy_packed, tmp_path / "packed")
    with (packed / "tokenizer" / "tokenizer.json").open("a") as file:
        file.write(" ")
    assert trainer.main(overrides(packed, tmp_path / "run", *LENGTH)) == 2
    assert "not the tokenizer that the tokens were made with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("parallel.tp=3", "tp"),
        ("train.sequence_length=128", r"`train.sequence_length` is 128"),
        ("model.max_sequence_length=32", r"`model.max_sequence_length` is 32"),
        ("checkpoint.every=0", "`checkpoint.every` must be an integer of at least 1"),
        ("optim.lr=-1", "`optim.lr` must be a number above 0"),
        ("data.path=/nowhere", "/nowhere does not exist"),
    ],
)
def test_impossible_configuration_is_one_error(
    toy_packed: Path, tmp_path: Path, change: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trainer.main([*overrides(toy_packed, tmp_path / "run"), change]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and expected in error, error
    assert not (tmp_path / "run").exists(), "a mistake leaves no folder behind"


def test_impossible_configuration_ends_every_rank_without_a_hang(toy_packed: Path, tmp_path: Path) -> None:
    arguments = overrides(toy_packed, tmp_path / "run", "parallel.dp_shard=3")
    code, output = train(arguments, nproc=2)
    assert code != 0
    assert output.count("error: ") == 1, output
    assert "exitcode  : 2" in output


def test_flipped_byte_in_a_shard_is_one_error_on_all_ranks(toy_packed: Path, tmp_path: Path) -> None:
    packed, run_dir = shutil.copytree(toy_packed, tmp_path / "packed"), tmp_path / "run"
    for shard in packed.glob("train/*/tokens-*.bin"):
        tokens = bytearray(shard.read_bytes())
        for at in range(0, len(tokens), 64 * 2 * 3):  # one byte of every third sequence
            tokens[at] ^= 1
        shard.write_bytes(tokens)
    code, output = train(overrides(packed, run_dir, *LENGTH), nproc=2)
    # The one traceback is torchrun's own; the rank that is well must not add its broken connection.
    assert code != 0 and output.count("Traceback") == 1 and "gloo" not in output, output
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert re.search(rf"{packed}/train/\w+/tokens-00000\.bin: sequence \d+ of the shard .* is damaged", error)
    (failed,) = events(run_dir, "failed")
    assert error == f"error: {failed['error']}"


def test_second_process_is_refused(toy_packed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(overrides(toy_packed, run_dir, "train.steps=100000", "run.log_every=1"))
    try:
        wait_until(lambda: 1 in losses(run_dir), process)
        code, output = train(overrides(toy_packed, run_dir))
        assert code == 1
        assert f"is in use by process {process.pid}" in output
    finally:
        kill_all(process)
