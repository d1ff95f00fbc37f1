"""What deduplication steps share: ids, order of preference, decision files; files of arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from dedup_runs import decisions, identifier, write_run

from data_pipeline.dedup import arrays, corpus
from data_pipeline.document import write_table


def test_ids_survive_the_way_to_numbers_and_back() -> None:
    ids = [identifier(n) for n in range(100)] + ["0" * 32, "f" * 32]
    column = pa.chunked_array([ids[:7], ids[7:]])
    halves = corpus.id_halves(column)
    assert [f"{h:016x}{low:016x}" for h, low in halves.tolist()] == ids
    assert corpus.id_strings(halves).to_pylist() == ids
    np.testing.assert_array_equal(corpus.id_halves(pa.array(ids).slice(5, 10)), halves[5:15])
    assert corpus.id_halves(pa.array([], pa.string())).shape == (0, 2)
    for bad in ("0" * 31, "0" * 33, "g" * 32, "é" * 16, None):
        with pytest.raises(ValueError, match="is not 32 hexadecimal digits"):
            corpus.id_halves(pa.array(["0" * 32, bad, "1" * 32]))


def test_the_earliest_date_is_preferred_whatever_its_precision(tmp_path: Path) -> None:
    dates = {
        "a" * 32: "2021",
        "b" * 32: "2020-05-01T10:00:00Z",
        "c" * 32: "2020-05-01T09:59:59Z",
        "d" * 32: "2020-04",
        "e" * 32: "",
    }
    rows = [(i, "some text") for i in (*"bafedc",)]
    rows = [(i * 32, t) for i, t in rows]
    run = write_run(tmp_path / "run", [rows[:2], rows[2:]], dates=dates)
    found = corpus.load(run, [0, 1], "exact", "first")
    names = corpus.id_strings(found.id).to_pylist()
    assert "".join(n[0] for n in names) == "dcbaef"


def test_stored_lengths_are_those_of_the_texts(tmp_path: Path) -> None:
    rows = [(identifier(n), "ä" * (n % 7) + "x" * (n % 3)) for n in range(40)]
    plain, stored = write_run(tmp_path / "plain", [rows]), write_run(tmp_path / "stored", [rows])
    table = pa.table({"id": [i for i, _ in rows], "chars": [len(t) for _, t in rows]})
    write_table(table, stored / "signals/stats/00000.parquet")
    one, other = (corpus.load(run, [0], "exact", "longest") for run in (plain, stored))
    np.testing.assert_array_equal(one.id, other.id)


def test_decisions_are_row_aligned_and_say_who_stays(tmp_path: Path) -> None:
    rows = [(c * 32, "text " * n) for n, c in enumerate("abcdef", 1)]
    run = write_run(tmp_path / "run", [rows[:3], rows[3:], []], dropped={"c" * 32})
    found = corpus.load(run, [0, 1, 2], "minhash", "longest")  # f e d b a
    counts = corpus.write(
        found, "minhash", np.array([0, 0, 2, 3, 0]), np.array([1, 0.85004, 1, 1, 0.99996], np.float32)
    )
    assert counts == {"considered": 5, "kept": 3, "dropped": 2, "clusters": 1}
    written = decisions(run, "minhash")
    details = {i[0]: (row["keep"], row["rule"], row["detail"]) for i, row in written.items()}
    assert details == {
        "a": (False, "minhash", "f" * 32 + " 1.0000"),
        "b": (True, None, None),
        "c": (False, None, None),
        "d": (True, None, None),
        "e": (False, "minhash", "f" * 32 + " 0.8500"),
        "f": (True, None, "3 documents"),
    }


def test_arrays_are_read_in_part(tmp_path: Path) -> None:
    path = tmp_path / "x.arrays"
    table = np.arange(60, dtype=np.uint64).reshape(12, 5)
    arrays.write(path, {"none": np.zeros((0, 3)), "table": table, "row": table[:, 1]}, {"a": 1})
    file = arrays.Arrays(path)
    assert file.meta == {"a": 1}
    np.testing.assert_array_equal(file.read("table", 3, 7), table[3:7])
    np.testing.assert_array_equal(file.map("table")[2, 1:], table[2, 1:])
    np.testing.assert_array_equal(file.read("row"), table[:, 1])
    assert file.read("none").shape == file.map("none").shape == (0, 3)
