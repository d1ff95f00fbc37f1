"""`arriero data` end to end, on a small corpus made here."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from toyrun import PATIENCE
from webpages import page, response

WORDS = [
    "the",
    "river",
    "and",
    "mountain",
    "have",
    "given",
    "people",
    "of",
    "that",
    "valley",
    "with",
    "care",
    "to",
    "be",
    "remembered",
    "stone",
    "water",
    "light",
    "summer",
    "garden",
    "history",
    "language",
    "machine",
    "winter",
    "story",
    "question",
    "answer",
    "number",
    "letter",
    "village",
    "market",
    "evening",
    "morning",
]
SMALL = ("tokenizer.vocab_size=400", "tokenizer.n_special=16", "pack.sequence_length=64")


def paragraph(random_state: random.Random, sentences: int = 12) -> str:
    return " ".join(
        " ".join(random_state.choices(WORDS, k=random_state.randint(8, 14))).capitalize() + "."
        for _ in range(sentences)
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(1)
    for name in ("a", "b"):
        members = [
            gzip.compress(
                response(
                    f"http://example.org/{name}/{i}", page("\n".join(paragraph(draw) for _ in range(4)))
                ),
                mtime=0,
            )
            for i in range(12)
        ]
        (folder / f"{name}.warc.gz").write_bytes(b"".join(members))
    rows = [
        {"id": str(i), "url": f"http://example.org/j/{i}", "text": paragraph(draw, 30)} for i in range(20)
    ]
    rows += [
        rows[0],
        {"id": "near", "text": rows[1]["text"] + " The end."},
        {"id": "equal", "text": rows[2]["text"].replace(" ", "  ")},
    ]
    rows.append({"id": "short", "text": "Too short."})
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n")
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    return folder


def arriero(*words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "data_pipeline.run", *words]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=PATIENCE
    )


def tree(folder: Path) -> dict[str, str]:
    """Hash of every file of a run, but for logs and the times in `stages/` and funnel.json."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(
            ("logs/", "stages/", ".", "config.yaml", "environment.jsonl", "funnel.json")
        ):
            hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    funnel = json.loads((folder / "funnel.json").read_text())
    hashes["funnel.json"] = json.dumps({k: v for k, v in funnel.items() if k != "stages"})
    return hashes


@pytest.fixture(scope="module")
def done(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("done") / "data"
    result = arriero("recipe=web", f"input={corpus}", f"output={output}", "executor.workers=1", *SMALL)
    assert result.returncode == 0, result.stderr
    assert "packed" in result.stdout.splitlines()[-1]
    return output


def test_funnel_accounts_for_every_document(done: Path) -> None:
    funnel = json.loads((done / "funnel.json").read_text())
    web = funnel["sources"]["web"]
    assert web["read_documents"] == 24 + 24 + 1
    assert web["set_aside_documents"] == 1
    assert web["dropped_documents"]["identity.copy"] == 1
    assert web["dropped_documents"]["gopher.short"] == 1
    assert web["dropped_documents"]["exact"] == 1
    assert web["dropped_documents"]["minhash"] == 1
    assert (
        web["read_documents"]
        == web["set_aside_documents"] + sum(web["dropped_documents"].values()) + web["kept_documents"]
    )
    assert (
        web["packed"]["train"]["documents"] + web["packed"]["heldout"]["documents"] == web["kept_documents"]
    )
    assert funnel["samples"]["gopher.short"][0]["excerpt"] == "Too short."
    assert "quality" in {row["name"] for row in funnel["not_run"]}
    assert "language" not in {row["name"] for row in funnel["ran_in_part"] + funnel["not_run"]}
    assert funnel["unknown_files"][0]["file"].endswith("photo.png")


def test_rejected_record_is_named(done: Path) -> None:
    rows = [
        json.loads(line)
        for path in (done / "rejected").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert [(Path(r["file"]).name, r["record"], r["excerpt"]) for r in rows] == [("c.jsonl", 24, "not json")]
    assert "not JSON" in rows[0]["reason"]


def test_copies_are_noted(done: Path) -> None:
    found = [
        json.loads(m).get("copies", 1)
        for path in sorted((done / "documents").glob("*.parquet"))
        for m in pq.read_table(path)["metadata"].to_pylist()
    ]
    assert sorted(found)[-2:] == [1, 2]


def test_two_workers_give_the_same_bytes(corpus: Path, done: Path, tmp_path: Path) -> None:
    output = tmp_path / "data"
    result = arriero("recipe=web", f"input={corpus}", f"output={output}", "executor.workers=2", *SMALL)
    assert (result.returncode, result.stderr) == (0, ""), "libraries of the workers are quiet"
    assert tree(output) == tree(done)


# The later moments are those at which worker processes have been started and could outlive their driver.
# Random moments: tests/faults/test_data_workers.py.
@pytest.mark.parametrize(
    "moment",
    [
        "logs/read/completions",
        pytest.param("logs/decide/completions", marks=pytest.mark.full),
        "stages/tokens.started",
    ],
)
def test_killed_run_continues_to_the_same_bytes(
    corpus: Path, done: Path, tmp_path: Path, moment: str
) -> None:
    output = tmp_path / "data"
    words = ("recipe=web", f"input={corpus}", f"output={output}", "executor.workers=2", *SMALL)
    while not kill_at(output / moment, words):  # the run had ended before this process was given a core
        shutil.rmtree(output)
    assert not (output / "packed").exists()
    result = arriero(*words)
    assert result.returncode == 0, result.stderr
    assert tree(output) == tree(done)


def kill_at(moment: Path, words: tuple[str, ...]) -> bool:
    """Kill a run when a file or folder has appeared in it; whether it was still running."""
    process = subprocess.Popen(
        [sys.executable, "-m", "data_pipeline.run", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not moment.exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    status = process.wait()
    assert status in (0, -signal.SIGKILL)
    return status != 0


def test_second_run_repeats_only_what_changed(corpus: Path, done: Path, tmp_path: Path) -> None:
    output = tmp_path / "data"
    subprocess.run(["cp", "-a", str(done), str(output)], check=True)
    words = ("recipe=web", f"input={corpus}", f"output={output}", "executor.workers=1", *SMALL)
    again = arriero(*words)
    assert again.returncode == 0 and "\nunchanged in " in again.stdout
    plan = arriero(*words, "recipe.filter.rules.gopher.short=null", "dry_run=true")
    assert plan.returncode == 0 and re.search(r"\bdecide +.*to do", plan.stdout), plan.stdout
    unknown = arriero(*words, "recipe.filter.rules.gopher.shrt=null", "dry_run=true")
    assert unknown.returncode == 2
    assert "no rule `gopher.shrt` to disable; did you mean `gopher.short`?" in unknown.stderr
    # The near copy has 329 of the 331 shingles of its original: 0.994.
    changed = arriero(*words, "dedup.jaccard=0.999")
    assert changed.returncode == 0
    lines = {
        line.split()[1]: line
        for line in changed.stdout.splitlines()
        if line.strip()[:1].isdigit() and "/" in line
    }
    assert "unchanged" in lines["read"] and "unchanged" in lines["signals"] and "unchanged" in lines["sign"]
    assert "unchanged" not in lines["minhash"] and "unchanged" not in lines["final"]
    assert (
        json.loads((output / "funnel.json").read_text())["sources"]["web"]["dropped_documents"].get(
            "minhash", 0
        )
        == 0
    )


def test_documents_taken_out_are_accounted_for_when_the_run_goes_on(
    corpus: Path, done: Path, tmp_path: Path
) -> None:
    output = tmp_path / "data"
    shutil.copytree(done, output)
    gone = pq.read_table(output / "kept", columns=["id"])["id"][0].as_py()
    remove = [sys.executable, "-m", "launch.cli", "remove", f"ids=[{gone}]", f"data.path={output}/packed"]
    subprocess.run(remove, check=True, capture_output=True, timeout=PATIENCE)
    kept = json.loads((done / "funnel.json").read_text())["sources"]["web"]["kept_documents"]
    # As it was packed, and packed again.
    for more in ("pack.sequence_length=64", "pack.sequence_length=128"):
        words = ("recipe=web", f"input={corpus}", f"output={output}", "executor.workers=1", *SMALL, more)
        result = arriero(*words)
        assert result.returncode == 0, result.stderr
        web = json.loads((output / "funnel.json").read_text())["sources"]["web"]
        packed = sum(split["documents"] for split in web["packed"].values())
        assert (web["kept_documents"], web["removed_documents"], packed) == (kept, 1, kept - 1)


def test_ids_do_not_depend_on_file_order_or_units(corpus: Path, done: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "z.warc.gz").write_bytes((corpus / "a.warc.gz").read_bytes())
    (moved / "y.warc.gz").write_bytes((corpus / "b.warc.gz").read_bytes())
    (moved / "x.jsonl").write_bytes((corpus / "c.jsonl").read_bytes())
    output = tmp_path / "data"
    result = arriero(
        "recipe=web", f"input={moved}", f"output={output}", "unit_bytes=1000", "executor.workers=1", *SMALL
    )
    assert result.returncode == 0, result.stderr

    def kept(folder: Path) -> set[str]:
        tables = [pq.read_table(p) for p in (folder / "decisions" / "final").glob("*.parquet")]
        return {
            i for t in tables for i, k in zip(t["id"].to_pylist(), t["keep"].to_pylist(), strict=True) if k
        }

    assert kept(output) == kept(done)
    packed = {p.relative_to(done).as_posix(): p.read_bytes() for p in (done / "packed").rglob("tokens-*.bin")}
    assert {
        p.relative_to(output).as_posix(): p.read_bytes() for p in (output / "packed").rglob("tokens-*.bin")
    } == packed


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["input={tmp}/none"], "matches no file", 1),
        (["input={tmp}/empty"], "empty folder", 1),
        (["input={tmp}/zero.jsonl"], "nothing that can be read", 1),
        ([], "no input", 2),
        (["input={tmp}/short.jsonl"], "the rule gopher.short dropped 1 of 1 (such as ", 1),
        (["sources=[{{name: a, recipe: wbe, input: x}}]"], "did you mean `web`", 2),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path: Path, words: list[str], message: str, code: int) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "zero.jsonl").touch()
    (tmp_path / "short.jsonl").write_text('{"text": "short"}\n')
    filled = [w.format(tmp=tmp_path) for w in words]
    result = arriero(*filled, f"output={tmp_path}/out", *SMALL)
    assert result.returncode == code, result.stderr
    errors = result.stderr.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ") and message in errors[0]
    assert not (tmp_path / "out" / "packed").exists()


def test_an_output_that_cannot_be_made_is_refused_before_anything_is_read() -> None:
    for more in ([], ["dry_run=true"]):
        result = arriero("recipe=web", "input=README.md", "output=/proc/data", *more, *SMALL)
        assert result.returncode == 2
        assert result.stderr.startswith("error: `output=/proc/data` cannot be made or written: /proc is a ")


def test_two_runs_in_one_directory_are_refused(corpus: Path, done: Path) -> None:
    import fcntl

    with (done / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = arriero("recipe=web", f"input={corpus}", f"output={done}", *SMALL)
    assert result.returncode == 1 and "another `arriero data`" in result.stderr


@pytest.mark.full
def test_real_crawl_with_further_sources(tmp_path: Path) -> None:
    data = os.environ.get("ARRIERO_TEST_DATA")
    if not data:
        pytest.skip("ARRIERO_TEST_DATA names no folder of real data")
    listed = ", ".join(
        f"{{name: {name}, recipe: {recipe}, input: '{data}/{where}'}}"
        for name, recipe, where in (
            ("web", "web", "web/*.warc.gz"),
            ("samples", "web", "web/warc_samples"),
            ("prose", "prose", "prose"),
            ("books", "books", "books/*.jsonl.zst"),
            ("wikipedia", "wikipedia", "wikipedia"),
        )
    )
    result = arriero(
        f"sources=[{listed}]",
        f"output={tmp_path}/data",
        "tokenizer.vocab_size=4096",
        "tokenizer.n_special=16",
    )
    assert result.returncode == 0, result.stderr
    funnel = json.loads((tmp_path / "data" / "funnel.json").read_text())
    assert all(row["kept_documents"] > 0 for row in funnel["sources"].values())


def test_a_sample_is_the_same_however_input_is_cut(corpus: Path, done: Path, tmp_path: Path) -> None:
    chosen = []
    for size in ("67108864", "3000"):
        output = tmp_path / size
        words = ("recipe=web", f"input={corpus}", f"output={output}", f"unit_bytes={size}", "sample=0.4",
                 "recipe.filter.rules={}", "stop_after=copies", "executor.workers=1", *SMALL)  # fmt: skip
        result = arriero(*words)
        assert result.returncode == 0, result.stderr
        chosen.append(ids(output))
    assert chosen[0] == chosen[1] < ids(done)
    assert 0.15 < len(chosen[0]) / len(ids(done)) < 0.7


def ids(folder: Path) -> set[str]:
    return {i for p in (folder / "documents").glob("*.parquet") for i in pq.read_table(p)["id"].to_pylist()}
