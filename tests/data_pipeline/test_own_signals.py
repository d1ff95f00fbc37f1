"""Signals of one's own: files joined by id and functions, seen by policies and what-if like built-in ones."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import children
from configs.edge import ConfigError
from configs.schema.pipeline import FilterConfig, RuleConfig, SignalsConfig
from data_pipeline import policy, run, whatif
from data_pipeline.annotate.own import functions, sources, trial
from data_pipeline.annotate.own.names import names
from data_pipeline.document import read_table

N = 12
MODULE = """
import pyarrow.compute as pc

VERSION = 1


def score(documents):
    texts = documents["text"].to_pylist()
    return {"words": [len(t.split()) for t in texts], "kind": ["long" if len(t) > 400 else "short" for t in texts]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with documents, one of them without text, and a module."""
    rows = [
        {"id": str(i), "url": f"http://a/{i}", "text": f"Text {i}. " + "word and word. " * (5 * i)}
        for i in range(1, N)
    ]
    rows.append({"id": "0", "url": "http://a/0", "text": ""})
    (tmp_path / "in.jsonl").write_bytes(b"".join(orjson.dumps(r) + b"\n" for r in rows))
    (tmp_path / "my_scores.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    forget()


def forget() -> None:
    """A run with one worker imports the module into this process, which keeps it."""
    for name in ("my_scores", "my_words"):
        sys.modules.pop(name, None)


def data(*words: str) -> int:
    return run.main(arguments(*words))


def arguments(*words: str) -> list[str]:
    return [
        *("recipe=text", "recipe.reader=jsonl", "input=in.jsonl", "output=out", "stop_after=final"),
        *(*words, "executor.workers=1", "dedup.minhash=false", "dedup.lines=null"),
    ]


def stage(name: str) -> dict:
    return orjson.loads(Path(f"out/stages/own_{name}.json").read_bytes())


def ids() -> list[str]:
    return read_table(Path("out/documents/00000.parquet"), ["id", "text"]).to_pydict()["id"]


RULE = "recipe.filter={name: mine, rules: {own: {signal: score.words, min: 100}}}"


def test_a_function_is_a_signal_like_any_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data("signals.functions=[my_scores:score]", RULE) == 0
    signals = read_table(Path("out/signals/score/00000.parquet")).to_pydict()
    texts = read_table(Path("out/documents/00000.parquet"), ["text"])["text"].to_pylist()
    assert signals["words"] == [len(t.split()) if t else None for t in texts]
    decided = read_table(Path("out/decisions/final/00000.parquet")).to_pydict()
    assert [k for k, t in zip(decided["keep"], texts, strict=True)] == [len(t.split()) >= 100 for t in texts]
    assert "own" in decided["rule"]
    capsys.readouterr()
    assert whatif.main(["data.path=out", "rule=own", "at=[50]"]) == 0
    assert "score.words min" in capsys.readouterr().out
    assert (
        whatif.main(
            ["data.path=out", "+filter={name: other, rules: {k: {signal: score.kind, allow: [long]}}}"]
        )
        == 0
    )


def test_a_change_of_the_function_or_of_what_it_imports_runs_it_again_and_nothing_before(
    folder: Path,
) -> None:
    (folder / "my_words.py").write_text("def count(text):\n    return len(text.split())\n")
    (folder / "my_scores.py").write_text(
        "def score(documents):\n    from my_words import count\n"
        "    return {'words': [count(t) for t in documents['text'].to_pylist()]}\n"
    )
    assert data("signals.functions=[my_scores:score]", RULE) == 0
    first, read = stage("score")["fingerprint"], Path("out/stages/read.json").stat().st_mtime_ns
    forget()
    assert data("signals.functions=[my_scores:score]", RULE) == 0
    assert stage("score")["fingerprint"] == first
    before = read_table(Path("out/signals/score/00000.parquet"))["words"].to_pylist()
    (folder / "my_words.py").write_text("def count(text):\n    return 2 * len(text.split())\n")
    assert data("signals.functions=[my_scores:score]", RULE) == 0
    assert stage("score")["fingerprint"] != first
    after = read_table(Path("out/signals/score/00000.parquet"))["words"].to_pylist()
    assert after == [None if n is None else 2 * n for n in before]
    assert Path("out/stages/read.json").stat().st_mtime_ns == read


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{'x': [1]}", "column `x` holds 1 values for 2 documents"),
        ("{'x': 3.0}", "column `x` is one float"),
        ("[1, 2]", "returned list; expected a mapping"),
        ("{'x y': texts}", "expected a name of letters"),
        ("{'x': [{} for t in texts]}", "expected numbers, booleans or strings"),
        ("{'other': texts}", "there is no signal `score.words`"),
        ("nothing", "my_scores:score raised NameError: name 'nothing' is not defined"),
    ],
)
def test_what_a_function_does_wrong_is_said_before_anything_is_read(
    folder: Path, body: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "my_scores.py").write_text(
        f"def score(documents):\n    texts = documents['text'].to_pylist()\n    return {body}\n"
    )
    assert data("signals.functions=[my_scores:score]", RULE) != 0
    error = capfd.readouterr().err
    assert message in error
    assert "my_scores:score" in error or "score.words" in error
    assert Path("out").exists() == (body == "nothing")  # what raises may need what only real documents have


def test_modules_and_functions_that_are_not_there_are_named(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.py").write_text("import os\nraise RuntimeError('no GPU here')\n")
    for entry, message in (
        ("my_skores:score", "there is no module `my_skores`"),
        ("my_scores.deep:score", "there is no module `my_scores.deep`"),
        ("my_scores:scores", "has no function `scores`; it has: score"),
        ("broken:score", "`broken` of `broken:score` cannot be imported (RuntimeError: no GPU here)"),
    ):
        assert data(f"signals.functions=[{entry}]") == 2
        assert message in capfd.readouterr().err
    assert not Path("out").exists()


def test_a_document_that_a_function_cannot_take_is_named(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "my_scores.py").write_text(
        "def score(documents):\n"
        "    return {'words': [1 / (not t.startswith('Text 3.')) for t in documents['text'].to_pylist()]}\n"
    )
    assert data("signals.functions=[my_scores:score]", RULE) == 1
    error = capfd.readouterr().err
    row = next(
        r
        for r in read_table(Path("out/documents/00000.parquet")).to_pylist()
        if r["text"].startswith("Text 3.")
    )
    assert f"my_scores:score raised ZeroDivisionError: division by zero, for document {row['id']}" in error


def test_a_function_may_need_what_only_the_documents_of_the_run_have(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "my_scores.py").write_text(
        "import json\n\ndef score(documents):\n    print('scoring')\n"
        "    return {'words': [json.loads(m)['n'] for m in documents['metadata'].to_pylist()]}\n"
    )
    lines = [orjson.dumps({"id": str(i), "text": f"Text {i}. " + "word " * i, "n": i}) for i in range(1, N)]
    (folder / "in.jsonl").write_bytes(b"\n".join(lines))
    rule = "recipe.filter={name: mine, rules: {own: {signal: score.words, min: 6}}}"
    assert data("signals.functions=[my_scores:score]", rule) == 0
    assert "KeyError: 'n'" in capfd.readouterr().err
    kept = read_table(Path("out/decisions/final/00000.parquet"))["keep"].to_pylist()
    assert kept.count(True) == N - 6


def test_two_workers_and_a_kill_make_the_same_bytes(folder: Path) -> None:
    """The function ends its process the first time that it sees a certain document."""
    (folder / "in.jsonl").unlink()
    (folder / "in").mkdir()
    for n in range(6):
        rows = [
            {"id": f"{n}-{i}", "text": f"Text {n} {i}. " + "word and word. " * (5 * i + n)}
            for i in range(1, N)
        ]
        (folder / "in" / f"{n}.jsonl").write_bytes(b"".join(orjson.dumps(r) + b"\n" for r in rows))
    words = ["input=in/", "unit_bytes=4000", "signals.functions=[my_scores:score]", RULE]
    assert data(*words, "output=one") == 0
    forget()
    killing = MODULE.replace(
        "    texts = ",
        "    import os, pathlib, signal\n"
        "    hit = any(t.startswith('Text 4 ') for t in documents['text'].to_pylist())\n"
        "    if hit and not pathlib.Path('killed').exists():\n"
        "        pathlib.Path('killed').touch()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    texts = ",
    )
    (folder / "my_scores.py").write_text(killing)
    environment = children.environment()
    for output, workers, statuses in (("two", 2, [0]), ("again", 1, [-signal.SIGKILL, 0])):
        Path("killed").unlink(missing_ok=True)
        command = children.command("data_pipeline.run", *arguments(*words, f"output={output}"))
        command[-3] = f"executor.workers={workers}"
        for status in statuses:
            assert subprocess.run(command, env=environment, check=False).returncode == status
        assert Path("killed").exists()
        for kind in ("signals/score", "decisions/final"):
            tables = [
                [read_table(f).to_pydict() for f in sorted(Path(d, kind).glob("*.parquet"))]
                for d in ("one", output)
            ]
            assert len(tables[0]) > 2
            assert tables[0] == tables[1]


def test_files_are_joined_by_id_and_the_rest_is_counted(folder: Path) -> None:
    assert data() == 0
    known = ids()
    chosen = known[::2]
    edu = [*map(float, range(len(chosen))), 9.0]
    rows = {"id": [*chosen, "f" * 32], "edu": edu, "tag": ["a"] * len(edu)}
    pq.write_table(pa.table(rows).take(pa.array(range(len(chosen), -1, -1))), "my-scores.parquet")
    rule = "recipe.filter={name: mine, rules: {r: {signal: my_scores.edu, min: 2}}}"
    assert data("signals.extra=[my-scores.parquet]", rule) == 0
    table = read_table(Path("out/signals/my_scores/00000.parquet")).to_pydict()
    assert table["id"] == known
    expected = dict(zip(rows["id"], rows["edu"], strict=True))
    assert table["edu"] == [expected.get(i) for i in known]
    texts = dict(zip(known, read_table(Path("out/documents/00000.parquet"))["text"].to_pylist(), strict=True))
    missing = sum(1 for i in known if i not in expected and texts[i])
    counts = stage("my_scores")["counts"]
    assert counts == {"matched": len(chosen), "missing": missing, "surplus": 1}
    funnel = orjson.loads(Path("out/funnel.json").read_bytes())
    assert any(r["name"] == "r" and r["documents"] == missing for r in funnel["ran_in_part"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"id": ["0" * 32, "0" * 32], "x": [1, 2]}, "stands in rows 0 and 1"),
        ({"id": ["0" * 32, "zz"], "x": [1, 2]}, "row 1: 'zz' is no document id"),
        ({"id": ["0" * 32], "x": [[1]]}, "holds list<element: int64>; expected numbers, booleans or strings"),
        ({"id": ["0" * 32]}, "no column but `id`"),
        ({"x": [1]}, "has no column `id`"),
    ],
)
def test_files_that_cannot_be_joined_are_named(
    folder: Path, rows: dict, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.table(rows), "s.parquet")
    assert data("signals.extra=[s.parquet]") != 0
    error = capsys.readouterr().err
    assert message in error
    assert "s.parquet" in error


def test_names_that_clash_and_rules_that_cannot_work_are_refused_before_anything_runs(folder: Path) -> None:
    with pytest.raises(ConfigError, match="which is built in"):
        names(SignalsConfig(extra=("gopher.parquet",)))
    with pytest.raises(ConfigError, match="would both be the signal `score`"):
        names(SignalsConfig(extra=("a/score.parquet",), functions=("m:score",)))
    with pytest.raises(ConfigError, match="must be written"):
        names(SignalsConfig(functions=("m.score",)))
    pq.write_table(pa.table({"id": ["0" * 32], "x": [1.0], "t": ["a"]}), "s.parquet")
    config = SignalsConfig(extra=("s.parquet",), functions=("my_scores:score",))
    known, notes = trial.known(config, Path("out"))
    assert known == {"s": {"x": False, "t": True}, "score": {"words": False, "kind": True}}
    assert notes == []

    def check(rule: RuleConfig) -> None:
        policy.check(FilterConfig("p", {"r": rule}), known | {"other": None})

    check(RuleConfig("s.x", min=1))
    check(RuleConfig("s.t", allow=("a",)))
    check(RuleConfig("other.anything", min=1))
    for rule, message in (
        (RuleConfig("s.y", min=1), "did you mean `s.x`"),
        (RuleConfig("s.t", min=1), "is a string"),
        (RuleConfig("score.kind", max=1), "is a string"),
        (RuleConfig("other.anything"), "give `min` or `max`"),
        (RuleConfig("other.any.thing", min=1), "there is no signal `other.any.thing`"),
    ):
        with pytest.raises(ConfigError, match=message):
            check(rule)


def test_local_files_are_those_of_the_module_and_what_it_imports(folder: Path) -> None:
    package = folder / "mine"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep" / "__init__.py").write_text("from ..base import x\n")
    (package / "base.py").write_text("import numpy\nimport my_scores\nx = 1\n")
    (package / "other.py").write_text("")
    (package / "deep" / "score.py").write_text("def score(documents):\n    from mine.deep import near\n")
    (package / "deep" / "near.py").write_text("import mine.deep.score\nimport json\n")
    found = sources.local_files("mine.deep.score", "mine.deep.score:score", str(folder))
    assert set(found) == {"mine", "mine.base", "mine.deep", "mine.deep.score", "mine.deep.near", "my_scores"}
    installed = sources.local_files("orjson", "orjson:loads", str(folder))
    assert all(name.startswith("orjson") for name in installed) and installed


def test_empty_batches_and_nulls_join_with_others() -> None:
    made = [
        pa.table({"id": ["a"]}),
        pa.table({"id": ["b"], "x": pa.nulls(1)}),
        pa.table({"id": ["c"], "x": ["t"]}),
    ]
    assert functions._joined(made, "m:f").to_pydict() == {"id": ["a", "b", "c"], "x": [None, None, "t"]}
    with pytest.raises(functions.Mismatch, match="numbers for some documents and strings for others"):
        functions._joined([pa.table({"id": ["a"], "x": [1]}), made[2]], "m:f")
    with pytest.raises(functions.Mismatch, match="expected the same columns for every batch"):
        functions._joined([pa.table({"id": ["a"], "y": [1]}), made[2]], "m:f")
