"""CSV, Arrow and JSON-array files: one document a row, read as streams in bounded memory."""

from __future__ import annotations

import codecs
import collections
import csv
import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa

from configs.schema.pipeline import RecipeConfig
from data_pipeline.read import Item, SetAside, Unit, excerpt, storage
from data_pipeline.read.jsonl import from_row
from data_pipeline.read.parquet import item_of, raw_rows, without_text
from data_pipeline.read.streams import DAMAGE, codec_of, open_stream

_STATED = re.compile(r"sep=(.)\s*", re.I)
_BETWEEN = re.compile(r"[\s,\[\]]*")
"""What stands between the objects of an array, or of several."""
MAX_READ_AGAIN = 256 * 2**20
"""Characters of a CSV file that are read again behind damaged rows, all together."""
FEATHER_1 = b"FEA1"
ARROW_FILE = b"ARROW1"
"""How an Arrow IPC file begins; a stream begins with 0xFFFFFFFF."""


def read_csv(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Rows of a CSV or TSV file whose first row names the columns (RFC 4180); offsets are row numbers.

    UTF-8, or UTF-16 with a mark. The delimiter is a tab where the name ends in `.tsv`, what a first line `sep=` says, or
    else the one of `, ; | tab` that the first row has most of.
    """
    # A field may be as long as a record: the module's own limit is 128 KiB.
    csv.field_size_limit(recipe.max_record_bytes)
    number = 0
    try:
        with open_stream(file, recipe.max_window_bytes) as stream:
            mark = stream.read(2)
            wide = mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            opened = io.BufferedReader(_Begun(mark, stream))
            text = io.TextIOWrapper(
                opened, encoding="utf-16" if wide else "utf-8-sig", errors="surrogateescape", newline=""
            )
            first = text.readline(2**20)
            delimiter = "\t" if ".tsv" in storage.base_name(file).lower() else ""
            if stated := _STATED.fullmatch(first):
                delimiter, first = stated[1], text.readline(2**20)
            delimiter = delimiter or max(",;\t|", key=first.count)
            lines = _Lines(first, text)
            rows = csv.reader(lines, delimiter=delimiter, strict=True)
            names = [name.strip() for name in next(rows, [])]
            if names.count(recipe.text_key) > 1:
                reason = f"{names.count(recipe.text_key)} columns `{recipe.text_key}`"
                yield SetAside(file, 0, 0, reason, "column names that differ")
                return
            while True:
                lines.keep()
                try:
                    values = next(rows)
                except StopIteration:
                    return
                except csv.Error as error:
                    shown = excerpt(lines.again().encode("utf-8", "surrogateescape"))
                    rows = csv.reader(lines, delimiter=delimiter, strict=True)
                    yield SetAside(file, number, number, f"damaged row: {error}", "CSV after RFC 4180", shown)
                    number += 1
                    continue
                if values:
                    yield _csv_item(names, values, file, number, recipe)
                    number += 1
    except DAMAGE as error:
        yield SetAside(
            file, number, number, f"damaged after this row: {error}", "a readable file; the rest is lost"
        )


class _Begun(io.RawIOBase):
    """A stream whose first bytes were read."""

    def __init__(self, start: bytes, rest: IO[bytes]) -> None:
        self._start, self._rest = start, rest

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The first bytes, then the rest."""
        data = self._start or self._rest.read(len(buffer))
        self._start = b""
        buffer[: len(data)] = data
        return len(data)


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


class _Lines:
    """Lines of a table, those of the row under way kept: a quote that is not closed takes in rows that are whole."""

    def __init__(self, first: str, rest: Iterator[str]) -> None:
        self._next, self._rest = collections.deque([first]), rest
        self._row: list[str] = []
        self._read_again = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._next.popleft() if self._next else next(self._rest)
        self._row.append(line)
        return line

    def keep(self) -> None:
        """A row begins."""
        self._row = []

    def again(self) -> str:
        """Have all lines of the row but its first read again; returns the first.

        Not beyond MAX_READ_AGAIN characters in all: each of many open quotes could reach to the end of the file.
        """
        first, *others = self._row or [""]
        size = sum(map(len, others))
        if self._read_again + size <= MAX_READ_AGAIN:
            self._read_again += size
            self._next.extendleft(reversed(others))
        return first


def read_json(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Objects of a JSON array, or that follow one another over several lines; offsets are their numbers."""
    number = 0
    try:
        with open_stream(file, recipe.max_window_bytes) as stream:
            for element, size in _elements(stream, recipe.max_record_bytes):
                if size > recipe.max_record_bytes:
                    reason = f"an element of more than {recipe.max_record_bytes} characters"
                    expected = "raise `recipe.max_record_bytes` to read it"
                    yield SetAside(file, number, number, reason, expected)
                elif isinstance(element, dict):
                    yield from_row(element, file, number, number, recipe, excerpt(str(element)[:500]))
                else:
                    kind = type(element).__name__
                    yield SetAside(file, number, number, f"a JSON {kind}", "a JSON object")
                number += 1
    except (ValueError, RecursionError, *DAMAGE) as error:
        reason = f"damaged after this element: {excerpt(str(error))}"
        yield SetAside(file, number, number, reason, "JSON objects or an array of them; the rest is lost")


def _elements(stream: IO[bytes], limit: int) -> Iterator[tuple[Any, int]]:
    """Values, and their characters, of arrays and between them, as Python's json module reads them (NaN included).

    Raises:
        ValueError: what follows is no value, or one of more than `limit` characters, or the array does not end.
    """
    decoder = json.JSONDecoder()
    characters = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    text, at, depth, ended = "", 0, 0, False
    while True:
        between = _BETWEEN.match(text, at)
        assert between is not None  # it matches nothing too
        depth += between[0].count("[") - between[0].count("]")
        at = between.end()
        failure: ValueError | None = None
        if at < len(text):
            try:
                value, end = decoder.raw_decode(text, at)
            except ValueError as error:
                failure = error
            else:
                if end < len(text) or ended:  # a number may go on
                    yield value, end - at
                    at = end
                    continue
        if ended:
            if failure is None and depth > 0:
                failure = ValueError("the file ends inside the array")
            if failure is not None:
                raise failure
            return
        if len(text) - at > limit:
            raise ValueError(f"an element of more than {limit} characters") from failure
        # Twice as much each time: what does not fit is parsed from its beginning again.
        data = stream.read(max(2**20, len(text) - at))
        ended = not data
        text, at = text[at:] + characters.decode(data, ended), 0


def read_arrow(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Rows of an Arrow IPC file (Feather V2) or stream, compressed as a whole or not; offsets are row numbers."""
    number = 0
    try:
        with storage.open_binary(file) as raw:
            start = raw.read(8)
        if start.startswith(FEATHER_1):
            expected = "Arrow IPC (Feather version 2), as pyarrow.feather.write_feather writes it"
            yield SetAside(file, 0, 0, "a Feather file of version 1", expected)
            return
        with open_stream(file, recipe.max_window_bytes) as stream:
            schema, batches = _batches(stream, codec_of(start) is None)
            if found := without_text(schema, recipe):
                yield SetAside(file, 0, 0, *found)
                return
            for batch in batches:
                for row in raw_rows(batch, recipe):
                    yield item_of(row, file, number, recipe)
                    number += 1
    except (pa.ArrowException, *DAMAGE) as error:
        reason = f"damaged after this row: {str(error)[:300]}"
        yield SetAside(file, number, number, reason, "an Arrow IPC file or stream; the rest is lost")


def _batches(stream: IO[bytes], seekable: bool) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and batches of an Arrow file or stream.

    A file is a stream between a magic number and a footer (Arrow's IPC file format): it is read as a stream where it is
    compressed as a whole, or breaks off before the footer.
    """
    start = stream.read(8)
    is_file, footer = start.startswith(ARROW_FILE), True
    if is_file and seekable:
        stream.seek(0)
        try:
            reader = pa.ipc.open_file(stream)
        except pa.ArrowInvalid:
            stream.seek(8)
            footer = False
        else:
            return reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))
    streamed = pa.ipc.open_stream(stream if is_file else io.BufferedReader(_Begun(start, stream)))

    def batches() -> Iterator[pa.RecordBatch]:
        yield from streamed
        if not footer:
            raise pa.ArrowInvalid("the footer of the file is missing or damaged")

    return streamed.schema, batches()
