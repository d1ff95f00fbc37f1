"""MinHash-LSH: speed beside datasketch, recall and precision on a crawl whose pairs are all known.

    ARRIERO_TEST_DATA=DATA python benchmarks/minhash.py

Reads `neardup/uci_docs.jsonl.zst` and `neardup/uci_pairs.tsv.gz` (exact Jaccard of all pairs of at least 0.3). One core.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import minhash

CONFIG = DedupConfig(keep="longest")
DATASKETCH_DOCUMENTS = 300


def read(data: Path) -> tuple[list[str], dict[tuple[int, int], float]]:
    """Texts, and Jaccard similarity by pair of documents."""
    with zstandard.open(data / "uci_docs.jsonl.zst", "rb") as file:
        texts = [orjson.loads(line)["text"] for line in io.BufferedReader(file)]
    with gzip.open(data / "uci_pairs.tsv.gz", "rt") as file:
        rows = [line.split("\t") for line in file.readlines()[1:]]
    return texts, {(int(a), int(b)): float(j) for a, b, j in rows}


def megabytes(texts: list[str]) -> float:
    """Size of texts, MB of UTF-8."""
    return sum(len(t.encode()) for t in texts) / 1e6


def datasketch_seconds(texts: list[str], permutations: int) -> float:
    """CPU seconds of the same signatures in datasketch's batched form."""
    from datasketch import MinHash

    word = re.compile(r"\w+")
    start = time.process_time()
    for text in texts:
        words = word.findall(text.lower())
        grams = {" ".join(words[i : i + CONFIG.ngram]).encode() for i in range(len(words) - CONFIG.ngram + 1)}
        MinHash(num_perm=permutations).update_batch(grams)
    return time.process_time() - start


def pair_recall(minima: np.ndarray, pairs: np.ndarray, bands: int, rows: int) -> float:
    """Share of pairs that agree in a whole band."""
    met = np.zeros(len(pairs), bool)
    for b in range(bands):
        part = minima[:, b * rows : (b + 1) * rows]
        met |= (part[pairs[:, 0]] == part[pairs[:, 1]]).all(axis=1)
    return float(met.mean())


def main() -> int:
    """Run and print."""
    if "ARRIERO_TEST_DATA" not in os.environ:
        print("skipped: ARRIERO_TEST_DATA is not set; it names the folder that holds neardup/")
        return 0
    texts, listed = read(Path(os.environ["ARRIERO_TEST_DATA"]) / "neardup")
    size = megabytes(texts)
    minhash.signatures(texts[:50], CONFIG.ngram, CONFIG.permutations)  # tables
    start = time.process_time()
    minhash.signatures(texts, CONFIG.ngram, CONFIG.permutations)
    ours = size / (time.process_time() - start)
    few = texts[:DATASKETCH_DOCUMENTS]
    theirs = megabytes(few) / datasketch_seconds(few, CONFIG.permutations)
    print(f"signatures, {CONFIG.permutations} permutations, {size:.1f} MB, CPU time of one core:")
    print(f"  arriero {ours:.1f} MB/s, datasketch {theirs:.2f} MB/s, ratio {ours / theirs:.0f}")

    print("pairs that LSH looks at, by exact Jaccard:")
    pairs = np.array(list(listed))
    exact = np.array(list(listed.values()))
    print(f"  {'bands':>5} {'rows':>4} {'≥ 0.8':>7} {'0.80–0.85':>9} {'theory at 0.8':>13} {'0.5–0.8':>8}")
    for bands, rows in ((14, 8), (16, 7), (20, 6), (25, 5)):
        minima, _ = minhash.signatures(texts, CONFIG.ngram, bands * rows)
        shares = [
            pair_recall(minima, pairs[(exact >= low) & (exact < high)], bands, rows)
            for low, high in ((0.8, 2), (0.8, 0.85), (0.5, 0.8))
        ]
        theory = 1 - (1 - 0.8**rows) ** bands
        print(f"  {bands:>5} {rows:>4} {shares[0]:>7.4f} {shares[1]:>9.4f} {theory:>13.4f} {shares[2]:>8.4f}")

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        (run / "documents").mkdir()
        ids = [f"{i:032x}" for i in range(len(texts))]
        table = pa.table({"id": ids, "text": texts, "date": pa.nulls(len(ids), pa.string())})
        pq.write_table(table, run / "documents/00000.parquet")
        start = time.process_time()
        counts = minhash.decide(run, [0], CONFIG)
        seconds = time.process_time() - start
        rows_of = pq.read_table(run / "decisions/minhash/00000.parquet").to_pylist()
    dropped = {int(r["id"], 16): int(r["detail"].split()[0], 16) for r in rows_of if not r["keep"]}
    right = sum(listed.get((min(i, j), max(i, j)), 0) >= CONFIG.jaccard for i, j in dropped.items())
    truth = [p for p, j in listed.items() if j >= CONFIG.jaccard]
    left = [p for p in truth if p[0] not in dropped and p[1] not in dropped]
    removable = len(dropped) + len({b for _, b in left})
    print(
        f"decisions at Jaccard ≥ {CONFIG.jaccard}: {counts['considered']} documents, {counts['dropped']} dropped, "
        f"{counts['verified']} pairs verified, {seconds:.1f} s ({size / seconds:.1f} MB/s)\n"
        f"  precision {right / len(dropped):.4f} (drops whose representative is truly near), "
        f"recall {len(dropped) / removable:.4f} (pairs left among {len(truth)}: {len(left)})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
