"""How good a classifier is on rows it has not seen: by label, over thresholds, and in its probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

CURVE_POINTS = 21
CALIBRATION_BINS = 10
TARGETS = (0.8, 0.9, 0.95, 0.99)
"""Precisions and recalls whose thresholds are reported."""


def measure(scores: np.ndarray, truth: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Measures of a classifier.

    Args:
        scores: float [n, k] probabilities; NaN rows (texts the model cannot score) count as wrong.
        truth: the right label of each row.
        labels: names of the k columns.

    Returns:
        {"rows", "accuracy", "macro_f1", "labels": {label: {"rows", "precision", "recall", "f1", "average_precision",
        "curve": [{"threshold", "precision", "recall"}], "operating_points": {"precision_0.95", …: {"threshold",
        "precision", "recall"}}, "reliability": [{"from", "to", "rows", "score", "share"}]}}, "calibration": [{"from",
        "to", "rows", "confidence", "accuracy"}], "calibration_error", "confusions": [{"truth", "predicted", "rows"}]}.
        Precision is null where nothing was predicted, recall where there is nothing to find. `calibration` is of the
        likeliest label of each row, `reliability` of one label's score over all rows.
    """
    n = len(truth)
    if n == 0 or scores.shape != (n, len(labels)):
        raise ValueError(
            f"measures need scores of shape ({n}, {len(labels)}) and at least one row, not {scores.shape}"
        )
    column = {label: i for i, label in enumerate(labels)}
    right = np.array([column.get(label, -1) for label in truth])
    scored = ~np.isnan(scores).any(axis=1)
    filled = np.nan_to_num(scores, nan=0.0)
    predicted = np.where(scored, filled.argmax(axis=1), -2)
    by_label = {}
    for label in sorted({*labels, *truth}):
        k = column.get(label, -3)
        is_label = right == k if k >= 0 else np.array([t == label for t in truth])
        entry = _precision_recall(predicted == k, is_label)
        if k >= 0 and is_label.any():
            entry |= {"average_precision": _average_precision(filled[:, k], is_label)}
            entry |= {"curve": _curve(filled[:, k], is_label)}
            entry |= {"operating_points": _operating_points(filled[:, k], is_label)}
            entry |= {"reliability": reliability(filled[scored, k], is_label[scored])}
        by_label[label] = {"rows": int(is_label.sum())} | entry
    f1 = [entry["f1"] for entry in by_label.values() if entry["rows"]]
    confidence = filled.max(axis=1)
    calibration = _calibration(confidence[scored], (predicted == right)[scored])
    pairs, counts = np.unique(np.stack([right, predicted])[:, right != predicted], axis=1, return_counts=True)
    worst = np.argsort(-counts, kind="stable")[:20]
    return {
        "rows": n,
        "accuracy": float((predicted == right).mean()),
        "macro_f1": float(np.mean(f1)),
        "labels": by_label,
        "calibration": calibration,
        "calibration_error": float(
            sum(b["rows"] * abs(b["confidence"] - b["accuracy"]) for b in calibration)
            / max(int(scored.sum()), 1)
        ),
        "confusions": [
            {
                "truth": labels[pairs[0, i]] if pairs[0, i] >= 0 else None,
                "predicted": labels[pairs[1, i]] if pairs[1, i] >= 0 else None,
                "rows": int(counts[i]),
            }
            for i in worst
        ],
    }


def _precision_recall(predicted: np.ndarray, is_label: np.ndarray) -> dict[str, Any]:
    hits, said, there = int((predicted & is_label).sum()), int(predicted.sum()), int(is_label.sum())
    return {
        "precision": hits / said if said else None,
        "recall": hits / there if there else None,
        "f1": 2 * hits / (said + there) if said + there else 0.0,
    }


def _curve(score: np.ndarray, is_label: np.ndarray) -> list[dict[str, Any]]:
    """Precision and recall of `score >= threshold` at evenly spaced thresholds."""
    points = []
    for threshold in np.linspace(0, 1, CURVE_POINTS):
        entry = _precision_recall(score >= threshold, is_label)
        points.append(
            {"threshold": round(float(threshold), 4)} | {k: entry[k] for k in ("precision", "recall")}
        )
    return points


def threshold_for(
    score: np.ndarray, is_label: np.ndarray, precision: float | None = None, recall: float | None = None
) -> dict[str, Any] | None:
    """The threshold of `score >= threshold` that reaches a target and gives most of the other; None: out of reach.

    Args:
        score: [n] scores of one label.
        is_label: bool [n].
        precision: reach this precision with the highest recall; or
        recall: reach this recall with the highest precision. Neither: the highest F1.

    Returns:
        {"threshold", "precision", "recall"} on these rows.
    """
    order = np.argsort(-score, kind="stable")
    last_of_equal = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(is_label[order])[last_of_equal]
    p, r = hits / (last_of_equal + 1), hits / max(int(is_label.sum()), 1)
    if precision is not None:
        value = np.where(p >= precision, r, -1.0)
    elif recall is not None:
        value = np.where(r >= recall, p, -1.0)
    else:
        value = 2 * p * r / np.maximum(p + r, 1e-12)
    best = int(value.argmax())
    if value[best] <= 0:
        return None
    at = float(score[order][last_of_equal[best]])
    below = float(score[order][last_of_equal[best + 1]]) if best + 1 < len(last_of_equal) else at
    return {
        # Halfway to the next lower score: other rows do not fall on the very score that was seen here.
        "threshold": (at + below) / 2,
        "precision": float(p[best]),
        "recall": float(r[best]),
    }


def at_threshold(score: np.ndarray, is_label: np.ndarray, threshold: float) -> dict[str, Any]:
    """{"precision", "recall", "f1"} of `score >= threshold`."""
    return _precision_recall(score >= threshold, is_label)


def _operating_points(score: np.ndarray, is_label: np.ndarray) -> dict[str, Any]:
    points = {"best_f1": threshold_for(score, is_label)}
    for target in TARGETS:
        points[f"precision_{target}"] = threshold_for(score, is_label, precision=target)
        points[f"recall_{target}"] = threshold_for(score, is_label, recall=target)
    return points


def reliability(score: np.ndarray, is_label: np.ndarray) -> list[dict[str, Any]]:
    """Mean score against the share of rows that are of the label, in equal bins of score; empty bins are left out."""
    return [
        {
            "from": entry["from"],
            "to": entry["to"],
            "rows": entry["rows"],
            "score": entry["confidence"],
            "share": entry["accuracy"],
        }
        for entry in _calibration(score, is_label)
    ]


def _average_precision(score: np.ndarray, is_label: np.ndarray) -> float:
    """Area under the precision-recall curve, as the mean precision at each relevant row; equal scores count as one."""
    order = np.argsort(-score, kind="stable")
    last_of_equal = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(is_label[order])[last_of_equal]
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / (last_of_equal + 1)).sum() / is_label.sum())


def _calibration(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, Any]]:
    """Confidence against accuracy in equal bins of confidence; empty bins are left out."""
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bin_of = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return [
        {
            "from": round(float(edges[b]), 4),
            "to": round(float(edges[b + 1]), 4),
            "rows": int((bin_of == b).sum()),
            "confidence": float(confidence[bin_of == b].mean()),
            "accuracy": float(correct[bin_of == b].mean()),
        }
        for b in range(CALIBRATION_BINS)
        if (bin_of == b).any()
    ]


def table(measures: dict[str, Any], limit: int = 30) -> str:
    """The measures as a table for the console, the most frequent labels first."""
    width = max(8, *(len(label) for label in measures["labels"]))
    lines = [f"{'label':<{width}} {'rows':>7} {'precision':>9} {'recall':>7} {'F1':>6} {'AP':>6}"]

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    ordered = sorted(measures["labels"].items(), key=lambda item: (-item[1]["rows"], item[0]))
    for label, m in ordered[:limit]:
        lines.append(
            f"{label:<{width}} {m['rows']:>7} {number(m['precision']):>9} {number(m['recall']):>7} "
            f"{number(m['f1']):>6} {number(m.get('average_precision')):>6}"
        )
    if len(ordered) > limit:
        lines.append(f"… and {len(ordered) - limit} more labels")
    lines.append(
        f"{measures['rows']} held-out rows: accuracy {measures['accuracy']:.3f}, macro F1 {measures['macro_f1']:.3f}, "
        f"calibration error {measures['calibration_error']:.3f}"
    )
    return "\n".join(lines)
