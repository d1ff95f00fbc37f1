"""Fuzzy deduplication: MinHash signatures, LSH bands, candidates verified by exact Jaccard similarity.

Broder (1997), "On the resemblance and containment of documents"; Leskovec et al., "Mining of Massive Datasets",
chapter 3. Parameters mean what they mean in datasketch: `permutations` hash functions, the first bands × rows of
which form the bands.

A pair meets with probability 1 - (1 - J^rows)^bands, and only meeting pairs are verified. Deletion is not transitive:
documents are visited in order of preference, and one is dropped only if it is a verified duplicate of a document that
stays.

Shapes: n documents, p permutations, b bands, r rows of a band.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from configs.edge import ConfigError
from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import corpus as corpora
from data_pipeline.dedup.corpus import Corpus
from data_pipeline.dedup.shingles import jaccard, mix, shingle_hashes, shingle_sets
from data_pipeline.document import shard_path

STEP = "minhash"
# Changing the permutations invalidates stored signatures: they are part of the format.
_PERMUTATION_SEED = 0x61727269
_BLOCK = 2048
# Exact looks a document gets at the most, the likeliest first. Without a bound, 5,000 pages that share two thirds of their
# text and are no duplicates cost 11 million looks; a true duplicate is practically never behind 64 likelier candidates.
_MOST_VERIFIED = 64


def check(config: DedupConfig) -> None:
    """Raise ConfigError for parameters that cannot be used together."""
    for name in ("ngram", "permutations", "bands", "rows"):
        if getattr(config, name) < 1:
            raise ConfigError(f"`dedup.{name}` must be at least 1, but it is {getattr(config, name)}")
    if config.bands * config.rows > config.permutations:
        raise ConfigError(
            f"`dedup.bands` × `dedup.rows` = {config.bands} × {config.rows} = {config.bands * config.rows} needs as "
            f"many permutations, but `dedup.permutations` is {config.permutations}"
        )
    if not 0 < config.jaccard <= 1:
        raise ConfigError(f"`dedup.jaccard` must lie in (0, 1], but it is {config.jaccard}")


def _permutations(p: int) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers (odd) and masks, uint32 [p] each, of x → (x ^ mask) · multiplier modulo 2**32."""
    keys = mix(
        np.arange(1, 2 * p + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        + np.uint64(_PERMUTATION_SEED)
    )
    low = (keys >> np.uint64(32)).astype(np.uint32)
    return low[0::2] | np.uint32(1), low[1::2]


def signatures(texts: Sequence[str], ngram: int, permutations: int) -> tuple[np.ndarray, np.ndarray]:
    """MinHash signatures uint32 [n, p], and how many shingles (repeated ones counted) each document has, int64 [n].

    The probability that two documents agree in a column is the Jaccard similarity of their shingle sets. Documents
    without shingles have a row of 0xFFFFFFFF.
    """
    multiplier, mask = (x[:, None] for x in _permutations(permutations))
    minima = np.full((len(texts), permutations), 0xFFFFFFFF, np.uint32)
    counts = np.zeros(len(texts), np.int64)
    block = np.empty((permutations, _BLOCK), np.uint32)
    for first, hashes, ends in shingle_hashes(texts, ngram):
        short = (hashes >> np.uint64(32)).astype(np.uint32)
        starts = np.concatenate([[0], ends[:-1]])
        counts[first : first + len(ends)] = ends - starts
        for k, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True), first):
            for low in range(start, end, _BLOCK):
                part = short[low : min(low + _BLOCK, end)]
                permuted = block[:, : len(part)]
                np.bitwise_xor(part, mask, out=permuted)
                np.multiply(permuted, multiplier, out=permuted)
                np.minimum(minima[k], permuted.min(axis=1), out=minima[k])
    return minima, counts


def sign(
    documents: pa.Table, keep: pa.Array | pa.ChunkedArray | np.ndarray | None, config: DedupConfig
) -> pa.Table:
    """Signatures of a shard, for the sidecar `signals/minhash`.

    Args:
        documents: columns `id`, `text`.
        keep: bool [n], the documents to sign; null: all.

    Returns:
        id, shingles (int64, repeated ones counted), signature (fixed-size binary, p little-endian uint32). The last
        two are null where `keep` is false and for documents without words.
    """
    check(config)
    n = len(documents)
    if keep is None:
        chosen = np.ones(n, bool)
    elif isinstance(keep, np.ndarray):
        chosen = keep.astype(bool)
    else:
        chosen = keep.to_numpy(zero_copy_only=False).astype(bool)
    if len(chosen) != n:
        raise ValueError(f"`keep` has {len(chosen)} entries for {n} documents")
    index = np.flatnonzero(chosen)
    texts = [text or "" for text in documents["text"].take(pa.array(index)).to_pylist()]
    minima, counts = signatures(texts, config.ngram, config.permutations)
    raw: list[bytes | None] = [None] * n
    shingles: list[int | None] = [None] * n
    for i, signature, count in zip(
        index.tolist(), minima.astype("<u4", copy=False), counts.tolist(), strict=True
    ):
        if count:
            raw[i], shingles[i] = signature.tobytes(), count
    return pa.table(
        {
            "id": documents["id"],
            "shingles": pa.array(shingles, pa.int64()),
            "signature": pa.array(raw, pa.binary(4 * config.permutations)),
        }
    )


def decide(run_dir: Path, shards: list[int], config: DedupConfig) -> dict[str, int]:
    """Drop near-duplicates of documents that stay; write `decisions/minhash`.

    Signatures are read from `signals/minhash` where they are stored, and computed otherwise. Signatures and shingle
    sets of candidates lie in memory-mapped files under `run_dir/scratch`, removed at the end.

    Returns:
        Counts of `corpus.write`, and "verified": pairs whose exact similarity was computed.
    """
    check(config)
    corpus = corpora.load(run_dir, shards, STEP, config.keep)
    scratch = run_dir / "scratch" / STEP
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        minima, signed = _gather(corpus, config, scratch)
        bucket, n_buckets = buckets(minima, signed, config.bands, config.rows, scratch)
        representative, similarity, verified = _visit(corpus, minima, bucket, n_buckets, config, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not any(scratch.parent.iterdir()):
            scratch.parent.rmdir()
    return corpora.write(corpus, STEP, representative, similarity) | {"verified": verified}


def _gather(corpus: Corpus, config: DedupConfig, scratch: Path) -> tuple[np.ndarray, np.ndarray]:
    """Signatures uint32 [n, p] (memory-mapped) and whether a document has one, bool [n]."""
    n, p = len(corpus), config.permutations
    minima = np.memmap(scratch / "signatures", np.uint32, "w+", shape=(max(n, 1), p))
    signed = np.zeros(n, bool)
    missing = np.zeros(n, bool)
    for shard, documents in corpus.by_shard():
        path = shard_path(corpus.run_dir, "signals/minhash", shard)
        if not path.is_file():
            missing[documents] = True
            continue
        table = corpora.aligned(path, corpora.shard_ids(corpus.run_dir, shard), ["signature"])
        width = table.schema.field("signature").type
        if width != pa.binary(4 * p):
            raise ValueError(
                f"{path} holds signatures of another number of permutations ({width}, expected {4 * p} bytes); "
                "delete the folder and rerun"
            )
        column = table["signature"].take(pa.array(corpus.row[documents]))
        for i, raw in zip(documents.tolist(), column.to_pylist(), strict=True):
            if raw is None:
                missing[i] = True
            else:
                minima[i] = np.frombuffer(raw, "<u4")
                signed[i] = True
    for documents, texts in corpus.texts(missing):
        found, counts = signatures(texts, config.ngram, p)
        minima[documents] = found
        signed[documents] = counts > 0
    return minima, signed


def buckets(
    minima: np.ndarray, signed: np.ndarray, bands: int, rows: int, scratch: Path
) -> tuple[np.ndarray, int]:
    """Documents that agree in all rows of a band share a bucket.

    One band is in memory at a time: 24 bytes a document.

    Returns:
        int64 [n, b] (memory-mapped): the bucket of each document in each band, -1 where it is alone in it; and the
        number of buckets.
    """
    n = len(signed)
    table = np.memmap(scratch / "buckets", np.int64, "w+", shape=(max(n, 1), bands))
    table[:] = -1
    index = np.flatnonzero(signed)
    used = 0
    for band in range(bands):
        keys = np.zeros(len(index), np.uint64)
        for low in range(0, len(index), 1 << 16):
            part = minima[index[low : low + (1 << 16)], band * rows : (band + 1) * rows]
            key = np.zeros(len(part), np.uint64)
            for column in part.T:
                key = mix(key * np.uint64(0x9E3779B97F4A7C15) + column)
            keys[low : low + (1 << 16)] = key
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        new = np.ones(len(ordered), bool)
        new[1:] = ordered[1:] != ordered[:-1]
        group = np.cumsum(new) - 1
        shared = np.bincount(group)[group] > 1 if len(group) else np.zeros(0, bool)
        if shared.any():
            _, number = np.unique(group[shared], return_inverse=True)
            table[index[order[shared]], band] = number + used
            used += int(number.max()) + 1
    return table[:n], used


def _visit(
    corpus: Corpus, minima: np.ndarray, bucket: np.ndarray, n_buckets: int, config: DedupConfig, scratch: Path
) -> tuple[np.ndarray, np.ndarray, int]:
    """Representative int64 [n] and similarity float32 [n] of each document, and the number of verified pairs."""
    n = len(corpus)
    representative = np.arange(n)
    similarity = np.ones(n, np.float32)
    suspects = np.any(bucket >= 0, axis=1)
    sets = _ShingleFile(corpus, suspects, config.ngram, scratch)
    # A pair at the threshold whose signatures agree by less than this is a 4-sigma event: not worth an exact look.
    sigma = (config.jaccard * (1 - config.jaccard) / config.permutations) ** 0.5
    least = int(np.floor((config.jaccard - 4 * sigma) * config.permutations))
    stays: defaultdict[int, list[int]] = defaultdict(list)  # bucket → documents that stay, met in it
    verified = 0
    for i in np.flatnonzero(suspects).tolist():
        mine = bucket[i][bucket[i] >= 0].tolist()
        met = np.fromiter({j for b in mine for j in stays[b]}, np.int64)
        if len(met):
            met.sort()
            agreement = (minima[met] == minima[i]).sum(axis=1)
            likely = agreement >= least
            met, agreement = met[likely], agreement[likely]
            # The most similar first; equal ones by preference.
            for j in met[np.lexsort((met, -agreement))][:_MOST_VERIFIED].tolist():
                size_i, size_j = sets.size(i), sets.size(j)
                if min(size_i, size_j) < config.jaccard * max(size_i, size_j):
                    continue
                verified += 1
                exact = jaccard(sets[i], sets[j])
                if exact >= config.jaccard:
                    representative[i], similarity[i] = j, exact
                    break
        # In the buckets of a dropped document its representative stands for it, so that documents which met the
        # dropped one, and not the one that stays, are compared with the latter as well.
        for b in mine:
            if int(representative[i]) not in stays[b][-4:]:
                stays[b].append(int(representative[i]))
    return representative, similarity, verified


class _ShingleFile:
    """Sorted shingle sets of chosen documents in a memory-mapped file: 8 bytes a distinct shingle."""

    def __init__(self, corpus: Corpus, chosen: np.ndarray, ngram: int, scratch: Path) -> None:
        self._start = np.zeros(len(corpus), np.int64)
        self._size = np.zeros(len(corpus), np.int64)
        path = scratch / "shingles"
        position = 0
        with path.open("wb") as file:
            for documents, texts in corpus.texts(chosen):
                for i, found in zip(documents.tolist(), shingle_sets(texts, ngram), strict=True):
                    self._start[i], self._size[i] = position, len(found)
                    file.write(found.tobytes())
                    position += len(found)
        self._data = np.memmap(path, np.uint64, "r") if position else np.zeros(0, np.uint64)

    def size(self, i: int) -> int:
        """Distinct shingles of a document."""
        return int(self._size[i])

    def __getitem__(self, i: int) -> np.ndarray:
        return self._data[self._start[i] : self._start[i] + self._size[i]]
