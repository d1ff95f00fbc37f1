"""JSON lines: one object a line, in bounded memory however long a line is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import orjson

from configs.schema.pipeline import RecipeConfig
from data_pipeline.read import Item, Record, SetAside, Unit, excerpt
from data_pipeline.read.streams import DAMAGE, compression, open_stream

KNOWN_KEYS = ("language", "lang", "licence", "license", "date", "group")


def read(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Records of a JSONL file, or of the lines that start in the unit's byte range of it."""
    path = Path(file)
    begin = unit.begin if compression(path) is None else 0
    end = unit.end if compression(path) is None else None
    number, offset = -1, begin
    try:
        with open_stream(path) as stream:
            for number, (offset, line, complete) in enumerate(
                lines(stream, begin, end, recipe.max_record_bytes)
            ):
                if not complete:
                    yield SetAside(
                        file,
                        number,
                        offset,
                        f"line longer than {recipe.max_record_bytes} bytes",
                        "raise `recipe.max_record_bytes` to read it",
                        excerpt(line),
                    )
                elif line.strip():
                    yield parse(line, file, number, offset, recipe)
    except DAMAGE as error:
        yield SetAside(
            file,
            number + 1,
            offset,
            f"damaged stream after this offset: {error}",
            "a readable file; what follows is lost",
        )


def lines(
    stream: IO[bytes], begin: int, end: int | None, limit: int, block_bytes: int = 2**20
) -> Iterator[tuple[int, bytes, bool]]:
    """(offset, line, whole) of each line that starts in [begin, end).

    A line longer than `limit` bytes is skipped without being held; its first kilobyte is given with `whole` false.
    """
    offset = begin
    if begin:
        # The line that reaches over `begin` belongs to the part before, unless it starts exactly there.
        stream.seek(begin - 1)
        while True:
            rest = stream.readline(block_bytes)
            offset += len(rest)
            if not rest or rest.endswith(b"\n"):
                break
        offset -= 1
    while end is None or offset < end:
        line = stream.readline(limit + 1)
        if not line:
            return
        size = len(line)
        whole = size <= limit or (line.endswith(b"\n") and size == limit + 1)
        if not whole:
            line = line[:1024]
            while rest := stream.readline(block_bytes):
                size += len(rest)
                if rest.endswith(b"\n"):
                    break
        yield offset, line, whole
        offset += size


def parse(line: bytes, file: str, number: int, offset: int, recipe: RecipeConfig) -> Item:
    """A record from one line, or the reason why there is none."""

    def aside(reason: str, expected: str) -> SetAside:
        return SetAside(file, number, offset, reason, expected, excerpt(line))

    if offset == 0 and line.startswith(b"\xef\xbb\xbf"):
        line = line[3:]
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            # The standard library accepts lone surrogates (\ud800), which are repaired below; invalid UTF-8
            # and broken JSON fail here too, with a position.
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            return aside(f"invalid UTF-8 at byte {error.start} of the line", "UTF-8")
        except (ValueError, RecursionError) as error:
            return aside(f"not JSON: {error}", "one JSON object a line")
    if not isinstance(row, dict):
        return aside(f"a JSON {type(row).__name__}", "a JSON object")
    return from_row(row, file, number, offset, recipe, excerpt(line))


def from_row(
    row: dict[str, Any], file: str, number: int, offset: int, recipe: RecipeConfig, shown: str
) -> Item:
    """A record from the fields of a JSON object or Parquet row."""
    value = row.get(recipe.text_key)
    if not isinstance(value, str):
        found = "no such field" if recipe.text_key not in row else f"it is {type(value).__name__}"
        return SetAside(
            file,
            number,
            offset,
            f"field `{recipe.text_key}` is not text: {found}",
            f"a string; fields found: {', '.join(map(str, row))[:200]}; set `recipe.text_key`",
            shown,
        )
    text, repaired = repair(value)
    url, given = row.get(recipe.url_key), row.get(recipe.id_key)

    def known(*names: str) -> str | None:
        found = next((row[n] for n in names if isinstance(row.get(n), str) and row[n]), None)
        return repair(found)[0] if found else None

    url = repair(url)[0] if isinstance(url, str) and url else None
    used = {recipe.text_key, recipe.id_key, recipe.url_key, *KNOWN_KEYS}
    given_text = "" if given is None else repair(str(given))[0]
    return Record(
        file=file,
        number=number,
        offset=offset,
        kind="html" if recipe.extract == "html" else "wikitext" if recipe.extract == "wikitext" else "text",
        payload=text.encode(),
        given=given_text or url or "",
        url=url,
        charset="utf-8",
        language=known("language", "lang"),
        licence=known("licence", "license"),
        date=known("date"),
        group=known("group"),
        repaired=repaired,
        metadata={
            repair(str(k))[0]: repair(v)[0] if isinstance(v, str) else v
            for k, v in row.items()
            if k not in used
            and (
                isinstance(v, (bool, float))
                or (isinstance(v, int) and abs(v) < 2**63)
                or (isinstance(v, str) and len(v) <= 1000)
            )
        }
        | ({"given_id": given_text} if given_text else {}),
    )


def repair(text: str) -> tuple[str, int]:
    """Text without NUL bytes and lone surrogates, and how many characters were replaced by U+FFFD or removed."""
    count = text.count("\0")
    if count:
        text = text.replace("\0", "")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # Pairs of escaped surrogates that belong together become the character they mean.
        joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        count += joined.count("\ufffd") - text.count("\ufffd")
        text = joined
    return text, count
