"""URL deduplication: of the captures of one canonical URL the newest stays."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import corpus as corpora
from data_pipeline.document import read_table, shard_path

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
        age[documents] = -_moments(
            read_table(shard_path(run_dir, "documents", shard), ["date"])["date"].take(rows)
        )
    index = np.flatnonzero(compared)
    representative = np.arange(n)
    representative[index] = _newest(keys[index], age[index], index)
    return corpora.write(corpus, STEP, representative, np.ones(n, np.float32))


def _newest(keys: np.ndarray, age: np.ndarray, index: np.ndarray) -> np.ndarray:
    """int64 [m]: for each row of `keys` the document (of `index`) of an equal row whose age, then index, is smallest."""
    order = np.lexsort((index, age, keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    new = np.ones(len(order), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    found = np.empty(len(order), np.int64)
    found[order] = index[order[np.flatnonzero(new)]][np.cumsum(new) - 1]
    return found


def _moments(dates: pa.ChunkedArray) -> np.ndarray:
    """ISO 8601 dates as numbers in the order of time, to the second; none: before all others."""
    dates = pc.if_else(pc.match_substring_regex(dates, r"^[0-9]{4}"), dates, None)
    digits = pc.utf8_slice_codeunits(pc.replace_substring_regex(dates, r"[^0-9]", ""), 0, 14)
    numbers = pc.utf8_rpad(digits, 14, "0").cast(pa.float64())
    return pc.fill_null(numbers, -np.inf).to_numpy().astype(np.float64)
