"""Rules of level `flag`: the document stays and carries their names, through to the kept documents and the funnel."""

from __future__ import annotations

from pathlib import Path

import orjson
import pyarrow as pa
import pytest

from configs.schema.pipeline import (
    DataRun,
    FilterConfig,
    PackConfig,
    RecipeConfig,
    RuleConfig,
    TokenizerConfig,
)
from data_pipeline import policy, run
from data_pipeline.document import read_table, shard_path

LEVELS = FilterConfig(
    name="levels",
    rules={
        "many": RuleConfig(signal="privacy.emails", max=4),
        "some": RuleConfig(signal="privacy.emails", max=1, level="flag"),
        "short": RuleConfig(signal="gopher.n_words", min=40, level="flag"),
    },
    edits=("privacy",),
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flags")
    prose = "the quick brown fox jumps over the lazy dog and rests beside the river until evening comes. " * 4
    rows = [
        {"id": str(n), "text": prose + " ".join(f"person{n}{i}@example.com" for i in range(n))}
        for n in (0, 3, 6)
    ]
    rows.append({"id": "short", "text": "Write to a@example.com or b@example.com"})
    (folder / "in.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    config = DataRun(
        output=str(folder / "out"),
        input=str(folder / "in.jsonl"),
        recipe=RecipeConfig(name="text", reader="jsonl", filter=LEVELS),
        tokenizer=TokenizerConfig(vocab_size=600),
        pack=PackConfig(sequence_length=64),
        stop_after="final",
    )
    assert run.run(config) == 0
    return folder / "out"


def test_flagged_documents_stay_and_carry_the_names_of_the_rules(run_dir: Path) -> None:
    decisions = read_table(shard_path(run_dir, "decisions/final", 0)).to_pylist()
    assert sorted((r["keep"], r["rule"]) for r in decisions if not r["keep"]) == [(False, "many")]
    kept = read_table(shard_path(run_dir, "kept", 0)).to_pylist()
    flags = {r["text"][-20:]: orjson.loads(r["metadata"]).get("flags") for r in kept}
    assert sorted(map(str, flags.values())) == ["None", "['some', 'short']", "['some']"]
    assert all("@example" not in r["text"] for r in kept)


def test_the_funnel_counts_flags_of_kept_documents(run_dir: Path) -> None:
    found = orjson.loads((run_dir / "funnel.json").read_bytes())["sources"]["text"]
    assert found["flagged_documents"] == {"some": 2, "short": 1} and found["kept_documents"] == 3


def test_a_flag_never_drops(run_dir: Path) -> None:
    only = FilterConfig(name="x", rules={"all": RuleConfig(signal="gopher.n_words", min=10**9, level="flag")})
    before = read_table(shard_path(run_dir, "decisions/a", 0))
    try:
        assert policy.decide(run_dir, 0, only)["dropped"] == 0
        flags = read_table(shard_path(run_dir, "flags", 0))
        assert flags["flags"].to_pylist() == [["all"]] * len(before)
    finally:
        policy.decide(run_dir, 0, LEVELS)
    assert read_table(shard_path(run_dir, "decisions/a", 0)).equals(before)
    assert isinstance(flags["flags"].type, pa.ListType)
