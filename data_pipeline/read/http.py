"""HTTP responses inside archives: status, headers, and a body free of transfer and content encodings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from isal import igzip_lib

from data_pipeline.read.streams import INFLATE_ERROR

_STATUS = re.compile(rb"HTTP/\d(?:\.\d)?\s+(\d{3})")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.I)
_MARKUP = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|div|p|a|table)\b", re.I)


_HEAD_END = re.compile(rb"\r?\n\r?\n")
EXPAND_BYTES = 256 * 1024
MAX_ENCODINGS = 4
"""Content encodings of one body at the most; each may hide a bomb of its own."""


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
    truncated: bool = False
    """The encoded body breaks off; what could be decoded is there."""


def parse(data: bytes, limit: int, begin: int = 0, stop: int | None = None) -> Response:
    """Parse a response that lies between two positions of a buffer.

    Raises:
        ValueError: the content encoding is damaged, unknown, or expands beyond `limit` bytes.
    """
    stop = len(data) if stop is None else stop
    status = _STATUS.match(data, begin, stop)
    if status is None:
        return Response(0, "", None, data[begin:stop])
    end, size = data.find(b"\r\n\r\n", begin, stop), 4
    if end < 0 or data.find(b"\n\n", begin, end) >= 0:
        split = _HEAD_END.search(data, begin, stop)
        end, size = (split.start(), split.end() - split.start()) if split else (stop, 0)
    headers: dict[str, str] = {}
    for line in data[begin:end].decode("latin-1").split("\n")[1:]:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    body = data[end + size : stop]
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = dechunk(body)
    truncated = False
    if encodings := headers.get("content-encoding"):
        names = [e.strip().lower() for e in encodings.split(",")]
        if len(names) > MAX_ENCODINGS:
            raise ValueError(f"{len(names)} content encodings, one inside the other")
        for encoding in reversed(names):
            body, whole = decode(body, encoding, limit)
            truncated |= not whole
    kind = headers.get("content-type", "")
    charset = _CHARSET.search(kind)
    return Response(
        int(status.group(1)),
        kind.split(";")[0].strip().lower(),
        charset.group(1)[:40] if charset else None,
        body,
        truncated,
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


def decode(body: bytes, encoding: str, limit: int) -> tuple[bytes, bool]:
    """Undo a content encoding: the body, and whether it was whole. Bodies that are already plain are unchanged.

    Raises:
        ValueError: it is damaged, unknown, or expands beyond `limit` bytes.
    """
    if encoding in ("", "identity", "none", "utf-8") or not body:
        return body, True
    if encoding in ("gzip", "x-gzip"):
        return _inflate(body, igzip_lib.DECOMP_GZIP, limit) if body.startswith(b"\x1f\x8b") else (body, True)
    if _MARKUP.search(body, 0, 1024):
        return body, True
    if encoding == "deflate":
        try:
            return _inflate(body, igzip_lib.DECOMP_ZLIB, limit)
        except ValueError:
            return _inflate(body, igzip_lib.DECOMP_DEFLATE, limit)
    if encoding == "br":
        import brotli

        decoder = brotli.Decompressor()
        return _expand(
            lambda data, room: decoder.process(data, output_buffer_limit=room),
            decoder.is_finished,
            body,
            "brotli",
            limit,
            brotli.error,
        )
    if encoding == "zstd":
        from data_pipeline.zstd import zstd

        frame = zstd.ZstdDecompressor(None, {zstd.DecompressionParameter.window_log_max: 27})
        return _expand(frame.decompress, lambda: frame.eof, body, "zstd", limit, zstd.ZstdError)
    raise ValueError(f"unknown content encoding `{encoding[:40]}`")


def _inflate(body: bytes, flag: int, limit: int) -> tuple[bytes, bool]:
    member = igzip_lib.IgzipDecompressor(flag=flag)
    return _expand(member.decompress, lambda: member.eof, body, "compressed", limit, INFLATE_ERROR)


def _expand(
    step: Callable[[bytes, int], bytes],
    over: Callable[[], bool],
    body: bytes,
    name: str,
    limit: int,
    error_type: type[Exception],
) -> tuple[bytes, bool]:
    """A whole body, in steps, so that a bomb ends at `limit` bytes."""
    parts: list[bytes] = []
    size = 0
    data = body
    while not over():
        try:
            part = step(data, EXPAND_BYTES)
        except error_type as error:
            raise ValueError(f"damaged {name} body: {error}") from error
        data = b""
        if not part:
            break
        size += len(part)
        if size > limit:
            raise ValueError(f"a {name} body of more than {limit} bytes")
        parts.append(part)
    return b"".join(parts), over()


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
