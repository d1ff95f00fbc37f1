"""The fitted classifier: P(block belongs to the main text) by two passes of boosted trees, and which blocks to keep.

The second pass sees what the first says about a block's neighbours, containers and kind. The blocks kept maximise the
expected F-beta of their words (Lipton, Elkan and Naryanaswamy 2014): on a page that is hard to read a lower probability
suffices than on a clear one. `benchmarks/fit_extractor.py` writes `classifier.npz`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipeline.compiled import kernel
from data_pipeline.extract import tags
from data_pipeline.extract.wording import WORDS

FILE = Path(__file__).with_name("classifier.npz")
LEAST = 0.1
"""Blocks less probable than this stay out, however little else the page has."""
BETA2 = 0.75
"""Square of F-beta's beta: below 1, a wrong word costs more than a missing one. Probabilities are too low on kinds of pages
that the fit has not seen: 0.5 was best on unseen hosts, and loses text of unseen sets, each of which has its own best value
(`docs/benchmarks.md`)."""


class Forest(NamedTuple):
    """Boosted trees, flat: inner nodes with feature, threshold and children (negative: ~leaf), leaves with values."""

    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    leaf_roots: np.ndarray
    leaf: np.ndarray

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays by name, for a file."""
        return {prefix + name: value for name, value in self._asdict().items()}


@kernel(
    "float64[::1](float32[:,::1], int32[::1], int16[::1], float32[::1], int16[::1], int16[::1], int32[::1], "
    "float32[::1])"
)
def probabilities(f, roots, feature, threshold, left, right, leaf_roots, leaf):
    """Logistic function of the sum of all trees, float64 [B], for the rows of f."""
    n = len(f)
    z = np.zeros(n)
    for t in range(len(roots)):
        o, l0 = roots[t], leaf_roots[t]
        for b in range(n):
            i = np.int64(0)
            while i >= 0:
                j = o + i
                i = np.int64(left[j]) if f[b, feature[j]] <= threshold[j] else np.int64(right[j])
            z[b] += leaf[l0 - i - 1]
    for b in range(n):
        z[b] = 1.0 / (1.0 + np.exp(-z[b]))
    return z


@kernel("boolean[::1](float64[::1], float64[:,::1], float64)")
def best_blocks(p, x, least):
    """The blocks that maximise the expected F-beta of words, boolean [B]."""
    n = len(p)
    order = np.argsort(-p, kind="mergesort")
    total = 0.0
    for b in range(n):
        total += p[b] * x[b, WORDS]
    hit = size = best = 0.0
    keep = 0
    for k in range(n):
        b = order[k]
        if p[b] < least:
            break
        hit += p[b] * x[b, WORDS]
        size += x[b, WORDS]
        f = (1.0 + BETA2) * hit / (size + BETA2 * total)
        if f > best:
            best, keep = f, k + 1
    chosen = np.zeros(n, np.bool_)
    for k in range(keep):
        chosen[order[k]] = True
    return chosen


@dataclass(frozen=True)
class Model:
    """Fitted weights of words and two forests."""

    class_words: np.ndarray
    class_weights: np.ndarray
    words: np.ndarray
    weights: np.ndarray
    forests: tuple[Forest, Forest]


@cache
def load(path: Path = FILE) -> Model:
    """The classifier in a file."""
    with np.load(path) as stored:
        a = dict(stored)
    return Model(
        _table(a["class_words"]),
        a["class_weights"],
        _table(a["words"]),
        a["weights"],
        (
            Forest(**{k[2:]: v for k, v in a.items() if k.startswith("1_")}),
            Forest(**{k[2:]: v for k, v in a.items() if k.startswith("2_")}),
        ),
    )


def _table(keys: np.ndarray) -> np.ndarray:
    return tags.table({int(key): i for i, key in enumerate(keys)})
