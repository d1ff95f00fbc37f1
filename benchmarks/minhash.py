"""MinHash deduplication end to end beside datatrove's four stages, on a crawl whose pairs are all known.

    ARRIERO_TEST_DATA=DATA python benchmarks/minhash.py [--repeats 3]

Reads `neardup/uci_docs.jsonl.zst` and `neardup/uci_pairs.tsv.gz` (exact Jaccard of all pairs of at least 0.3). CPU seconds
of one worker, from documents on disk to decisions on disk (ours) or to the documents that pass (datatrove). Imports,
compiled code and models are loaded before on both sides.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import orjson
import peers
import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import minhash, signatures
from data_pipeline.document import write_table
from data_pipeline.zstd import zstd

CONFIG = DedupConfig(keep="longest")
Pairs = dict[tuple[int, int], float]


def read(data: Path) -> tuple[list[str], Pairs]:
    """Texts, and Jaccard similarity by pair of documents."""
    with zstd.open(data / "uci_docs.jsonl.zst", "rb") as file:
        texts = [orjson.loads(line)["text"] for line in io.BufferedReader(file)]
    with gzip.open(data / "uci_pairs.tsv.gz", "rt") as file:
        rows = [line.split("\t") for line in file.readlines()[1:]]
    return texts, {(int(a), int(b)): float(j) for a, b, j in rows}


def ours(texts: list[str]) -> tuple[dict[str, float], set[int]]:
    """CPU seconds of all stages together, and the documents that are dropped."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        ids = [f"{i:032x}" for i in range(len(texts))]
        write_table(pa.table({"id": ids, "text": texts}), run / "documents/00000.parquet")
        began = time.process_time()
        minhash.run(run, 1, CONFIG)
        seconds = {"all": time.process_time() - began}
        keep = pq.read_table(run / "decisions/minhash/00000.parquet")["keep"].to_pylist()
    return seconds, {i for i, kept in enumerate(keep) if not kept}


def theirs(texts: list[str]) -> tuple[dict[str, float], set[int]]:
    """The same of datatrove."""
    python = peers.python("datatrove", peers.DATATROVE)
    with tempfile.TemporaryDirectory() as folder:
        docs = Path(folder) / "docs" / "docs.jsonl"
        docs.parent.mkdir()
        docs.write_bytes(
            b"".join(orjson.dumps({"id": str(i), "text": t}) + b"\n" for i, t in enumerate(texts))
        )
        script = Path(__file__).parent / "minhash_in_datatrove.py"
        done = subprocess.run([python, script, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], set(found["removed"])


def judge(dropped: set[int], listed: Pairs) -> str:
    """Precision and recall of a set of deletions, and what is left, in words.

    A deletion is right where a document that stays is a near-duplicate of it. Near-duplicates that are left: documents
    that would still have to go for no pair to be left.
    """
    near: defaultdict[int, set[int]] = defaultdict(set)
    for (a, b), j in listed.items():
        if j >= CONFIG.jaccard:
            near[a].add(b)
            near[b].add(a)
    right = sum(bool(near[i] - dropped) for i in dropped)
    left = 0
    gone = set(dropped)
    for i in sorted(near, key=lambda i: -len(near[i])):
        if i not in gone and near[i] - gone:
            gone.add(i)
            left += 1
    return (
        f"dropped {len(dropped)}, precision {right / max(len(dropped), 1):.4f}, "
        f"recall {right / max(right + left, 1):.4f}, near-duplicates left {left} of {right + left} "
        f"({left / max(right + left, 1):.2%})"
    )


def proposals(texts: list[str], listed: Pairs) -> None:
    """Share of pairs that LSH looks at, by exact Jaccard."""
    print("pairs that LSH looks at, by exact Jaccard:")
    pairs, exact = np.array(list(listed)), np.array(list(listed.values()))
    print(f"  {'bands':>5} {'rows':>4} {'≥ 0.8':>7} {'0.80–0.85':>9} {'theory at 0.8':>13} {'0.5–0.8':>8}")
    for bands, rows in ((14, 8), (16, 7), (20, 6), (25, 5)):
        keys = signatures.band_keys(signatures.signatures(texts, CONFIG.ngram, bands * rows)[0], bands, rows)
        met = (keys[pairs[:, 0]] == keys[pairs[:, 1]]).any(axis=1)
        shares = [
            met[(exact >= low) & (exact < high)].mean() for low, high in ((0.8, 2), (0.8, 0.85), (0.5, 0.8))
        ]
        theory = 1 - (1 - 0.8**rows) ** bands
        print(f"  {bands:>5} {rows:>4} {shares[0]:>7.4f} {shares[1]:>9.4f} {theory:>13.4f} {shares[2]:>8.4f}")


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if "ARRIERO_TEST_DATA" not in os.environ:
        print("skipped: ARRIERO_TEST_DATA is not set; it names the folder that holds neardup/")
        return 0
    texts, listed = read(Path(os.environ["ARRIERO_TEST_DATA"]) / "neardup")
    size = sum(len(t.encode()) for t in texts) / 1e6
    print(
        f"{len(texts)} documents, {size:.1f} MB; {sum(j >= 0.8 for j in listed.values())} pairs of Jaccard ≥ 0.8"
    )
    ours(texts[:50])
    taken: dict[str, list[float]] = {"arriero": [], "datatrove": []}
    ratios = []
    for _ in range(arguments.repeats):
        theirs_seconds, their_drops = theirs(texts)
        our_seconds, our_drops = ours(texts)
        taken["arriero"].append(sum(our_seconds.values()))
        taken["datatrove"].append(sum(theirs_seconds.values()))
        ratios.append(taken["datatrove"][-1] / taken["arriero"][-1])
    for name, drops in (("arriero", our_drops), ("datatrove", their_drops)):
        seconds = statistics.median(taken[name])
        print(f"  {name:<10} {seconds:>7.2f} CPU s  {size / seconds:>6.2f} MB/s  {judge(drops, listed)}")
    print(f"  datatrove by stage: {', '.join(f'{k} {v:.2f}' for k, v in theirs_seconds.items())}")
    print(f"  ratio {statistics.median(ratios):.0f} (median of {len(ratios)} pairs of runs)")
    proposals(texts, listed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
