"""HTTP responses inside archives: status, headers, and a body free of transfer and content encodings."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

_STATUS = re.compile(rb"^HTTP/\d(?:\.\d)?\s+(\d{3})")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.I)
_MARKUP = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|div|p|a|table)\b", re.I)


@dataclass(frozen=True)
class Response:
    """A parsed HTTP response."""

    status: int
    """Status code; 0 where there is no status line."""
    content_type: str
    """Media type, lower case, without parameters; empty where the header is missing."""
    charset: str | None
    """Character set of the header."""
    body: bytes
    """Decoded body."""


def parse(data: bytes, limit: int) -> Response:
    """Parse a response.

    Raises:
        ValueError: the content encoding is damaged, unknown, or expands beyond `limit` bytes.
    """
    status = _STATUS.match(data)
    if status is None:
        return Response(0, "", None, data)
    split = re.search(rb"\r?\n\r?\n", data)
    head, body = (data[: split.start()], data[split.end() :]) if split else (data, b"")
    headers: dict[str, str] = {}
    for line in head.split(b"\n")[1:]:
        name, _, value = line.decode("latin-1").partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = dechunk(body)
    for encoding in reversed([e.strip().lower() for e in headers.get("content-encoding", "").split(",")]):
        body = decode(body, encoding, limit)
    kind = headers.get("content-type", "")
    charset = _CHARSET.search(kind)
    return Response(
        int(status.group(1)),
        kind.split(";")[0].strip().lower(),
        charset.group(1) if charset else None,
        body,
    )


def dechunk(body: bytes) -> bytes:
    """Undo chunked transfer encoding; a body that is not chunked (crawlers often keep the header only) is unchanged."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = body.find(b"\n", at, at + 1024)
        size_text = body[at : end if end >= 0 else at].split(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", size_text):
            return body if not parts else b"".join(parts)
        size = int(size_text, 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[end + 1 : end + 1 + size])
        at = end + 1 + size
        at += 2 if body[at : at + 2] == b"\r\n" else 1 if body[at : at + 1] == b"\n" else 0


def decode(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo a content encoding; bodies that are already plain are unchanged."""
    if encoding in ("", "identity", "none", "utf-8") or not body:
        return body
    if encoding in ("gzip", "x-gzip"):
        return _inflate(body, 31, limit) if body.startswith(b"\x1f\x8b") else body
    if encoding == "deflate":
        try:
            return _inflate(body, 15, limit)
        except ValueError:
            return _inflate(body, -15, limit)
    if encoding == "br":
        import brotli

        if _MARKUP.search(body[:1024]):
            return body
        try:
            decoder = brotli.Decompressor()
            plain = decoder.process(body, output_buffer_limit=limit + 1)
        except brotli.error as error:
            raise ValueError(f"damaged brotli body: {error}") from error
        if len(plain) > limit:
            raise ValueError(f"a brotli body of more than {limit} bytes")
        return bytes(plain)
    if _MARKUP.search(body[:1024]):
        return body
    raise ValueError(f"unknown content encoding `{encoding}`")


def _inflate(body: bytes, window: int, limit: int) -> bytes:
    decoder = zlib.decompressobj(window)
    try:
        plain = decoder.decompress(body, limit + 1)
    except zlib.error as error:
        raise ValueError(f"damaged compressed body: {error}") from error
    if len(plain) > limit:
        raise ValueError(f"a compressed body of more than {limit} bytes")
    return plain


def kind_of(content_type: str, body: bytes) -> str | None:
    """`html`, `text`, or None for anything that is neither; a missing or generic type is decided by the first bytes."""
    if content_type in ("text/html", "application/xhtml+xml", "application/vnd.wap.xhtml+xml"):
        return "html"
    if content_type == "text/plain":
        # Servers send pages without an extension as plain text.
        return (
            "html"
            if re.match(rb"\s*(?:\xef\xbb\xbf)?<(?:!doctype\s+html|html)\b", body[:512], re.I)
            else "text"
        )
    if content_type in ("", "unk", "no-type", "application/octet-stream", "application/http", "unknown"):
        return "html" if _MARKUP.search(body[:2048]) else None
    return None
