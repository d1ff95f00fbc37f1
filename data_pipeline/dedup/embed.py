"""Embeddings of documents: latent semantic analysis of the corpus itself, or a sentence-transformers model.

The default needs no download. Word stems are hashed, weighted by log term frequency and by the inverse document
frequency of the corpus, and projected on the leading right singular vectors of a sample of it (Deerwester et al.,
1990; randomised SVD after Halko et al., 2011). Two texts on one thing lie close together whichever of its words they use.

Shapes: n documents, f features, d embedding width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import types

from data_pipeline.compiled import kernel
from data_pipeline.dedup.coverage import STEM
from data_pipeline.packed.files import atomic_file
from data_pipeline.wordhash import words

FEATURES = 1 << 18
SAMPLE = 20_000
"""Documents that the projection is fitted on."""
_OVERSAMPLING = 16
_POWER_ITERATIONS = 2
_SEED = 0x5E4D


@dataclass(frozen=True)
class Projection:
    """The fitted default embedding."""

    inverse: np.ndarray
    """float32 [f]: weight of a feature, smoothed inverse document frequency; 0: in no document of the sample."""
    row: np.ndarray
    """int32 [f]: row of `directions`, where `inverse` is not 0."""
    directions: np.ndarray
    """float32 [features in use, d]."""

    def save(self, path: Path) -> None:
        """Write to a `.npz` file, by atomic rename."""
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, inverse=self.inverse, row=self.row, directions=self.directions)

    @staticmethod
    def load(path: Path) -> Projection:
        """Read what `save` wrote."""
        with np.load(path) as found:
            return Projection(found["inverse"], found["row"], found["directions"])

    def embed(self, text: str) -> np.ndarray:
        """Embedding float32 [d] of unit length; zero where no word of the text is known."""
        features, counts = terms(text)
        total = _weighted_sum(features, 1 + np.log(counts), self.inverse, self.row, self.directions)
        length = np.sqrt((total**2).sum())
        return (total / length if length > 0 else total).astype(np.float32)


def terms(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Hashed word stems of a text: features int64, ascending, and their counts int64."""
    hashes = words(text, STEM)[0]
    features = np.sort((hashes >> np.uint64(46)).astype(np.int64))
    starts = np.flatnonzero(np.diff(features, prepend=-1))
    return features[starts], np.diff(starts, append=len(features))


@kernel(
    types.float64[::1](
        types.int64[::1], types.float64[::1], types.float32[::1], types.int32[::1], types.float32[:, ::1]
    )
)
def _weighted_sum(features, weights, inverse, row, directions):  # type: ignore[no-untyped-def]
    # In order and in float64: the sum is the same on every machine.
    total = np.zeros(directions.shape[1])
    for k in range(len(features)):
        weight = weights[k] * inverse[features[k]]
        if weight > 0:
            line = directions[row[features[k]]]
            for d in range(len(total)):
                total[d] += weight * line[d]
    return total


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the columns; by their small Gram matrix, many times as fast as QR of a tall matrix."""
    values, vectors = np.linalg.eigh(columns.T @ columns)
    solid = values > 1e-10 * max(values.max(initial=0.0), 1e-300)
    return columns @ (vectors[:, solid] / np.sqrt(values[solid]))


def fit(texts: Iterable[str], dim: int) -> Projection:
    """Fit the projection on texts, see `fit_terms`."""
    return fit_terms(map(terms, texts), dim)


def fit_terms(documents: Iterable[tuple[np.ndarray, np.ndarray]], dim: int) -> Projection:
    """Fit the projection on the `terms` of documents.

    Fewer documents than `dim` give fewer directions; the rest of the embedding is zero.
    """
    from scipy import sparse

    indices, values, ends = [], [], [0]
    for features, counts in documents:
        indices.append(features)
        values.append(1 + np.log(counts))
        ends.append(ends[-1] + len(features))
    n = len(indices)
    flat = np.concatenate(indices) if n else np.zeros(0, np.int64)
    frequency = np.bincount(flat, minlength=FEATURES)
    used = np.flatnonzero(frequency)
    inverse = np.zeros(FEATURES, np.float32)
    inverse[used] = np.log((1 + n) / (1 + frequency[used])) + 1
    row = np.zeros(FEATURES, np.int32)
    row[used] = np.arange(len(used))
    directions = np.zeros((len(used), dim), np.float32)
    if not len(used):
        return Projection(inverse, row, directions)
    weights = np.concatenate(values) * inverse[flat]
    matrix = sparse.csr_matrix((weights, row[flat], np.array(ends)), shape=(n, len(used)))
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    matrix = sparse.diags_array(1 / np.maximum(length, 1e-12)) @ matrix
    rank = min(dim, n, len(used))
    probe = np.random.default_rng(_SEED).standard_normal((len(used), min(rank + _OVERSAMPLING, n, len(used))))
    transposed = matrix.T.tocsr()
    basis = _orthonormal(matrix @ probe)
    for _ in range(_POWER_ITERATIONS):
        basis = _orthonormal(matrix @ _orthonormal(transposed @ basis))
    # Right singular vectors of basisᵀ · matrix, by the small square of it.
    small = transposed @ basis
    values_, vectors = np.linalg.eigh(small.T @ small)
    order = np.argsort(-values_, kind="stable")[:rank]
    order = order[values_[order] > 1e-10 * values_.max()]
    directions[:, : len(order)] = (small @ vectors[:, order]) / np.sqrt(values_[order])
    return Projection(inverse, row, directions)


@functools.lru_cache(maxsize=1)
def load_model(name: str) -> Any:
    """A sentence-transformers model by name or folder, on the CPU or the GPU that torch finds."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(name)


def encode(name: str, texts: list[str]) -> np.ndarray:
    """Embeddings float32 [n, d] of unit length by a sentence-transformers model; zero for texts without words."""
    model = load_model(name)
    vectors = np.asarray(model.encode(texts, normalize_embeddings=True, show_progress_bar=False), np.float32)
    vectors[[not text.strip() for text in texts]] = 0
    return vectors
