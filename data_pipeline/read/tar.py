"""Tar archives as streams, in bounded memory: ustar, GNU long names, pax paths.

`tarfile` keeps every member that it has seen and reads headers of any stated length whole; archives from elsewhere must
cost neither. Nothing is written anywhere.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

BLOCK = 512
MAX_HEADER = 2**16
"""Bytes of a long name or a pax header that are read; of longer ones these."""
_NUL = bytes(BLOCK)
_SUM = slice(148, 156)
_PAX_PATH = re.compile(rb"\d+ path=([^\n]*)\n")
_PAX_SIZE = re.compile(rb"\d+ size=(\d{1,18})\n")


class DamagedArchive(OSError):
    """An archive cannot be read further."""


class Part(io.RawIOBase):
    """The next bytes of a stream as a file; what is not read is skipped by whoever made it."""

    def __init__(self, stream: IO[bytes], size: int | None = None, start: bytes = b"") -> None:
        self._stream, self.left, self._start = stream, size, start
        """Bytes that are left; null: to the end of the stream. `start` was read already, and is not counted."""

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; 0 at the end; DamagedArchive where the stream ends too soon."""
        if self._start:
            data, self._start = self._start[: len(buffer)], self._start[len(buffer) :]
        elif self.left == 0:
            return 0
        else:
            data = self._stream.read(len(buffer) if self.left is None else min(len(buffer), self.left))
            if self.left is not None:
                if not data:
                    raise DamagedArchive("the archive ends inside a member")
                self.left -= len(data)
        buffer[: len(data)] = data
        return len(data)


@dataclass(frozen=True)
class Member:
    """A regular file of an archive."""

    name: str
    """As the archive has it."""
    offset: int
    """Byte of the (decompressed) archive where its header stands."""
    size: int
    """Bytes."""
    data: IO[bytes]
    """Its contents, to be read before the next member is asked for."""


def is_tar(start: bytes) -> bool:
    """Whether a file that starts with these bytes is a tar archive: its first header has the right sum."""
    return len(start) >= BLOCK and start[:BLOCK] != _NUL and _sum_is_right(start[:BLOCK])


def members(stream: IO[bytes]) -> Iterator[Member]:
    """Regular files of an archive, in order; links, folders and devices are passed over.

    Raises:
        DamagedArchive: a header is none, or the archive ends inside a member.
    """
    position = 0
    long_name: bytes | None = None
    long_size: int | None = None
    while True:
        header = _exactly(stream, BLOCK)
        if len(header) < BLOCK or header == _NUL:
            return
        if not _sum_is_right(header):
            raise DamagedArchive(f"no header at byte {position:,}")
        kind = header[156:157]
        size = _number(header[124:136]) if long_size is None or kind in b"xgLK" else long_size
        if size is None:
            raise DamagedArchive(f"a header without a size at byte {position:,}")
        part = Part(stream, size)
        data = io.BufferedReader(part, 2**16)
        offset = position
        position += BLOCK + -(-size // BLOCK) * BLOCK
        if kind in (b"L", b"x"):
            said = data.read(min(size, MAX_HEADER))
            if kind == b"L":
                long_name = said.rstrip(b"\0")
            else:
                path, bytes_ = _PAX_PATH.search(said), _PAX_SIZE.search(said)
                long_name = path[1] if path else long_name
                long_size = int(bytes_[1]) if bytes_ else long_size
        elif kind in (b"0", b"\0", b"7"):
            name = long_name if long_name is not None else _name(header)
            long_name = long_size = None
            if not name.endswith(b"/"):
                yield Member(name.decode("utf-8", "replace"), offset, size, data)  # type: ignore[arg-type]
        elif kind not in (b"g", b"K"):
            long_name = long_size = None
        _skip(stream, (part.left or 0) + -size % BLOCK)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size and (block := stream.read(size - len(data))):
        data += block
    return data


def _skip(stream: IO[bytes], size: int) -> None:
    while size:
        block = stream.read(min(size, 2**18))
        if not block:
            raise DamagedArchive("the archive ends inside a member")
        size -= len(block)


def _sum_is_right(header: bytes) -> bool:
    stated = _number(header[_SUM])
    return stated is not None and stated == sum(header) - sum(header[_SUM]) + 8 * 32


def _number(field: bytes) -> int | None:
    if field[:1] == b"\x80":  # GNU: binary where octal digits do not suffice
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        return None


def _name(header: bytes) -> bytes:
    name = header[:100].rstrip(b"\0")
    prefix = header[345:500].rstrip(b"\0") if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name
