"""MinHash signatures and LSH band keys of a shard (stage `sign`).

Broder (1997), "On the resemblance and containment of documents"; Leskovec et al., "Mining of Massive Datasets",
chapter 3. Signatures are those of `datasketch.MinHash`, and parameters mean what they mean there: `permutations` hash
functions, the first bands × rows of which form the bands.

Shapes: n documents, p permutations, b bands, r rows of a band.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import corpus as corpora
from data_pipeline.dedup import stored
from data_pipeline.dedup.kernels import band_key_batch, minima_batch
from data_pipeline.dedup.shingles import shingle_hashes

SEED = 1
"""Of the permutations: datasketch's default."""


@functools.cache
def permutations(p: int) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers (odd) and addends, uint32 [p] each, of datasketch's scheme `affine32`: x → a · x + b modulo 2**32."""
    draw = np.random.RandomState(SEED)
    multiplier = draw.randint(0, 1 << 31, p, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return multiplier, draw.randint(0, 1 << 32, p, dtype=np.uint32)


def signatures(texts: Sequence[str | None] | pa.Array, ngram: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    """MinHash signatures uint32 [n, p], and how many shingles (repeated ones counted) each document has, int64 [n].

    Each row is what `datasketch.MinHash(p)` computes from the upper 32 bits of the document's shingle hashes
    (`shingles.shingle_hashes`), bit for bit. The probability that two documents agree in a column is the Jaccard
    similarity of their shingle sets. Documents without shingles have a row of 0xFFFFFFFF.
    """
    multiplier, addend = permutations(p)
    minima = np.full((len(texts), p), 0xFFFFFFFF, np.uint32)
    counts = np.zeros(len(texts), np.int64)
    for first, hashes, ends in shingle_hashes(texts, ngram):
        minima_batch(hashes, ends, multiplier, addend, minima[first : first + len(ends)])
        counts[first : first + len(ends)] = np.diff(ends, prepend=0)
    return minima, counts


def band_keys(minima: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """uint64 [n, b]: equal where documents agree in all rows of a band."""
    keys = np.empty((len(minima), bands), np.uint64)
    band_key_batch(minima, bands, rows, keys)
    return keys


def sign(run_dir: Path, shard: int, config: DedupConfig, step: str) -> dict[str, int]:
    """Sign the documents of a shard that every decision before `step` kept; see `stored.write` for the file.

    Texts are read a batch at a time; 28 + 12 b + p bytes a document are held.

    Returns:
        {"signed", "wordless"}: documents with and without shingles.
    """
    ids = corpora.shard_ids(run_dir, shard)
    rows = np.flatnonzero(corpora.kept_before(run_dir, shard, step, ids)).astype(np.uint32)
    keys = np.empty((len(rows), config.bands), np.uint64)
    low = np.empty((len(rows), config.permutations), np.uint8)
    signed = np.zeros(len(rows), bool)
    for which, texts in corpora.texts_of(run_dir, shard, rows):
        minima, counts = signatures(texts, config.ngram, config.permutations)
        keys[which] = band_keys(minima, config.bands, config.rows)
        low[which] = minima.astype(np.uint8)
        signed[which] = counts > 0
    halves = corpora.id_halves(ids.take(pa.array(rows[signed])))
    stored.write(
        stored.path(run_dir, shard), config, len(ids), rows[signed], halves, keys[signed], low[signed]
    )
    return {"signed": int(signed.sum()), "wordless": int((~signed).sum())}
