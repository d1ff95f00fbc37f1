"""WARC (ISO 28500), WET and ARC archives, plain or compressed, damaged ones included.

A record that lies about its length, breaks off, or cannot be decompressed is set aside with its place; reading goes
on at the next record header (plain files) or the next gzip member.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from configs.schema.pipeline import RecipeConfig
from data_pipeline.read import Item, Record, SetAside, Skipped, Unit, excerpt, http
from data_pipeline.read.members import ARC_LINE, Broken, Stream

HEADER_LIMIT = 256 * 1024
"""Bytes of a record's header block at the most."""
DOCUMENT_TYPES = ("response", "resource", "conversion")


class Misread(Exception):
    """The bytes at a record's place are no whole record."""

    def __init__(self, reason: str, expected: str, shown: str = "") -> None:
        super().__init__(reason)
        self.reason, self.expected, self.shown = reason, expected, shown


def read(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Records of an archive, or of the gzip members that start in the unit's byte range of it."""
    stream = Stream(Path(file), unit.begin, unit.end)
    number = -1
    try:
        while True:
            number += 1
            offset, aligned = stream.offset, False
            try:
                if not _skip_blank(stream):
                    return
                offset, aligned = stream.offset, stream.at_member
                item = _record(stream, file, number, offset, recipe)
            except Broken as broken:
                yield SetAside(file, number, offset, str(broken), "a whole record; reading goes on behind it")
                stream.resume(offset)
            except Misread as misread:
                yield SetAside(file, number, offset, misread.reason, misread.expected, misread.shown)
                # A record that starts its gzip member ends with it, whatever its header says.
                if aligned:
                    stream.resume(offset)
                else:
                    _next_header(stream)
            else:
                yield item
    finally:
        stream.close()


def _skip_blank(stream: Stream) -> bool:
    while (head := stream.peek(1)) in (b"\r", b"\n"):
        stream.take(1)
    return bool(head)


def _record(stream: Stream, file: str, number: int, offset: int, recipe: RecipeConfig) -> Item:
    first = stream.line(HEADER_LIMIT)
    if first.startswith(b"WARC/"):
        return _warc(stream, first, file, number, offset, recipe)
    arc = ARC_LINE.match(first.rstrip(b"\r\n"))
    if arc is not None:
        return _arc(stream, arc.groups(), file, number, offset, recipe)
    raise Misread(
        "not a record header", "a line that starts with `WARC/`, or an ARC URL line", excerpt(first)
    )


def _next_header(stream: Stream) -> None:
    """Stand at the next line that begins a WARC record (or at the end)."""
    offset = stream.offset
    try:
        if stream.find(b"\nWARC/"):
            stream.take(1)
    except Broken:
        stream.resume(offset)


def _warc(stream: Stream, version: bytes, file: str, number: int, offset: int, recipe: RecipeConfig) -> Item:
    headers: dict[str, str] = {}
    size, name = len(version), ""
    while line := stream.line(HEADER_LIMIT):
        size += len(line)
        if not line.strip(b"\r\n"):
            break
        if size > HEADER_LIMIT:
            raise Misread(f"a header of more than {HEADER_LIMIT} bytes", "WARC headers", excerpt(line))
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text[0] in " \t" and name:  # a folded line continues the one before
            headers[name] += " " + text.strip()
            continue
        name, _, value = text.partition(":")
        name = name.strip().lower()
        headers.setdefault(name, value.strip())
    if not headers.get("content-length", "").isdigit():
        found = headers.get("content-length", "none")
        raise Misread(f"Content-Length: {excerpt(found)}", "a number of bytes")
    length, kind = int(headers["content-length"]), headers.get("warc-type", "").lower()
    url = headers.get("warc-target-uri", "").strip("<>")
    if length > recipe.max_record_bytes:
        stream.skip(length)
        return SetAside(
            file,
            number,
            offset,
            f"a record of {length} bytes",
            "raise `recipe.max_record_bytes` to read it",
            url,
        )
    body = stream.take(length)
    if not _ends_here(stream):
        stream.untake(length)
        raise Misread(
            f"Content-Length {length} does not reach the end of the record",
            "an empty line and the next record",
            url,
        )
    if kind not in DOCUMENT_TYPES:
        return Skipped(f"warc-type {kind or 'missing'}")
    content_type = headers.get("content-type", "").lower()
    is_http = kind == "response" and (url.startswith("http") or content_type.startswith("application/http"))
    return _document(
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


def _ends_here(stream: Stream) -> bool:
    """Whether blank lines and then a record, the end, or damage (of the next record) follow."""
    try:
        while (head := stream.peek(1)) in (b"\r", b"\n"):
            stream.take(1)
        return not head or stream.peek(5) == b"WARC/"
    except Broken:
        return True


def _arc(
    stream: Stream, fields: tuple[bytes, ...], file: str, number: int, offset: int, recipe: RecipeConfig
) -> Item:
    url, date, length = fields[0].decode("utf-8", "replace"), fields[2].decode(), int(fields[4])
    if length > recipe.max_record_bytes:
        stream.skip(length)
        return SetAside(
            file,
            number,
            offset,
            f"a record of {length} bytes",
            "raise `recipe.max_record_bytes` to read it",
            url,
        )
    body = stream.take(length)
    if url.startswith("filedesc:"):
        return Skipped("arc version block")
    if not url.startswith(("http:", "https:")):
        return Skipped("arc record of " + url.split(":", 1)[0])
    return _document(
        body,
        True,
        fields[3].decode("latin-1").lower(),
        url,
        f"{date[:4]}-{date[4:6]}-{date[6:8]}",
        file,
        number,
        offset,
        recipe,
        "",
    )


def _date(text: str) -> str | None:
    return text[:10] if len(text) >= 10 and text[4] == "-" else None


def _document(
    body: bytes, is_http: bool, content_type: str, url: str, date: str | None,
    file: str, number: int, offset: int, recipe: RecipeConfig, language: str,
) -> Item:  # fmt: skip
    try:
        response = http.parse(body, recipe.max_record_bytes) if is_http else None
    except ValueError as error:
        return SetAside(file, number, offset, str(error), "a readable HTTP body", url)
    payload = response.body if response else body
    media = response.content_type if response and response.status else content_type.split(";")[0].strip()
    kind = http.kind_of(media, payload)
    drop = None
    if response and response.status and response.status != 200:
        drop = "extract.http_status"
    elif not payload.strip():
        drop = "extract.empty"
    elif kind is None:
        drop = "extract.content_type"
    return Record(
        file=file,
        number=number,
        offset=offset,
        kind="text" if kind == "text" else "html",
        payload=payload,
        given=url,
        url=url or None,
        charset=response.charset if response else None,
        language=language if len(language) == 2 else None,
        date=date,
        drop=drop,
        metadata={"content_type": media, **({"status": response.status} if response else {})},
    )
