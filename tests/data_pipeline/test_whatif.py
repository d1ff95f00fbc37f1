"""What-if tables: they must say what a run with those thresholds would have done."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from configs import edge
from configs.edge import ConfigError
from configs.schema.pipeline import DataRun, FilterConfig, RecipeConfig, RuleConfig
from data_pipeline import policy, threshold_curves, whatif
from data_pipeline.document import SCHEMA, read_table, write_table
from data_pipeline.read import Unit
from data_pipeline.read import units as planning

LENGTHS = [10, 40, 60, 80, 120, 300]
HASHES = [0.0, 0.5, 0.0, 0.5, 0.0, 0.0]
POLICY = FilterConfig(
    name="mine",
    rules={
        "short": RuleConfig(signal="gopher.n_words", min=50),
        "hashes": RuleConfig(signal="gopher.hash_ratio", max=0.1),
    },
)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    rows = [
        {"id": f"{i:032x}", "source": "web", "text": f"text {i}", "metadata": "{}", "url": f"http://a/{i}"}
        for i in range(len(LENGTHS))
    ]
    rows.append({"id": "f" * 32, "source": "web", "text": "", "metadata": '{"drop": "extract.empty"}'})
    documents = pa.Table.from_pylist(rows, SCHEMA)
    write_table(documents, tmp_path / "documents/00000.parquet")
    n = len(rows)
    columns = {
        "gopher": {"n_words": [*LENGTHS, 0], "hash_ratio": [*HASHES, 0.0]},
        "stats": {"bytes": np.array([10.0] * (n - 1) + [0.0])},
        "copies": {"first": [True] * n},
    }
    for name, values in columns.items():
        table = pa.table({"id": documents["id"], **{k: pa.array(v) for k, v in values.items()}})
        write_table(table, tmp_path / f"signals/{name}/00000.parquet")
    recipe = RecipeConfig(name="web", filter=POLICY)
    (tmp_path / "config.yaml").write_text(
        edge.to_yaml(DataRun(output=str(tmp_path), input="x", recipe=recipe))
    )
    unit = Unit(0, "web", "jsonl", ("x",), "x", 0, 1, 0, None, 1)
    planning.save((unit,), tmp_path / "units.json")
    return tmp_path


def kept_by(run_dir: Path, config: FilterConfig) -> int:
    """What the stage itself decides."""
    policy.decide(run_dir, 0, config)
    return sum(read_table(run_dir / "decisions/a/00000.parquet")["keep"].to_pylist())


def test_every_point_of_a_curve_is_what_the_policy_would_keep(run_dir: Path) -> None:
    totals, curves = threshold_curves.curves(run_dir, [0], POLICY, at=[5, 50, 100])
    assert (totals.documents, totals.kept) == (6, 3)
    by_name = {c.name: c for c in curves}
    for threshold, kept in zip(by_name["short"].thresholds, by_name["short"].kept, strict=True):
        rules = {**POLICY.rules, "short": RuleConfig(signal="gopher.n_words", min=threshold)}
        assert kept == kept_by(run_dir, dataclasses.replace(POLICY, rules=rules)), threshold
    assert by_name["short"].thresholds == [5, 50, 100] and by_name["short"].kept == [4, 3, 2]
    # 10 and 40 words are too short, and of them 40 words has too many hashes as well.
    assert (by_name["short"].failed, by_name["short"].only) == (2, 1)
    assert (by_name["hashes"].failed, by_name["hashes"].only) == (2, 1)


def test_samples_are_documents_that_change_sides(run_dir: Path) -> None:
    _, [curve] = threshold_curves.curves(run_dir, [0], POLICY, ["short"], at=[5, 100], samples=2)
    assert [(s.url, s.gained) for s in curve.changed[5.0]] == [("http://a/0", True)]
    assert [(s.url, s.gained, s.value) for s in curve.changed[100.0]] == [("http://a/2", False, "60")]


def test_two_policies_side_by_side(run_dir: Path) -> None:
    other = FilterConfig(name="other", rules={"long": RuleConfig(signal="gopher.n_words", max=100)})
    found = threshold_curves.compare(run_dir, [0], POLICY, other, 5)
    assert (found.both, found.neither) == (1, 0)
    assert found.gained == {"short": 2, "hashes": 1} and found.lost == {"long": 2}
    assert [s.url for s in found.samples["long", False]] == ["http://a/4", "http://a/5"]


def test_the_verb(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert whatif.main([f"data.path={run_dir}"]) == 0
    assert "keeps 3 of 6 documents (50.0%" in capsys.readouterr().out
    assert whatif.main([f"data.path={run_dir}", "rule=short", "at=[100]"]) == 0
    printed = capsys.readouterr().out
    assert "← now" in printed and "at 100 dropped: 60 · http://a/2" in printed
    with pytest.raises(ValueError, match=r"signals/.* run `arriero data` again"):
        whatif.main([f"data.path={run_dir}", "filter=web"])


def test_a_rule_that_is_not_there_names_the_nearest(run_dir: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean `short`"):
        whatif.main([f"data.path={run_dir}", "rule=shor"])


@pytest.mark.parametrize(
    ("current", "expected"),
    [(0.0, [0, 1, 2, 5, 10]), (0.8, [0.2, 0.4, 0.6, 0.72, 0.8, 0.88, 1.0]), (50, [12, 25, 38, 45, 50, 55])],
)
def test_thresholds_around_the_present_one(current: float, expected: list[float]) -> None:
    assert threshold_curves.thresholds(current)[: len(expected)] == expected
