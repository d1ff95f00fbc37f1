"""What a run says of input that it cannot use, and what it repeats when output was removed by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from data_pipeline import run as verb

SENTENCE = "The river rises in the hills above the town and runs for forty miles to the sea"


def data(source: Path, output: Path, *more: str) -> int:
    words = ["recipe=text", f"input={source}", f"output={output}", "executor.workers=1", *more]
    return verb.main(words)


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_a_wrong_text_key_stops_before_the_first_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "a.jsonl", [{"content": SENTENCE, "id": i} for i in range(2000)])
    assert data(source, tmp_path / "out", "stop_after=final") == 1
    error = capsys.readouterr().err
    assert re.search(r"none of its first 1,000 records.*`text`.*content, id; set `recipe.text_key`", error)
    assert not (tmp_path / "out").exists()
    assert data(source, tmp_path / "out", "stop_after=read", "recipe.text_key=content") == 0


def test_nothing_but_records_set_aside_ends_the_run_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "a.jsonl", ["{broken", "{broken too", '{"text": 5}'])
    assert data(source, tmp_path / "out", "stop_after=final") == 1
    error = capsys.readouterr().err
    assert "3 records were set aside, most of them for one reason: 2 × not JSON" in error
    assert "rejected" in error and "a.jsonl, record 0" in error
    assert not (tmp_path / "out" / "decisions").exists(), "no stage runs on nothing"


def test_reasons_of_records_set_aside_are_shown_with_an_example(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": f"{SENTENCE}, {i}."} for i in range(20)]
    source = write(tmp_path / "a.jsonl", [*rows, "{broken", '{"text": 5}', '{"text": 6}'])
    assert data(source, tmp_path / "out", "stop_after=final") == 0
    out = capsys.readouterr().out
    assert "3 records were set aside" in out
    assert "2 × field `text` is not text: it is int (such as " in out and "1 × not JSON" in out


def test_a_shard_that_was_removed_by_hand_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "a.jsonl", [{"text": f"{SENTENCE}, {i}."} for i in range(20)])
    assert data(source, tmp_path / "out", "stop_after=copies") == 0
    shard = tmp_path / "out" / "documents" / "00000.parquet"
    made = shard.read_bytes()
    capsys.readouterr()
    assert data(source, tmp_path / "out", "stop_after=copies") == 0
    assert "unchanged up to stage copies" in capsys.readouterr().out
    shard.unlink()
    assert data(source, tmp_path / "out", "stop_after=copies", "seed=3") == 0
    assert shard.read_bytes() == made


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mixture.weights.boks=1", "mixture.weights names the source `boks`"),
        ("mixture.max_epochs.nope=1", "mixture.max_epochs names the source `nope`"),
        ("tokenizer.path=/nowhere", "/nowhere does not exist; give a tokenizer"),
        ("nsfw.word_lists=[/nowhere]", "`nsfw.word_lists`: /nowhere does not exist"),
        ("url.lists=[/nowhere]", "`url.lists`: /nowhere does not exist"),
        ("languages.model=/nowhere", "`languages.model`: /nowhere does not exist"),
        ("languages.train=/nowhere", "`languages.train`: /nowhere does not exist"),
        ("tokenizer.vocab_size=300", "256 bytes and tokenizer.n_special 256 need at least 512"),
    ],
)
def test_what_the_last_stages_would_refuse_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    source = write(tmp_path / "a.jsonl", [{"text": f"{SENTENCE}, {i}."} for i in range(20)])
    assert data(source, tmp_path / "out", override) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["köln süd", "a/../../b", "c4.en"])
def test_a_source_name_that_no_packed_dataset_can_hold_is_refused_before_the_first_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    source = write(tmp_path / "a.jsonl", [{"text": SENTENCE}])
    assert data(source, tmp_path / "out", f"recipe.name='{name}'") == 2
    assert f"source name {name!r} cannot be a folder" in capsys.readouterr().err
    assert not (tmp_path / "out" / "documents").exists()


def test_a_source_is_named_in_any_script(tmp_path: Path) -> None:
    source = write(
        tmp_path / "a.jsonl", [{"text": f"{SENTENCE}, {i}. {'more words ' * i}"} for i in range(60)]
    )
    sources = f"sources=[{{name: köln_日本, recipe: text, input: {source}}}]"
    words = [sources, f"output={tmp_path / 'out'}", "executor.workers=1", "tokenizer.vocab_size=600"]
    assert verb.main(words) == 0
    assert (tmp_path / "out" / "packed" / "train" / "köln_日本").is_dir()


def test_an_input_that_is_the_output_is_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.jsonl", [{"text": SENTENCE}])
    assert data(tmp_path, tmp_path) != 0
    assert "is the folder that the run writes to" in capsys.readouterr().err
