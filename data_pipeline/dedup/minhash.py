"""Near-duplicates: MinHash signatures, LSH bands, candidates verified by exact Jaccard similarity.

The stages, and what each one's tasks share:

    sign       a shard      `signatures`: band keys and signatures                         minhash/signatures/
    bands      a band       `bands.join`: documents that share a bucket                    minhash/edges/
    clusters   one          `bands.cluster`: what buckets connect                          minhash/clusters.arrays
    sets       a shard      `sets.gather`: shingle sets of candidates, by cluster          minhash/sets/
    verify     clusters     `verify.verify`: who is a duplicate of whom                    minhash/verified/
    minhash    a shard      `decide`: decisions, sizes of clusters                         decisions/, signals/minhash/
    index      a shard      `index.write`: what later runs deduplicate against             index/

A pair meets with probability 1 - (1 - J^rows)^bands, and only meeting pairs are verified.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import bands, index, sets, signatures, stored, verify
from data_pipeline.dedup import corpus as corpora
from data_pipeline.dedup.arrays import Arrays
from data_pipeline.document import shard_path, write_table

STEP = "minhash"


def decide(run_dir: Path, shards: int, shard: int, config: DedupConfig) -> dict[str, int]:
    """Decisions of a shard (`corpus.write_shard`), and the sidecar `signals/minhash`.

    The sidecar has `cluster` (id of the document that stays for it, its own where it stays itself) and `cluster_size`
    (int32; documents of the cluster, itself included); both are null where an earlier step dropped the document.

    Returns:
        {"considered", "kept", "dropped", "clusters"}.
    """
    ids = corpora.shard_ids(run_dir, shard)
    row = np.flatnonzero(corpora.kept_before(run_dir, shard, STEP, ids))
    own = corpora.id_halves(ids.take(pa.array(row)))
    representative, similarity = own.copy(), np.ones(len(row), np.float32)
    members = np.ones(len(row), np.int64)
    first, last = Arrays(run_dir / "minhash" / "clusters.arrays").read("offset", shard, shard + 2)
    for task in range(stored.tasks(shards)):
        result = Arrays(verify.path(run_dir, task))
        documents = result.map("document")
        low, high = (int(np.searchsorted(documents, bound)) for bound in (first, last))
        at = np.searchsorted(row, documents[low:high] - first)
        representative[at] = result.read("representative", low, high)
        similarity[at] = result.read("similarity", low, high)
        members[at] = result.read("members", low, high)
    dropped = (representative != own).any(axis=1)
    choice = corpora.Choice(row, dropped, representative, similarity, members)
    corpora.write_shard(run_dir, shard, STEP, ids, choice)
    sidecar = {
        "id": ids,
        "cluster": corpora.scatter(len(ids), row, corpora.id_strings(representative)),
        "cluster_size": corpora.scatter(len(ids), row, pa.array(members.astype(np.int32))),
    }
    write_table(pa.table(sidecar), shard_path(run_dir, f"signals/{STEP}", shard))
    if shard == 0:
        for segment in sets.segments(run_dir):  # the largest files, and of no further use
            segment.unlink()
    return {
        "considered": len(row),
        "kept": int(len(row) - dropped.sum()),
        "dropped": int(dropped.sum()),
        "clusters": int((~dropped & (members > 1)).sum()),
    }


def run(run_dir: Path, shards: int, config: DedupConfig) -> dict[str, int]:
    """All tasks of all stages but `index`, one after the other.

    Returns:
        Sums of their counts.
    """
    stored.check(config)
    index.check(run_dir, config)
    counts: Counter[str] = Counter()
    for shard in range(shards):
        counts.update(signatures.sign(run_dir, shard, config, STEP))
    for band in range(config.bands):
        counts.update(bands.join(run_dir, shards, band, config))
    counts.update(bands.cluster(run_dir, shards, config))
    for part in range(len(index.parts(run_dir, shards, config))):
        counts.update({"segments": sets.gather(run_dir, shards, part, config)["segments"]})
    for task in range(stored.tasks(shards)):
        counts.update(verify.verify(run_dir, shards, task, config))
    for shard in range(shards):
        counts.update(decide(run_dir, shards, shard, config))
    return dict(counts)
