"""Labelled rows: read from JSONL, split into training and test part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson
import xxhash

from data_pipeline.read.streams import open_stream

Row = tuple[str, str]
"""(text, label)"""


def read(path: Path, text_key: str = "text", label_key: str = "label") -> Iterator[Row]:
    """Rows of a labelled JSONL file: plain or compressed, by its first bytes. Numbers and booleans serve as labels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is no JSON object with a text and a label; the message names the line.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; expected JSONL rows with `{text_key}` and `{label_key}`"
        )
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: no JSON ({error})") from None
        if not isinstance(row, dict) or text_key not in row or label_key not in row:
            keys = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise ValueError(f"{path}, line {number}: expected `{text_key}` and `{label_key}`, found: {keys}")
        text, label = row[text_key], row[label_key]
        if isinstance(label, (bool, int)):
            label = str(label).lower()
        if not isinstance(text, str) or not isinstance(label, str):
            raise ValueError(
                f"{path}, line {number}: `{text_key}` must be text and `{label_key}` text, a whole number, true or false"
            )
        yield text, label.strip().replace(" ", "_")


def _lines(path: Path) -> Iterator[bytes]:
    with open_stream(path) as file:
        yield from file


def split(
    rows: Iterable[Row], test_fraction: float, seed: int, purpose: str = "test"
) -> tuple[list[Row], list[Row]]:
    """Training and test rows, chosen by a hash of (seed, text): equal texts are on one side, order does not matter.

    `purpose` makes the splits of one seed independent of each other: what is held out for a test must not decide what
    is held out for calibration.

    Raises:
        ValueError: `test_fraction` outside (0, 1), or a part that is empty.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(
            f"the fraction of rows held out for {purpose} must lie between 0 and 1, but is {test_fraction}"
        )
    limit = int(test_fraction * 2**64)
    salt = f"classify split\0{seed}\0" if purpose == "test" else f"classify {purpose}\0{seed}\0"
    train: list[Row] = []
    test: list[Row] = []
    for text, label in rows:
        key = xxhash.xxh3_64_intdigest(salt.encode() + text.encode("utf-8", "surrogatepass"))
        (test if key < limit else train).append((text, label))
    if not train or not test:
        raise ValueError(
            f"{len(train)} training and {len(test)} {purpose} rows: with a fraction of {test_fraction} one part is empty; "
            "give more rows"
        )
    return train, test
