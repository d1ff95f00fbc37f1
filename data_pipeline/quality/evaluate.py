"""How well classifiers foresee a rater's labels of hosts that they have not seen, with bootstrap intervals over hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.classify.measure import reliability, threshold_for
from data_pipeline.quality.models import rounded

RESAMPLES = 500
BINS = 10


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 to 1, equal values sharing their mean rank, float64 [n]."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - (counts + 1) / 2) / max(len(values) - 1, 1))[place]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; NaN where one of both is constant."""
    x, y = ranks(a), ranks(b)
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def auc(scores: np.ndarray, is_good: np.ndarray) -> float:
    """Area under the ROC curve: P(a good document scores above a poor one), ties counting half."""
    n = int(is_good.sum())
    if not 0 < n < len(scores):
        return float("nan")
    place = ranks(scores) * max(len(scores) - 1, 1)
    return float((place[is_good].sum() - n * (n - 1) / 2) / (n * (len(scores) - n)))


def calibration_error(scores: np.ndarray, is_good: np.ndarray) -> float:
    """Mean distance of score and share of good documents over bins with equally many documents."""
    order = np.argsort(scores, kind="stable")
    parts = np.array_split(order, min(BINS, max(len(order) // 10, 1)))
    return float(
        sum(len(p) * abs(scores[p].mean() - is_good[p].mean()) for p in parts if len(p)) / max(len(order), 1)
    )


def f1(predicted: np.ndarray, truth: np.ndarray) -> float:
    """F1 of two bool arrays; NaN where there is nothing to find."""
    there = int(truth.sum())
    return 2 * int((predicted & truth).sum()) / (int(predicted.sum()) + there) if there else float("nan")


def agreement(first: np.ndarray, second: np.ndarray, good: float) -> dict[str, float]:
    """How two sets of labels of the same documents agree.

    Returns:
        {"documents", "equal", "within_1", "spearman", "good_f1", "kappa"}; kappa is weighted by the square of the distance
        (Cohen, 1968).
    """
    a, b = rounded(first), rounded(second)
    counts = np.zeros((6, 6))
    np.add.at(counts, (a.astype(int), b.astype(int)), 1)
    distance = (np.arange(6)[:, None] - np.arange(6)[None]) ** 2
    chance = counts.sum(1)[:, None] * counts.sum(0)[None] / max(counts.sum(), 1)
    spread = float((distance * chance).sum())
    return {
        "documents": len(a),
        "equal": float((a == b).mean()),
        "within_1": float((np.abs(a - b) <= 1).mean()),
        "spearman": spearman(first, second),
        "good_f1": f1(first >= good, second >= good),
        "kappa": 1 - float((distance * counts).sum()) / spread if spread else float("nan"),
    }


def evaluate(
    rows: Sequence[Mapping[str, Any]],
    scores: Mapping[str, np.ndarray],
    parts: np.ndarray,
    good: float,
    seed: int,
) -> dict[str, Any]:
    """Measures of each classifier on the test rows.

    Args:
        rows: {label, source, language, group}.
        scores: P(good) of each row, by classifier.
        parts: object [n]: `train`, `calibration`, `test`; cuts for F1 are chosen on the calibration rows, or on the training
            rows where those lack one side.

    Returns:
        {classifier: {"rows", "good", "auc", "spearman", "calibration_error": [value, low, high], "thresholds": [{"label",
        "rows", "cut", "f1": [value, low, high]}], "reliability", "by_source", "by_language", "confusion"}}. Intervals are
        of 95%.

    Raises:
        ValueError: no test row.
    """
    labels = np.array([row["label"] for row in rows], np.float64)
    test = np.flatnonzero(parts == "test")
    chosen = [rows[i] for i in test.tolist()]
    if not len(test):
        raise ValueError(
            "no labelled document was held out; label documents of more hosts, or raise `held_out`"
        )
    whole = rounded(labels)
    draws = _resamples([str(row["group"]) for row in chosen], seed)
    truth = labels[test] >= good
    found: dict[str, Any] = {}
    for name, all_scores in scores.items():
        mine = all_scores[test]
        entry: dict[str, Any] = {"rows": len(test), "good": int(truth.sum())}
        entry["auc"] = _interval(auc, draws, mine, truth)
        entry["spearman"] = _interval(spearman, draws, mine, labels[test])
        entry["calibration_error"] = _interval(calibration_error, draws, mine, truth)
        entry["thresholds"] = []
        at_good = _cut(all_scores, labels >= good, parts)
        cut_at_good = 0.5 if at_good is None else at_good
        for label in range(1, 6):
            cut = _cut(all_scores, whole >= label, parts)
            theirs = whole[test] >= label
            entry["thresholds"].append(
                {
                    "label": label,
                    "rows": int(theirs.sum()),
                    "cut": cut,
                    "f1": None if cut is None else _interval(f1, draws, mine >= cut, theirs),
                }
            )
        entry["reliability"] = reliability(mine, truth)
        for key in ("source", "language"):
            entry[f"by_{key}"] = _by(key, chosen, mine >= cut_at_good, truth)
        entry["confusion"] = [
            {"label": k, "poor": int((~good_k).sum()), "good": int(good_k.sum())}
            for k in range(6)
            for good_k in [(mine >= cut_at_good)[whole[test] == k]]
        ]
        found[name] = entry
    return found


def _cut(scores: np.ndarray, is_label: np.ndarray, parts: np.ndarray) -> float | None:
    """The score with the highest F1 where it may be chosen; None where all or no documents reach the label."""
    for part in ("calibration", "train"):
        chosen = parts == part
        if 0 < is_label[chosen].sum() < chosen.sum():
            point = threshold_for(scores[chosen], is_label[chosen])
            return None if point is None else float(point["threshold"])
    return None


def _by(
    key: str, rows: Sequence[Mapping[str, Any]], predicted: np.ndarray, truth: np.ndarray
) -> list[dict[str, Any]]:
    values = np.array([str(row[key]) for row in rows])
    return [
        {
            key: name,
            "rows": int(mine.sum()),
            "right": int((predicted & truth & mine).sum() + (~predicted & ~truth & mine).sum()),
            "wrongly_good": int((predicted & ~truth & mine).sum()),
            "wrongly_poor": int((~predicted & truth & mine).sum()),
        }
        for name in np.unique(values).tolist()
        for mine in [values == name]
    ]


def _resamples(groups: Sequence[str], seed: int) -> list[np.ndarray]:
    """Row indices: first all, then `RESAMPLES` times as many groups as there are, with replacement."""
    names, place = np.unique(np.array(groups), return_inverse=True)
    members = [np.flatnonzero(place == k) for k in range(len(names))]
    random = np.random.default_rng(seed)
    drawn = [random.integers(0, len(names), len(names)) for _ in range(RESAMPLES)]
    return [np.arange(len(groups)), *(np.concatenate([members[k] for k in d]) for d in drawn)]


def _interval(
    measure: Callable[..., float], draws: Sequence[np.ndarray], *values: np.ndarray
) -> list[float | None]:
    """[value, 2.5%, 97.5%] of a measure of arrays [n]; None where it is not defined."""
    drawn = np.array([measure(*(v[rows] for v in values)) for rows in draws])
    rest = drawn[1:][~np.isnan(drawn[1:])]
    low, high = np.quantile(rest, [0.025, 0.975]).tolist() if len(rest) else (np.nan, np.nan)
    return [None if np.isnan(v) else round(float(v), 4) for v in (drawn[0], low, high)]
