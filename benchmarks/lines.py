"""Line deduplication: speed beside plain Python, memory and time at a million documents, and what it takes out.

python benchmarks/lines.py speed            # one core, the same text on both sides
python benchmarks/lines.py scale [N]        # N made-up documents (1,000,000), bound of 64 MiB, peak memory
ARRIERO_TEST_DATA=DATA python benchmarks/lines.py pages      # web/uci-ics-crawl and web/wcxb
"""

from __future__ import annotations

import glob
import hashlib
import io
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from configs import edge
from configs.schema.pipeline import DedupConfig, RecipeConfig
from data_pipeline import collect, edits
from data_pipeline.dedup import lines, settings
from data_pipeline.document import shard_path, write_table
from data_pipeline.read import units as planning
from data_pipeline.zstd import zstd

MENU = [
    "Home",
    "Log in",
    "Share this article",
    "© 2024 Example, all rights reserved",
    "Read more",
    "Newsletter",
]
PUNCTUATION = re.compile(r"[^\w\s]+")
DIGITS = re.compile(r"\d")
STAGE = """
import sys, time
from pathlib import Path
from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import lines, settings
stage, run, shards, rule, memory = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
config = DedupConfig(lines=rule, line_memory_mb=memory)
chosen = range(shards)
tasks = range(settings.line_ranges(shards)) if stage == "counts" else range(shards)
# What the compiled code needs is there before the first document.
lines.units(__import__("pyarrow").array(["a"]), False)
def peak():
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
base = peak()
began = time.process_time()
for task in tasks:
    if stage == "hashes":
        lines.hashes(run, task, chosen, config)
    elif stage == "counts":
        lines.counts(run, task, shards, config)
    else:
        lines.decide(run, task, chosen, shards, config)
print(time.process_time() - began, peak(), base)
"""


def write_documents(run: Path, shard: int, texts: list[str]) -> None:
    ids = [hashlib.md5(f"{shard}/{k}".encode()).hexdigest() for k in range(len(texts))]
    table = pa.table({"id": ids, "text": texts, "date": pa.nulls(len(ids), pa.string())})
    path = shard_path(run, "documents", shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", row_group_size=8192)


def made_up(n: int, seed: int) -> list[str]:
    """Documents of about 900 characters: sentences of their own, menu lines, and lines that a few others share."""
    generator = np.random.default_rng(seed)
    chosen = random.Random(seed)
    words = [
        "".join(chosen.choices("abcdefghijklmnopqrstuvwxyz", k=chosen.randrange(2, 11))) for _ in range(5000)
    ]
    texts = []
    for _ in range(n):
        picked = generator.integers(0, len(words), 12 * 9).tolist()
        text = [" ".join(words[i] for i in picked[k : k + 12]) for k in range(0, len(picked), 12)]
        text[1:1] = chosen.sample(MENU, 3)
        text.append(f"Shared line {words[int(chosen.paretovariate(0.6)) % 5000]} {words[picked[0]][:2]}")
        texts.append("\n".join(text))
    return texts


def plain(texts: list[str]) -> list[str]:
    """CCNet's way in plain Python: a SHA-1 of every normalised line, counted in a dictionary."""

    def key(line: str) -> bytes:
        line = PUNCTUATION.sub("", DIGITS.sub("0", line.strip().lower()))
        return hashlib.sha1(line.encode()).digest()[:8]

    seen: Counter[bytes] = Counter()
    for text in texts:
        seen.update({key(line) for line in text.split("\n")})
    return ["\n".join(line for line in text.split("\n") if seen[key(line)] <= 6) for text in texts]


def speed() -> None:
    texts = made_up(20_000, 0)
    size = sum(len(t.encode()) for t in texts)
    config = DedupConfig(lines="llama3")
    ours, theirs, parts = [], [], np.zeros(3)
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch)
        for repeat in range(4):
            shard = 0
            write_documents(run, shard, texts)
            marks = [time.process_time()]
            lines.hashes(run, shard, {shard}, config)
            marks.append(time.process_time())
            lines.counts(run, 0, 1, config)
            marks.append(time.process_time())
            found = lines.decide(run, shard, {shard}, 1, config)
            marks.append(time.process_time())
            left = plain(texts)
            marks.append(time.process_time())
            if repeat:  # the first one compiles
                ours.append(marks[3] - marks[0])
                theirs.append(marks[4] - marks[3])
                parts += np.diff(marks[:4]) / 3
        assert sum(len(t) for t in left) <= sum(len(t) for t in texts)
    mine, other = sorted(ours)[1], sorted(theirs)[1]
    print(
        f"{size / 1e6:.1f} MB of text in {len(texts):,} documents, {found['removed_lines']:,} lines taken out"
    )
    print(
        f"hashes, counts, edits with reading and writing: {size / 1e6 / mine:.1f} MB/s "
        f"({', '.join(f'{size / 1e6 / s:.0f}' for s in parts)} each); plain Python, in memory: "
        f"{size / 1e6 / other:.1f} MB/s; ratio {other / mine:.1f}"
    )


def scale(n: int) -> None:
    memory = 64
    for rule in ("llama3", "ccnet"):
        for documents in (n // 10, n):
            with tempfile.TemporaryDirectory() as scratch:
                run, per_shard = Path(scratch), 25_000
                shards = -(-documents // per_shard)
                size = 0
                for shard in range(shards):
                    texts = made_up(min(per_shard, documents - shard * per_shard), shard)
                    size += sum(map(len, texts))
                    write_documents(run, shard, texts)
                seconds, peaks = [], []
                for stage in ("hashes", "counts", "decide"):
                    arguments = [sys.executable, "-c", STAGE, stage, scratch, str(shards), rule, str(memory)]
                    out = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()
                    seconds.append(float(out[0]))
                    peaks.append((int(out[1]) / 1024, int(out[2]) / 1024))
                print(
                    f"{rule}, {documents:,} documents, {size / 1e6:,.0f} MB, {shards} shards, bound {memory} MiB: "
                    f"{1e6 * sum(seconds) / documents:.1f} µs a document ({size / 1e6 / sum(seconds):.0f} MB/s); peak "
                    + ", ".join(
                        f"{name} {peak:.0f} MiB ({base:.0f} before the first document)"
                        for name, (peak, base) in zip(("hashes", "counts", "edits"), peaks, strict=True)
                    ),
                    flush=True,
                )


def read_pages(run: Path, pattern: str) -> int:
    """Extract every page of WARC files into document shards, without a policy; returns the number of shards."""
    recipe = edge.load_group("recipe", "web", RecipeConfig)
    files = sorted(glob.glob(pattern))  # noqa: PTH207
    plan = [u for f in files for u in planning.plan([planning.Source("web", recipe, f)], 1 << 40).units]
    seen: set[str] = set()
    for shard, unit in enumerate(plan):
        collect.read_unit(run, type(unit)(**{**unit.__dict__, "unit": shard}), recipe)
        # Exact duplicates would be lines that all go: they are dropped before.
        path = shard_path(run, "documents", shard)
        table = pq.read_table(path)
        fresh = [bool(t) and not (t in seen or seen.add(t)) for t in table["text"].to_pylist()]
        write_table(table.filter(pa.array(fresh)), path)
    return len(plan)


def pages() -> None:
    root = os.environ.get("ARRIERO_TEST_DATA")
    if not root:
        print("pages: ARRIERO_TEST_DATA is not set, so there are no pages to clean; skipped")
        return
    for name in ("uci-ics-crawl-*", "wcxb-dev-*"):
        with tempfile.TemporaryDirectory() as scratch:
            run = Path(scratch)
            shards = read_pages(run, f"{root}/web/{name}.warc.gz")
            for rule, config in (
                ("llama3", DedupConfig(lines="llama3")),
                ("llama3, lines of any length", DedupConfig(lines="llama3", line_min_length=1)),
                ("ccnet", DedupConfig(lines="ccnet")),
            ):
                for shard in range(shards):
                    lines.hashes(run, shard, range(shards), config)
                for part in range(settings.line_ranges(shards)):
                    lines.counts(run, part, shards, config)
                counts = Counter[str]()
                for shard in range(shards):
                    counts.update(lines.decide(run, shard, range(shards), shards, config))
                characters = sum(
                    sum(
                        map(
                            len,
                            filter(None, pq.read_table(shard_path(run, "documents", s))["text"].to_pylist()),
                        )
                    )
                    for s in range(shards)
                )
                print(
                    f"{name}, {rule}: {counts['considered']:,} different pages, {counts['edited']:,} lose "
                    f"{counts['removed_lines']:,} lines, {counts['removed_characters']:,} of {characters:,} characters "
                    f"({100 * counts['removed_characters'] / characters:.1f}%); {counts['dropped']:,} have too little left"
                )
                show(run, shards, Path(root) / "web" / f"{name[:-2]}.ground_truth.jsonl.zst")
                for path in (run / "lines").rglob("*.arrays"):
                    path.unlink()


def show(run: Path, shards: int, truth: Path) -> None:
    """The most frequent lines that go, some others, and how many of all are no boilerplate by the ground truth."""
    main: dict[str, str] = {}
    if truth.is_file():
        with zstd.open(truth) as file:
            rows = [orjson.loads(line) for line in io.BufferedReader(file)]
        main = {r["url"]: " ".join((r["main_content"] or "").split()) for r in rows}
    gone: Counter[str] = Counter()
    content: Counter[str] = Counter()
    for shard in range(shards):
        table = pq.read_table(shard_path(run, "documents", shard), columns=["id", "url", "text"])
        for row, (spans,) in edits.read(run, ["lines"], shard, table["id"]).items():
            text, url = table["text"][row].as_py(), table["url"][row].as_py()
            for span in spans:
                found = [" ".join(x.split()) for x in text[span.start : span.end].split("\n") if x.strip()]
                gone.update(found)
                content.update(x for x in found if url in main and x.lstrip("-*•# ") in main[url])
    print("  most often:", "; ".join(f"{n} × {line[:60]!r}" for line, n in gone.most_common(12)))
    rest = sorted(gone)
    random.Random(0).shuffle(rest)
    print("  any:", "; ".join(repr(line[:60]) for line in rest[:12]))
    if main:
        for title, chosen in (("", 0), (" of 10 characters and more", 10), (" of fewer", -10)):
            picked = [x for x in gone if (len(x) >= chosen if chosen >= 0 else len(x) < -chosen)]
            here = Counter({x: content[x] for x in picked if content[x]})
            total = sum(gone[x] for x in picked)
            print(
                f"  {100 * here.total() / max(total, 1):.0f}% of {total:,} lines{title} stand in the main content by the "
                "ground truth, such as "
                + "; ".join(f"{n} × {line[:60]!r}" for line, n in here.most_common(5))
            )


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "all"
    if what in ("speed", "all"):
        speed()
    if what in ("scale", "all"):
        scale(int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
    if what in ("pages", "all"):
        pages()
