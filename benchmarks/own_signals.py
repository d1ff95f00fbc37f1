"""What `signals.functions` costs beside the function itself, over 100,000 documents.

    python benchmarks/own_signals.py [documents]

Documents are paragraphs of this Python's own sources, joined to about 2 kB. Two functions: one as a user may write it
(repeated words, pairs and triples), and one that does nothing but measure the length, for the absolute cost. Each is
called on batches in memory (the function itself), and as the stage does, from shards to sidecars; CPU seconds of one
process, the least of three interleaved rounds of each shard.
"""

from __future__ import annotations

import random
import re
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_pipeline.annotate.own import functions
from data_pipeline.document import Document, ShardWriter, document_id, shard_path

ROUNDS = 3
SHARDS = 8
BATCH = 1024
WORDS = re.compile(r"\w+")
CHARACTERS = 2000


def repetition(documents: pa.Table) -> dict[str, list[float]]:
    """Shares of words, pairs and triples of words that are different ones, as a user may write it."""
    found: dict[str, list[float]] = {"words": [], "pairs": [], "triples": []}
    for text in documents["text"].to_pylist():
        words = WORDS.findall(text.lower())
        for n, values in enumerate(found.values(), 1):
            grams = list(zip(*(words[i:] for i in range(n)), strict=False))
            values.append(len(set(grams)) / max(len(grams), 1))
    return dict(found)


def length(documents: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Bytes of each text."""
    return {"bytes": pc.binary_length(documents["text"])}


def texts(count: int) -> Iterator[str]:
    """Texts of about 2,000 characters."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    paragraphs = [p for f in files for p in f.read_text(errors="replace").split("\n\n") if p.strip()]
    choose = random.Random(0)
    for _ in range(count):
        parts: list[str] = []
        while sum(map(len, parts)) < CHARACTERS:
            parts.append(choose.choice(paragraphs))
        yield "\n\n".join(parts)


def make(run_dir: Path, count: int) -> int:
    """Write shards of documents; bytes of their texts."""
    made, size = texts(count), 0
    for shard in range(SHARDS):
        with ShardWriter(shard_path(run_dir, "documents", shard)) as writer:
            for i in range(shard, count, SHARDS):
                text = next(made)
                size += len(text.encode())
                writer.add(
                    Document(document_id("bench", str(i), text.encode()), "bench", text, f"https://a/{i}")
                )
    return size


def alone(run_dir: Path, shard: int, function: functions.Function) -> float:
    """CPU seconds of the function on batches that are in memory."""
    batches = list(functions.batches(run_dir, shard, BATCH))
    began = time.process_time()
    for batch in batches:
        function(batch)
    return time.process_time() - began


def stage(run_dir: Path, shard: int, function: functions.Function) -> float:
    """CPU seconds of the stage's task."""
    name = function.__name__
    began = time.process_time()
    functions.apply(run_dir, shard, name, f"own_signals:{name}", str(Path(__file__).parent), BATCH, [])
    return time.process_time() - began


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        size = make(run_dir, count)
        print(f"{count:,} documents, {size / 1e6:.0f} MB of text, batches of {BATCH}")
        print(f"{'function':<10} {'alone, s':>9} {'stage, s':>9} {'overhead':>9} {'µs/document':>12}")
        for function in (repetition, length):
            taken = [
                [(alone(run_dir, shard, function), stage(run_dir, shard, function)) for _ in range(ROUNDS)]
                for shard in range(SHARDS)
            ]
            itself, whole = (sum(min(r[i] for r in rounds) for rounds in taken) for i in (0, 1))
            over = whole - itself
            print(
                f"{function.__name__:<10} {itself:>9.2f} {whole:>9.2f} {over / itself:>8.1%} {1e6 * over / count:>12.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
