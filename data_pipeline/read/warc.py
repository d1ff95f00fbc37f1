"""WARC (ISO 28500), WET and ARC archives, plain or compressed, damaged ones included.

A record that lies about its length, breaks off, or cannot be decompressed is set aside with its place; reading goes
on at the next record header (plain files) or the next gzip member or zstd frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from configs.schema.pipeline import RecipeConfig
from data_pipeline.read import Item, Record, SetAside, Skipped, Unit, excerpt, http, storage
from data_pipeline.read.jsonl import language_of
from data_pipeline.read.members import ARC_LIMIT, ARC_LINE, Broken, Stream, starts_record

HEADER_LIMIT = 256 * 1024
"""Bytes of a record's header block at the most."""
DOCUMENT_TYPES = ("response", "resource", "conversion")
_HEADER_END = re.compile(rb"\n\r*\n")
_BLANK = b"\r\n"
_START_LIMIT = 2048
_START = re.compile(
    rb"\n(?:WARC/\d\.\d|(?:https?|ftp|dns|filedesc):[^\s]{1,1800} [0-9a-fA-F.:]{3,45} \d{12,17} )"
)
"""What a record starts with, for finding the next one after damage."""


Span = tuple[bytes, int, int]
"""(buffer, begin, end) of a record's bytes."""


class Misread(Exception):
    """The bytes at a record's place are no whole record."""

    def __init__(self, reason: str, expected: str, shown: str = "") -> None:
        super().__init__(reason)
        self.reason, self.expected, self.shown = reason, expected, shown


def read(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Records of an archive, or of the members (plain files: records) that start in the unit's byte range of it."""
    try:
        stream = Stream(file, unit.begin, unit.end, starts_record, memory=recipe.max_window_bytes)
    except OSError as error:
        yield SetAside(file, 0, 0, f"not readable: {error}", "a readable file")
        return
    number = -1
    try:
        while True:
            number += 1
            offset, aligned = stream.offset, False
            try:
                stream.skip_any(_BLANK)
                if not stream.peek(1):
                    return
                offset, aligned = stream.offset, stream.at_member
                item = _record(stream, file, number, offset, recipe)
            except Broken as broken:
                yield SetAside(file, number, offset, str(broken), "a whole record; reading goes on behind it")
                _go_on(stream, offset, True, False)
            except Misread as misread:
                yield SetAside(file, number, offset, misread.reason, misread.expected, misread.shown)
                _go_on(stream, offset, aligned, True)
            else:
                yield item
    finally:
        stream.close()


def _go_on(stream: Stream, offset: int, next_member: bool, misread: bool) -> None:
    """Stand at the next record after damage at `offset`.

    A record that starts its gzip member ends with it, whatever its header says.
    """
    if stream.codec is not None and next_member:
        stream.resume(offset)
        if misread and not stream.peek(1):
            # No other member: all records may lie in this one.
            stream.resume(offset, 0)
            _find_start(stream)
        return
    if stream.codec is None:
        stream.resume(offset + 1)
    _find_start(stream)


def _find_start(stream: Stream) -> None:
    try:
        if stream.find(_START, _START_LIMIT):
            stream.take(1)
    except Broken:
        if stream.codec is None:
            stream.finish()
        else:
            stream.resume(stream.offset)


def _record(stream: Stream, file: str, number: int, offset: int, recipe: RecipeConfig) -> Item:
    if stream.peek(5) == b"WARC/":
        return _warc(stream, file, number, offset, recipe)
    first = stream.line(ARC_LIMIT)
    arc = ARC_LINE.match(first.rstrip(b"\r\n"))
    if arc is not None:
        return _arc(stream, arc.groups(), file, number, offset, recipe)
    raise Misread(
        "not a record header", "a line that starts with `WARC/`, or an ARC URL line", excerpt(first)
    )


def _warc(stream: Stream, file: str, number: int, offset: int, recipe: RecipeConfig) -> Item:
    block = stream.block(_HEADER_END, HEADER_LIMIT)
    if block is None:
        shown = excerpt(stream.peek(500))
        raise Misread(f"a header of more than {HEADER_LIMIT} bytes", "WARC headers", shown)
    headers: dict[str, str] = {}
    name = ""
    for line in block.decode("utf-8", "replace").split("\n")[1:]:
        if line[:1] in (" ", "\t") and name:  # a folded line continues the one before
            headers[name] += " " + line.strip()
            continue
        name, _, value = line.partition(":")
        name = name.strip().lower()
        headers.setdefault(name, value.strip())
    digits = headers.get("content-length", "none")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise Misread(f"Content-Length: {excerpt(digits)}", "a number of bytes")
    length, kind = int(digits), headers.get("warc-type", "").lower()
    url = headers.get("warc-target-uri", "").strip("<>")
    body = _body(stream, length, recipe.max_record_bytes)
    after = stream.position
    if not _ends_here(stream):
        if body is not None and stream.codec is not None:
            stream.put_back(body[0][body[1] : body[2]] + b"\n" * (stream.position - after))
        raise Misread(
            f"Content-Length {length} does not reach the end of the record",
            "an empty line and the next record",
            url,
        )
    if body is None:
        return _too_large(file, number, offset, length, url)
    if kind not in DOCUMENT_TYPES:
        return Skipped(f"warc-type {excerpt(kind, 40) or 'missing'}")
    if url.startswith("metadata:"):
        # wget keeps its manifest, log and arguments, passwords included, as resources.
        return Skipped("warc record of " + excerpt(url.split(":", 1)[0], 40))
    content_type = headers.get("content-type", "").lower()
    is_http = kind == "response" and (url.startswith("http") or content_type.startswith("application/http"))
    item = _document(
        body,
        is_http,
        content_type,
        url,
        _date(headers.get("warc-date", "")),
        file,
        number,
        offset,
        recipe,
        headers.get("warc-identified-content-language", "").split(",")[0],
    )
    if isinstance(item, Record) and "warc-truncated" in headers:
        item.metadata["truncated"] = excerpt(headers["warc-truncated"], 40) or "unspecified"
    return item


def _body(stream: Stream, length: int, limit: int) -> Span | None:
    """A record's bytes; null, and passed over, where there are more than `limit`."""
    if stream.codec is None and stream.position + length > stream.size:
        missing = stream.position + length - stream.size
        raise Misread(f"the file ends {missing} bytes before the record does", "a whole record")
    if length > limit:
        stream.skip(length)
        return None
    if not stream.has(length):
        raise Misread("the file ends before the record does", "a whole record")
    return stream.span(length)


def _too_large(file: str, number: int, offset: int, length: int, url: str) -> SetAside:
    expected = "raise `recipe.max_record_bytes` to read it"
    return SetAside(file, number, offset, f"a record of {length} bytes", expected, excerpt(url))


def _ends_here(stream: Stream) -> bool:
    """Whether blank lines and then a record, a new member, the end, or damage (of the next record) follow."""
    try:
        stream.skip_any(_BLANK)
        following = stream.peek(5)
    except Broken:
        return True
    return not following or following == b"WARC/" or stream.at_member


def _arc(
    stream: Stream, fields: tuple[bytes, ...], file: str, number: int, offset: int, recipe: RecipeConfig
) -> Item:
    url, date, length = fields[0].decode("utf-8", "replace"), fields[2].decode(), int(fields[4])
    body = _body(stream, length, recipe.max_record_bytes)
    if body is None:
        return _too_large(file, number, offset, length, url)
    if url.startswith("filedesc:"):
        return Skipped("arc version block")
    if not url.startswith(("http:", "https:")):
        return Skipped("arc record of " + excerpt(url.split(":", 1)[0], 40))
    return _document(
        body,
        True,
        fields[3].decode("latin-1").lower(),
        url,
        _date(f"{date[:4]}-{date[4:6]}-{date[6:8]}T{date[8:10]}:{date[10:12]}:{date[12:14]}"),
        file,
        number,
        offset,
        recipe,
        "",
    )


def _date(text: str) -> str | None:
    """Date of a capture, with its time to the second where there is one: two captures may be of one day."""
    found = _DATE.match(text)
    return None if found is None else f"{found[1]}T{found[2]}Z" if found[2] else found[1]


_DATE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:T([0-9]{2}:[0-9]{2}:[0-9]{2}))?")


def _document(
    span: Span, is_http: bool, content_type: str, url: str, date: str | None,
    file: str, number: int, offset: int, recipe: RecipeConfig, language: str,
) -> Item:  # fmt: skip
    try:
        response = http.parse(span[0], recipe.max_record_bytes, *span[1:]) if is_http else None
    except ValueError as error:
        return SetAside(file, number, offset, str(error), "a readable HTTP body", excerpt(url))
    payload = response.body if response else span[0][span[1] : span[2]]
    media = response.content_type if response and response.status else content_type.split(";")[0].strip()
    kind = http.kind_of(media, payload)
    drop = None
    if response and response.status and response.status != 200:
        drop = "extract.http_status"
    elif not payload or payload.isspace():
        drop = "extract.empty"
    elif kind is None:
        drop = "extract.content_type"
    metadata: dict[str, object] = {"content_type": excerpt(media)}
    if response:
        metadata["status"] = response.status
        if response.truncated:
            metadata["truncated"] = "body"
    return Record(
        file=file,
        number=number,
        offset=offset,
        kind="text" if kind == "text" else "html",
        payload=payload,
        given=url,
        url=url or None,
        charset=response.charset if response and response.status else http.charset_of(content_type),
        language=language_of(language),
        date=date,
        drop=drop,
        metadata=metadata,
    )


def record_starts(name: str, target: int) -> list[int]:
    """Where parts of about `target` bytes of a plain archive may begin: exact starts of records, found by hopping."""
    cuts = [0]
    with storage.open_binary(name) as file:
        at, size = 0, storage.size_of(name)
        while at < size:
            file.seek(at)
            block = file.read(4096)
            skipped = len(block) - len(block.lstrip(_BLANK))
            end = _HEADER_END.search(block, skipped)
            length = re.search(
                rb"\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r*\n", block[: end.end()] if end else b"", re.I
            )
            if not block[skipped:].startswith(b"WARC/") or end is None or length is None:
                break  # damaged, or an ARC: the last part reads on
            if at + skipped - cuts[-1] >= target:
                cuts.append(at + skipped)
            at += end.end() + int(length.group(1))
    return cuts
