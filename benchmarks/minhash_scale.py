"""MinHash deduplication at scale: time a document, memory, recall and precision on planted near-duplicates.

    [ARRIERO_TEST_DATA=DATA] python benchmarks/minhash_scale.py [--documents 1000000] [--giant 800000] [--work DIR]

Makes corpora of a tenth of and of all documents, and clusters of a tenth of and of all `--giant` documents that are near-
duplicates of one page. A document has 100 to 200 words. Two thirds are alone, a fifth are originals with one to three near
copies each (most of them above Jaccard 0.8, some below), and pages of sites that share half of their text make up the rest.
With ARRIERO_TEST_DATA, originals are passages of `books/` and `prose/` as far as they go (some of them twice, in other
editions). Deduplication (exact, then MinHash) runs in a process of its own, one worker; memory is that process's peak.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import exact, minhash
from data_pipeline.document import write_table
from data_pipeline.zstd import zstd

CONFIG = DedupConfig()
SHARD = 50_000
FIRST, LAST = 100, 200
_CHECKED = 4000


def vocabulary(draw: np.random.Generator, n: int = 30_000) -> pa.Array:
    """Made-up words."""
    syllables = [c + v for c in (*"bcdfghjklmnprstvwz", "ch", "st", "tr", "pl") for v in "aeiou"]
    picked = draw.integers(0, len(syllables), (n, 4))
    lengths = draw.integers(1, 5, n)
    return pa.array(["".join(syllables[s] for s in row[:k]) for row, k in zip(picked, lengths, strict=True)])


def passages() -> list[str]:
    """Passages of real books, of about 150 words."""
    if "ARRIERO_TEST_DATA" not in os.environ:
        return []
    found = []
    for name in ("books/gutenberg.jsonl.zst", "prose/english_novels.jsonl.zst"):
        path = Path(os.environ["ARRIERO_TEST_DATA"]) / name
        with zstd.open(path, "rb") as file:
            for line in io.BufferedReader(file):
                words = orjson.loads(line)["text"].split()
                found += [" ".join(words[k : k + 150]) for k in range(0, len(words) - 150, 150)]
    return found


class Maker:
    """Documents as rows of word numbers, from a fixed seed."""

    def __init__(self, real: list[str]) -> None:
        self.draw = np.random.default_rng(7)
        words = vocabulary(self.draw)
        # Zipf's law, as in text: some words make up most of it.
        weight = 1 / np.arange(1, len(words) + 1)
        self.cumulative = np.cumsum(weight / weight.sum())
        rows = [text.split() for text in real]
        flat = pa.array([w for row in rows for w in row], pa.string()).dictionary_encode()
        self.words = pa.chunked_array([words, flat.dictionary.cast(pa.string())]).combine_chunks()
        ends = np.cumsum([0, *map(len, rows)])
        codes = flat.indices.to_numpy() + len(words) if rows else np.zeros(0, np.int64)
        self.real = [codes[a:b] for a, b in itertools.pairwise(ends)]

    def fresh(self, n: int) -> np.ndarray:
        """n words."""
        return np.searchsorted(self.cumulative, self.draw.random(n))

    def copy(self, words: np.ndarray, share: float) -> np.ndarray:
        """Words with a share of them replaced."""
        out = words.copy()
        at = self.draw.random(len(out)) < share
        out[at] = self.fresh(int(at.sum()))
        return out

    def corpus(self, n: int) -> tuple[list[np.ndarray], np.ndarray]:
        """n documents, and the family of each: originals and their copies share one."""
        documents: list[np.ndarray] = []
        family: list[int] = []
        real = iter(self.real)
        frames = [self.fresh(70) for _ in range(max(1, n // 2000))]
        kinds = self.draw.integers(0, 20, n)
        lengths = self.draw.integers(FIRST, LAST, n)
        k = 0
        while len(documents) < n:
            kind, length = kinds[k], lengths[k]
            if kind < 13:
                documents.append(self.fresh(length))
            elif kind < 17:
                original = next(real, None)
                original = self.fresh(length) if original is None else original
                documents.append(original)
                for _ in range(self.draw.integers(1, 4)):
                    family.append(k)
                    documents.append(self.copy(original, self.draw.uniform(0, 0.03)))
            else:
                documents.append(np.concatenate([frames[length % len(frames)], self.fresh(70)]))
            family.append(k)
            k += 1
        return documents[:n], np.array(family[:n])

    def giant(self, n: int) -> tuple[list[np.ndarray], np.ndarray]:
        """n near-duplicates of one document."""
        page = self.fresh(150)
        return [self.copy(page, 0.01) for _ in range(n)], np.zeros(n, np.int64)


def write(maker: Maker, documents: list[np.ndarray], folder: Path) -> int:
    """Write shards of documents and their content hashes; number of shards. Document i has the id i, scattered."""
    order = np.random.default_rng(1).permutation(len(documents))
    shards = range(0, len(documents), SHARD)
    for shard, low in enumerate(shards):
        chosen = order[low : low + SHARD]
        rows = [documents[i] for i in chosen]
        offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
        words = maker.words.take(pa.array(np.concatenate(rows)))
        text = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), words), " ")
        ids = pa.array([f"{i:032x}" for i in chosen])
        hashes = pa.array([xxhash.xxh3_128_hexdigest(t.encode()) for t in text.to_pylist()])
        name = f"{shard:05d}.parquet"
        write_table(pa.table({"id": ids, "text": text}), folder / "documents" / name)
        write_table(pa.table({"id": ids, "content_hash": hashes}), folder / "signals/hashes" / name)
        write_table(pa.table({"id": ids, "chars": pc.utf8_length(text)}), folder / "signals/stats" / name)
    return len(shards)


def measure(folder: Path, shards: int) -> None:
    """Deduplicate; print JSON: CPU seconds by step, peak memory, counts."""
    # Compiled code is loaded by a first document.
    warm = folder / "warm"
    write_table(pa.table({"id": ["0" * 32], "text": ["a b c d e f"]}), warm / "documents/00000.parquet")
    minhash.run(warm, 1, CONFIG)
    began = time.process_time()
    exact.decide(folder, list(range(shards)), CONFIG)
    between = time.process_time()
    counts = minhash.run(folder, shards, CONFIG)
    seconds = {"exact": between - began, "minhash": time.process_time() - between}
    # Not getrusage: that one starts from the memory of the process which started this one.
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "counts": counts}))


def similarity(a: str, b: str) -> float:
    """Jaccard similarity of the sets of five words, computed as its definition says."""
    first, second = (
        {tuple(words[i : i + 5]) for i in range(len(words) - 4)}
        for words in (re.findall(r"\w+", text.lower()) for text in (a, b))
    )
    return len(first & second) / len(first | second)


def judge(maker: Maker, documents: list[np.ndarray], family: np.ndarray, folder: Path) -> str:
    """Recall on planted pairs, precision of drops, in words. Similarities are taken of the first 4,000 of each."""
    dropped: dict[int, int] = {}
    for path in sorted((folder / "decisions/minhash").glob("*.parquet")):
        table = pq.read_table(path).filter(pc.equal(pc.field("rule"), "minhash"))
        for i, detail in zip(table["id"].to_pylist(), table["detail"].to_pylist(), strict=True):
            dropped[int(i, 16)] = int(detail[:32], 16)
    for path in sorted((folder / "decisions/exact").glob("*.parquet")):
        table = pq.read_table(path).filter(pc.equal(pc.field("rule"), "exact"))
        dropped |= {
            int(i, 16): int(d[:32], 16)
            for i, d in zip(*(table[c].to_pylist() for c in ("id", "detail")), strict=True)
        }

    def text(i: int) -> str:
        return " ".join(maker.words.take(pa.array(documents[i])).to_pylist())

    some = sorted(dropped.items())[:: max(1, len(dropped) // _CHECKED)]
    right = sum(similarity(text(i), text(j)) >= CONFIG.jaccard for i, j in some)
    at_home = sum(family[i] == family[j] for i, j in dropped.items())
    heads = np.flatnonzero(np.concatenate([[True], family[1:] != family[:-1]]))
    sizes = np.diff(heads, append=len(family))
    pairs = [(h, h + k) for h, size in zip(heads, sizes, strict=True) for k in range(1, size)]
    near = [
        (i, j)
        for i, j in pairs[:: max(1, len(pairs) // _CHECKED)]
        if similarity(text(i), text(j)) >= CONFIG.jaccard
    ]
    found = sum(i in dropped or j in dropped for i, j in near)
    return (
        f"dropped {len(dropped):,}; precision {right / max(len(some), 1):.4f} (J ≥ 0.8 with the document that stays, of "
        f"{len(some):,} drops), recall {found / max(len(near), 1):.4f} (of {len(near):,} planted pairs at J ≥ 0.8); "
        f"{at_home / max(len(dropped), 1):.4f} of the drops are planted, the others are passages that books share"
    )


def trial(name: str, documents: list[np.ndarray], family: np.ndarray, maker: Maker, work: Path) -> float:
    """Deduplicate one corpus and print what it took; microseconds a document."""
    folder = work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shards = write(maker, documents, folder)
    size = sum(f.stat().st_size for f in (folder / "documents").iterdir()) / 1e6
    words = [sys.executable, __file__, "--measure", str(folder), str(shards)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found = json.loads(done.stdout.splitlines()[-1])
    each = found["seconds"]["minhash"] / len(documents) * 1e6
    print(
        f"{name}: {len(documents):,} documents ({size:.0f} MB of Parquet), {found['seconds']['minhash']:.1f} CPU s, "
        f"{each:.1f} µs a document (exact before it {found['seconds']['exact']:.1f} s), peak {found['peak_mb']:.0f} MiB, "
        f"{found['counts']['verified']:,} pairs verified",
        flush=True,
    )
    print(f"  {judge(maker, documents, family, folder)}", flush=True)
    return each


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--giant", type=int, default=800_000)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--measure", nargs=2)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(Path(arguments.measure[0]), int(arguments.measure[1]))
        return 0
    maker = Maker(passages())
    print(f"{len(maker.real):,} passages of real books")
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        work = Path(folder)
        for name, make, n in (
            ("corpus", maker.corpus, arguments.documents),
            ("giant", maker.giant, arguments.giant),
        ):
            if n:
                small = trial(name, *make(n // 10), maker, work)
                large = trial(name, *make(n), maker, work)
                print(f"  {name}: time a document at {n:,} is {large / small:.2f} times that at {n // 10:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
