"""Exact deduplication: documents whose normalised text is equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import corpus as corpora

STEP = "exact"


def content_hash(text: str) -> str:
    """Hash of a text without regard to case and white space: xxh3-128, 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(" ".join(text.lower().split()).encode("utf-8", "surrogatepass"))


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
            ids = pq.read_table(corpora.document_path(run_dir, shard), columns=["id"])["id"]
            column = corpora.aligned(
                corpora.signal_path(run_dir, "hashes", shard), ids, ["content_hash"]
            )["content_hash"]
            hashes = column.take(pa.array(corpus.row[documents])).to_pylist()
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


def _halves(value: str | bytes | int | None) -> tuple[int, int]:
    if value is None:
        raise ValueError("the sidecar signals/hashes holds a null content_hash; rerun the analysis")
    digest = xxhash.xxh3_128_intdigest(value if isinstance(value, bytes) else str(value))
    return digest >> 64, digest & (2**64 - 1)
