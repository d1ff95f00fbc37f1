"""Input that cannot be trained on, under a real torchrun: one error, told once, on every rank, and no hang.

Collectives may wait for an hour in these runs, so a rank that was left alone would not end within a test's patience.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
from toyrun import PATIENCE, kill_all, make_packed, overrides, start, train, wait_until

from data_pipeline.packed.format import read_manifest
from pretrain import train as trainer
from pretrain.ledger import read_ledger
from pretrain.rundir import read_metrics


def arguments(packed: Path | str, run_dir: Path, *more: str) -> list[str]:
    """A run of many steps, whose collectives do not time out within the test."""
    return overrides(Path(packed), run_dir, "train.steps=100000", "train.eval_sequences=1", *more)


def failed(words: list[str], nproc: int, status: int) -> str:
    """Run to the end; the one error that was told, after every rank left with `status` or was stopped by torchrun."""
    code, output = train(words, nproc, PATIENCE)
    return one_error(code, output, nproc, status)


def one_error(code: int, output: str, nproc: int, status: int) -> str:
    assert code != 0
    # The one traceback is torchrun's own, of its own process.
    assert output.count("Traceback (most recent call last)") == 1 and "gloo" not in output.lower(), output
    errors = re.findall(r"^error: (.*)$", output, re.MULTILINE)
    assert len(errors) == 1, output
    # torchrun ends the ranks that are still on their way out when the first has left.
    exits = [int(n) for n in re.findall(r"exitcode  : (-?\d+)", output)]
    assert status in exits and set(exits) <= {status, -15} and len(exits) <= nproc, output
    return errors[0]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            ["parallel.tp=3"],
            "the world has 4 ranks, which pp=1 × dp_replicate=1 × cp=1 × tp=3 = 3 does not divide",
        ),
        pytest.param(["parallel.tpp=2"], "unknown key `parallel.tpp`; did you mean", marks=pytest.mark.full),
        pytest.param(
            ["model.max_sequence_length=32"],
            "is packed in sequences of 64 tokens, but `model.max_sequence_length` is 32",
            marks=pytest.mark.full,
        ),
        pytest.param(
            ["data.phases=[{sequences:8},{global_batch_size:6}]"],
            "`data.phases[1].global_batch_size` is 6, which does not divide into micro-batches of 1 on 4",
            marks=pytest.mark.full,
        ),
    ],
)
def test_configuration_that_does_not_fit_ends_four_ranks(
    toy_packed: Path, tmp_path: Path, more: list[str], expected: str
) -> None:
    error = failed(arguments(toy_packed, tmp_path / "run", *more), nproc=4, status=2)
    assert expected in error, error


def test_dataset_that_only_rank_1_cannot_read_is_the_error_of_all(toy_packed: Path, tmp_path: Path) -> None:
    (tmp_path / "node-0").symlink_to(toy_packed)
    words = arguments(f"{tmp_path}/node-${{oc.env:RANK}}", tmp_path / "run")
    assert f"{tmp_path}/node-1" in failed(words, nproc=2, status=2)
    (event,) = [e for e in read_ledger(tmp_path / "run") if e["event"] == "failed"]
    assert f"{tmp_path}/node-1" in event["error"] and event["exit_code"] == 2, (
        "rank 0 knows what rank 1 found"
    )


def test_token_ids_outside_the_vocabulary_are_one_error(toy_packed: Path, tmp_path: Path) -> None:
    packed = shutil.copytree(toy_packed, tmp_path / "packed")
    manifest = read_manifest(packed)
    # As if the tokens were of a larger vocabulary than the tokenizer that lies beside them.
    tokenizer = dataclasses.replace(manifest.tokenizer, vocab_size=300)
    (packed / "manifest.json").write_bytes(dataclasses.replace(manifest, tokenizer=tokenizer).to_json())
    error = failed(arguments(packed, tmp_path / "run"), nproc=2, status=1)
    assert re.search(r"token id 3\d\d is outside the vocabulary of 300; .* another tokenizer", error), error


def test_shard_that_is_cut_off_in_mid_run_is_one_error(toy_packed: Path, tmp_path: Path) -> None:
    packed, run_dir = shutil.copytree(toy_packed, tmp_path / "packed"), tmp_path / "run"
    process = start(arguments(packed, run_dir, "data.prefetch=1", "checkpoint.every=100000"), nproc=2)
    try:
        wait_until(lambda: bool(read_metrics(run_dir)), process, PATIENCE)
        for shard in packed.glob("train/*/tokens-*.bin"):
            with shard.open("r+b") as file:
                file.truncate(64 * 2)
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        kill_all(process)
    error = one_error(process.returncode, output, 2, 1)
    assert re.search(r"tokens-00000\.bin was cut off while it was open: sequence \d+", error), error
    assert [e["exit_code"] for e in read_ledger(run_dir) if e["event"] == "failed"] == [1]


@pytest.mark.full
def test_checkpoints_of_another_model_or_tokenizer_are_one_error(toy_packed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    short = ["train.steps=1", "train.eval_sequences=1"]
    assert trainer.main(overrides(toy_packed, other, *short)) == 0
    error = failed(arguments(toy_packed, tmp_path / "a", f"model.init_from={other}", "model.dim=48"), 4, 2)
    assert "computes another function: model.dim is 48, there 32" in error
    assert "`model.dim` is 48" in failed(arguments(toy_packed, other, "model.dim=48"), 4, 2)
    packed = make_packed(tmp_path / "packed", vocab_size=300)
    assert "was trained with another tokenizer" in failed(arguments(packed, other), 4, 2)
    swapped = shutil.copytree(toy_packed, tmp_path / "swapped")
    shutil.copyfile(packed / "tokenizer" / "tokenizer.json", swapped / "tokenizer" / "tokenizer.json")
    error = failed(arguments(swapped, tmp_path / "b"), 4, 2)
    assert "is missing or not the tokenizer that the tokens were made with" in error
