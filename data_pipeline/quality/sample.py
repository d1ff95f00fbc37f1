"""A stratified sample of the documents of a data run, with its strata and what each document stands for.

Strata are source, language, length and present quality score. Large strata get more documents than small ones, by the square
root of their size, so that rare languages and sources are seen; `weight` says how many documents of the run each one of the
sample stands for.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from data_pipeline import policy
from data_pipeline.document import read_shard, read_table, shard_count, shard_path
from data_pipeline.packed.files import write_atomically
from data_pipeline.urls import domains

LENGTHS = ((1_000, "under 1 kB"), (4_000, "1 to 4 kB"), (16_000, "4 to 16 kB"), (math.inf, "over 16 kB"))
SCORES = 5
"""Bins of the present quality score."""
STRATA = ("source", "language", "length", "score")


def draw(run_dir: Path, count: int, strata: Sequence[str], seed: int, output: Path) -> dict[str, Any]:
    """Write `sample.jsonl` of a run and return what `sample.json` holds.

    Rows are {id, shard, source, language, host, group, length, score, stratum, weight, text}, in the order of a hash of
    (seed, id). Documents without text and copies are left out. Memory: 60 bytes a document, and the texts of the sample.

    Returns:
        {"seed", "strata", "documents", "chosen", "table": [{"stratum", "documents", "chosen"}]}.

    Raises:
        ValueError: the run has no document with text.
    """
    shards = shard_count(run_dir)
    sizes: Counter[tuple[str, ...]] = Counter()
    first: dict[tuple[str, ...], list[tuple[int, str]]] = defaultdict(list)
    for shard in range(shards):
        for row in _rows(run_dir, shard):
            stratum = tuple(str(row[name]) for name in strata)
            sizes[stratum] += 1
            # Negated, so that the heap's smallest is the largest hash of those kept.
            entry = (-_hash(seed, row["id"]), row["id"])
            if len(first[stratum]) < count:
                heapq.heappush(first[stratum], entry)
            else:
                heapq.heappushpop(first[stratum], entry)
    if not sizes:
        raise ValueError(f"{run_dir} has no document with text, so there is nothing to sample")
    shares = allocate(sizes, count)
    chosen: dict[str, float] = {}
    for stratum, n in shares.items():
        for _, identifier in sorted(first[stratum], reverse=True)[:n]:
            chosen[identifier] = sizes[stratum] / n
    rows = [row for shard in range(shards) for row in _chosen(run_dir, shard, chosen, strata)]
    rows.sort(key=lambda row: _hash(seed, row["id"]))
    write_atomically(output, b"".join(orjson.dumps(row) + b"\n" for row in rows))
    table = [
        {"stratum": " · ".join(stratum), "documents": sizes[stratum], "chosen": shares.get(stratum, 0)}
        for stratum in sorted(sizes)
    ]
    return {
        "seed": seed,
        "strata": list(strata),
        "documents": sizes.total(),
        "chosen": len(rows),
        "table": table,
    }


def allocate(sizes: Counter[tuple[str, ...]], count: int) -> dict[tuple[str, ...], int]:
    """Documents of each stratum: by the square root of its size, no more than it has, the largest remainders first."""
    left = dict(sizes)
    shares: dict[tuple[str, ...], int] = dict.fromkeys(sizes, 0)
    rest = min(count, sizes.total())
    while rest > 0:
        total = sum(math.sqrt(sizes[s]) for s in left)
        wanted = {s: rest * math.sqrt(sizes[s]) / total for s in left}
        whole = {s: min(int(w), left[s]) for s, w in wanted.items()}
        if not any(whole.values()):
            order = sorted(left, key=lambda s: (-wanted[s], s))
            whole = dict.fromkeys(order[:rest], 1)
        for s, n in whole.items():
            shares[s] += n
            left[s] -= n
            rest -= n
        left = {s: n for s, n in left.items() if n}
    return {s: n for s, n in shares.items() if n}


def host(url: str | None) -> str | None:
    """Registered domain of a URL, or its host; None for no web address."""
    if not url or not url.startswith(("http://", "https://")):
        return None
    name = domains.split(url)[0]
    return domains.registered(name) or name or None


def _hash(seed: int, identifier: str) -> int:
    return xxhash.xxh3_64_intdigest(f"quality sample\0{seed}\0{identifier}".encode())


def _rows(run_dir: Path, shard: int) -> Iterator[dict[str, Any]]:
    """{id, source, language, length, score} of the documents with text that are no copies, without the text."""
    documents = read_shard(run_dir, shard, ["id", "source", "language"])
    sizes = read_table(shard_path(run_dir, "signals/stats", shard), ["bytes"])["bytes"].to_pylist()
    first = read_table(shard_path(run_dir, "signals/copies", shard), ["first"])["first"].to_pylist()
    spoken = policy.languages(run_dir, shard, documents).to_pylist()
    path = shard_path(run_dir, "signals/quality", shard)
    there = path.is_file()
    scores: list[Any] = read_table(path, ["score"])["score"].to_pylist() if there else [None] * len(documents)
    ids, sources = documents["id"].to_pylist(), documents["source"].to_pylist()
    for i, size in enumerate(sizes):
        if size and first[i]:
            yield {
                "id": ids[i],
                "source": sources[i],
                "language": spoken[i] or "und",
                "length": next(name for limit, name in LENGTHS if size < limit),
                "score": "no score" if scores[i] is None else _bin(scores[i]),
            }


def _bin(score: float) -> str:
    k = min(int(score * SCORES), SCORES - 1)
    return f"{k / SCORES:g} to {(k + 1) / SCORES:g}"


def _chosen(
    run_dir: Path, shard: int, chosen: dict[str, float], strata: Sequence[str]
) -> Iterator[dict[str, Any]]:
    rows = {row["id"]: row for row in _rows(run_dir, shard) if row["id"] in chosen}
    if not rows:
        return
    ids = read_shard(run_dir, shard, ["id"])["id"].to_pylist()
    places = pa.array(np.flatnonzero([i in rows for i in ids]))
    documents = read_shard(run_dir, shard, ["id", "url", "group", "text"]).take(places)
    for document in documents.to_pylist():
        row = rows.pop(document["id"], None)
        if row is not None:
            where = host(document["url"])
            yield row | {
                "shard": shard,
                "host": where,
                "group": where or f"{row['source']}\0{document['group']}",
                "url": document["url"],
                "stratum": " · ".join(str(row[name]) for name in strata),
                "weight": chosen[row["id"]],
                "text": document["text"],
            }


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a sample."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]
