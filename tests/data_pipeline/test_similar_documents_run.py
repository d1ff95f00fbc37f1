"""Decontamination and semantic deduplication as stages of `arriero data`."""

from __future__ import annotations

import random
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from data_pipeline import lineage
from data_pipeline.run import main

SYLLABLES = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "rt", "l", "sk", "m")]


def words(draw: random.Random, count: int) -> list[str]:
    return ["".join(draw.choices(SYLLABLES, k=2)) for _ in range(count)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 documents in four files: 10 revised copies, 5 that hold an evaluation item, and the evaluation set."""
    folder = tmp_path_factory.mktemp("sources")
    draw = random.Random(0)
    items = [
        {"question": " ".join(words(draw, 25)) + "?", "answer": " ".join(words(draw, 2))} for _ in range(8)
    ]
    rows = []
    for n in range(50):
        topic = words(draw, 150)
        base = [" ".join(draw.choices(topic, k=11)).capitalize() + "." for _ in range(22)]
        if n < 5:
            base[11] = items[n]["question"].replace(" ", "  ").upper() + " " + base[11]
        rows.append({"id": f"base-{n}", "text": " ".join(base)})
        if 20 <= n < 30:
            revised = [s.replace("a", "o") if i % 11 == 0 else s for i, s in enumerate(base[10:] + base[:9])]
            rows.append({"id": f"revised-{n}", "text": " ".join(revised)})
    draw.shuffle(rows)
    (folder / "in").mkdir()
    for part in range(4):
        lines = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows[part::4])
        (folder / f"in/{part}.jsonl").write_bytes(lines)
    (folder / "sums.jsonl").write_bytes(b"\n".join(map(orjson.dumps, items)))
    return folder


def run(sources: Path, output: Path, *more: str) -> Path:
    arguments = [
        "recipe=text",
        f"input={sources / 'in'}",
        f"output={output}",
        f"decontaminate.sets=[{sources / 'sums.jsonl'}]",
        "recipe.filter.rules={contamination.items:{signal:contamination.matches,max:0}}",
        "dedup=semantic",
        "dedup.minhash=false",
        "stop_after=final",
        *more,
    ]
    assert main(arguments) == 0
    return output


def files(output: Path) -> dict[str, bytes]:
    kinds = (
        "decisions",
        "edits/contamination",
        "signals/contamination",
        "signals/semantic",
        "semantic",
        "contamination",
    )
    found = [p for kind in kinds for p in sorted((output / kind).rglob("*")) if p.is_file()]
    found += [output / "contamination.json", output / "contamination.jsonl"]
    return {str(p.relative_to(output)): p.read_bytes() for p in found}


def test_items_are_reported_copies_dropped_and_workers_change_nothing(sources: Path, tmp_path: Path) -> None:
    one = run(sources, tmp_path / "one", "executor.workers=1")
    rows = [
        r for p in sorted((one / "decisions/final").glob("*.parquet")) for r in pq.read_table(p).to_pylist()
    ]
    rules = [r["rule"] for r in rows if not r["keep"]]
    assert (len(rows), rules.count("contamination.items"), rules.count("semantic")) == (60, 5, 10)
    table = orjson.loads((one / "contamination.json").read_bytes())["sums"]
    assert (table["items"], table["items_found"], table["documents"]) == (8, 5, 5)
    matches = [orjson.loads(line) for line in (one / "contamination.jsonl").read_bytes().splitlines()]
    assert [m["item"] for m in matches] == list(range(5))
    assert "item 3 of sums, question, 100% of it" in next(
        lineage.contamination(one, matches[3]["document"], 5)
    )
    assert {m["document"] for m in matches} == {r["id"] for r in rows if r["rule"] == "contamination.items"}
    assert files(run(sources, tmp_path / "three", "executor.workers=3")) == files(one)
    # Another threshold repeats the neighbours and not the embeddings.
    before = (one / "stages/semantic_embed.json").read_bytes()
    run(sources, one, "dedup.semantic_coverage=0.99")
    assert (one / "stages/semantic_embed.json").read_bytes() == before
    rows = [
        r for p in sorted((one / "decisions/final").glob("*.parquet")) for r in pq.read_table(p).to_pylist()
    ]
    assert not any(r["rule"] == "semantic" for r in rows)
