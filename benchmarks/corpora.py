"""Texts for benchmarks: of the test data, or of a folder that the user names."""

from __future__ import annotations

import bz2
import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import orjson

from data_pipeline.zstd import zstd

PIECE = 6000
"""Characters of the pieces that books are cut into, about those of a web page."""


def rows(path: Path) -> Iterator[dict[str, object]]:
    """Rows of a JSONL file, compressed or not."""
    openers = {".zst": zstd.open, ".gz": gzip.open, ".bz2": bz2.open}
    file: BinaryIO
    with openers.get(path.suffix, open)(path, "rb") as file:  # type: ignore[operator]
        yield from map(orjson.loads, io.BufferedReader(file))  # type: ignore[arg-type]


def texts(folder: Path | None = None, pieces: int = 8) -> Iterator[tuple[str, str]]:
    """(name, text) of documents: `text` or `main_content` of JSONL files in a folder, or else of ARRIERO_TEST_DATA.

    Of the test data: ground truth of web pages, text of a crawl, news; the first `pieces` pieces of books.

    Raises:
        SystemExit: no folder is given, and the variable is not set.
    """
    if folder is None:
        if "ARRIERO_TEST_DATA" not in os.environ:
            raise SystemExit("set ARRIERO_TEST_DATA, or name a folder of JSONL files with `text`")
        data = Path(os.environ["ARRIERO_TEST_DATA"])
        named = ["neardup/uci_docs", "quality/onestop_english", "prose/english_novels", "books/gutenberg"]
        paths = sorted(data.glob("web/*.ground_truth.jsonl.zst")) + [data / f"{n}.jsonl.zst" for n in named]
    else:
        paths = sorted(p for p in folder.rglob("*.jsonl*") if p.is_file())
    for path in paths:
        in_pieces = path.parent.name in ("prose", "books")
        for i, row in enumerate(rows(path)):
            text = row.get("text") or row.get("main_content")
            if isinstance(text, str):
                for at in range(0, min(len(text), PIECE * pieces), PIECE) if in_pieces else [0]:
                    piece = text[at : at + PIECE] if in_pieces else text
                    yield f"{path.name.split('.')[0]}/{row.get('id', i)}", piece
