"""Semantic deduplication: near neighbours within clusters of embeddings (SemDeDup, Abbas et al., 2023).

The default embedding needs no model: hashed TF-IDF of words and word pairs, sent through a fixed random sign
projection (Achlioptas, 2003), which keeps cosines up to about 1/sqrt(dim). It finds documents with the same vocabulary
in another order or with other details; it does not find paraphrases.

Embeddings are sums of integers, so they are equal on every machine and in every order of summation. k-means runs on
one thread over documents in order of preference, so its clusters do not depend on shards or workers either.

Shapes: n documents, f features, d embedding width, k clusters.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np

from configs.edge import ConfigError
from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import corpus as corpora
from data_pipeline.dedup.corpus import Corpus
from data_pipeline.dedup.shingles import mix, shingle_hashes

STEP = "semantic"
FEATURES = 1 << 16
_PROJECTION_SEED = 0x5E4D
_TRAINING_POINTS_PER_CLUSTER = 256
_ITERATIONS = 10
_BLOCK = 1024
# Weights are rounded to multiples of 1/4096 before they are summed: exact in int64, finer than the projection's noise.
_SCALE = 4096


def check(config: DedupConfig) -> None:
    """Raise ConfigError for parameters that cannot be used."""
    if config.semantic_dim < 8:
        raise ConfigError(f"`dedup.semantic_dim` must be at least 8, but it is {config.semantic_dim}")
    if not 0 < config.semantic_similarity <= 1:
        raise ConfigError(
            f"`dedup.semantic_similarity` must lie in (0, 1], but it is {config.semantic_similarity}"
        )
    if config.semantic_clusters is not None and config.semantic_clusters < 1:
        raise ConfigError(
            f"`dedup.semantic_clusters` must be at least 1, but it is {config.semantic_clusters}"
        )


def decide(run_dir: Path, shards: list[int], config: DedupConfig) -> dict[str, int]:
    """Drop documents whose embedding is near that of a preferred one of their cluster; write `decisions/semantic`.

    Embeddings lie in a memory-mapped file under `run_dir/scratch`, removed at the end. Documents without words stay.

    Returns:
        Counts of `corpus.write`, and "k", the number of clusters of the k-means.
    """
    check(config)
    corpus = corpora.load(run_dir, shards, STEP, config.keep)
    scratch = run_dir / "scratch" / STEP
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        embedded = embed(corpus, config.semantic_dim, scratch)
        k = config.semantic_clusters or max(1, math.isqrt(len(corpus)))
        cluster = assign_clusters(embedded, k)
        representative, similarity = near_neighbours(embedded, cluster, config.semantic_similarity)
        del embedded
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not any(scratch.parent.iterdir()):
            scratch.parent.rmdir()
    return corpora.write(corpus, STEP, representative, similarity) | {"k": int(cluster.max(initial=-1)) + 1}


def embed(corpus: Corpus, dim: int, scratch: Path) -> np.ndarray:
    """Embeddings float32 [n, d] of unit length (memory-mapped); zero for documents without words."""
    n = len(corpus)
    offsets = np.zeros(n + 1, np.int64)
    sizes = np.zeros(n, np.int64)
    document_frequency = np.zeros(FEATURES, np.int64)
    position = 0
    path = scratch / "terms"
    with path.open("wb") as file:
        for documents, texts in corpus.texts():
            for i, (features, counts) in zip(documents.tolist(), term_counts(texts), strict=True):
                document_frequency[features] += 1
                offsets[i], sizes[i] = position, len(features)
                file.write(np.stack([features, np.minimum(counts, 65535)]).astype(np.uint16).tobytes())
                position += len(features)
    # Smoothed inverse document frequency: ln((1 + n) / (1 + df)) + 1, never zero.
    inverse = np.log((1 + n) / (1 + document_frequency)) + 1
    signs = projection(dim)
    embedded = np.memmap(scratch / "embeddings", np.float32, "w+", shape=(max(n, 1), dim))
    terms = np.memmap(path, np.uint16, "r") if position else np.zeros(0, np.uint16)
    for i in range(n):
        start, size = 2 * offsets[i], sizes[i]
        if not size:
            continue
        features, counts = terms[start : start + size], terms[start + size : start + 2 * size]
        weights = np.rint(_SCALE * (1 + np.log(counts.astype(np.float64))) * inverse[features]).astype(
            np.int64
        )
        total = _signed_sum(weights, signs[features])
        length = math.sqrt(float((total.astype(np.float64) ** 2).sum()))
        embedded[i] = total / length if length else 0
    return embedded[:n]


def _signed_sum(weights: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """weights int64 [f] times signs int8 [f, d], exactly, as float64 [d].

    Products of integers below 2**53 are exact in float64 in any order of summation, so BLAS may be used.
    """
    return weights.astype(np.float64) @ signs.astype(np.float64)


def projection(dim: int) -> np.ndarray:
    """The fixed random signs, int8 [f, d]."""
    words = -(-dim // 64)
    keys = mix(np.arange(FEATURES * words, dtype=np.uint64) + (np.uint64(_PROJECTION_SEED) << np.uint64(40)))
    bits = np.unpackbits(keys.astype("<u8").view(np.uint8).reshape(FEATURES, words * 8), axis=1)[:, :dim]
    return (bits.astype(np.int8) << 1) - np.int8(1)


def term_counts(texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Hashed words and word pairs of each text: (features int64 ascending, counts int64)."""
    found: list[list[np.ndarray]] = [[] for _ in texts]
    for ngram in (1, 2):
        for first, hashes, ends in shingle_hashes(texts, ngram):
            for k, part in enumerate(np.split(hashes, ends[:-1]), first):
                found[k].append((part >> np.uint64(48)).astype(np.int64))
    terms = []
    for parts in found:
        features, counts = np.unique(np.concatenate(parts), return_counts=True)
        terms.append((features, counts))
    return terms


def assign_clusters(embedded: np.ndarray, k: int) -> np.ndarray:
    """Cluster of each document, int64 [n], by spherical k-means (faiss) on a fixed choice of at most 256 · k documents.

    Fewer documents than clusters: as many clusters as documents.
    """
    import faiss

    n, dim = embedded.shape
    if n == 0:
        return np.zeros(0, np.int64)
    k = min(k, n)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(
        1
    )  # several threads add in another order, and a document may change its cluster
    try:
        wanted = min(n, k * _TRAINING_POINTS_PER_CLUSTER)
        chosen = np.sort(np.argsort(mix(np.arange(1, n + 1, dtype=np.uint64)), kind="stable")[:wanted])
        kmeans = faiss.Kmeans(
            dim, k, niter=_ITERATIONS, seed=1234, spherical=True, min_points_per_centroid=1,
            max_points_per_centroid=_TRAINING_POINTS_PER_CLUSTER,
        )  # fmt: skip
        kmeans.train(np.ascontiguousarray(embedded[chosen]))
        cluster = np.zeros(n, np.int64)
        for low in range(0, n, 1 << 14):
            _, nearest = kmeans.index.search(np.ascontiguousarray(embedded[low : low + (1 << 14)]), 1)
            cluster[low : low + (1 << 14)] = nearest[:, 0]
    finally:
        faiss.omp_set_num_threads(threads)
    return cluster


def near_neighbours(
    embedded: np.ndarray, cluster: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Within each cluster, in order of preference, drop what is near a document that stays.

    Memory is one block of documents against another, whatever the size of a cluster.

    Returns:
        representative int64 [n] (itself where it stays) and similarity float32 [n].
    """
    n = len(cluster)
    representative = np.arange(n)
    similarity = np.ones(n, np.float32)
    order = np.argsort(cluster, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1) if n else []:
        stays: list[np.ndarray] = []
        for low in range(0, len(members), _BLOCK):
            block = members[low : low + _BLOCK]
            vectors = np.asarray(embedded[block])
            best = np.full(len(block), -1.0, np.float32)
            nearest = np.full(len(block), -1, np.int64)
            for kept in stays:
                cosines = vectors @ np.asarray(embedded[kept]).T
                at = cosines.argmax(axis=1)
                value = cosines[np.arange(len(block)), at]
                closer = value > best
                best[closer], nearest[closer] = value[closer], kept[at[closer]]
            own = vectors @ vectors.T
            alive = np.zeros(len(block), bool)
            for i in range(len(block)):
                if alive[:i].any():
                    j = int(np.where(alive[:i], own[i, :i], -2.0).argmax())
                    if own[i, j] > best[i]:
                        best[i], nearest[i] = own[i, j], block[j]
                alive[i] = best[i] < threshold
            dropped = ~alive
            representative[block[dropped]] = nearest[dropped]
            similarity[block[dropped]] = np.minimum(best[dropped], 1.0)
            if alive.any():
                stays.append(block[alive])
    return representative, similarity
