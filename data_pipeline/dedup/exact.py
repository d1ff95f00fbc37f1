"""Exact deduplication: documents whose normalised text is equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from configs.schema.pipeline import DedupConfig
from data_pipeline.analysis import content_hash
from data_pipeline.dedup import corpus as corpora
from data_pipeline.document import shard_path

STEP = "exact"


def decide(run_dir: Path, shards: list[int], config: DedupConfig) -> dict[str, int]:
    """Keep one document of each normalised text; write `decisions/exact`.

    Texts are compared by `content_hash` of the sidecar `hashes` (128 bits), computed here where there is none.

    Returns:
        Counts of `corpus.write`.
    """
    corpus = corpora.load(run_dir, shards, STEP, config.keep)
    keys = np.zeros((len(corpus), 2), np.uint64)
    for shard, documents in corpus.by_shard():
        if (run_dir / "signals" / "hashes").is_dir():
            path = shard_path(run_dir, "signals/hashes", shard)
            table = corpora.aligned(path, corpora.shard_ids(run_dir, shard), ["content_hash"])
            hashes = table["content_hash"].take(pa.array(corpus.row[documents])).to_pylist()
            keys[documents] = [_halves(h) for h in hashes]
    if not (run_dir / "signals" / "hashes").is_dir():
        for documents, texts in corpus.texts():
            keys[documents] = [_halves(content_hash(text)) for text in texts]
    return corpora.write(corpus, STEP, first_of_equal(keys), np.ones(len(corpus), np.float32))


def first_of_equal(keys: np.ndarray) -> np.ndarray:
    """int64 [n]: for each row of `keys` (uint64 [n, 2]) the smallest index of an equal row."""
    n = len(keys)
    order = np.lexsort((np.arange(n), keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    new = np.ones(n, bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    first = np.empty(n, np.int64)
    first[order] = order[starts][np.cumsum(new) - 1]
    return first


def _halves(content_hash: str | None) -> tuple[int, int]:
    if content_hash is None:
        raise ValueError("the sidecar signals/hashes holds a null content_hash; delete it and rerun")
    return int(content_hash[:16], 16), int(content_hash[16:], 16)
