"""Classifiers trained on labels: fastText on words; a linear head and a small network on embeddings of hashed words.

Documents of one host (or of one group of a source without URLs) are on one side of every split, so that a classifier is not
measured on pages of a site that it knows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from configs.schema.pipeline import ClassifierConfig
from data_pipeline.annotate.quality import GOOD, POOR
from data_pipeline.classify import calibrate, fasttext
from data_pipeline.dedup import embed
from data_pipeline.packed.files import atomic_file

FASTTEXT, EMBEDDING, NETWORK = "fasttext", "embedding", "network"
NAMES = (FASTTEXT, EMBEDDING, NETWORK)
WIDTH = 128
"""Width of the embeddings."""
_RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0)
_FOLDS = 5
HIDDEN = 32
"""Width of the network's hidden layer."""
_STEPS, _RATE, _DECAY = 400, 0.01, 0.05
_SCALE = float(np.sqrt(WIDTH))


def split(groups: Sequence[str], seed: int, held_out: float, calibration: float) -> np.ndarray:
    """object [n]: `train`, `calibration` or `test`, by a hash of (seed, group)."""
    hashes = [xxhash.xxh3_64_intdigest(f"quality split\0{seed}\0{g}".encode()) / 2**64 for g in groups]
    return np.array(
        [
            "test" if h < held_out else "calibration" if h < held_out + calibration else "train"
            for h in hashes
        ],
        object,
    )


@dataclass(frozen=True)
class Head:
    """Two functions of embeddings, a linear one and a network of one hidden layer, with their calibrations."""

    projection: embed.Projection
    linear: tuple[np.ndarray, float]
    """Weights float64 [d] and offset: the expected label."""
    network: tuple[np.ndarray, ...]
    """Of the network: float64 [d, h], [h], [h], []; see `_run`."""
    slopes: np.ndarray
    """float64 [2, 2], of each: P(good) is the sigmoid of slope[0] · expected label + slope[1]."""

    def expected(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Expected labels of both, float64 [n]."""
        vectors = _vectors(self.projection, texts)
        return [vectors @ self.linear[0] + self.linear[1], _run(self.network, vectors)]

    def probabilities(self, texts: Sequence[str]) -> list[np.ndarray]:
        """P(good) by both, float64 [n]."""
        found = zip(self.slopes, self.expected(texts), strict=True)
        return [1 / (1 + np.exp(-(slope[0] * score + slope[1]))) for slope, score in found]

    def save(self, path: Path) -> None:
        """Write by atomic rename."""
        p, arrays = self.projection, {f"network{i}": a for i, a in enumerate(self.network)}
        arrays |= {"inverse": p.inverse, "row": p.row, "directions": p.directions, "slopes": self.slopes}
        arrays |= {"weights": self.linear[0], "offset": np.array(self.linear[1])}
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    @staticmethod
    def load(path: Path) -> Head:
        """Read what `save` wrote."""
        with np.load(path) as found:
            projection = embed.Projection(found["inverse"], found["row"], found["directions"])
            network = tuple(found[f"network{i}"] for i in range(4))
            return Head(projection, (found["weights"], float(found["offset"])), network, found["slopes"])


def _vectors(projection: embed.Projection, texts: Sequence[str]) -> np.ndarray:
    """Embeddings, float64 [n, d]."""
    if not len(texts):
        return np.zeros((0, WIDTH))
    return np.stack([projection.embed(text) for text in texts]).astype(np.float64)


def fit_head(
    texts: Sequence[str], labels: np.ndarray, held: tuple[Sequence[str], np.ndarray], good: float, seed: int
) -> Head:
    """Fit labels on embeddings, by ridge regression (its penalty is the best of five folds) and by a small network.

    Args:
        labels: float64 [n].
        held: texts and labels that the calibration is fitted on; empty: the training rows.
        good: label from which a document counts as good.
    """
    projection = embed.fit(texts, WIDTH)
    vectors = _vectors(projection, texts)
    fold = np.arange(len(labels)) % _FOLDS
    errors = []
    for ridge in _RIDGES:
        error = 0.0
        for f in range(_FOLDS):
            weights, offset = _ridge(vectors[fold != f], labels[fold != f], ridge)
            error += float(((vectors[fold == f] @ weights + offset - labels[fold == f]) ** 2).sum())
        errors.append(error)
    linear = _ridge(vectors, labels, _RIDGES[int(np.argmin(errors))])
    first = fold != 0
    steps = _descend(vectors[first], labels[first], seed, _STEPS, (vectors[~first], labels[~first]))[1]
    head = Head(projection, linear, _descend(vectors, labels, seed, steps)[0], np.zeros((2, 2)))
    on = held if len(held[1]) else (texts, labels)
    slopes = np.stack([_platt(score, on[1] >= good) for score in head.expected(on[0])])
    return replace(head, slopes=slopes)


def _run(network: tuple[np.ndarray, ...], vectors: np.ndarray) -> np.ndarray:
    """Expected labels, float64 [n]: one hidden layer of tanh over embeddings scaled to unit variance."""
    first, bias, second, offset = network
    return np.asarray(np.tanh(_SCALE * vectors @ first + bias) @ second + offset)


def _descend(
    vectors: np.ndarray,
    labels: np.ndarray,
    seed: int,
    steps: int,
    held: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[tuple[np.ndarray, ...], int]:
    """The network after so many steps of Adam over all rows, and the step at which it foresaw the held rows best."""
    random = np.random.default_rng(seed)
    network = [
        random.standard_normal((vectors.shape[1], HIDDEN)) / np.sqrt(vectors.shape[1]),
        np.zeros(HIDDEN),
        np.zeros(HIDDEN),
        np.array(labels.mean()),
    ]
    means, squares = [np.zeros_like(a) for a in network], [np.zeros_like(a) for a in network]
    best, least = 1, np.inf
    for step in range(1, steps + 1):
        hidden = np.tanh(_SCALE * vectors @ network[0] + network[1])
        error = (hidden @ network[2] + network[3] - labels) / max(len(labels), 1)
        back = error[:, None] * network[2] * (1 - hidden**2)
        gradients = [_SCALE * vectors.T @ back, back.sum(0), hidden.T @ error, error.sum()]
        for k, gradient in enumerate(gradients):
            mean = means[k] = 0.9 * means[k] + 0.1 * gradient
            square = squares[k] = 0.999 * squares[k] + 0.001 * gradient**2
            scaled = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
            network[k] = network[k] - _RATE * (scaled + _DECAY * network[k] * (network[k].ndim > 1))
        if held is not None:
            loss = float(((_run(tuple(network), held[0]) - held[1]) ** 2).mean())
            if loss < least:
                best, least = step, loss
    return tuple(network), best


def _ridge(vectors: np.ndarray, labels: np.ndarray, ridge: float) -> tuple[np.ndarray, float]:
    mean, center = vectors.mean(axis=0), labels.mean()
    x = vectors - mean
    weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ (labels - center))
    return weights, float(center - mean @ weights)


def _platt(scores: np.ndarray, is_good: np.ndarray) -> np.ndarray:
    """Slope and offset of the sigmoid, by Newton's method with a weak prior on the slope (Platt, 1999)."""
    design = np.stack([scores, np.ones_like(scores)], axis=1)
    n_good = int(is_good.sum())
    target = np.where(is_good, (n_good + 1) / (n_good + 2), 1 / (len(scores) - n_good + 2))
    prior, weights = np.diag([1e-2, 1e-6]), np.array([1.0, -float(scores.mean())])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (p - target) + prior @ (weights - np.array([1.0, 0.0]))
        curvature = (design * (p * (1 - p))[:, None]).T @ design + prior
        step = np.linalg.solve(curvature, gradient)
        weights = weights - np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-9:
            break
    return weights


def train(
    rows: Sequence[dict[str, Any]],
    parts: np.ndarray,
    config: ClassifierConfig,
    good: float,
    folder: Path,
    seed: int,
) -> dict[str, Any]:
    """Train both classifiers on rows {text, label} and write `quality.bin` and `embedding.npz` to a folder.

    Args:
        parts: object [n], see `split`.

    Returns:
        {"rows": {part: rows}, "good": {part: rows}, "fasttext": …}.

    Raises:
        ValueError: the training rows have documents on one side of `good` only.
    """
    labels = np.array([row["label"] for row in rows], np.float64)
    is_good = labels >= good
    chosen, held = parts == "train", parts == "calibration"
    counts = {p: int((parts == p).sum()) for p in ("train", "calibration", "test")}
    goods = {p: int((is_good & (parts == p)).sum()) for p in counts}
    if not 0 < goods["train"] < counts["train"]:
        low, high = labels.min(), labels.max()
        raise ValueError(
            f"{goods['train']} of {counts['train']} labels to train on reach {good:.3g}, so there is nothing to tell apart; "
            f"they go from {low:.3g} to {high:.3g}: choose another `good`, or `good_share=0.3`, the best 30%"
        )
    texts = [row["text"] for row in rows]
    names = [GOOD if g else POOR for g in is_good]
    path = folder / "quality.bin"
    trained = fasttext.train(((texts[i], names[i]) for i in np.flatnonzero(chosen)), config, path, seed)
    classifier = fasttext.Classifier(path, config.max_characters)
    on = np.flatnonzero(held)
    found = calibrate.fit(
        classifier.scores([texts[i] for i in on]), [names[i] for i in on], classifier.labels
    )
    calibrate.write(found, path, trained["sha256"])
    head = fit_head(
        [texts[i] for i in np.flatnonzero(chosen)],
        labels[chosen],
        ([texts[i] for i in on], labels[on]),
        good,
        seed,
    )
    head.save(folder / "embedding.npz")
    summary = {k: v for k, v in trained.items() if isinstance(v, (int, float, str))}
    return {
        "rows": counts,
        "good": goods,
        FASTTEXT: summary | {"calibration": found.method if found else "none"},
    }


def rounded(labels: np.ndarray) -> np.ndarray:
    """Whole labels, half up."""
    return np.floor(labels + 0.5)


class Scorer:
    """Both classifiers of a folder."""

    def __init__(self, folder: Path, config: ClassifierConfig) -> None:
        self.fasttext = fasttext.Classifier(folder / "quality.bin", config.max_characters)
        self.column = self.fasttext.column(GOOD)
        self.head = Head.load(folder / "embedding.npz")
        self.seconds = {FASTTEXT: 0.0, EMBEDDING: 0.0}
        """CPU seconds that words have taken, and embeddings with both of their heads."""

    def scores(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """P(good) by classifier, float64 [n]; 0 where fastText knows no word."""
        began = time.process_time()
        words = self.fasttext.scores(list(texts))[:, self.column].astype(np.float64)
        between = time.process_time()
        linear, network = self.head.probabilities(texts)
        found = {FASTTEXT: np.nan_to_num(words, nan=0.0), EMBEDDING: linear, NETWORK: network}
        self.seconds[FASTTEXT] += between - began
        self.seconds[EMBEDDING] += time.process_time() - between
        return found

    def words(self, texts: Sequence[str], least: int = 5, shown: int = 30) -> dict[str, list[str]]:
        """The words, of those in at least `least` texts, that alone make a text good or poor for fastText."""
        counts: dict[str, int] = {}
        for text in texts:
            for word in set(text[:20_000].split()):
                counts[word] = counts.get(word, 0) + 1
        words = sorted(w for w, n in counts.items() if n >= least and len(w) > 2)
        if not words:
            return {GOOD: [], POOR: []}
        scores = np.nan_to_num(self.fasttext.scores(words)[:, self.column], nan=0.5)
        order = np.argsort(-scores, kind="stable")
        return {GOOD: [words[i] for i in order[:shown]], POOR: [words[i] for i in order[::-1][:shown]]}
