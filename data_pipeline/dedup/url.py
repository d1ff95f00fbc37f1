"""URL deduplication: of the captures of one canonical URL the newest stays."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa

from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import corpus as corpora
from data_pipeline.document import shard_path

STEP = "url"


def decide(run_dir: Path, shards: list[int], chosen: Collection[int], config: DedupConfig) -> dict[str, int]:
    """Keep one capture of each canonical URL; write `decisions/url`.

    The newest stays (`date`; none: oldest); of equally old ones the one that `dedup.keep` prefers. URLs are compared by
    `url.key` (128 bits); documents without one, and those of other shards than the chosen ones, all stay.

    Args:
        shards: all shards.
        chosen: shards of the sources in which one address is one page.

    Returns:
        Counts of `corpus.write`.
    """
    corpus = corpora.load(run_dir, shards, STEP, config.keep)
    n = len(corpus)
    keys = np.zeros((n, 2), np.uint64)
    compared = np.zeros(n, bool)
    age = np.zeros(n)
    for shard, documents in corpus.by_shard():
        if shard not in chosen:
            continue
        rows = pa.array(corpus.row[documents])
        path = shard_path(run_dir, "signals/url", shard)
        key = corpora.aligned(path, corpora.shard_ids(run_dir, shard), ["key"])["key"].take(rows)
        valid = key.is_valid().to_numpy(zero_copy_only=False).astype(bool)
        compared[documents] = valid
        keys[documents[valid]] = corpora.id_halves(key.drop_null())
        dates = corpora.moments(run_dir, shard, corpus.row[documents])
        age[documents] = -np.nan_to_num(dates, nan=-np.inf)
    index = np.flatnonzero(compared)
    representative = np.arange(n)
    representative[index] = index[corpora.first_of_equal(keys[index], age[index])]
    return corpora.write(corpus, STEP, representative, np.ones(n, np.float32))
