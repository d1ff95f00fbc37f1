"""The classifiers of `arriero quality` on proxy labels, with neither hosts nor sources shared between training and test.

    ARRIERO_TEST_DATA=DIR python benchmarks/quality_proxy.py

Good: pieces of books, answers with a score of 5 and more, Wikipedia. Poor: raw crawl pages, as `arriero data` extracts
them (shop and list pages of many hosts; a university's crawl). Half A: books, answers about artificial intelligence, shop
and list pages. Half B: Wikipedia, answers about teaching mathematics and about beer, the university's crawl. Trained on one
half and measured on the other, both ways; intervals of 95% over hosts (books, threads). Then on hosts of the training half
that were held out.
"""

from __future__ import annotations

import gzip
import html
import io
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from configs import children
from configs.schema.pipeline import ClassifierConfig
from data_pipeline.quality import evaluate, models, sample
from data_pipeline.quality.loop import shown
from data_pipeline.read.streams import open_stream

PIECE = 3000
"""Characters of a piece of a book."""
PIECES = 12
"""Pieces of one book."""
SCORE = 5
LISTS = ("product", "collection", "listing", "category")
A, B = "A", "B"


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file in any compression."""
    with open_stream(path) as file:
        yield from map(orjson.loads, file)


def row(half: str, source: str, group: str, text: str, good: bool) -> dict[str, Any]:
    """A labelled document."""
    return {
        "half": half,
        "source": source,
        "group": group,
        "text": text,
        "label": 5.0 * good,
        "language": "all",
    }


def books(data: Path) -> Iterator[dict[str, Any]]:
    """Pieces of books."""
    for i, book in enumerate(lines(data / "books/gutenberg.jsonl.zst")):
        text = book["text"]
        step = max(len(text) // (PIECES + 1), PIECE)
        for at in range(step, len(text) - PIECE, step):
            yield row(A, "books", f"book {i}", text[at : at + PIECE], True)


def answers(data: Path, site: str, half: str) -> Iterator[dict[str, Any]]:
    """Answers with a high score, as plain text."""
    with gzip.open(data / f"stackexchange/{site}/Posts.xml.gz") as file:
        for _, post in ET.iterparse(io.BytesIO(file.read())):
            if post.get("PostTypeId") == "2" and int(post.get("Score") or 0) >= SCORE:
                text = html.unescape(re.sub(r"<[^>]+>", "", post.get("Body") or ""))
                if len(text) > 200:
                    yield row(half, site, f"{site} {post.get('ParentId')}", text, True)


def pages(data: Path, run_dir: Path) -> Iterator[dict[str, Any]]:
    """What `arriero data` extracts of Wikipedia and of crawls."""
    web = data / "web"
    sources = [
        f"{{name:lists,recipe:web,input:{web}/wcxb-dev-00000.warc.gz}}",
        f"{{name:university,recipe:web,input:{web}/uci-ics-crawl-0000*.warc.gz}}",
        f"{{name:wikipedia,recipe:wikipedia,input:{data}/wikipedia/en*.xml.bz2}}",
    ]
    words = [f"output={run_dir}", "stop_after=read", f"sources=[{','.join(sources)}]"]
    command = children.command("data_pipeline.run", *words)
    subprocess.run(command, env=children.environment(), check=True, stdout=subprocess.DEVNULL)
    kinds = {r["url"]: r.get("page_type") for r in lines(web / "wcxb-dev.ground_truth.jsonl.zst")}
    for shard in sorted((run_dir / "documents").glob("*.parquet")):
        with pq.ParquetFile(shard) as file:
            found = file.read(["id", "source", "url", "text"]).to_pylist()
        for document in found:
            source, text = document["source"], document["text"] or ""
            if len(text) < 200 or (source == "lists" and kinds.get(document["url"]) not in LISTS):
                continue
            group = sample.host(document["url"]) if source == "lists" else document["url"]
            yield row(A if source == "lists" else B, source, f"{source} {group}", text, source == "wikipedia")


def report(rows: list[dict[str, Any]], train_on: str, folder: Path) -> None:
    """Train on one half, print measures on the other and on held-out hosts of the first."""
    inner = models.split([r["group"] for r in rows], 0, 0.15, 0.15)
    mine = np.array([r["half"] == train_on for r in rows])
    config = ClassifierConfig()
    models.train(rows, np.where(mine, inner, "other"), config, 3, folder, 0)
    scores = models.Scorer(folder, config).scores([r["text"] for r in rows])
    ranked = np.stack([evaluate.ranks(s) for s in scores.values()]).mean(axis=0)
    for name, tested in (("other half", ~mine), ("same half, other hosts", mine & (inner == "test"))):
        parts = np.where(tested, "test", np.where(mine, inner, "none"))
        found = evaluate.evaluate(rows, scores | {"mean of ranks": ranked}, parts, 3, 0)
        n = found[models.FASTTEXT]["rows"]
        print(f"trained on {train_on}, {name}: {n} documents, {found[models.FASTTEXT]['good']} good")
        for model, m in found.items():
            error = "—" if model == "mean of ranks" else shown(m["calibration_error"])
            print(f"  {model:<14} AUC {shown(m['auc'])}   calibration error {error}", flush=True)


def main() -> int:
    """Print the measures."""
    if "ARRIERO_TEST_DATA" not in os.environ:
        print("skipped: set ARRIERO_TEST_DATA to the folder of test data")
        return 0
    data = Path(os.environ["ARRIERO_TEST_DATA"]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            *books(data),
            *answers(data, "ai", A),
            *answers(data, "matheducators", B),
            *answers(data, "beer", B),
            *pages(data, Path(folder) / "run"),
        ]
        for half in (A, B):
            report(rows, half, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
