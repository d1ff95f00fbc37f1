"""HTTP responses inside archives: status, headers, and a body free of transfer and content encodings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from isal import igzip_lib

from data_pipeline.read.streams import INFLATE_ERROR

# Empty lines may precede it (RFC 9112, section 2.2); proxies and browsers write other protocols, or no version.
_STATUS = re.compile(rb"\s{0,8}(?:https?|spdy|h2|icy)(?:/\d(?:\.\d)?)?[ \t]+(\d{3})(?!\d)([^\r\n]*)", re.I)
_TUNNEL = re.compile(rb"connection established", re.I)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.I)
_MARKUP = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|div|p|a|table)\b", re.I)


_HEAD_END = re.compile(rb"\r?\n\r?\n")
EXPAND_BYTES = 256 * 1024
MAX_ENCODINGS = 4
"""Largest number of encodings of one body; each may hide a bomb of its own."""
PLAIN = ("identity", "none", "utf-8", "binary")
"""Names of encodings that change nothing, standard and not."""
MAX_INTERIM = 8
"""Largest number of 1xx responses before the final one."""


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
    """The body breaks off, or is not in the encoding that its headers name; what could be decoded is there."""


def parse(data: bytes, limit: int, begin: int = 0, stop: int | None = None) -> Response:
    """Parse a response that lies between two positions of a buffer.

    Responses of status 1xx before the final one are passed over (RFC 9110, section 15.2), and so is the answer of a proxy
    that a tunnel stands.

    Raises:
        ValueError: the content encoding is damaged, unknown, or expands beyond `limit` bytes.
    """
    stop = len(data) if stop is None else stop
    status = _STATUS.match(data, begin, stop)
    if status is None:
        return Response(0, "", None, data[begin:stop])
    begin = status.start(1)
    for _ in range(MAX_INTERIM):
        end, size = data.find(b"\r\n\r\n", begin, stop), 4
        if end < 0 or data.find(b"\n\n", begin, end) >= 0:
            split = _HEAD_END.search(data, begin, stop)
            end, size = (split.start(), split.end() - split.start()) if split else (stop, 0)
        interim = status.group(1).startswith(b"1") or _TUNNEL.search(status.group(2))
        following = _STATUS.match(data, end + size, stop) if interim else None
        if following is None:
            break
        begin, status = following.start(1), following
    headers: dict[str, str] = {}
    for line in data[begin:end].decode("latin-1").split("\n")[1:]:
        name, _, value = line.partition(":")
        name = name.strip().lower()
        # A header that may be repeated means the list of its values.
        joined = name in ("transfer-encoding", "content-encoding") and name in headers
        headers[name] = f"{headers[name]}, {value.strip()}" if joined else headers.get(name, value.strip())
    body, truncated = data[end + size : stop], False
    # Content codings were applied first, then transfer codings, each list in its order (RFC 9112, section 6.1).
    names = [
        name
        for header in ("content-encoding", "transfer-encoding")
        for coding in headers.get(header, "").split(",")
        if (name := coding.split(";")[0].strip(" \t\"'").lower())
    ]
    if len(names) > MAX_ENCODINGS:
        raise ValueError(f"{len(names)} content encodings, one inside the other")
    for at, encoding in reversed(list(enumerate(names))):
        if encoding == "chunked":
            body, rest, whole = dechunk(body)
            # What is compressed goes on to where its chain breaks; a plain text loses nothing of what follows.
            body += b"" if any(name not in PLAIN for name in names[:at]) else rest
        else:
            body, whole = decode(body, encoding, limit)
        truncated |= not whole
    kind = headers.get("content-type", "")
    return Response(
        int(status.group(1)),
        kind.split(";")[0].strip().lower(),
        charset_of(kind),
        body,
        truncated,
    )


def charset_of(content_type: str) -> str | None:
    """The `charset` parameter of a Content-Type; None without one."""
    match = _CHARSET.search(content_type)
    return match.group(1)[:40] if match else None


def dechunk(body: bytes) -> tuple[bytes, bytes, bool]:
    """Undo chunked transfer encoding (RFC 9112, section 7.1).

    Crawlers often keep the header and undo the encoding, and text that begins with a number looks like a chunk: a body that
    does not begin with a chain of chunks is taken as it is, and whole. A chain that breaks off, or goes on as something
    else, is undone as far as it goes.

    Returns:
        The bytes of the chunks; what follows a chain that breaks, unchanged; whether the body ended where its encoding says.
    """
    parts: list[bytes] = []
    at = 0
    sure = False  # That it is a chain, and not a plain text that begins with a number.
    while at < len(body):
        end = body.find(b"\n", at, at + 1024)
        size = _CHUNK_SIZE.fullmatch(body, at, end if end >= 0 else len(body))
        if end < 0 and size is not None and sure:
            return b"".join(parts), b"", size.group(1).strip(b"0") == b""  # cut inside a size line
        if end < 0 or size is None:
            break
        length = int(size.group(1), 16)
        if length == 0:
            if not sure and not _TRAILERS.fullmatch(body, end + 1):
                break
            return b"".join(parts), b"", True
        start = end + 1
        after = start + length
        line_end = _LINE_END.match(body, after)
        if after >= len(body) or body[after:] == b"\r":
            # A first chunk that is longer than all of the body is as likely the number in a plain text.
            sure = sure or body[end - 1 : end] == b"\r"
            return (b"".join([*parts, body[start:after]]), b"", False) if sure else (body, b"", True)
        if line_end is None:
            break
        parts.append(body[start:after])
        sure = sure or len(parts) > 1 or (length > SHORT_CHUNK and line_end.group() == b"\r\n")
        at = line_end.end()
    return (b"".join(parts), body[at:], False) if sure else (body, b"", True)


SHORT_CHUNK = 16
"""Bytes up to which a single chunk may be two lines of a plain text of which the first is, by chance, the other's length."""
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,16})[ \t]*(?:;[^\r\n]*)?\r?")
_LINE_END = re.compile(rb"\r?\n")
_TRAILERS = re.compile(rb"(?:[!-9;-~]{1,64}:[^\r\n]{0,1024}\r?\n){0,16}\s*")


def decode(body: bytes, encoding: str, limit: int) -> tuple[bytes, bool]:
    """Undo a content encoding: the body, and whether it was whole. Bodies that are already plain are unchanged.

    What begins as another encoding than the one that is named is undone as that one.

    Raises:
        ValueError: it is damaged, unknown, or expands beyond `limit` bytes.
    """
    if encoding in PLAIN or not body:
        return body, True
    for magic, read in _MEMBERS:
        if body.startswith(magic):
            return _members(body, magic, limit, read)
    named = "gzip" if encoding == "x-gzip" else encoding
    if _MARKUP.search(body, 0, 1024) or (named in ("gzip", "zstd") and not _is_zlib(body)):
        return _plain(body, named)
    if named in ("deflate", "gzip", "zstd"):
        try:
            return _inflate(body, igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB), limit)
        except ValueError:
            return _inflate(body, igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE), limit)
    if named == "br":
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
    raise ValueError(f"unknown content encoding `{encoding[:40]}`")


_CONTROLS = bytes({*range(32)} - {*b"\t\n\r\f\x1b"})
MAX_CONTROLS = 0.02
"""Share of control characters from which a body is no text."""


def _is_zlib(body: bytes) -> bool:
    """Whether it begins as RFC 1950, section 2.2, says."""
    return len(body) > 2 and body[0] & 15 == 8 and body[0] < 0x80 and (body[0] * 256 + body[1]) % 31 == 0


def _plain(body: bytes, encoding: str) -> tuple[bytes, bool]:
    """A body that is not encoded, though its header says so.

    Raises:
        ValueError: it is no text either.
    """
    start = body[:4096]
    wide = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    if not wide and len(start) - len(start.translate(None, _CONTROLS)) > MAX_CONTROLS * len(start):
        raise ValueError(f"a body that is not {encoding}, though its header says so, and no text")
    return body, True


def _members(
    body: bytes, magic: bytes, limit: int, read: Callable[[bytes, int], tuple[bytes, bool, bytes]]
) -> tuple[bytes, bool]:
    """All gzip members (RFC 1952, section 2.2) or zstd frames (RFC 8878, section 3.1) of a body.

    What follows the last one is no part of it.
    """
    parts: list[bytes] = []
    size, whole = 0, True
    while whole and body.startswith(magic):
        try:
            part, whole, body = read(body, limit - size)
        except ValueError:
            if not parts:
                raise
            return b"".join(parts), False
        parts.append(part)
        size += len(part)
    return b"".join(parts), whole


def _gzip_member(body: bytes, limit: int) -> tuple[bytes, bool, bytes]:
    member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    part, whole = _inflate(body, member, limit)
    return part, whole, member.unused_data or b""


def _zstd_frame(body: bytes, limit: int) -> tuple[bytes, bool, bytes]:
    from data_pipeline.zstd import zstd

    frame = zstd.ZstdDecompressor(None, {zstd.DecompressionParameter.window_log_max: 27})
    part, whole = _expand(frame.decompress, lambda: frame.eof, body, "zstd", limit, zstd.ZstdError)
    return part, whole, frame.unused_data


_MEMBERS = ((b"\x1f\x8b", _gzip_member), (b"\x28\xb5\x2f\xfd", _zstd_frame))
"""Magic numbers of encodings whose bodies are sequences, and how one member is read: (bytes, whether whole, the rest)."""


def _inflate(body: bytes, member: igzip_lib.IgzipDecompressor, limit: int) -> tuple[bytes, bool]:
    return _expand(member.decompress, lambda: bool(member.eof), body, "compressed", limit, INFLATE_ERROR)


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
