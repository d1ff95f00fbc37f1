"""Thresholds of a quality score, by how much shall be kept or by the score, with documents on either side to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

EXCERPT = 300


def choose(
    rows: Sequence[Mapping[str, Any]],
    scores: np.ndarray,
    retention: Sequence[float],
    at: Sequence[float],
    good: float,
    examples: int,
) -> list[dict[str, Any]]:
    """What each threshold keeps of the run that the sample stands for.

    Args:
        rows: {id, url, weight, text, label or None} of the sample.
        scores: float64 [n].
        retention: shares of the documents to keep.
        at: thresholds.

    Returns:
        [{"threshold", "target", "documents", "bytes": share kept, "good_kept", "good_dropped": share of labels that reach
        `good`, "above", "below": [{id, url, score, label, excerpt}]}], by falling threshold; a document is kept from the
        threshold on.
    """
    weights = np.array([row["weight"] for row in rows], np.float64)
    sizes = np.array([len(row["text"].encode("utf-8", "replace")) for row in rows], np.float64)
    labels = np.array([np.nan if row["label"] is None else row["label"] for row in rows])
    order = np.argsort(-scores, kind="stable")
    cuts: list[tuple[float, float | None]] = [(float(t), None) for t in at]
    reached = np.cumsum(weights[order]) / weights.sum()
    for share in retention:
        cuts.append((float(scores[order][min(int(np.searchsorted(reached, share)), len(order) - 1)]), share))
    found = []
    for cut, target in sorted(cuts, key=lambda c: -c[0]):
        kept = scores >= cut
        found.append(
            {
                "threshold": round(cut, 6),
                "target": target,
                "documents": round(float(weights[kept].sum() / weights.sum()), 4),
                "bytes": round(float((weights * sizes)[kept].sum() / max((weights * sizes).sum(), 1)), 4),
                "good_kept": _share_good(labels[kept], weights[kept], good),
                "good_dropped": _share_good(labels[~kept], weights[~kept], good),
                "above": [example(rows[i], scores[i]) for i in order[kept[order]][::-1][:examples]],
                "below": [example(rows[i], scores[i]) for i in order[~kept[order]][:examples]],
            }
        )
    return found


def _share_good(labels: np.ndarray, weights: np.ndarray, good: float) -> float | None:
    known = ~np.isnan(labels)
    if not known.any():
        return None
    return round(float(weights[known & (labels >= good)].sum() / weights[known].sum()), 4)


def example(row: Mapping[str, Any], score: float) -> dict[str, Any]:
    """A document to read."""
    text = " ".join(row["text"][: 4 * EXCERPT].split())[:EXCERPT]
    return {
        "id": row["id"],
        "url": row["url"],
        "score": round(float(score), 4),
        "label": row["label"],
        "excerpt": text,
    }
