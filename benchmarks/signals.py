"""Analysis and all heuristic signals: megabytes of text a second on one core, beside datatrove's chain of filters.

    ARRIERO_TEST_DATA=DATA python benchmarks/signals.py [FOLDER] [--megabytes 128] [--peer-megabytes 4] [--repeats 3]

FOLDER: JSONL files with `text`; without it, texts of the test data, over and over until there is enough. Ours: a new process
that reads document shards and writes all sidecars and edits (words are found twice: for the outliers the words of all
documents must be known), from its start to its end, imports included; `compiled` with
an empty cache of kernels, `cold` with a full one, `warm` without start-up. Theirs: the four filters in memory, cold and
warm. CPU seconds of one core, medians; the two sides take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import corpora
import orjson
import peers
import pyarrow as pa

from data_pipeline.document import read_shard, shard_path, write_table

SHARD = 16 * 10**6
ROOT = Path(__file__).resolve().parent.parent


def write_shards(run: Path, texts: list[str], size: int) -> tuple[int, int]:
    """Document shards of `size` bytes of text together; (their number, bytes)."""
    shards = total = at = 0
    while total < size:
        rows: list[str] = []
        held = 0
        while held < SHARD and total + held < size:
            rows.append(texts[at % len(texts)])
            held += len(rows[-1].encode("utf-8", "surrogatepass"))
            at += 1
        ids = [f"{shards:016x}{i:016x}" for i in range(len(rows))]
        write_table(
            pa.table({"id": ids, "language": ["en"] * len(rows), "text": rows}),
            shard_path(run, "documents", shards),
        )
        shards, total = shards + 1, total + held
    return shards, total


def work(folder: str, shards: int) -> None:
    """What workers do; prints CPU seconds without start-up, and the peak of their memory in MB."""
    from data_pipeline.annotate import outliers
    from data_pipeline.heuristics import annotate as heuristics

    run = Path(folder)
    heuristics.annotate_texts(pa.chunked_array([["A first text, so that all is loaded."]]))
    began = time.process_time()
    for shard in range(shards):
        heuristics.annotate(run, shard)
    outliers.merge(run, shards)
    for shard in range(shards):
        table = outliers.annotate(run, shard, read_shard(run, shard, ["id", "language", "text"]))
        write_table(table, shard_path(run, "signals/outliers", shard))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"warm": time.process_time() - began, "memory": memory}))


def ours(run: Path, shards: int, cache: Path) -> dict[str, float]:
    """CPU seconds of a worker process, start to end and without start-up."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, __file__, "--work", str(run), str(shards)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache)},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"cold": seconds, **json.loads(done.stdout)}


def theirs(texts: list[str], size: int) -> tuple[dict[str, float], int]:
    """CPU seconds of datatrove, and the bytes that it saw."""
    every = max(1, sum(len(t.encode("utf-8", "surrogatepass")) for t in texts) // size)
    sample = [t for t in texts[::every] if t.split()]
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(b"".join(orjson.dumps({"text": t}) + b"\n" for t in sample))
        file.flush()
        script = Path(__file__).parent / "signals_in_datatrove.py"
        python = peers.python("datatrove", peers.DATATROVE)
        done = subprocess.run([python, script, file.name], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]), sum(len(t.encode()) for t in sample)


def main() -> None:
    """Take turns and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--megabytes", type=float, default=128)
    parser.add_argument("--peer-megabytes", type=float, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    texts = [t for _, t in corpora.texts(args.folder, pieces=10**6)]
    with tempfile.TemporaryDirectory() as folder:
        run, cache = Path(folder) / "run", Path(folder) / "cache"
        shards, size = write_shards(run, texts, int(args.megabytes * 1e6))
        documents = len(texts)
        print(
            f"{size / 1e6:.0f} MB of text in {shards} shards, of {documents} different documents", flush=True
        )
        tiny = Path(folder) / "tiny"
        write_shards(tiny, texts, 1)
        compiled = ours(tiny, 1, cache)["cold"]
        rates: dict[str, list[float]] = {"cold": [], "warm": [], "theirs cold": [], "theirs warm": []}
        memory = 0.0
        for _ in range(args.repeats):
            found = ours(run, shards, cache)
            memory = max(memory, found["memory"])
            rates["cold"].append(size / found["cold"] / 1e6)
            rates["warm"].append(size / found["warm"] / 1e6)
            other, seen = theirs(texts, int(args.peer_megabytes * 1e6))
            rates["theirs cold"].append(seen / other["cold"] / 1e6)
            rates["theirs warm"].append(seen / other["warm"] / 1e6)
        start = (
            statistics.median(size / c - size / w for c, w in zip(rates["cold"], rates["warm"], strict=True))
            / 1e6
        )
    median = {name: statistics.median(values) for name, values in rates.items()}
    print(f"arriero, cold start included   {median['cold']:6.2f} MB/s/core   (start-up {start:.1f} s)")
    print(f"arriero, warm                  {median['warm']:6.2f} MB/s/core   peak memory {memory:.0f} MB")
    print(f"datatrove, cold                {median['theirs cold']:6.2f} MB/s/core   ({seen / 1e6:.1f} MB)")
    print(f"datatrove, warm                {median['theirs warm']:6.2f} MB/s/core")
    print(
        f"ratio cold {median['cold'] / median['theirs cold']:.1f}, warm {median['warm'] / median['theirs warm']:.1f}"
    )
    print(f"first start ever, kernels compiled: {compiled:.1f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], int(sys.argv[3]))
    else:
        main()
