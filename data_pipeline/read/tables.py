"""CSV, Arrow and JSON-array files: one document a row, read as streams in bounded memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from decimal import Decimal
from typing import IO, Any

import ijson
import pyarrow as pa

from configs.schema.pipeline import RecipeConfig
from data_pipeline.read import Item, SetAside, Unit, excerpt, storage
from data_pipeline.read.jsonl import from_row
from data_pipeline.read.parquet import item_of, raw_rows
from data_pipeline.read.streams import DAMAGE, codec_of, open_stream

ARROW_FILE = b"ARROW1"
"""How an Arrow IPC file begins; a stream begins with 0xFFFFFFFF."""


def read_csv(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Rows of a CSV or TSV file whose first row names the columns (RFC 4180); offsets are row numbers.

    The delimiter is a tab where the name ends in `.tsv`, else the one of `, ; | tab` that the first row has most of.
    """
    # A field may be as long as a record: the module's own limit is 128 KiB.
    csv.field_size_limit(recipe.max_record_bytes)
    number = 0
    try:
        with open_stream(file, recipe.max_window_bytes) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
            first = text.readline(2**20)
            rows = csv.reader(_chain(first, text), delimiter=_delimiter(file, first), strict=True)
            names = next(rows, [])
            while True:
                try:
                    values = next(rows)
                except StopIteration:
                    return
                if values:
                    yield _csv_item(names, values, file, number, recipe)
                    number += 1
    except csv.Error as error:
        yield SetAside(file, number, number, f"damaged row: {error}", "CSV after RFC 4180; the rest is lost")
    except DAMAGE as error:
        yield SetAside(
            file, number, number, f"damaged after this row: {error}", "a readable file; the rest is lost"
        )


def _csv_item(names: list[str], values: list[str], file: str, number: int, recipe: RecipeConfig) -> Item:
    shown = excerpt(",".join(values).encode("utf-8", "surrogateescape"))
    if len(values) != len(names):
        reason = f"a row of {len(values)} fields under {len(names)} column names"
        return SetAside(file, number, number, reason, f"{len(names)} fields", shown)
    row: dict[str, Any] = {name: value or None for name, value in zip(names, values, strict=True)}
    for value in values:
        try:
            value.encode()
        except UnicodeEncodeError:
            return SetAside(file, number, number, "invalid UTF-8 in a field", "UTF-8", shown)
    return from_row(row, file, number, number, recipe, shown)


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _delimiter(file: str, first: str) -> str:
    if ".tsv" in storage.base_name(file).lower():
        return "\t"
    return max(",;\t|", key=first.count)


def read_json(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Elements of a JSON array; offsets are their numbers."""
    number = 0
    try:
        with open_stream(file, recipe.max_window_bytes) as stream:
            for element in ijson.items(_without_mark(stream), "item"):
                if isinstance(element, dict):
                    row = {key: _plain(value) for key, value in element.items()}
                    yield from_row(row, file, number, number, recipe, excerpt(str(row)[:500].encode()))
                else:
                    kind = type(element).__name__
                    yield SetAside(file, number, number, f"a JSON {kind}", "a JSON object")
                number += 1
    except (ijson.JSONError, *DAMAGE) as error:
        reason = f"damaged after this element: {excerpt(str(error).encode())}"
        yield SetAside(file, number, number, reason, "one JSON array of objects; the rest is lost")


def _without_mark(stream: IO[bytes]) -> IO[bytes]:
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]
    if buffered.peek(3).startswith(b"\xef\xbb\xbf"):
        buffered.read(3)
    return buffered


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def read_arrow(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Rows of an Arrow IPC file (Feather V2) or stream, compressed as a whole or not; offsets are row numbers."""
    number = 0
    try:
        with storage.open_binary(file) as raw:
            start = raw.read(8)
            raw.seek(0)
            if start.startswith(ARROW_FILE):
                reader = pa.ipc.open_file(raw)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
                schema = reader.schema
            else:
                opened = raw if codec_of(start) is None else open_stream(file, recipe.max_window_bytes)
                streamed = pa.ipc.open_stream(opened)
                batches, schema = iter(streamed), streamed.schema
            if recipe.text_key not in schema.names:
                found = ", ".join(schema.names)[:200]
                expected = f"a column of text; columns found: {found}; set `recipe.text_key`"
                yield SetAside(file, 0, 0, f"no column `{recipe.text_key}`", expected)
                return
            for batch in batches:
                for row in raw_rows(batch, recipe):
                    yield item_of(row, file, number, recipe)
                    number += 1
    except (pa.ArrowException, *DAMAGE) as error:
        reason = f"damaged after this row: {str(error)[:300]}"
        yield SetAside(file, number, number, reason, "an Arrow IPC file or stream; the rest is lost")
