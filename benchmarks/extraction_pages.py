"""Labelled pages for extraction: reading them, aligning their truth with blocks, and measuring what was extracted.

Four sets of ARRIERO_TEST_DATA/web: `wcxb` and `article-extraction` and `readability` give the main text, `trafilatura-eval`
snippets that must and must not appear.
"""

from __future__ import annotations

import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson

from data_pipeline.zstd import zstd

SETS = {
    "wcxb": "wcxb-dev",
    "trafilatura-eval": "trafilatura-eval",
    "article-extraction": "article-extraction",
    "readability": "readability",
}
"""Names of the sets and of their files."""
_WORD = re.compile(r"\w+")
_SPACE = re.compile(r"\s+")
WEIGHTS = {"readability": 0.5, "article-extraction": 2.0}
"""How much pages of a set count in fitting: the output of another tool less, careful labels of few pages more."""
NGRAM = 4
"""Words in a row that make a match with the truth; shorter blocks must match whole."""


@dataclass(frozen=True)
class Labelled:
    """A page with its truth."""

    set: str
    url: str
    payload: bytes
    main: str | None
    """Main text; null where only snippets are known."""
    present: tuple[str, ...]
    """Snippets that must appear."""
    absent: tuple[str, ...]
    """Snippets that must not."""
    page_type: str

    @property
    def host(self) -> str:
        """Registered domain, nearly: pages of one must not be in two folds."""
        parts = (urlsplit(self.url).hostname or self.url).split(".")
        short = len(parts) > 2 and len(parts[-2]) <= 3 and len(parts[-1]) <= 2
        return ".".join(parts[-3:] if short else parts[-2:])


def folder() -> Path | None:
    """Folder of the labelled pages, where ARRIERO_TEST_DATA is set."""
    root = os.environ.get("ARRIERO_TEST_DATA")
    return Path(root) / "web" if root else None


def labelled(root: Path, sets: Iterable[str] = SETS) -> list[Labelled]:
    """The pages of the sets, in the order of their truths."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    pages = []
    for name in sets:
        payloads: dict[str, bytes] = {}
        with (root / f"{SETS[name]}-00000.warc.gz").open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                payloads[record.headers["WARC-Target-URI"]] = record.reader.read()
        truth = zstd.decompress((root / f"{SETS[name]}.ground_truth.jsonl.zst").read_bytes())
        for line in truth.splitlines():
            row: dict[str, Any] = orjson.loads(line)
            if row["url"] in payloads:
                pages.append(
                    Labelled(
                        name,
                        row["url"],
                        payloads[row["url"]],
                        None if name == "trafilatura-eval" else row.get("main_content") or "",
                        tuple(row.get("with") or ()),
                        tuple(row.get("without") or ()),
                        row.get("page_type") or "",
                    )
                )
    return pages


def fold(host: str, folds: int, salt: str = "") -> int:
    """The fold of a host, the same on every machine."""
    return zlib.crc32((salt + host).encode()) % folds


def words(text: str) -> list[str]:
    """Words of a text in lower case."""
    return _WORD.findall(text.lower())


def word_scores(found: str, truth: str) -> tuple[float, float, float]:
    """Precision, recall and F1 of bags of words; 1 where both are empty."""
    a, b = Counter(words(found)), Counter(words(truth))
    if not a and not b:
        return 1.0, 1.0, 1.0
    hit = (a & b).total()
    precision = hit / a.total() if a else 0.0
    recall = hit / b.total() if b else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if hit else 0.0


def scores(pages: list[Labelled], texts: list[str]) -> dict[str, tuple[float, float, float]]:
    """(precision, recall, F1) by set, and of wcxb by type of page.

    Words: means over pages. Snippets, of the sets that have them: over all snippets of the set, as trafilatura's
    evaluation counts them, white space collapsed on both sides.
    """
    by_name: dict[str, list[tuple[float, float, float]]] = {}
    snippets: dict[str, list[int]] = {}
    for page, text in zip(pages, texts, strict=True):
        if page.main is not None:
            score = word_scores(text, page.main)
            by_name.setdefault(page.set, []).append(score)
            if page.set == "wcxb":
                by_name.setdefault(f"wcxb: {page.page_type}", []).append(score)
        if page.present or page.absent:
            flat = _flat(text)
            counts = snippets.setdefault(page.set, [0, 0, 0])
            counts[0] += sum(_flat(snippet) in flat for snippet in page.present)
            counts[1] += len(page.present)
            counts[2] += sum(_flat(snippet) in flat for snippet in page.absent)
    result: dict[str, tuple[float, float, float]] = {
        name: tuple(np.mean(values, axis=0).tolist()) for name, values in by_name.items()
    }
    for name, (hit, present, wrong) in snippets.items():
        found = (hit / max(1, hit + wrong), hit / max(1, present), 2 * hit / max(1, hit + wrong + present))
        result[name if name not in result else f"{name}: snippets"] = found
    return result


def _flat(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


def block_labels(page: Labelled, blocks: list[str], distilled: str) -> tuple[np.ndarray, np.ndarray]:
    """(share of each block that belongs to the main text, weight), float64 [B].

    A weight is the block's share of the words of the main text. Where only snippets are known, the text of another
    extractor stands for the rest, at a lower weight.
    """
    split = [words(block) for block in blocks]
    count = np.array([len(w) for w in split], float)
    truth = distilled if page.main is None else page.main
    share = _containment(split, truth)
    size = max(len(words(truth)), 60)
    weight = (count + 2) / size
    if page.main is None:
        weight *= 0.4 if truth else 0.0
        flat = [_flat(block) for block in blocks]
        for snippet in map(_flat, page.present):
            for i, block in enumerate(flat):
                if snippet in block:
                    share[i], weight[i] = 1.0, max(count[i] / size, 0.08)
        for snippet in map(_flat, page.absent):
            holders = [i for i, block in enumerate(flat) if snippet in block]
            for i in holders:
                if len(snippet) >= 3 and not any(_flat(s) in flat[i] for s in page.present):
                    share[i], weight[i] = 0.0, max(count[i] / size, 0.08 / len(holders))
    refused = float((weight * (1 - share)).sum())
    if refused > 2:
        weight = np.where(share < 0.5, weight * 2 / refused, weight)
    return share, weight * WEIGHTS.get(page.set, 1.0)


def _containment(blocks: list[list[str]], truth: str) -> np.ndarray:
    """Share of the words of each block that lie in an n-gram of the truth; short blocks match whole, near long ones."""
    lines = [words(line) for line in truth.split("\n")]
    flat = [w for line in lines for w in line]
    whole = Counter(tuple(line) for line in lines if line)
    grams = {
        k: Counter(tuple(flat[i : i + k]) for i in range(len(flat) - k + 1)) for k in range(1, NGRAM + 1)
    }
    share = np.zeros(len(blocks))
    sure = []
    for i, block in enumerate(blocks):
        if len(block) >= NGRAM:
            covered = np.zeros(len(block), bool)
            for j in range(len(block) - NGRAM + 1):
                if tuple(block[j : j + NGRAM]) in grams[NGRAM]:
                    covered[j : j + NGRAM] = True
            share[i] = covered.mean()
            if share[i] >= 0.6 and len(block) >= 6:
                sure.append(i)
    places = np.array(sure)
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, block in enumerate(blocks):
        if block and (len(block) < NGRAM or share[i] > 0.6):
            groups.setdefault(tuple(block), []).append(i)
    for block_words, copies in groups.items():
        short = len(block_words) < NGRAM
        size = min(len(block_words), NGRAM)
        times = max(whole[block_words], grams[size][block_words[:size]])
        distance = [int(np.abs(places - i).min()) if len(places) else 0 for i in copies]
        for rank, j in enumerate(np.argsort(distance, kind="stable")):
            fits = rank < times and (not short or block_words in whole or distance[j] <= 6)
            if short:
                share[copies[j]] = float(fits)
            elif not fits:
                share[copies[j]] = 0.0
    return share
