"""Sketches for datasketch: the MinHash of every document that was kept in the end (stage `sketches`).

    DIR/sketches/00000.parquet    id, sketch: the bytes that `datasketch.LeanMinHash.deserialize` takes

A sketch is the whole signature, which deduplication itself does not keep: 16 + 4 · permutations bytes a document. The
file's metadata `minhash` has the settings. `open_lsh` opens them, and without this package so does

    table = pyarrow.parquet.read_table("DIR/sketches")
    lsh = datasketch.MinHashLSH(num_perm=120, params=(20, 6))
    for key, sketch in zip(table["id"].to_pylist(), table["sketch"].to_pylist()):
        lsh.insert(key, datasketch.LeanMinHash.deserialize(sketch))
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import corpus as corpora
from data_pipeline.dedup import stored
from data_pipeline.dedup.shingles import shingle_hashes
from data_pipeline.dedup.signatures import SEED, signatures
from data_pipeline.document import shard_path, write_table

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH

SCHEME = "affine32"
# datasketch's number for it, and its native layout: seed, minus the number of values, scheme, padding, values.
_SCHEME_CODE = 1


def _layout(p: int) -> np.dtype:
    return np.dtype(
        [("seed", "<i8"), ("count", "<i4"), ("scheme", "u1"), ("padding", "V3"), ("values", "<u4", (p,))]
    )


def serialized(minima: np.ndarray) -> pa.Array:
    """Signatures, uint32 [n, p], as datasketch serializes them: fixed-size binary [n]."""
    records = np.zeros(len(minima), _layout(minima.shape[1]))
    records["seed"], records["count"], records["scheme"] = SEED, -minima.shape[1], _SCHEME_CODE
    records["values"] = minima
    width = pa.binary(records.dtype.itemsize)
    return pa.Array.from_buffers(width, len(records), [None, pa.py_buffer(records.tobytes())])


def write(run_dir: Path, shard: int, config: DedupConfig) -> dict[str, int]:
    """Write the sketches of a shard: of documents that `decisions/final` keeps and that have words.

    Returns:
        {"sketched"}: documents.
    """
    ids = corpora.shard_ids(run_dir, shard)
    final = corpora.aligned(corpora.shard_path(run_dir, "decisions/final", shard), ids, ["keep"])
    rows = np.flatnonzero(final["keep"].to_numpy(zero_copy_only=False)).astype(np.uint32)
    minima = np.empty((len(rows), config.permutations), np.uint32)
    worded = np.zeros(len(rows), bool)
    for which, texts in corpora.texts_of(run_dir, shard, rows):
        minima[which], counts = signatures(texts, config.ngram, config.permutations)
        worded[which] = counts > 0
    table = pa.table(
        {
            "id": ids.take(pa.array(rows[worded])).combine_chunks().cast(pa.string()),
            "sketch": serialized(minima[worded]),
        }
    ).replace_schema_metadata({"minhash": orjson.dumps(stored.parameters(config))})
    write_table(table, shard_path(run_dir, "sketches", shard))
    return {"sketched": int(worded.sum())}


def settings(run_dir: Path) -> dict[str, int]:
    """Settings that the sketches of a run were made with: format, ngram, permutations, bands, rows.

    Raises:
        FileNotFoundError: the run has no sketches.
    """
    return orjson.loads(pq.read_schema(_files(run_dir)[0]).metadata[b"minhash"])


def read(run_dir: Path) -> Iterator[tuple[str, MinHash]]:
    """(id, sketch) of every document, in the order of shards and rows."""
    from datasketch import LeanMinHash

    for path in _files(run_dir):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                ids, sketches = batch["id"].to_pylist(), batch["sketch"].to_pylist()
                yield from zip(ids, map(LeanMinHash.deserialize, sketches), strict=True)


def open_lsh(run_dir: Path) -> MinHashLSH:
    """A `datasketch.MinHashLSH` of all documents, by id, with the bands of the run. It lives in memory (about 6 KB each)."""
    from datasketch import MinHashLSH

    made = settings(run_dir)
    lsh = MinHashLSH(num_perm=made["permutations"], params=(made["bands"], made["rows"]))
    for identifier, sketch in read(run_dir):
        lsh.insert(identifier, sketch, check_duplication=False)
    return lsh


def sketch(text: str, ngram: int, permutations: int) -> MinHash:
    """The sketch of a text, to query with: equal to that of a document with this text."""
    from datasketch import MinHash

    minima, _ = signatures([text], ngram, permutations)
    return MinHash(hashvalues=minima[0], seed=SEED, scheme=SCHEME, hashfunc=_is_hashed)


def hash_values(text: str, ngram: int) -> list[int]:
    """Hashes of the shingles of a text, 32 bits each: what is given to `MinHash.update_batch` where `hashfunc` is `int`."""
    return [int(h) >> 32 for _, hashes, _ in shingle_hashes([text], ngram) for h in hashes]


def _is_hashed(value: int) -> int:
    return value


def _files(run_dir: Path) -> list[Path]:
    found = sorted((run_dir / "sketches").glob("*.parquet"))
    if not found:
        raise FileNotFoundError(f"{run_dir} holds no sketches; run `arriero data` with `dedup.sketches=true`")
    return found
