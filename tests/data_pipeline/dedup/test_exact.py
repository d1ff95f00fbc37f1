from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from dedup_runs import decisions, identifier, kept, write_run

from configs.schema.pipeline import DedupConfig
from data_pipeline.analysis import content_hash
from data_pipeline.dedup import corpus, exact
from data_pipeline.document import write_table


def test_one_of_each_normalised_text_stays(tmp_path: Path) -> None:
    rows = [
        (identifier(n), t)
        for n, t in enumerate(["Hello  World", "hello world\n", "HELLO WORLD", "hello world!", "", "x"])
    ]
    run = write_run(tmp_path / "run", [rows[:2], rows[2:]], quality={rows[2][0]: 0.5})
    counts = exact.decide(run, [0, 1], DedupConfig())
    assert counts == {"considered": 6, "kept": 4, "dropped": 2, "clusters": 1}
    found = decisions(run, "exact")
    assert found[rows[2][0]] == {"id": rows[2][0], "keep": True, "rule": None, "detail": "3 documents"}
    assert found[rows[0][0]]["rule"] == "exact"
    assert found[rows[0][0]]["detail"] == f"{rows[2][0]} 1.0000"


def test_stored_hashes_are_believed_and_give_the_same(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [(identifier(n), f"text {draw.randrange(40)}") for n in range(120)]
    fresh = write_run(tmp_path / "fresh", [rows])
    stored = write_run(tmp_path / "stored", [rows[:30], rows[30:]])
    for number, part in enumerate((rows[:30], rows[30:])):
        table = pa.table({"id": [i for i, _ in part], "content_hash": [content_hash(t) for _, t in part]})
        write_table(table, stored / f"signals/hashes/{number:05d}.parquet")
    exact.decide(fresh, [0], DedupConfig())
    exact.decide(stored, [0, 1], DedupConfig())
    assert decisions(fresh, "exact") == decisions(stored, "exact")
    assert len(kept(fresh, "exact")) == len({t for _, t in rows})


def test_a_missing_sidecar_of_one_shard_is_an_error(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [[("a" * 32, "x")], [("b" * 32, "y")]], dropped=set())
    (run / "decisions/a/00001.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"decisions/a/00001\.parquet does not exist"):
        exact.decide(run, [0, 1], DedupConfig())


def test_first_of_equal_is_the_smallest_index() -> None:
    keys = np.array([[1, 2], [3, 4], [1, 2], [3, 5], [3, 4], [1, 2]], np.uint64)
    np.testing.assert_array_equal(corpus.first_of_equal(keys), [0, 1, 0, 3, 1, 0])
    assert len(corpus.first_of_equal(keys[:0])) == 0
