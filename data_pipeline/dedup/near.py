"""What is near a text: documents of the MinHash index of a run (`index`), by exact Jaccard similarity of shingles.

Signatures say which documents may be near, their texts in `DIR/documents` how near they are. In an index of up to
`COMPARED` documents every signature is compared; in a larger one only documents that agree with the text in a whole band
are looked at, which finds nearly all of similarity 0.8 and few below 0.4.

Shapes: n documents of a part, p permutations, b bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.edge import ConfigError
from data_pipeline.dedup import index
from data_pipeline.dedup.arrays import Arrays
from data_pipeline.dedup.shingles import shingle_sets
from data_pipeline.dedup.signatures import band_keys, signatures
from data_pipeline.document import shard_path

COMPARED = 5_000_000
"""Documents whose signatures are all compared: 120 bytes of each are read, 0.6 GB in all."""
_BLOCK = 1 << 16
# Documents whose texts are read for one that is shown: signatures of 120 bytes err by about 0.04.
_VERIFIED = 3


@dataclass(frozen=True)
class Near:
    """A document that is near a text."""

    id: str
    """32 hexadecimal digits."""
    source: str
    """Name of the source."""
    url: str | None
    """URL."""
    text: str
    """Extracted text."""
    similarity: float
    """Exact Jaccard similarity of the sets of shingles."""
    held: float
    """Share of the given text's shingles that the document holds."""


def nearest(run_dir: Path, text: str, limit: int, least: float) -> list[Near]:
    """Documents of the index of a run that are near a text, the nearest first; ties: by id.

    Args:
        run_dir: output folder of a finished `arriero data` with `dedup.minhash=true`.
        text: any text; it is compared as a whole.
        limit: documents at most.
        least: Jaccard similarity at least.

    Raises:
        ConfigError: there is no index, it has another format, or the text has no words.
    """
    manifest = index.opened(run_dir, "near")
    minima, counts = signatures([text], manifest["ngram"], manifest["permutations"])
    if not counts[0]:
        raise ConfigError("`near` has no words; give some text of a document")
    own = shingle_sets([text], manifest["ngram"])[0]
    found = []
    for shard, rows in _candidates(run_dir, minima, manifest, _VERIFIED * limit):
        for row in _documents(run_dir, shard, rows):
            other = shingle_sets([row["text"]], manifest["ngram"])[0]
            common = len(np.intersect1d(own, other, assume_unique=True))
            similarity = common / (len(own) + len(other) - common)
            if common and similarity >= least:
                held = common / len(own)
                found.append(Near(row["id"], row["source"], row["url"], row["text"] or "", similarity, held))
    return sorted(found, key=lambda near: (-near.similarity, near.id))[:limit]


def _candidates(
    run_dir: Path, minima: np.ndarray, manifest: dict[str, int], most: int
) -> list[tuple[int, np.ndarray]]:
    """(shard, ascending rows) of the documents whose signatures agree most with one, uint32 [1, p]."""
    keys = band_keys(minima, manifest["bands"], manifest["rows"])[0]
    low = minima[0].astype(np.uint8)
    parts = [(part.shard, Arrays(part.path)) for part in index.indexed(run_dir)]
    every = sum(file.shape("row")[0] for _, file in parts) <= COMPARED
    shards, rows, agreements = ([np.zeros(0, np.int64)] for _ in range(3))
    for shard, file in parts:
        signed, n = file.map("low"), file.shape("row")[0]
        met = np.arange(n) if every else _meeting(file, keys)
        agreement = np.concatenate(
            [np.zeros(0, np.int64)]
            + [(signed[met[k : k + _BLOCK]] == low).sum(1) for k in range(0, len(met), _BLOCK)]
        )
        best = np.argsort(-agreement, kind="stable")[:most]
        rows.append(file.read("row")[met[best]].astype(np.int64))
        agreements.append(agreement[best])
        shards.append(np.full(len(best), shard))
    shard_of, row = np.concatenate(shards), np.concatenate(rows)
    best = np.argsort(-np.concatenate(agreements), kind="stable")[:most]
    return [(int(shard), np.sort(row[best][shard_of[best] == shard])) for shard in np.unique(shard_of[best])]


def _meeting(file: Arrays, keys: np.ndarray) -> np.ndarray:
    """Positions of the documents that share a band with keys, uint64 [b]."""
    stored, member = file.map("key"), file.map("member")
    found = [np.zeros(0, np.uint32)]
    for band, key in enumerate(keys):
        first, last = (int(np.searchsorted(stored[band], key, side)) for side in ("left", "right"))
        found.append(member[band, first:last])
    return np.unique(np.concatenate(found)).astype(np.int64)


def _documents(run_dir: Path, shard: int, rows: np.ndarray) -> list[dict]:
    """Documents of ascending rows; only row groups that hold one of them are read."""
    found = []
    with pq.ParquetFile(shard_path(run_dir, "documents", shard)) as file:
        first = 0
        for group in range(file.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            inside = rows[(rows >= first) & (rows < last)] - first
            if len(inside):
                found += (
                    file.read_row_group(group, ["id", "source", "url", "text"])
                    .take(pa.array(inside))
                    .to_pylist()
                )
            first = last
    return found
