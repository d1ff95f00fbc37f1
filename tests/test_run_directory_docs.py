"""`docs/run-directory.md` holds against what training and data runs write: no field more, none less, of its type."""

from __future__ import annotations

import json
import math
import pydoc_data.topics
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toyrun

from configs import environment
from data_pipeline import run as data_run
from data_pipeline.funnel import FORMAT_VERSION, _without_value
from pretrain import evaluate, train
from pretrain.ledger import read_lines
from pretrain.rundir import METRICS_FORMAT

DOCS = Path(__file__).parent.parent / "docs/run-directory.md"
UNITS = ("bytes", "seconds", "sequences", "share", "per_second", "documents", "tokens", "records", "cores")
WITHOUT_UNIT = {"step", "loss", "grad_norm", "lr", "perplexity", "mfu", "mfu_full", "per_device"}
"""Numbers of metrics.jsonl that have no unit, or one by definition (nats per token, FLOP/s a device)."""


def fields(section: str) -> list[str]:
    """Names in the first column of the table under a heading that begins with `section`."""
    part = DOCS.read_text().partition(f"\n### {section}")[2].partition("\n#")[0]
    rows = [line for line in part.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every number, text and null inside a JSON value, with its path; `[]` for an entry of a list."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value and path[-1:] != ("started_by",):
        for inner in value:
            yield from leaves(inner, (*path, "[]"))
    else:
        yield path, value


def matches(path: tuple[str, ...], pattern: str) -> bool:
    parts = pattern.replace("[]", ".[]").split(".")
    return len(parts) == len(path) and all(p in ("*", q) for p, q in zip(parts, path, strict=True))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fields")
    packed = toyrun.make_packed(folder / "packed")
    status, output = toyrun.train(toyrun.overrides(packed, folder / "run", "train.steps=3"))
    assert status == 0, output
    assert evaluate.main([f"run.dir={folder / 'run'}"]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "in").mkdir()
    texts = [" ".join(text.split()) for _, text in sorted(pydoc_data.topics.topics.items())][:30]
    rows = [{"text": text, "url": f"http://a.org/{i}"} for i, text in enumerate(texts)]
    rows += [{"text": texts[3], "url": f"http://b.org/{i}"} for i in range(3)]
    rows += [{"text": "Too short.", "url": "http://b.org/s"}]
    lines = [json.dumps(row) for row in rows]
    (folder / "in/a.jsonl").write_text("\n".join([*lines, "{damaged"]) + "\n")
    (folder / "in/picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    small = ["tokenizer.vocab_size=400", "tokenizer.n_special=16", "pack.sequence_length=64"]
    where = ["recipe=web", f"input={folder / 'in'}", f"output={folder / 'out'}", "executor.workers=1"]
    assert data_run.main([*where, *small]) == 0
    return folder / "out"


def test_metrics_have_the_documented_fields_and_no_others(run_dir: Path) -> None:
    documented = fields("metrics.jsonl")
    rows = list(read_lines(run_dir / "metrics.jsonl"))
    assert len(rows) == 3 and all(list(row) == documented for row in rows)
    assert all(v is None or isinstance(v, (int, float)) for row in rows for v in row.values())
    bare = [name for name in documented if not any(unit in name for unit in UNITS)]
    assert set(bare) <= WITHOUT_UNIT
    for row in rows:
        parts = row["data_wait_seconds"] + row["forward_backward_seconds"] + row["optimizer_seconds"]
        assert 0.5 * row["step_seconds"] < parts <= row["step_seconds"] + 1e-3
    assert f"format {METRICS_FORMAT}" in DOCS.read_text()


def test_evaluations_have_the_documented_fields(run_dir: Path) -> None:
    documented = fields("eval.jsonl")
    rows = list(read_lines(run_dir / "eval.jsonl"))
    assert len(rows) > 3 and all(list(row) == documented for row in rows)


def test_a_run_records_its_code_libraries_hardware_and_command(run_dir: Path, data_dir: Path) -> None:
    documented = fields("environment.jsonl")
    for folder, module in ((run_dir, "pretrain.train"), (data_dir, "")):
        (line,) = read_lines(folder / environment.NAME)
        found = [path for path, _ in leaves(line)]
        assert not [path for path in found if not any(matches(path, name) for name in documented)]
        assert not [name for name in documented if not any(matches(path, name) for path in found)]
        assert line["format_version"] == environment.FORMAT_VERSION
        assert line["python"] == ".".join(map(str, sys.version_info[:3])) and module in line["command"]
        assert {"torch", "numpy"} <= set(line["libraries"]) and line["hardware"]["memory_bytes"] > 2**28
    # Started by this test, which runs under Python.
    assert "train.steps=3" in next(read_lines(run_dir / environment.NAME))["command"]
    # Under xdist the last of them is a worker that pytest started.
    assert "python" in next(read_lines(run_dir / environment.NAME))["started_by"][-1]


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    git = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    assert environment._checkout(tmp_path) == {"git_commit": None, "git_dirty": None}
    (tmp_path / "file").write_text("one")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "first"]):
        assert environment._git(tmp_path, [*git, *words]) is not None
    clean = environment._checkout(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{40}", clean["git_commit"]) and clean["git_dirty"] is False
    (tmp_path / "untracked").touch()
    assert environment._checkout(tmp_path)["git_dirty"] is False
    (tmp_path / "file").write_text("two")
    assert environment._checkout(tmp_path) == clean | {"git_dirty": True}


def test_the_funnel_has_the_documented_fields_and_numbers_are_numbers(data_dir: Path) -> None:
    documented = fields("funnel.json")
    funnel = json.loads((data_dir / "funnel.json").read_text())
    assert funnel["format_version"] == FORMAT_VERSION and f"format {FORMAT_VERSION}" in DOCS.read_text()
    empty = {"", "flagged_documents", "counts", "skipped_records"}
    found = [(p, v) for p, v in leaves(funnel) if p[-1] not in empty and v not in ({}, [])]
    assert not [path for path, _ in found if not any(matches(path, name) for name in documented)]
    seen = {name for name in documented if any(matches(path, name) for path, _ in found)}
    # What this small run has none of: flags, skipped records, elements of wikitext, rules that judge some documents only.
    partial = {"ran_in_part[].documents", "ran_in_part[].of_documents"}
    rare = {
        f"sources.*.{name}.*" for name in ("flagged_documents", "skipped_records", "removed_elements")
    } | partial
    assert set(documented) - seen <= rare
    for path, value in found:
        if any(path[-1].endswith(unit) for unit in UNITS) or path[-2:-1] in (
            ("dropped_documents",),
            ("counts",),
        ):
            assert isinstance(value, (int, float)) and math.isfinite(value), path
    for name in documented:
        assert "detail" not in name and "histograms" not in name


def test_a_rule_that_judged_some_documents_is_not_among_those_that_did_not_run() -> None:
    counts = {"asked: a": 9, "not run: a": 9, "asked: b": 9, "not run: b": 2, "asked: c": 9, "kept": 9}
    silent, partial = _without_value(counts)
    assert [row["name"] for row in silent] == ["a"]
    assert [(row["name"], row["documents"], row["of_documents"]) for row in partial] == [("b", 2, 9)]


def test_a_run_directory_of_an_earlier_version_is_refused_with_a_reason(
    run_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    shutil.copytree(run_dir, old)  # with checkpoints, so that it would be continued
    (old / "metrics.jsonl").write_text('{"step":1,"loss":5.5,"memory":12,"step_time":0.5,"time":1.0}\n')
    packed = run_dir.parent / "packed"
    assert train.main(toyrun.overrides(packed, old, "train.steps=4")) == 2
    said = capfd.readouterr().err
    assert "written by an earlier version of arriero" in said and "memory, step_time, time" in said
    assert "another run.dir" in said and "Traceback" not in said
    assert len((old / "metrics.jsonl").read_text().splitlines()) == 1
