"""Semantic deduplication: near neighbours within clusters of embeddings (SemDeDup, Abbas et al., 2023).

Embeddings propose, coverage confirms: of two neighbours in a cluster the less preferred is dropped where their cosine
reaches `semantic_similarity` and, unless `semantic_coverage` is 0, that share of its pairs of nearby word stems also
stands in the one that stays (`dedup.coverage`). The first finds documents about the same thing, the second keeps apart
those that merely share a topic. With a neural embedder a coverage of 0 gives the paper's method.

In four parts, so that a run can divide them: `prepare` (order of preference, projection), `embed` (a shard),
`cluster` (k-means), `neighbours` (a part of the clusters); `decide` joins them. Nothing depends on how documents are
spread over shards, and memory is bounded by one shard's texts, the training sample of k-means and one cluster.

Shapes: n documents, d embedding width, k clusters.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import corpus as corpora
from data_pipeline.dedup import coverage, embed
from data_pipeline.dedup.arrays import Arrays
from data_pipeline.dedup.arrays import write as write_arrays
from data_pipeline.dedup.corpus import Corpus
from data_pipeline.dedup.settings import HASHED, check_semantic
from data_pipeline.dedup.shingles import mix
from data_pipeline.document import shard_path, write_table

_one_thread = threadpool_limits.wrap(limits=1)
"""Of a function: linear algebra has one thread, for several add in another order, and bits would depend on the machine."""
STEP = "semantic"
FOLDER = "semantic"
LARGEST_CLUSTER = 16_384
"""Documents of a cluster; a larger one is divided again."""
FITTED = 1 << 16
"""Characters of a document of the sample that the projection is fitted on."""
CHECKED = 64
"""Nearest documents whose coverage is looked at, for each document."""
_TRAINING_POINTS_PER_CLUSTER = 256
_ITERATIONS = 10
_BLOCK = 1024
MAPPED = 128
"""Arrays of shards that are mapped at a time: each takes a file descriptor."""
NEIGHBOUR = np.dtype(
    [("document", "<i8"), ("representative", "<i8"), ("similarity", "<f4"), ("coverage", "<f4")]
)


def run(run_dir: Path, shards: list[int], config: DedupConfig, parts: int = 1) -> dict[str, int]:
    """All parts one after the other, in one process; the counts of `decide`."""
    prepare(run_dir, shards, config)
    for shard in shards:
        embed_shard(run_dir, shard, config)
    cluster(run_dir, config)
    for part in range(parts):
        neighbours(run_dir, part, parts, config)
    return decide(run_dir, config)


@_one_thread
def prepare(run_dir: Path, shards: list[int], config: DedupConfig) -> dict[str, int]:
    """Order of preference of the documents that are left, and the fitted projection of the default embedder."""
    check_semantic(config)
    keep: Literal["quality", "longest", "first"] = config.keep
    if config.semantic_keep not in (None, "centroid"):
        keep = config.semantic_keep  # type: ignore[assignment]
    corpus = corpora.load(run_dir, shards, STEP, keep)
    numbers = np.array(corpus.shards, np.int64)
    write_arrays(
        run_dir / FOLDER / "documents.arrays",
        {"shards": numbers, "shard": corpus.shard, "row": corpus.row, "id": corpus.id},
    )
    if config.embedder == HASHED:
        # By id, so that the sample is the same however documents are spread over shards.
        chosen = np.zeros(len(corpus), bool)
        chosen[np.argsort(mix(corpus.id[:, 0] ^ corpus.id[:, 1]), kind="stable")[: embed.SAMPLE]] = True
        terms: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for documents, texts in corpus.texts(chosen):
            found = (embed.terms(text[:FITTED]) for text in texts)
            terms.update(zip(documents.tolist(), found, strict=True))
        # In order of preference, whatever the shards.
        model = embed.fit_terms((terms[i] for i in sorted(terms)), config.semantic_dim)
        model.save(run_dir / FOLDER / "projection.npz")
    return {"documents": len(corpus)}


def embed_shard(run_dir: Path, shard: int, config: DedupConfig) -> dict[str, int]:
    """Embeddings (float16 [rows, d]) and coverage sketches of a shard's documents that are left, in row order."""
    corpus = _corpus(run_dir)
    chosen = dict(corpus.by_shard()).get(shard, np.zeros(0, np.int64))
    vectors: list[np.ndarray] = []
    sketches: list[np.ndarray] = []
    levels: list[int] = []
    model = embed.Projection.load(run_dir / FOLDER / "projection.npz") if config.embedder == HASHED else None
    for _, column in corpora.texts_of(run_dir, shard, corpus.row[chosen]):
        texts = [text or "" for text in column.to_pylist()]
        if model is None:
            vectors += list(embed.encode(config.embedder, texts).astype(np.float16))
        else:
            vectors += [model.embed(text).astype(np.float16) for text in texts]
        for text in texts if config.semantic_coverage > 0 else ():
            found, level = coverage.sketch(text)
            sketches.append(found)
            levels.append(level)
    write_arrays(
        run_dir / FOLDER / "vectors" / f"{shard:05d}.arrays",
        {
            "vectors": np.stack(vectors) if vectors else np.zeros((0, config.semantic_dim), np.float16),
            "grams": np.concatenate([np.zeros(0, np.uint32), *sketches]),
            "ends": np.cumsum([0, *map(len, sketches)]).astype(np.int64),
            "levels": np.array(levels, np.uint8),
        },
    )
    return {"documents": len(vectors)}


class _Vectors:
    """Embeddings and sketches of any documents, from the files of their shards."""

    def __init__(self, run_dir: Path, corpus: Corpus) -> None:
        self._files = [
            Arrays(run_dir / FOLDER / "vectors" / f"{shard:05d}.arrays") for shard in corpus.shards
        ]
        self._shard = corpus.shard
        self.position = np.zeros(len(corpus), np.int64)
        for _, chosen in corpus.by_shard():
            self.position[chosen] = np.arange(len(chosen))
        self._maps: dict[tuple[int, str], np.ndarray] = {}
        widths = {f.shape("vectors")[1] for f in self._files if f.shape("vectors")[0]}
        self.width = max(widths, default=8)

    def _mapped(self, shard: int, name: str) -> np.ndarray:
        if (shard, name) not in self._maps:
            if len(self._maps) >= MAPPED:
                self._maps.clear()
            self._maps[shard, name] = self._files[shard].map(name)
        return self._maps[shard, name]

    def read(self, chosen: np.ndarray) -> np.ndarray:
        """float32 [m, d]."""
        found = np.zeros((len(chosen), self.width), np.float32)
        for shard in np.unique(self._shard[chosen]).tolist():
            mask = self._shard[chosen] == shard
            found[mask] = self._mapped(shard, "vectors")[self.position[chosen[mask]]]
        return found

    def sketches(self, chosen: np.ndarray) -> list[tuple[np.ndarray, int]]:
        """Sketch and level of each."""
        found: list[tuple[np.ndarray, int]] = [(np.zeros(0, np.uint32), 0)] * len(chosen)
        for shard in np.unique(self._shard[chosen]).tolist():
            grams, ends, levels = (self._mapped(shard, name) for name in ("grams", "ends", "levels"))
            for at in np.flatnonzero(self._shard[chosen] == shard).tolist():
                row = self.position[chosen[at]]
                found[at] = (np.array(grams[ends[row] : ends[row + 1]]), int(levels[row]))
        return found


def _corpus(run_dir: Path) -> Corpus:
    file = Arrays(run_dir / FOLDER / "documents.arrays")
    return Corpus(
        run_dir, tuple(file.read("shards").tolist()), file.read("shard"), file.read("row"), file.read("id")
    )


def cluster(run_dir: Path, config: DedupConfig) -> dict[str, int]:
    """Cluster of each document by spherical k-means (faiss); clusters beyond LARGEST_CLUSTER are divided again."""
    corpus = _corpus(run_dir)
    vectors = _Vectors(run_dir, corpus)
    every = np.arange(len(corpus))
    k = config.semantic_clusters or max(1, math.isqrt(len(corpus)))
    labels = _k_means(vectors, every, k)
    pending, found, count = _members(every, labels), np.zeros(len(corpus), np.int64), 0
    while pending:
        members = pending.pop()
        if len(members) > LARGEST_CLUSTER:
            parts = _members(members, _k_means(vectors, members, -(-2 * len(members) // LARGEST_CLUSTER)))
            if max(map(len, parts)) > 0.9 * len(members):
                # Nothing to tell them apart by: neighbours in the order of preference stay together.
                parts = np.array_split(members, -(-len(members) // LARGEST_CLUSTER))
            pending += parts[::-1]
            continue
        found[members] = count
        count += 1
    write_arrays(run_dir / FOLDER / "clusters.arrays", {"cluster": found}, {"k": count})
    return {"documents": len(corpus), "k": count}


def _members(documents: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Documents of each label, the last label first."""
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.diff(labels[order])) + 1
    return [documents[part] for part in np.split(order, ends)][::-1] if len(documents) else []


def _k_means(vectors: _Vectors, documents: np.ndarray, k: int) -> np.ndarray:
    """Label of each document, trained on a fixed choice of at most 256 · k of them."""
    import faiss

    n = len(documents)
    k = min(k, n)
    if k < 2:
        return np.zeros(n, np.int64)
    with threadpool_limits(1):
        wanted = min(n, k * _TRAINING_POINTS_PER_CLUSTER)
        chosen = np.sort(np.argsort(mix(np.arange(1, n + 1, dtype=np.uint64)), kind="stable")[:wanted])
        kmeans = faiss.Kmeans(
            vectors.width, k, niter=_ITERATIONS, seed=1234, spherical=True, min_points_per_centroid=1,
            max_points_per_centroid=_TRAINING_POINTS_PER_CLUSTER,
        )  # fmt: skip
        kmeans.train(vectors.read(documents[chosen]))
        labels = np.zeros(n, np.int64)
        for low in range(0, n, 1 << 14):
            _, nearest = kmeans.index.search(vectors.read(documents[low : low + (1 << 14)]), 1)
            labels[low : low + (1 << 14)] = nearest[:, 0]
    return labels


@_one_thread
def neighbours(run_dir: Path, part: int, parts: int, config: DedupConfig) -> dict[str, int]:
    """Who is dropped in favour of whom, in part `part` of `parts` of the clusters."""
    corpus = _corpus(run_dir)
    vectors = _Vectors(run_dir, corpus)
    file = Arrays(run_dir / FOLDER / "clusters.arrays")
    labels, k = file.read("cluster"), int(file.meta["k"])
    sizes = np.bincount(labels, minlength=k)
    # Shared out by documents: part p has the clusters that end in its share of them.
    owner = (np.cumsum(sizes) * parts - 1) // max(len(corpus), 1)
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(sizes)
    rows = [np.zeros(0, NEIGHBOUR)]
    for number in np.flatnonzero((np.minimum(owner, parts - 1) == part) & (sizes > 1)).tolist():
        members = order[ends[number] - sizes[number] : ends[number]]
        embedded = vectors.read(members)
        if config.semantic_keep == "centroid":
            # The paper keeps what lies farthest from the centroid: the least typical.
            ranked = np.argsort(embedded @ embedded.mean(axis=0), kind="stable")
            members, embedded = members[ranked], embedded[ranked]
        sketches = vectors.sketches(members) if config.semantic_coverage > 0 else None
        found = near_neighbours(embedded, sketches, config.semantic_similarity, config.semantic_coverage)
        found["document"], found["representative"] = (
            members[found["document"]],
            members[found["representative"]],
        )
        rows.append(found)
    neighbour = np.concatenate(rows)
    write_arrays(
        run_dir / FOLDER / "neighbours" / f"{part:05d}.arrays",
        {name: np.ascontiguousarray(neighbour[name]) for name in NEIGHBOUR.names or ()},
    )
    return {"dropped": len(neighbour)}


def near_neighbours(
    embedded: np.ndarray,
    sketches: list[tuple[np.ndarray, int]] | None,
    similarity: float,
    covered: float = 0.0,
) -> np.ndarray:
    """Go through documents in order of preference and drop what is near one that stays.

    Args:
        embedded: float32 [n, d], of unit length or zero.
        sketches: for the coverage, or None where cosines alone decide.
        similarity: cosine from which two documents are neighbours.
        covered: coverage from which the less preferred of two neighbours is dropped.

    Returns:
        NEIGHBOUR rows of the dropped, by position in `embedded`; coverage is NaN where it does not decide.
    """
    n = len(embedded)
    rows: list[tuple[int, int, float, float]] = []
    stays = np.zeros(n, bool)
    kept = np.zeros(0, np.int64)
    for low in range(0, n, _BLOCK):
        block = np.arange(low, min(n, low + _BLOCK))
        before = _pairs(embedded, block, kept, similarity)
        within = _pairs(embedded, block, block, similarity)
        for i in block.tolist():
            other, cosine = before[i - low]
            own, close = within[i - low]
            alive = (own < i) & stays[own]
            other, cosine = np.concatenate([other, own[alive]]), np.concatenate([cosine, close[alive]])
            # Nearest first; equals in order of preference.
            order = np.lexsort((other, -cosine))[:CHECKED]
            found = _first(i, other[order], cosine[order], sketches, covered)
            if found is None:
                stays[i] = True
            else:
                rows.append(found)
        kept = np.concatenate([kept, block[stays[block]]])
    return np.array(rows, NEIGHBOUR)


def _pairs(
    embedded: np.ndarray, block: np.ndarray, others: np.ndarray, similarity: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each document of a block, those of `others` at least that similar, and the cosines."""
    near: list[tuple[list[np.ndarray], list[np.ndarray]]] = [([], []) for _ in block]
    for low in range(0, len(others), 4 * _BLOCK):
        part = others[low : low + 4 * _BLOCK]
        cosines = embedded[block] @ embedded[part].T
        at, which = np.nonzero(cosines >= similarity)
        ends = np.searchsorted(at, np.arange(1, len(block) + 1))
        start = 0
        for i, end in enumerate(ends.tolist()):
            if end > start:
                near[i][0].append(part[which[start:end]])
                near[i][1].append(cosines[i, which[start:end]])
            start = end
    none = np.zeros(0, np.int64), np.zeros(0, np.float32)
    return [(np.concatenate(a), np.concatenate(b)) if a else none for a, b in near]


def _first(
    i: int,
    others: np.ndarray,
    cosines: np.ndarray,
    sketches: list[tuple[np.ndarray, int]] | None,
    covered: float,
) -> tuple[int, int, float, float] | None:
    for other, cosine in zip(others.tolist(), cosines.tolist(), strict=True):
        if sketches is None or covered <= 0:
            return i, other, cosine, math.nan
        share = coverage.containment(*sketches[i], *sketches[other])
        if share >= covered:
            return i, other, cosine, share
    return None


def decide(run_dir: Path, config: DedupConfig) -> dict[str, int]:
    """Join what `neighbours` found: write `decisions/semantic` and, with the cosines, `signals/semantic`.

    The similarity of a dropped document is its coverage, or its cosine where coverage does not decide.

    Returns:
        Counts of `corpus.write`, and "k", the number of clusters.
    """
    corpus = _corpus(run_dir)
    n = len(corpus)
    representative = np.arange(n)
    cosine, share = np.full(n, np.nan, np.float32), np.full(n, np.nan, np.float32)
    for path in sorted((run_dir / FOLDER / "neighbours").glob("*.arrays")):
        file = Arrays(path)
        found = file.read("document")
        representative[found] = file.read("representative")
        cosine[found], share[found] = file.read("similarity"), file.read("coverage")
    clusters = Arrays(run_dir / FOLDER / "clusters.arrays")
    labels = clusters.read("cluster")
    documents = dict(corpus.by_shard())
    for shard in corpus.shards:
        ids = corpora.shard_ids(run_dir, shard)
        chosen = documents.get(shard, np.zeros(0, np.int64))
        rows = corpus.row[chosen]

        def column(values: np.ndarray, rows: np.ndarray = rows, size: int = len(ids)) -> pa.Array:
            absent = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
            return corpora.scatter(size, rows, pa.array(values, mask=absent))

        table = pa.table(
            [ids, column(labels[chosen]), column(cosine[chosen]), column(share[chosen])],
            names=["id", "cluster", "similarity", "coverage"],
        )
        write_table(table, shard_path(run_dir, "signals/semantic", shard))
    similarity = np.where(np.isnan(share), cosine, share)
    return corpora.write(corpus, STEP, representative, np.nan_to_num(similarity, nan=1.0)) | {
        "k": int(clusters.meta["k"])
    }
