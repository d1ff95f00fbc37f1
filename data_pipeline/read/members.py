"""A byte stream over plain or compressed archives that can go on after damage.

Archives are written as one gzip member a record, so damage inside a member costs that record only: the stream
reports it (`Broken`), finds the next member by its magic bytes, and goes on there. `fastwarc` and `warcio` read
faster or as fast, but stop, or lose the position, at the first damaged member.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import IO

from data_pipeline.read.streams import DAMAGE, compression, open_stream

GZIP = b"\x1f\x8b\x08"
BLOCK = 256 * 1024
ARC_LINE = re.compile(rb"^(\S.*) (\S+) (\d{12,17}) (\S+)(?: .*)? (\d+)\s*$")
"""URL, address, date, content type, …, length. The URL may hold spaces, the other fields do not."""


class Broken(Exception):
    """The stream cannot be read where it stands; `Stream.resume` goes on behind the damage."""


class Stream:
    """Buffered reader of decompressed bytes between two byte offsets of a file.

    Args:
        path: archive, plain, or compressed by any method; only gzip can be entered in the middle and resumed.
        begin: first byte; a gzip stream starts at the first member at or after it.
        end: members (gzip) that start at or after this byte are left to the next part; null: to the end.
    """

    def __init__(self, path: Path, begin: int = 0, end: int | None = None) -> None:
        self.gzip = compression(path) == "gzip"
        self._file: IO[bytes] = path.open("rb") if self.gzip else open_stream(path)
        self._size = path.stat().st_size
        self._end = end
        self._raw = b""
        self._raw_start = begin  # file offset of self._raw
        self._member = begin  # file offset of the member being decompressed
        self._inflate: zlib._Decompress | None = None
        self._broken: str | None = None
        self._finished = False
        self._buffer = bytearray()
        self._at = 0  # position in the buffer
        self._consumed = 0  # decompressed bytes before the buffer
        self._starts: list[tuple[int, int]] = []  # (decompressed position, member offset), ascending
        if self.gzip:
            self._file.seek(begin)
            if begin:
                self._seek_member(0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def offset(self) -> int:
        """Where the next byte lies: its gzip member's offset, or the offset in the decompressed stream."""
        if not self.gzip:
            return self._consumed + self._at
        while len(self._starts) > 1 and self._starts[1][0] <= self._consumed + self._at:
            self._starts.pop(0)
        return self._starts[0][1] if self._starts else self._member

    def _read_raw(self) -> bool:
        block = self._file.read(BLOCK)
        self._raw += block
        return bool(block)

    def _drop_raw(self, count: int) -> None:
        self._raw = self._raw[count:]
        self._raw_start += count

    def _seek_member(self, skip: int) -> None:
        """Stand at the next gzip magic at least `skip` bytes further whose first bytes decompress."""
        self._drop_raw(skip)
        while True:
            at = self._raw.find(GZIP)
            if at < 0:
                self._drop_raw(max(len(self._raw) - 2, 0))
                if not self._read_raw():
                    self._drop_raw(len(self._raw))
                    return
                continue
            self._drop_raw(at)
            while len(self._raw) < BLOCK and self._read_raw():
                pass
            if starts_record(self._raw[:BLOCK]):
                return
            self._drop_raw(1)

    def _fill(self) -> bool:
        """Append decompressed bytes to the buffer; False at the end. Raises Broken."""
        if self._broken is not None:
            raise Broken(self._broken)
        if self._finished:
            return False
        if self._at > 4 * BLOCK:
            del self._buffer[: self._at]
            self._consumed, self._at = self._consumed + self._at, 0
        return self._fill_gzip() if self.gzip else self._fill_plain()

    def _fill_plain(self) -> bool:
        try:
            block = self._file.read(BLOCK)
        except DAMAGE as error:
            self._broken, self._finished = f"damaged stream: {error}", True
            raise Broken(self._broken) from error
        self._buffer += block
        self._finished = not block
        return bool(block)

    def _fill_gzip(self) -> bool:
        while True:
            if self._inflate is None:
                if len(self._raw) < 18:
                    self._read_raw()
                if not self._raw.strip(b"\0"):  # trailing zeros pad some archives to a block size
                    self._finished = True
                    return False
                if self._end is not None and self._raw_start >= self._end:
                    self._finished = True
                    return False
                self._member = self._raw_start
                self._starts.append((self._consumed + len(self._buffer), self._member))
                self._inflate = zlib.decompressobj(31)
            elif not self._raw and not self._read_raw():
                self._broken = "the file ends inside a gzip member"
                raise Broken(self._broken)
            try:
                block = self._inflate.decompress(self._raw, BLOCK)
            except zlib.error as error:
                self._broken = f"damaged gzip member: {error}"
                raise Broken(self._broken) from error
            rest = self._inflate.unconsumed_tail or self._inflate.unused_data
            self._drop_raw(len(self._raw) - len(rest))
            if self._inflate.eof:
                self._inflate = None
            if block:
                self._buffer += block
                return True

    @property
    def at_member(self) -> bool:
        """Whether the next byte is the first of a gzip member."""
        offset = self.offset
        return self.gzip and any(place == (self._consumed + self._at, offset) for place in self._starts)

    def resume(self, member: int) -> None:
        """Go on behind damage: drop what is buffered, and stand at the next gzip member after the one at `member`.

        Other compressions cannot be entered in the middle, so there the stream ends.
        """
        self._broken = None
        self._consumed += len(self._buffer)
        self._buffer, self._at = bytearray(), 0
        self._starts.clear()
        if not self.gzip:
            self._finished = True
            return
        # From one byte behind the member's start: a decompressor that runs over damage may have eaten the next one.
        self._inflate, self._finished = None, False
        self._file.seek(member)
        self._raw, self._raw_start = b"", member
        self._read_raw()
        self._seek_member(1)

    def _need(self, count: int) -> int:
        """Buffer at least `count` bytes where there are as many; returns how many there are."""
        while len(self._buffer) - self._at < count and self._fill():
            pass
        return len(self._buffer) - self._at

    def peek(self, count: int) -> bytes:
        """The next bytes without taking them; fewer at the end, or where damage follows them."""
        try:
            self._need(count)
        except Broken:
            if len(self._buffer) == self._at:
                raise
        return bytes(self._buffer[self._at : self._at + count])

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes; raises Broken where the stream ends before."""
        if self._need(count) < count:
            raise Broken(
                f"the file ends {count - (len(self._buffer) - self._at)} bytes before the record does"
            )
        data = bytes(self._buffer[self._at : self._at + count])
        self._at += count
        return data

    def skip(self, count: int) -> None:
        """Pass over `count` bytes without holding them."""
        while count > 0:
            if not (available := min(self._need(1), count)):
                raise Broken(f"the file ends {count} bytes before the record does")
            self._at += available
            count -= available

    def untake(self, count: int) -> None:
        """Stand up to `count` bytes earlier, as far as they are still buffered."""
        self._at -= min(count, self._at)

    def line(self, limit: int) -> bytes:
        """The next line with its line feed, at most `limit` bytes of it."""
        searched = 0
        while True:
            # Only what is buffered is searched before more is read: damage further on must not cost this line.
            end = self._buffer.find(b"\n", self._at + searched, self._at + limit)
            if end >= 0:
                return self.take(end + 1 - self._at)
            searched = len(self._buffer) - self._at
            if searched >= limit:
                return self.take(limit)
            if not self._fill():
                return self.take(searched)

    def find(self, pattern: bytes) -> bool:
        """Stand at the next occurrence of `pattern`; False (and at the end) where there is none."""
        while True:
            at = self._buffer.find(pattern, self._at)
            if at >= 0:
                self._at = at
                return True
            self._at = max(self._at, len(self._buffer) - len(pattern) + 1)
            if not self._fill():
                self._at = len(self._buffer)
                return False


def starts_record(member: bytes) -> bool:
    """Whether these compressed bytes begin a gzip member that begins an archive record."""
    try:
        head = zlib.decompressobj(31).decompress(member, 512)
    except zlib.error:
        return False
    head = head.lstrip(b"\r\n")
    return head.startswith((b"WARC/", b"filedesc://")) or ARC_LINE.match(head.split(b"\n", 1)[0]) is not None


def splits_by_record(path: Path) -> bool:
    """Whether a file is gzip with more than one member, the second of which begins a record."""
    if compression(path) != "gzip":
        return False
    stream = Stream(path)
    try:
        stream._seek_member(1)
        return bool(stream._raw)
    finally:
        stream.close()
