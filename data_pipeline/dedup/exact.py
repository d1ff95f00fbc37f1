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
    if (run_dir / "signals" / "hashes").is_dir():
        for shard, documents in corpus.by_shard():
            path = shard_path(run_dir, "signals/hashes", shard)
            table = corpora.aligned(path, corpora.shard_ids(run_dir, shard), ["content_hash"])
            keys[documents] = _halves(path, table["content_hash"].take(pa.array(corpus.row[documents])))
    else:
        for documents, texts in corpus.texts():
            keys[documents] = corpora.id_halves(pa.array([content_hash(text) for text in texts]))
    return corpora.write(corpus, STEP, corpora.first_of_equal(keys), np.ones(len(corpus), np.float32))


def _halves(path: Path, hashes: pa.ChunkedArray) -> np.ndarray:
    try:
        return corpora.id_halves(hashes)
    except ValueError as error:
        raise ValueError(f"{path}: content_hash {error}; delete the folder and rerun") from error
