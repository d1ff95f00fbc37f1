"""A byte stream over plain or compressed files that can be entered in the middle, and goes on after damage.

Archives are written as one gzip member (or zstd frame) a record, and large JSONL files as many members or frames, so
damage inside a member costs that member only: the stream reports it (`Broken`), finds the next member by its magic
bytes, and goes on there. Inflating is ISA-L's, so this is as fast as readers in C++ that stop at the first damage.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from pathlib import Path

from data_pipeline.read import storage
from data_pipeline.read.streams import BLOCK, FEED, MEMORY, Codec, Decompressor, codec_of, with_dictionary

ARC_LINE = re.compile(rb"^(\S.*) (\S+) (\d{12,17}) (\S+)(?: .*)? (\d{1,18})\s*$")
"""URL, address, date, content type, …, length. The URL may hold spaces, the other fields do not."""
ARC_LIMIT = 8192
"""Bytes of an ARC URL line at the most."""
MEMBER_SEARCH = 16 * 2**20
"""Compressed bytes within which the first member must end for a file to be cut into parts."""


class Broken(Exception):
    """The stream cannot be read where it stands; `Stream.resume` goes on behind the damage."""


class Stream:
    """Buffered reader of decompressed bytes between two byte offsets of a file.

    Args:
        name: path or address, plain, or compressed by any method.
        begin: first byte; a compressed stream starts at the first member at or after it.
        end: members that start at or after this byte belong to the next part; null: to the end.
        starts: whether the first decompressed bytes of a member may stand at the start of one; for finding members.
        past_end: read on behind `end` (which `end_position` then tells), for what reaches over it.
        memory: bytes that the window of a compressed member may take.
    """

    def __init__(
        self,
        name: str | Path,
        begin: int = 0,
        end: int | None = None,
        starts: Callable[[bytes], bool] = bool,
        past_end: bool = False,
        memory: int = MEMORY,
    ) -> None:
        self.size = storage.size_of(name)
        self._file = storage.open_binary(name)
        magic = self._file.read(16)
        self._file.seek(0)
        found = codec_of(magic)
        self.codec: Codec | None = with_dictionary(found, magic, self._file) if found else None
        self._memory = memory
        self._end, self._past_end, self._starts_well = end, past_end, starts
        self.end_position: int | None = None
        """Decompressed bytes before the first member at or after `end`; null while that is not reached."""
        self._raw = b""
        self._raw_at = 0
        self._raw_start = begin  # file offset of self._raw
        self.member = begin
        """File offset of the member that was begun last."""
        self._decompressor: Decompressor | None = None
        self._broken: str | None = None
        self._finished = False
        self._buffer = b""
        self._at = 0  # position in the buffer
        self._consumed = 0  # decompressed bytes before the buffer
        self._made = 0  # decompressed bytes so far
        self._starts: deque[tuple[int, int]] = deque()  # (decompressed position, member offset), ascending
        self._file.seek(begin)
        if self.codec is None:
            self._consumed = self._made = begin
            self.end_position = end if past_end else None
        elif begin:
            self._seek_member(0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def position(self) -> int:
        """Decompressed bytes before the next one; of a plain file its offset."""
        return self._consumed + self._at

    @property
    def offset(self) -> int:
        """Where the next byte lies: its member's offset, or the offset in a plain file."""
        if self.codec is None:
            return self.position
        starts = self._starts
        while len(starts) > 1 and starts[1][0] <= self._consumed + self._at:
            starts.popleft()
        return starts[0][1] if starts else self.member

    @property
    def at_member(self) -> bool:
        """Whether the next byte is the first of a member (or the stream ends here)."""
        if self.codec is None:
            return False
        offset, position = self.offset, self.position
        if any(place == (position, offset) for place in self._starts):
            return True
        return position == self._made and self._decompressor is None and self._broken is None

    def _read_raw(self, size: int = BLOCK) -> bool:
        block = self._file.read(size)
        self._raw = self._raw[self._raw_at :] + block
        self._raw_start += self._raw_at
        self._raw_at = 0
        return bool(block)

    def _seek_member(self, skip: int) -> None:
        """Stand at the next magic at least `skip` bytes further behind which a member decompresses."""
        assert self.codec is not None
        self._raw_at += skip
        while True:
            found = self.codec.magic.search(self._raw, self._raw_at)
            if found is None:
                self._raw_at = max(len(self._raw) - 16, self._raw_at)
                if not self._read_raw():
                    self._raw_at = len(self._raw)
                    return
                continue
            self._raw_at = found.start()
            while len(self._raw) - self._raw_at < BLOCK and self._read_raw():
                pass
            head = try_member(self.codec, self._raw[self._raw_at : self._raw_at + BLOCK], self._memory)
            if head is not None and self._starts_well(head):
                return
            self._raw_at += 1

    def _block(self) -> bytes:
        """The next decompressed bytes; none at the end. Raises Broken."""
        if self._broken is not None:
            raise Broken(self._broken)
        if self._finished:
            return b""
        block = self._plain_block() if self.codec is None else self._member_block(self.codec)
        self._made += len(block)
        self._finished = not block
        return block

    def _plain_block(self) -> bytes:
        size = BLOCK if self._end is None or self._past_end else min(BLOCK, self._end - self._made)
        try:
            return self._file.read(size)
        except OSError as error:
            self._broken = f"damaged file: {error}"
            raise Broken(self._broken) from error

    def _next_member(self, codec: Codec) -> bool:
        """Begin the next member; False where there is none for this part."""
        while True:
            if self._raw_at < len(self._raw) and self._raw[self._raw_at]:
                break
            # Zeros pad some archives to a block size.
            self._raw_at = len(self._raw) - len(self._raw[self._raw_at :].lstrip(b"\0"))
            if self._raw_at == len(self._raw) and not self._read_raw():
                return False
        place = self._raw_start + self._raw_at
        if self._end is not None and place >= self._end and self.end_position is None:
            if not self._past_end:
                return False
            self.end_position = self._made
        self.member = place
        if not self._starts or self._starts[-1][0] < self._made:
            self._starts.append((self._made, place))
        else:
            self._starts[-1] = (self._made, place)
        self._decompressor = codec.make(self._memory)
        return True

    def _member_block(self, codec: Codec) -> bytes:
        while True:
            if self._decompressor is None and not self._next_member(codec):
                return b""
            decompressor = self._decompressor
            assert decompressor is not None
            data: bytes | memoryview = b""
            try:
                if decompressor.needs_input:
                    if self._raw_at == len(self._raw) and not self._read_raw():
                        self._broken = f"the file ends inside a {codec.name} member"
                        raise Broken(self._broken)
                    data = memoryview(self._raw)[self._raw_at : self._raw_at + FEED]
                    self._raw_at += len(data)
                block = decompressor.decompress(data, BLOCK)
            except OSError as error:
                self._broken = f"damaged {codec.name} member: {error}{codec.note}"
                raise Broken(self._broken) from error
            except codec.errors as error:
                self._broken = f"damaged {codec.name} member: {error}{codec.note}"
                raise Broken(self._broken) from error
            if decompressor.eof:
                self._raw_at -= len(decompressor.unused_data or b"")
                self._decompressor = None
            if block:
                return block

    def resume(self, place: int, skip: int = 1) -> None:
        """Go on behind damage: drop what is buffered, and stand behind byte `place` of the file.

        Args:
            place: of compressed files the offset of the damaged member: reading goes on at the next one. Of plain files
                the offset from which to go on.
            skip: 0 to begin the member at `place` again.
        """
        self._broken, self._finished = None, False
        self._buffer, self._at, self._decompressor = b"", 0, None
        self._starts.clear()
        self._raw, self._raw_at = b"", 0
        if self.codec is None:
            self._consumed = self._made = place
            self._file.seek(place)
            return
        self._consumed = self._made
        # From one byte behind the member's start: a decompressor that runs over damage may have eaten the next one.
        self._file.seek(place)
        self._raw_start = place
        self._read_raw()
        self._seek_member(skip)

    def _need(self, count: int) -> int:
        """Buffer at least `count` bytes where there are as many; returns how many there are."""
        have = len(self._buffer) - self._at
        if have >= count:
            return have
        parts = [self._buffer[self._at :]] if have else []
        try:
            while have < count and (block := self._block()):
                parts.append(block)
                have += len(block)
        finally:
            self._consumed += self._at
            self._buffer = parts[0] if len(parts) == 1 else b"".join(parts)
            self._at = 0
        return have

    def peek(self, count: int) -> bytes:
        """The next bytes without taking them; fewer at the end, or where damage follows them."""
        if len(self._buffer) - self._at < count:
            try:
                self._need(count)
            except Broken:
                if len(self._buffer) == self._at:
                    raise
        return self._buffer[self._at : self._at + count]

    def has(self, count: int) -> bool:
        """Whether so many bytes are left, which are then buffered. Raises Broken where damage comes before."""
        return self._need(count) >= count

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes; raises Broken where the stream ends before."""
        if self._need(count) < count:
            raise Broken(
                f"the file ends {count - (len(self._buffer) - self._at)} bytes before the record does"
            )
        data = self._buffer[self._at : self._at + count]
        self._at += count
        return data

    def span(self, count: int) -> tuple[bytes, int, int]:
        """The next `count` bytes, which `has` has found, as (buffer, begin, end): what follows copies them anyway."""
        begin = self._at
        self._at += count
        return self._buffer, begin, self._at

    def skip(self, count: int) -> None:
        """Pass over `count` bytes without holding them."""
        if self.codec is None and count > len(self._buffer) - self._at:
            place = self.position + count
            if place > self.size:
                raise Broken(f"the file ends {place - self.size} bytes before the record does")
            self.resume(place)
            return
        while count > 0:
            fresh = self._at == len(self._buffer)
            if not (available := min(self._need(1), count)):
                raise Broken(f"the file ends {count} bytes before the record does")
            # A length that lies must not make a reader expand the rest of the file for one record.
            if (
                fresh
                and self._starts
                and self._starts[-1][0] == self.position
                and starts_record(self.peek(512))
            ):
                raise Broken(f"the next record begins {count} bytes before the record ends")
            self._at += available
            count -= available

    def put_back(self, data: bytes) -> None:
        """Stand before bytes that were taken last."""
        self._buffer = data + self._buffer[self._at :]
        self._consumed += self._at - len(data)
        self._at = 0

    def line(self, limit: int) -> bytes:
        """The next line with its line feed, at most `limit` bytes of it."""
        end = self._buffer.find(b"\n", self._at, self._at + limit)
        if end >= 0:
            data = self._buffer[self._at : end + 1]
            self._at = end + 1
            return data
        # Only what is buffered is searched before more is read: damage further on must not cost this line.
        size = len(self._buffer) - self._at
        parts = [self._buffer[self._at :]]
        try:
            while size < limit and (block := self._block()):
                end = block.find(b"\n", 0, limit - size)
                parts.append(block)
                if end >= 0:
                    size += end + 1
                    break
                size += len(block)
        finally:
            self._consumed += self._at
            self._buffer, self._at = b"".join(parts), 0
        size = min(size, limit)
        self._at = size
        return self._buffer[:size]

    def block(self, end: re.Pattern[bytes], limit: int) -> bytes | None:
        """All bytes up to and including what `end` matches, or to the end; null where that is not within `limit` bytes."""
        while True:
            found = end.search(self._buffer, self._at, self._at + limit)
            have = len(self._buffer) - self._at
            if found is not None:
                size = found.end() - self._at
            elif have >= limit:
                return None
            elif self._need(min(2 * have + 4096, limit)) > have:
                continue
            else:
                size = have
            data = self._buffer[self._at : self._at + size]
            self._at += size
            return data

    def skip_any(self, characters: bytes) -> None:
        """Pass over these characters."""
        while True:
            buffer, at, size = self._buffer, self._at, len(self._buffer)
            while at < size and buffer[at] in characters:
                at += 1
            self._at = at
            if at < size or not self._need(1):
                return

    def find(self, pattern: re.Pattern[bytes], longest: int) -> bool:
        """Stand at the next match of at most `longest` bytes; False (and at the end) where there is none."""
        while True:
            found = pattern.search(self._buffer, self._at)
            if found is not None:
                self._at = found.start()
                return True
            self._at = max(self._at, len(self._buffer) - longest)
            kept = len(self._buffer) - self._at
            if self._need(kept + 1) <= kept:
                self._at = len(self._buffer)
                return False

    def finish(self) -> None:
        """Leave what is left of the stream."""
        self._finished, self._broken = True, None
        self._at = len(self._buffer)


def try_member(codec: Codec, data: bytes, memory: int = MEMORY, size: int = 64 * 1024) -> bytes | None:
    """The first decompressed bytes of what may be a member; null where it is none."""
    errors: tuple[type[Exception], ...] = (OSError, *codec.errors)
    decompressor, made, fed = codec.make(memory), b"", 0
    try:
        while len(made) < size and not decompressor.eof:
            if decompressor.needs_input:
                if fed >= len(data):
                    break
                piece, fed = data[fed : fed + FEED], fed + FEED
            else:
                piece = b""
            made += decompressor.decompress(piece, size - len(made))
    except errors:
        return None
    return made


def starts_record(head: bytes) -> bool:
    """Whether the start of a member is the start of an archive record."""
    head = head[:ARC_LIMIT].lstrip(b"\r\n")
    return head.startswith((b"WARC/", b"filedesc://")) or ARC_LINE.match(head.split(b"\n", 1)[0]) is not None


def has_members(name: str, starts: Callable[[bytes], bool] = bool) -> bool:
    """Whether the first member of a compressed file ends soon and another one follows it."""
    stream = Stream(name, starts=starts)
    codec = stream.codec
    try:
        if codec is None or not stream._next_member(codec):
            return False
        # A frame that holds a dictionary or an index is not what is meant.
        while (
            place := stream._raw_start + stream._raw_at
        ) < MEMBER_SEARCH and stream._made < 64 * MEMBER_SEARCH:
            if not (block := stream._member_block(codec)):
                return False
            stream._made += len(block)
            if stream._decompressor is None:
                break
        else:
            return False
        while len(stream._raw) - stream._raw_at < BLOCK and stream._read_raw():
            pass
        rest = stream._raw[stream._raw_at : stream._raw_at + BLOCK]
        if place >= MEMBER_SEARCH or not codec.magic.match(rest):
            return False
        head = try_member(codec, rest)
        return head is not None and starts(head)
    except Broken:
        # Damaged at its start: parts find members for themselves.
        stream.resume(0)
        return bool(stream._raw[stream._raw_at :])
    finally:
        stream.close()
