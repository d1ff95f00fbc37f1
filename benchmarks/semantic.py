"""Semantic deduplication: revised texts found, and stories retold that must stay, over the thresholds.

    ARRIERO_TEST_DATA=DATA python benchmarks/semantic.py [--embedder NAME|FOLDER]

`neardup/clough_stevenson.jsonl.zst`: answers that copy (cut), revise lightly or heavily a source text, or do neither
(non). `quality/onestop_english.jsonl.zst`: one story at three reading levels; random pairs: two different stories.
The pages of `neardup/uci_docs.jsonl.zst`, none of them a neighbour of either, make up the rest of the corpus.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import coverage, embed, semantic
from data_pipeline.dedup.shingles import jaccard, shingle_sets
from data_pipeline.zstd import zstd

CONFIG = DedupConfig(semantic=True, keep="longest")
GROUPS = ("cut", "light", "heavy", "non", "onestop", "background")
RANDOM_PAIRS = 20_000


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a file."""
    with zstd.open(path, "rb") as file:
        return [orjson.loads(line) for line in io.BufferedReader(file)]


def corpus(data: Path) -> list[tuple[str, str, str]]:
    """(group, what it is a version of, text) of every document."""
    rows = [(r["category"], r["task"], r["text"]) for r in read(data / "neardup/clough_stevenson.jsonl.zst")]
    rows += [("onestop", r["article"], r["text"]) for r in read(data / "quality/onestop_english.jsonl.zst")]
    pages = read(data / "neardup/uci_docs.jsonl.zst")
    return rows + [("background", str(i), r["text"]) for i, r in enumerate(pages)]


def write(run: Path, texts: list[str]) -> None:
    """Documents of a run."""
    (run / "documents").mkdir(parents=True)
    ids = [f"{i:032x}" for i in range(len(texts))]
    table = pa.table({"id": ids, "text": texts, "date": pa.nulls(len(ids), pa.string())})
    pq.write_table(table, run / "documents/00000.parquet")


def decide(run: Path, config: DedupConfig) -> np.ndarray:
    """bool [n]: documents that the last two parts drop at these thresholds."""
    semantic.neighbours(run, 0, 1, config)
    semantic.decide(run, config)
    return ~pq.read_table(run / "decisions/semantic/00000.parquet")["keep"].to_numpy()


def minhash_finds(texts: list[str], chosen: np.ndarray) -> np.ndarray:
    """bool [n]: documents with another one of Jaccard similarity 0.8, by exact comparison of all `chosen`."""
    sets = dict(zip(chosen.tolist(), shingle_sets([texts[i] for i in chosen], 5), strict=True))
    found = np.zeros(len(texts), bool)
    for i in chosen.tolist():
        others = (j for j in chosen.tolist() if (len(texts[j]), -j) > (len(texts[i]), -i))
        found[i] = any(jaccard(sets[i], sets[j]) >= CONFIG.jaccard for j in others)
    return found


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--embedder", default="hashed")
    given = parser.parse_args()
    if "ARRIERO_TEST_DATA" not in os.environ:
        print("skipped: ARRIERO_TEST_DATA is not set; it names the folder that holds neardup/ and quality/")
        return 0
    rows = corpus(Path(os.environ["ARRIERO_TEST_DATA"]))
    group, version, texts = (
        np.array([r[0] for r in rows]),
        np.array([r[1] for r in rows]),
        [r[2] for r in rows],
    )
    config = dataclasses.replace(CONFIG, embedder=given.embedder)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        write(run, texts)
        embed.fit(texts[:50], 8)  # compiled functions
        start = time.process_time()
        semantic.prepare(run, [0], config)
        fitted = time.process_time()
        semantic.embed_shard(run, 0, config)
        embedded = time.process_time()
        semantic.cluster(run, config)
        semantic.neighbours(run, 0, 1, config)
        end = time.process_time()
        size = sum(len(t.encode()) for t in texts) / 1e6
        print(f"{len(texts)} documents, {size:.1f} MB, embedder {config.embedder}; CPU seconds of one core:")
        print(
            f"  fit {fitted - start:.2f}, embed and sketch {embedded - fitted:.2f} "
            f"({size / (embedded - fitted):.1f} MB/s), cluster and compare {end - embedded:.2f}"
        )
        separation(rows, run)
        chosen = np.flatnonzero(group != "background")
        baseline = minhash_finds(texts, chosen)
        header = "".join(f"{g:>9}" for g in (*GROUPS[:-1], "random"))
        print("\nshare of documents dropped (random: with another story or task as the reason)")
        print(f"  {'similarity':>10} {'coverage':>8}{header}")

        def line(label: str, dropped: np.ndarray, wrong: float) -> None:
            shares = "".join(f"{dropped[group == g].mean():>9.3f}" for g in GROUPS[:-1])
            print(f"  {label:>19}{shares}{wrong:>9.4f}")

        line("MinHash, J ≥ 0.8", baseline, 0.0)
        for similarity, covered in [
            *((s, 0.0) for s in (0.9, 0.95, 0.98, 0.99)),
            *((config.semantic_similarity, c) for c in (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)),
            *((s, config.semantic_coverage) for s in (0.6, 0.7, 0.9, 0.95)),
        ]:
            tried = dataclasses.replace(config, semantic_similarity=similarity, semantic_coverage=covered)
            dropped = decide(run, tried)
            details = pq.read_table(run / "decisions/semantic/00000.parquet")["detail"].to_pylist()
            reason = {i: int(details[i].split()[0], 16) for i in np.flatnonzero(dropped).tolist()}
            wrong = np.mean([i in reason and version[i] != version[reason[i]] for i in chosen.tolist()])
            mark = (
                " *"
                if (similarity, covered) == (CONFIG.semantic_similarity, CONFIG.semantic_coverage)
                else ""
            )
            line(f"{similarity:>10.2f} {covered:>8.2f}{mark}", dropped, float(wrong))
        print("  * default")
    return 0


def separation(rows: list[tuple[str, str, str]], run: Path) -> None:
    """Cosine and coverage of pairs: quantiles, and how well each tells revised pairs from pairs of one topic."""
    vectors = semantic.Arrays(run / "semantic/vectors/00000.arrays").read("vectors").astype(np.float32)
    source = {v: i for i, (g, v, _) in enumerate(rows) if g == "orig"}
    pairs: dict[str, list[tuple[int, int]]] = {}
    stories: dict[str, list[int]] = {}
    for i, (g, v, _) in enumerate(rows):
        if g in ("cut", "light", "heavy", "non"):
            pairs.setdefault(g, []).append((i, source[v]))
        elif g == "onestop":
            stories.setdefault(v, []).append(i)
    pairs["onestop"] = [(b, a) for s in stories.values() for k, a in enumerate(s) for b in s[k + 1 :]]
    draw = random.Random(0)
    firsts = [s[0] for s in stories.values()]
    pairs["random"] = [tuple(draw.sample(firsts, 2)) for _ in range(RANDOM_PAIRS)]  # type: ignore[misc]
    sketches = {i: coverage.sketch(rows[i][2]) for group in pairs.values() for pair in group for i in pair}
    print(
        f"\n  {'pairs':<10}{'cosine: 5%':>11}{'median':>8}{'95%':>8}{'coverage: 5%':>14}{'median':>8}{'95%':>8}"
    )
    values = {}
    for name, group in pairs.items():
        cosine = np.array([vectors[i] @ vectors[j] for i, j in group])
        short = [(i, j) if len(rows[i][2]) <= len(rows[j][2]) else (j, i) for i, j in group]
        share = np.array([coverage.containment(*sketches[i], *sketches[j]) for i, j in short])
        values[name] = (cosine, share)
        a, b = (np.quantile(v, [0.05, 0.5, 0.95]) for v in (cosine, share))
        print(f"  {name:<10}{a[0]:>11.3f}{a[1]:>8.3f}{a[2]:>8.3f}{b[0]:>14.3f}{b[1]:>8.3f}{b[2]:>8.3f}")
    for k, what in enumerate(("cosine", "coverage")):
        revised = np.concatenate([values["light"][k], values["heavy"][k]])
        area = np.mean(revised[:, None] > values["non"][k][None, :])
        print(f"  {what}: a revised pair is above a pair of one topic with probability {area:.4f}")


if __name__ == "__main__":
    raise SystemExit(main())
