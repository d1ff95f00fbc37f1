"""URL and line deduplication within a whole run: what goes, what it is called, and that workers change nothing."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from toyrun import PATIENCE

from data_pipeline.lineage import main as trace

SMALL = ("tokenizer.vocab_size=400", "tokenizer.n_special=16", "pack.sequence_length=64")
MENU = "Sign up for our weekly newsletter and never miss a story!"
SYLLABLES = ["ka", "lo", "mi", "ne", "ru", "ta", "vo", "se", "di", "pu", "shan", "ter"]
STOP_WORDS = ["the", "and", "of", "that", "have", "with", "to", "be"]


def prose(draw: random.Random, sentences: int) -> str:
    def word() -> str:
        return "".join(draw.choices(SYLLABLES, k=draw.randrange(2, 4)))

    found = []
    for _ in range(sentences):
        words = [x for _ in range(6) for x in (draw.choice(STOP_WORDS), word())]
        found.append(" ".join(words).capitalize() + ".")
    return "\n".join(" ".join(found[i : i + 3]) for i in range(0, sentences, 3))


def arriero(*words: str) -> str:
    command = [sys.executable, "-m", "data_pipeline.run", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=PATIENCE
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    draw = random.Random(5)
    rows = [
        {
            "url": f"http://x.example/{k}",
            "date": "2024-01-01",
            "text": f"{prose(draw, 18)}\n{MENU}\n{prose(draw, 6)}",
        }
        for k in range(12)
    ]
    rows.append(
        {"url": "https://www.x.example/0/?utm_source=mail", "date": "2024-02-01", "text": prose(draw, 30)}
    )
    rows.append(
        {"url": "http://x.example/rare", "date": "2024-01-01", "text": f"{prose(draw, 20)}\nSaid here alone."}
    )
    for number in range(3):
        lines = [json.dumps(row) for row in rows[number::3]]
        (folder / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def done(pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("done") / "data"
    arriero("recipe=web", f"input={pages}", f"output={output}", "executor.workers=1", *SMALL)
    return output


def kept(run: Path) -> dict[str, str]:
    tables = [
        pq.read_table(path, columns=["url", "text"]) for path in sorted((run / "kept").glob("*.parquet"))
    ]
    return {row["url"]: row["text"] for table in tables for row in table.to_pylist()}


def test_older_captures_and_repeated_lines_are_gone(done: Path) -> None:
    found = kept(done)
    assert "http://x.example/0" not in found
    assert "https://www.x.example/0/?utm_source=mail" in found
    assert len(found) == 13
    assert not any(MENU in text for text in found.values())
    assert "Said here alone." in found["http://x.example/rare"]
    funnel = json.loads((done / "funnel.json").read_text())
    assert funnel["sources"]["web"]["dropped_documents"] == {"url": 1}


def test_trace_tells_the_capture_that_stayed_and_the_lines_that_went(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trace(["url=http://x.example/0", f"data.path={done / 'packed'}"]) == 0
    assert "dropped by url (" in capsys.readouterr().out
    assert trace(["url=http://x.example/1", f"data.path={done / 'packed'}"]) == 0
    assert f"edits lines: {len(MENU) + 1} characters at 1 place: {MENU!r}" in capsys.readouterr().out
    assert trace([f"text={MENU}", f"data.path={done / 'packed'}", "limit=1"]) == 0


def test_workers_change_nothing(pages: Path, done: Path, tmp_path: Path) -> None:
    output = tmp_path / "data"
    arriero(
        "recipe=web", f"input={pages}", f"output={output}", "executor.workers=3", "stop_after=final", *SMALL
    )
    for folder in ("kept", "edits/lines", "signals/lines", "signals/url", "decisions/url", "decisions/lines"):
        for path in sorted((done / folder).glob("*.parquet")):
            same = (output / folder / path.name).read_bytes()
            assert hashlib.sha256(same).digest() == hashlib.sha256(path.read_bytes()).digest(), path


def test_both_can_be_left_out(pages: Path, tmp_path: Path) -> None:
    output = tmp_path / "data"
    words = ("dedup.url=false", "dedup.lines=null", "url.lists=[]", "stop_after=final")
    out = arriero("recipe=web", f"input={pages}", f"output={output}", "executor.workers=1", *words, *SMALL)
    assert "url.listed: no lists" in out
    found = kept(output)
    assert len(found) == 14
    assert sum(MENU in text for text in found.values()) == 12
