"""Calibration: probabilities that mean what they say, fitted on rows that the training has not seen.

Temperature for any number of labels (Guo et al., 2017, On Calibration of Modern Neural Networks, section 4.2); for two
labels also Platt's sigmoid (Platt, 1999) and isotonic regression (Zadrozny and Elkan, 2002). A calibration is a small JSON
file beside its model, `NAME.calibration.json`, bound to it by digest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import orjson

from data_pipeline.packed.files import write_atomically

FLOOR = 1e-7
"""Smallest probability whose logarithm is taken."""
LEAST_ROWS = 50
"""Rows without which nothing is fitted; the rarer of two labels needs as many for a sigmoid, ten times for isotonic."""
_FOLDS = 5
_MAX_KNOTS = 200


@dataclass(frozen=True)
class Calibration:
    """A map from a model's probabilities to calibrated ones."""

    method: Literal["temperature", "platt", "isotonic"]
    """How it was fitted."""
    temperature: float = 1.0
    """`temperature`: logarithms of the probabilities are divided by it."""
    slope: float = 1.0
    """`platt`: factor of the logit of the second of two labels."""
    offset: float = 0.0
    """`platt`: what is added to it."""
    inputs: tuple[float, ...] = ()
    """`isotonic`: probabilities of the second of two labels, rising."""
    outputs: tuple[float, ...] = ()
    """`isotonic`: the calibrated probabilities there; linear in between."""

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32 [n, k], of probabilities [n, k]; rows of NaN stay NaN."""
        if len(scores) == 0:
            return scores.astype(np.float32)
        if self.method == "temperature":
            scaled = np.log(np.maximum(scores, FLOOR).astype(np.float64)) / self.temperature
            scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
            return (scaled / scaled.sum(axis=1, keepdims=True)).astype(np.float32)
        second = scores[:, 1].astype(np.float64)
        if self.method == "platt":
            second = _sigmoid(self.slope * _logit(second) + self.offset)
        else:
            found = np.interp(second, self.inputs, self.outputs)
            second = np.where(np.isnan(second), np.nan, found)
        return np.stack([1 - second, second], axis=1).astype(np.float32)


def fit(scores: np.ndarray, truth: Sequence[str], labels: Sequence[str]) -> Calibration | None:
    """The calibration that foresees held-out rows best, or None where nothing beats the scores as they are.

    Candidates are compared by log loss over five folds, so isotonic regression does not win by learning the rows by
    heart. The order of the rows makes no difference.

    Args:
        scores: float [n, k] probabilities; rows of NaN are left out.
        truth: right label of each row; rows of other labels are left out.
        labels: names of the k columns.
    """
    column = {label: i for i, label in enumerate(labels)}
    right = np.array([column.get(label, -1) for label in truth], np.int64)
    usable = (right >= 0) & ~np.isnan(scores).any(axis=1)
    scores, right = scores[usable].astype(np.float64), right[usable]
    if len(right) < LEAST_ROWS:
        return None
    order = np.lexsort((right, *scores.T[::-1]))
    scores, right = scores[order], right[order]
    methods: list[Callable[[np.ndarray, np.ndarray], Calibration]] = [_temperature]
    rarer = int(np.bincount(right, minlength=len(labels)).min()) if len(labels) == 2 else 0
    if rarer >= LEAST_ROWS:
        methods.append(_platt)
    if rarer >= 10 * LEAST_ROWS:
        methods.append(_isotonic)
    best, least = None, _log_loss(scores, right)
    fold = np.arange(len(right)) % _FOLDS
    for method in methods:
        losses = [
            _log_loss(method(scores[fold != f], right[fold != f]).apply(scores[fold == f]), right[fold == f])
            * int((fold == f).sum())
            for f in range(_FOLDS)
        ]
        loss = sum(losses) / len(right)
        # A method with more freedom must earn it.
        if loss < least * 0.995:
            best, least = method, loss
    return best(scores, right) if best else None


def path_of(model: Path) -> Path:
    """Where the calibration of a model lies."""
    return model.with_name(f"{model.stem}.calibration.json")


def write(calibration: Calibration | None, model: Path, digest: str) -> None:
    """Write the calibration of a model, whose SHA-256 is `digest`; None removes the file."""
    path = path_of(model)
    if calibration is None:
        path.unlink(missing_ok=True)
        return
    content = {"model_sha256": digest} | asdict(calibration)
    write_atomically(path, orjson.dumps(content, option=orjson.OPT_INDENT_2))


def read(model: Path, digest: str) -> Calibration | None:
    """Calibration of a model, None where there is none.

    Raises:
        ValueError: the file is damaged, or belongs to another model.
    """
    path = path_of(model)
    if not path.is_file():
        return None
    try:
        content = orjson.loads(path.read_bytes())
        belongs_to = content.pop("model_sha256")
        content |= {key: tuple(content.get(key, ())) for key in ("inputs", "outputs")}
        calibration = Calibration(**content)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no calibration ({error}); remove it, or train the model again") from None
    if belongs_to != digest:
        raise ValueError(f"{path} belongs to another model than {model}; remove it, or train the model again")
    return calibration


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, FLOOR, 1 - FLOOR)
    return np.log(p) - np.log1p(-p)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _log_loss(scores: np.ndarray, right: np.ndarray) -> float:
    chosen = scores[np.arange(len(right)), right].astype(np.float64)
    return float(-np.log(np.maximum(chosen, FLOOR)).mean())


def _temperature(scores: np.ndarray, right: np.ndarray) -> Calibration:
    """Golden-section search: the loss has one minimum in the logarithm of the temperature."""
    low, high, golden = math.log(0.05), math.log(20.0), (math.sqrt(5) - 1) / 2

    def loss(x: float) -> float:
        # The prior matters only where rows are few: a model that got all of them right is not thereby certain.
        prior = x * x / len(right)
        return prior + _log_loss(Calibration("temperature", temperature=math.exp(x)).apply(scores), right)

    a, b = high - golden * (high - low), low + golden * (high - low)
    loss_a, loss_b = loss(a), loss(b)
    for _ in range(24):
        if loss_a < loss_b:
            high, b, loss_b = b, a, loss_a
            a = high - golden * (high - low)
            loss_a = loss(a)
        else:
            low, a, loss_a = a, b, loss_b
            b = low + golden * (high - low)
            loss_b = loss(b)
    return Calibration("temperature", temperature=round(math.exp((low + high) / 2), 6))


def _platt(scores: np.ndarray, right: np.ndarray) -> Calibration:
    """Newton's method on the logit, with Platt's smoothed targets."""
    x, is_second = _logit(scores[:, 1]), right == 1
    n_second = int(is_second.sum())
    n_first = len(right) - n_second
    target = np.where(is_second, (n_second + 1) / (n_second + 2), 1 / (n_first + 2))
    design = np.stack([x, np.ones_like(x)], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(50):
        p = _sigmoid(design @ weights)
        gradient = design.T @ (p - target)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-9:
            break
    return Calibration("platt", slope=round(float(weights[0]), 9), offset=round(float(weights[1]), 9))


def _isotonic(scores: np.ndarray, right: np.ndarray) -> Calibration:
    """Pool adjacent violators; knots at the mean input of each pool, shrunk so that nothing becomes certain."""
    order = np.argsort(scores[:, 1], kind="stable")
    x, y = scores[order, 1], (right[order] == 1).astype(np.float64)
    # Equal inputs are one pool from the start; beyond that, pools of equal numbers of rows bound the file's size.
    edges = np.flatnonzero(np.diff(x, prepend=-1.0))
    edges = edges[:: max(1, len(edges) // _MAX_KNOTS)]
    counts = np.diff(np.append(edges, len(x))).astype(np.float64)
    pools: list[list[float]] = []
    for n, sum_x, sum_y in zip(counts, np.add.reduceat(x, edges), np.add.reduceat(y, edges), strict=True):
        pools.append([float(n), float(sum_x), float(sum_y)])
        while len(pools) > 1 and pools[-2][2] * pools[-1][0] >= pools[-1][2] * pools[-2][0]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    inputs = tuple(round(s / n, 9) for n, s, _ in pools)
    outputs = tuple(round((s + 0.5) / (n + 1), 9) for n, _, s in pools)
    # Shrinking small pools may break the order.
    return Calibration("isotonic", inputs=inputs, outputs=tuple(np.maximum.accumulate(outputs).tolist()))
