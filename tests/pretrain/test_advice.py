"""Warnings before training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from toyrun import overrides, train

from configs import edge
from configs.schema.train import ScheduleConfig, TrainRun
from pretrain.advice import Facts, block, identity, warnings

FACTS = Facts(sequences={"web": 1000, "books": 10}, consumed={"web": 900, "books": 40}, used=940)
FINE = ("train.steps=235", "checkpoint.every=50", "schedule.warmup_steps=20")


def found(*words: str, facts: Facts = FACTS) -> list[str]:
    config = edge.load("train", TrainRun, [*overrides(Path("packed"), Path("run")), *FINE, *words])
    return warnings(config, facts)


def test_a_run_without_anything_odd_has_no_warning() -> None:
    assert found() == []
    assert block([]) == ""
    assert found("schedule=wsd", "checkpoint.keep=0") == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("schedule.warmup_steps=235",), "rises to 0.0003 and never falls"),
        (("profile.steps=[3,236,300]",), "`profile.steps` names 236, 300, and the run ends at step 235"),
        (("schedule.warmup_steps=470",), "rises to 0.00015 and never falls"),
        (("checkpoint.every=235",), "no checkpoint is written before the end"),
        (("data.phases=[{sequences: 500},{sequences: 440},{}]",), r"data.phases\[2\] never starts"),
        # 47 steps of decay: those of 200 and 235.
        (
            ("schedule=wsd", "schedule.warmup_steps=20", "checkpoint.keep=1"),
            "2 checkpoints .* that one alone",
        ),
        (("schedule.anneal_steps=100", "checkpoint.every=20"), "6 checkpoints .* those 3 alone"),
    ],
)
def test_each_oddity_is_one_warning(words: tuple[str, ...], says: str) -> None:
    import re

    assert len(shown := found(*words)) == 1
    assert re.search(says, shown[0])


def test_more_than_four_epochs_of_a_source() -> None:
    shown = found(facts=replace(FACTS, consumed={"web": 900, "books": 41}))
    assert len(shown) == 1 and "source books is repeated 4.1 times" in shown[0]


def test_bf16_where_the_processor_does_not_multiply_it_natively() -> None:
    plain = replace(FACTS, native_bf16=False)
    shown = found("train.dtype=bf16", facts=plain)
    assert len(shown) == 1 and "set train.dtype=fp32" in shown[0]
    assert found("train.dtype=fp32", facts=plain) == [] == found("train.dtype=bf16")
    assert found("train.dtype=auto", facts=plain) == []


def test_a_longer_run_says_both_learning_rates() -> None:
    """A cosine that had come down to a tenth of the peak, and now is in the middle."""
    finished = replace(
        FACTS, steps_done=100, steps_before=100, schedule_before=ScheduleConfig(warmup_steps=20)
    )
    shown = found(facts=finished)
    assert len(shown) == 1
    assert "from 3e-05 at step 100 to 0.000216 at step 101" in shown[0] and "schedule=wsd" in shown[0]
    constant = ("schedule=constant", "schedule.warmup_steps=20")
    was_constant = replace(finished, schedule_before=ScheduleConfig(name="constant", warmup_steps=20))
    assert found(*constant, facts=was_constant) == []
    before_decay = replace(
        finished, steps_before=200, schedule_before=ScheduleConfig(name="wsd", warmup_steps=20)
    )
    assert found("schedule=wsd", "schedule.warmup_steps=20", "checkpoint.keep=0", facts=before_decay) == []


def test_another_tokenizer_than_the_models(toy_packed: Path, tmp_path: Path) -> None:
    own = identity(toy_packed / "tokenizer" / "tokenizer.json")
    data = json.loads((toy_packed / "tokenizer" / "tokenizer.json").read_text())
    (tmp_path / "same.json").write_text(json.dumps(data, indent=4, sort_keys=True))
    assert identity(tmp_path / "same.json") == own  # written in another way
    one, other = list(data["model"]["vocab"])[:2]
    vocab = data["model"]["vocab"]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    (tmp_path / "other.json").write_text(json.dumps(data))
    assert identity(tmp_path / "other.json") != own
    assert found(facts=replace(FACTS, data_tokenizer=own, model_tokenizer=own)) == []
    shown = found(facts=replace(FACTS, data_tokenizer=own, model_tokenizer=identity(tmp_path / "other.json")))
    assert len(shown) == 1 and "another tokenizer than the model" in shown[0]


def test_train_shows_them_before_the_first_step(toy_packed: Path, tmp_path: Path) -> None:
    status, output = train(overrides(toy_packed, tmp_path / "run", "train.steps=4", "schedule=cosine"))
    assert status == 0, output
    shown = output[: output.index("Training 4 of 4")]
    assert "2 warnings before training:" in shown and "warm-up" in shown and "no checkpoint" in shown
