"""P(not safe for work) of a page: logistic regression over words, their company, and a classifier.

`benchmarks/nsfw_pages.py --fit` writes the weights beside this file: one set for each of the inputs that a run may have
(word lists, classifier). Features are logarithms of rates, so a few words in a long page weigh little, and a page that
says nothing else much.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import orjson

WEIGHTS = Path(__file__).with_name("nsfw_page.json")
FEATURES = (
    "listed", "listed_distinct", "adult", "adult_distinct", "reference", "balance", "words", "classifier",
)  # fmt: skip
NEEDS_LISTS, NEEDS_CLASSIFIER = ("listed", "listed_distinct"), ("classifier",)
MAX_LOGIT = 6.0
MAX_WORDS = 1000
"""Words beyond which a rate is no surer evidence."""


def features(counts: np.ndarray, classifier: np.ndarray) -> np.ndarray:
    """float64 [n, len(FEATURES)]; 0 where an input is missing.

    Args:
        counts: int64 [n, 3, 5] of listed, adult and reference words (`listed_words.COUNTS`).
        classifier: [n] probabilities, NaN where there are none.
    """
    words = np.maximum(counts[:, 0, 0] + counts[:, :, 4].max(axis=1), 1).astype(np.float64)
    listed, adult, reference = (1000 * counts[:, k, 1] / words for k in range(3))
    p = np.clip(np.nan_to_num(classifier.astype(np.float64), nan=0.5), 1e-6, 1 - 1e-6)
    columns = (
        np.log1p(listed),
        np.log1p(counts[:, 0, 3]),
        np.log1p(adult),
        np.log1p(counts[:, 1, 3]),
        np.log1p(reference),
        np.log1p(np.maximum(listed, adult)) - np.log1p(reference),
        np.log1p(np.minimum(words, MAX_WORDS)) - 6,
        np.clip(np.log(p / (1 - p)), -MAX_LOGIT, MAX_LOGIT),
    )
    return np.stack(columns, axis=1)


def used(has_lists: bool, has_classifier: bool) -> np.ndarray:
    """bool [len(FEATURES)]: features that a run with these inputs has."""
    missing = (() if has_lists else NEEDS_LISTS) + (() if has_classifier else NEEDS_CLASSIFIER)
    return np.array([name not in missing for name in FEATURES])


def key(has_lists: bool, has_classifier: bool) -> str:
    """Name of the weights of a run with these inputs."""
    return "+".join(["words", *(["lists"] if has_lists else []), *(["classifier"] if has_classifier else [])])


@cache
def weights() -> dict[str, list[float]]:
    """Fitted weights by name: one of each feature, then the constant."""
    found: dict[str, list[float]] = orjson.loads(WEIGHTS.read_bytes())
    return found


def score(x: np.ndarray, has_lists: bool, has_classifier: bool) -> np.ndarray:
    """Probabilities, float32 [n], of features [n, len(FEATURES)]."""
    w = np.array(weights()[key(has_lists, has_classifier)])
    # einsum adds up in one order whatever the number of rows.
    z = np.einsum("nk,k->n", x, w[:-1]) + w[-1]
    return (0.5 * (1 + np.tanh(0.5 * z))).astype(np.float32)
