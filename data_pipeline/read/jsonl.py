"""JSON lines: one object a line, in bounded memory however long a line is."""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import orjson
import xxhash

from configs.schema.pipeline import RecipeConfig
from data_pipeline.annotate import codes
from data_pipeline.read import Item, Record, SetAside, Unit, excerpt
from data_pipeline.read.dates import iso_date
from data_pipeline.read.members import Broken, Stream

KNOWN_KEYS = ("language", "lang", "licence", "license", "date", "timestamp", "group")
MAX_FIELD = 1000
"""Characters of a field beside the text; longer ones are left out."""
MAX_URL = 8000
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{1,8}){0,3}")
"""A language tag. Languages may name folders, so nothing else passes."""


def read(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Records of a JSONL file, or of the lines that start in the unit's byte range of it (compressed: its members)."""
    try:
        stream = Stream(file, unit.begin, unit.end, past_end=True, memory=recipe.max_window_bytes)
    except OSError as error:
        yield SetAside(file, 0, 0, f"not readable: {error}", "a readable file")
        return
    limit, number = recipe.max_record_bytes, 0
    try:
        if unit.begin:
            _skip_first_line(stream)
        while True:
            offset = stream.position
            # A line belongs to the part in which its line feed's successor lies: begin < start ≤ end.
            if stream.end_position is not None and offset > stream.end_position:
                return
            try:
                line = stream.line(limit + 1)
                if not line:
                    return
                if len(line) > limit and not line.endswith(b"\n"):
                    shown = excerpt(line)
                    del line
                    _skip_line(stream)
                    expected = "raise `recipe.max_record_bytes` to read it"
                    yield SetAside(file, number, offset, f"line longer than {limit} bytes", expected, shown)
                elif not line.isspace():
                    yield parse(line, file, number, offset, recipe)
            except Broken as broken:
                expected = (
                    "a readable file; reading goes on at the next member"
                    if stream.codec
                    else "a readable file"
                )
                yield SetAside(file, number, offset, f"damaged after this offset: {broken}", expected)
                if stream.codec is None:
                    return
                stream.resume(stream.member)
            number += 1
    finally:
        stream.close()


def _skip_first_line(stream: Stream) -> None:
    """The line that reaches over the beginning of a part belongs to the part before."""
    with contextlib.suppress(Broken):  # it is reported where it begins
        _skip_line(stream)


def _skip_line(stream: Stream) -> None:
    """Pass over the rest of a line without holding it."""
    while (rest := stream.line(2**20)) and not rest.endswith(b"\n"):
        pass


def parse(line: bytes, file: str, number: int, offset: int, recipe: RecipeConfig) -> Item:
    """A record from one line, or the reason why there is none."""

    def aside(reason: str, expected: str) -> SetAside:
        return SetAside(file, number, offset, reason, expected, excerpt(line))

    if offset == 0 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return aside("UTF-16", "UTF-8; convert the file, such as with `iconv -f UTF-16 -t UTF-8`")
    # Files that were joined have marks within; RFC 7464 begins each text with a record separator.
    line = line.lstrip(b"\x1e").removeprefix(codecs.BOM_UTF8)
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
    if isinstance(row.get(recipe.id_key), float):
        # orjson rounds integers beyond 64 bits, and two ids would become one.
        row[recipe.id_key] = json.loads(line).get(recipe.id_key)
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
            f"a string; fields found: {', '.join(map(str, row))[:200]}; set `recipe.text_key`, or `text_key` of the source "
            "in `sources`",
            shown,
        )
    text, repaired = repair(value)
    url, given = row.get(recipe.url_key), row.get(recipe.id_key)

    def known(*names: str) -> str | None:
        found = next((row[n] for n in names if isinstance(row.get(n), str) and row[n]), None)
        return repair(found)[0] if found and len(found) <= MAX_FIELD else None

    url = repair(url)[0] if isinstance(url, str) and 0 < len(url) <= MAX_URL else None
    date_keys = ("date", "timestamp") if recipe.date_key == "date" else (recipe.date_key,)
    date = next((day for key in date_keys if (day := iso_date(row.get(key)))), None)
    used = {recipe.text_key, recipe.id_key, recipe.url_key, *KNOWN_KEYS}
    if date is not None:
        used.add(recipe.date_key)
    else:
        used -= {"date", "timestamp"}  # what is no date is kept as metadata
    given_text = "" if given is None else _given(given)
    return Record(
        file=file,
        number=number,
        offset=offset,
        kind="html" if recipe.extract == "html" else "wikitext" if recipe.extract == "wikitext" else "text",
        payload=text.encode(),
        given=given_text or url or "",
        url=url,
        charset="utf-8",
        language=language_of(known("language", "lang")),
        licence=known("licence", "license"),
        date=date,
        group=known("group"),
        repaired=repaired,
        metadata={
            repair(str(k))[0]: repair(v)[0] if isinstance(v, str) else v
            for k, v in row.items()
            if k not in used
            and len(str(k)) <= MAX_FIELD
            and (
                isinstance(v, (bool, float))
                or (isinstance(v, int) and abs(v) < 2**63)
                or (isinstance(v, str) and len(v) <= MAX_FIELD)
            )
        }
        | ({"given_id": given_text} if given_text else {}),
    )


def language_of(tag: str | None) -> str | None:
    """A stated language in the scheme of `codes`: `th` for `th`, `tha`, `tha_Thai`, `th-TH` and `TH`.

    None for no tag, and for those that leave it open: undetermined, several, not coded (ISO 639-2).
    """
    if tag is None or LANGUAGE.fullmatch(tag.strip()) is None:
        return None
    code = codes.normal(tag.strip())[0]
    return None if code.lower() in (codes.UNKNOWN, "mul", "mis") else code


def _given(value: Any) -> str:
    """An id as text; a long one is told apart by its hash."""
    try:
        text = repair(str(value))[0]
    except (ValueError, RecursionError):  # a number of too many digits, a deep list
        text = repr(type(value))
    return text if len(text) <= MAX_FIELD else f"{text[:100]}…{xxhash.xxh3_128_hexdigest(text.encode())}"


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
