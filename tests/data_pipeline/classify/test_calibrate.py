from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs.schema.pipeline import ClassifierConfig
from data_pipeline.classify import calibrate, fasttext, measure, train

LABELS = ("safe", "bad")


def two(p: np.ndarray) -> np.ndarray:
    return np.stack([1 - p, p], axis=1).astype(np.float32)


def sample(n: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """True probabilities and labels drawn from them."""
    draw = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-draw.normal(0, 2, n)))
    return p, [LABELS[int(x)] for x in draw.random(n) < p]


def distort(p: np.ndarray, how: str) -> np.ndarray:
    logit = np.log(p / (1 - p))
    return {
        "overconfident": 1 / (1 + np.exp(-4 * logit)),
        "shifted": 1 / (1 + np.exp(-2 * logit - 3)),
        "kinked": np.clip(p, 0.2, 0.7) ** 3,
        "honest": p,
    }[how]


@pytest.mark.parametrize("how", ["overconfident", "shifted", "kinked"])
@pytest.mark.parametrize("n", [300, 6000])
def test_calibrated_probabilities_mean_what_they_say_on_new_rows(how: str, n: int) -> None:
    p, truth = sample(n, 1)
    found = calibrate.fit(two(distort(p, how)), truth, LABELS)
    assert found is not None
    new, new_truth = sample(20_000, 2)
    scores = two(distort(new, how))
    raw = measure.measure(scores, new_truth, LABELS)["calibration_error"]
    after = measure.measure(found.apply(scores), new_truth, LABELS)["calibration_error"]
    assert after < min(0.03 if n > 1000 else 0.06, raw)


def test_honest_probabilities_are_left_alone() -> None:
    p, truth = sample(3000, 3)
    assert calibrate.fit(two(p), truth, LABELS) is None


def test_many_labels_share_a_temperature_that_keeps_their_order() -> None:
    draw = np.random.default_rng(4)
    logits = draw.normal(0, 2, (5000, 6))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = tuple("abcdef")
    truth = [labels[draw.choice(6, p=row)] for row in p]
    sharp = np.exp(3 * logits) / np.exp(3 * logits).sum(axis=1, keepdims=True)
    found = calibrate.fit(sharp, truth, labels)
    assert found is not None and found.temperature == pytest.approx(3, rel=0.1)
    after = found.apply(sharp)
    np.testing.assert_array_equal(after.argmax(axis=1), sharp.argmax(axis=1))
    np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-6)


def test_the_order_of_rows_makes_no_difference() -> None:
    p, truth = sample(2000, 5)
    scores = two(distort(p, "kinked"))
    order = np.random.default_rng(0).permutation(len(truth))
    assert calibrate.fit(scores, truth, LABELS) == calibrate.fit(
        scores[order], [truth[i] for i in order], LABELS
    )


def test_few_rows_and_unusable_rows_calibrate_nothing() -> None:
    p, truth = sample(30, 6)
    assert calibrate.fit(two(p), truth, LABELS) is None
    assert calibrate.fit(np.full((100, 2), np.nan), ["bad"] * 100, LABELS) is None
    assert calibrate.fit(np.zeros((0, 2)), [], LABELS) is None


def test_a_calibration_is_applied_where_its_model_scores_and_nowhere_else(tmp_path: Path) -> None:
    draw = np.random.default_rng(7)
    words = [f"w{i}" for i in range(40)]
    rows = []
    for n in range(1500):
        label = LABELS[n % 2]
        bias = np.linspace(1, 2 if label == "bad" else 0.5, 40)
        rows.append((" ".join(draw.choice(words, 6, p=bias / bias.sum())), label))
    config = ClassifierConfig(buckets=1000, epochs=30)
    path = tmp_path / "m.bin"
    counts, held = train.fit(rows, config, path, 0, 0.3)
    assert counts["calibration"] != "none" and len(held) == counts["calibration_rows"] > 300
    scores = fasttext.Classifier(path).scores([text for text, _ in held])
    after = measure.measure(scores, [label for _, label in held], ("bad", "safe"))["calibration_error"]
    kept = calibrate.path_of(path).read_bytes()
    calibrate.path_of(path).unlink()
    raw = fasttext.Classifier(path).scores([text for text, _ in held])
    before = measure.measure(raw, [label for _, label in held], ("bad", "safe"))["calibration_error"]
    assert after < before / 2
    calibrate.path_of(path).write_bytes(kept)
    fasttext.train(rows, config, path, 1)
    assert not calibrate.path_of(path).exists(), "a calibration outlives its model"
    calibrate.path_of(path).write_bytes(kept)
    with pytest.raises(ValueError, match="belongs to another model"):
        fasttext.Classifier(path)
    calibrate.path_of(path).write_bytes(b"{}")
    with pytest.raises(ValueError, match="is no calibration"):
        fasttext.Classifier(path)
