from __future__ import annotations

import gzip
import random
from pathlib import Path

import numpy as np
import orjson
import pytest

from data_pipeline.classify import measure, rows, train
from data_pipeline.zstd import zstd

LABELS = ("a", "b")


def test_measures_of_a_small_case_by_hand() -> None:
    score_of_a = np.array([0.9, 0.8, 0.6, 0.3, 0.2, np.nan], np.float32)
    scores = np.stack([score_of_a, 1 - score_of_a], axis=1)
    found = measure.measure(scores, ["a", "b", "a", "a", "b", "a"], LABELS)
    a = found["labels"]["a"]
    assert found["accuracy"] == pytest.approx(3 / 6)
    assert a["precision"] == pytest.approx(2 / 3)
    assert a["recall"] == pytest.approx(2 / 4)
    assert a["f1"] == pytest.approx(4 / 7)
    assert a["average_precision"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 4 + 4 / 6) / 4)
    at = {p["threshold"]: p for p in a["curve"]}
    assert at[0.85] == {"threshold": 0.85, "precision": 1.0, "recall": 0.25}
    assert at[1.0]["precision"] is None
    assert sum(b["rows"] for b in found["calibration"]) == 5
    assert {"truth": "b", "predicted": "a", "rows": 1} in found["confusions"]
    assert "accuracy 0.500" in measure.table(found)


def test_perfect_probabilities_are_calibrated() -> None:
    draw = np.random.default_rng(0)
    p = draw.random(20_000)
    truth = np.where(draw.random(20_000) < p, "a", "b").tolist()
    found = measure.measure(np.stack([p, 1 - p], axis=1), truth, LABELS)
    assert found["calibration_error"] < 0.02
    overconfident = np.clip(p * 4 - 1.5, 0, 1)
    worse = measure.measure(np.stack([overconfident, 1 - overconfident], axis=1), truth, LABELS)
    assert worse["calibration_error"] > 0.1


def test_a_label_unknown_to_the_model_counts_as_missed() -> None:
    found = measure.measure(np.array([[0.9, 0.1]], np.float32), ["c"], LABELS)
    assert found["accuracy"] == 0
    assert found["labels"]["c"]["recall"] == 0


def test_thresholds_reach_their_target_with_the_most_of_the_other() -> None:
    score = np.array([0.9, 0.8, 0.8, 0.6, 0.5, 0.1])
    is_label = np.array([1, 1, 0, 1, 0, 0], bool)
    assert measure.threshold_for(score, is_label, precision=0.7) == {
        "threshold": pytest.approx(0.55),
        "precision": 0.75,
        "recall": 1.0,
    }
    assert measure.threshold_for(score, is_label, precision=0.9)["threshold"] == pytest.approx(0.85)
    assert measure.threshold_for(score, is_label, recall=0.5)["precision"] == 0.75
    assert measure.threshold_for(score, ~is_label, precision=0.99) is None
    at = measure.at_threshold(score, is_label, 0.55)
    assert at["precision"] == 0.75 and at["recall"] == 1


def test_rows_are_read_plain_and_compressed(tmp_path: Path) -> None:
    raw = b'{"text": "one", "label": "x y"}\n\n{"text": "two", "label": 1}\n{"text": "three", "label": true}'
    (tmp_path / "plain.jsonl").write_bytes(raw)
    (tmp_path / "rows.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "rows.zst").write_bytes(zstd.compress(raw))
    for path in tmp_path.iterdir():
        assert list(rows.read(path)) == [("one", "x_y"), ("two", "1"), ("three", "true")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2: no JSON"),
        (b'{"text": "x"}', "line 2: expected `text` and `label`, found: text"),
        (b'{"text": null, "label": "x"}', "line 2: `text` must be text"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "r.jsonl").write_bytes(b'{"text": "one", "label": "x"}\n' + line + b"\n")
    with pytest.raises(ValueError, match=message):
        list(rows.read(tmp_path / "r.jsonl"))


def test_the_split_depends_on_texts_only() -> None:
    everything = [(f"text {n}", "x") for n in range(1000)]
    shuffled = random.Random(0).sample(everything, 1000)
    _, test = rows.split(everything, 0.2, seed=1)
    training2, test2 = rows.split([*shuffled, *shuffled], 0.2, seed=1)
    assert sorted(set(test2)) == sorted(test)
    assert not set(test2) & set(training2)
    assert 150 < len(test) < 250
    assert rows.split(everything, 0.2, seed=2)[1] != test
    with pytest.raises(ValueError, match="one part is empty"):
        rows.split(everything[:1], 0.2, seed=1)


def test_the_verb_trains_measures_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)
    lines = [
        {"body": " ".join(draw.choices(words.split(), k=6)), "kind": kind}
        for kind, words in (("warm", "sun fire heat glow lamp"), ("cold", "snow ice frost wind hail"))
        for _ in range(100)
    ]
    source = tmp_path / "labelled.jsonl"
    source.write_bytes(b"\n".join(orjson.dumps(line) for line in lines))
    arguments = [f"input={source}", f"output={tmp_path / 'm.bin'}", "text_key=body", "label_key=kind"]
    arguments += ["test_fraction=0.3", "classifier.buckets=1000"]
    assert train.main(arguments) == 0
    report = orjson.loads((tmp_path / "m.json").read_bytes())
    assert report["test"]["accuracy"] > 0.95
    n_training = report["training"]["rows"] + report["training"]["calibration_rows"]
    assert report["test"]["rows"] + n_training == 200
    assert report["thresholds"]["warm"]["test"]["recall"] > 0.9
    assert report["test"]["labels"]["warm"]["operating_points"]["recall_0.95"]["precision"] > 0.9
    assert len(report["test"]["labels"]["warm"]["curve"]) == measure.CURVE_POINTS
    assert "warm" in capsys.readouterr().out
    assert train.main([f"input={tmp_path / 'absent.jsonl'}", f"output={tmp_path / 'm2.bin'}"]) == 1
    assert "error: " in capsys.readouterr().err
