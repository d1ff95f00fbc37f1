"""Compressed files as byte streams: compression is recognised by magic bytes, never by name."""

from __future__ import annotations

import bz2
import io
import lzma
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol, cast

import lz4.frame
from isal import igzip_lib

from data_pipeline.read import storage
from data_pipeline.zstd import zstd

DAMAGE = (EOFError, OSError, ValueError)
"""What reading a damaged file raises."""
FEED = 64 * 1024
"""Compressed bytes given to a decompressor at once."""
BLOCK = 256 * 1024
"""Decompressed bytes taken from it at once: bounds what a decompression bomb can make at a time."""
MEMORY = 128 * 2**20
"""Bytes that a decompressor may hold; a file chooses its window, and the standard tools refuse more than this too."""


INFLATE_ERROR = cast(type[Exception], igzip_lib.IsalError)


class Decompressor(Protocol):
    """One member (gzip), stream (bz2, xz) or frame (zstd, lz4): the interface of `bz2.BZ2Decompressor`."""

    eof: bool
    needs_input: bool
    unused_data: bytes | None

    def decompress(self, data: Any, max_length: int = -1) -> bytes:
        """Up to `max_length` further bytes."""


@dataclass(frozen=True)
class Codec:
    """A compression whose files are sequences of members, each of which can be entered by itself."""

    name: str
    magic: re.Pattern[bytes]
    """How a member starts."""
    make: Callable[[int], Decompressor]
    """Decompressor of one member that holds at most so many bytes."""
    errors: tuple[type[Exception], ...]
    """What it raises."""
    note: str = ""
    """What the message of damage says beside."""


def _zstd(memory: int, dictionary: zstd.ZstdDict | None = None) -> Decompressor:
    options = {int(zstd.DecompressionParameter.window_log_max): memory.bit_length() - 1}
    return cast(Decompressor, zstd.ZstdDecompressor(dictionary, options))


CODECS = (
    Codec(
        "gzip",
        re.compile(rb"\x1f\x8b\x08[\x00-\x1f]"),
        lambda memory: cast(Decompressor, igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)),
        (INFLATE_ERROR, EOFError),
    ),
    Codec(
        "bz2",
        re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
        lambda memory: cast(Decompressor, bz2.BZ2Decompressor()),
        (OSError, ValueError, EOFError),
    ),
    Codec(
        "xz",
        re.compile(rb"\xfd7zXZ\x00\x00"),
        lambda memory: cast(Decompressor, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=memory)),
        (lzma.LZMAError, EOFError),
    ),
    # A zstd or lz4 file may begin with a skippable frame that holds a dictionary or an index.
    Codec(
        "zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), _zstd, (zstd.ZstdError, EOFError)
    ),
    Codec(
        "lz4",
        re.compile(rb"\x04\x22\x4d\x18"),
        lambda memory: cast(Decompressor, lz4.frame.LZ4FrameDecompressor()),
        (RuntimeError, EOFError, ValueError),
    ),
)
ZSTD_DICTIONARY = b"\x5d\x2a\x4d\x18"
"""Skippable frame of a `.warc.zst` that holds the dictionary of all its frames."""


def codec_of(start: bytes) -> Codec | None:
    """The compression of a file that starts with these bytes."""
    return next((codec for codec in CODECS if codec.magic.match(start)), None)


def with_dictionary(codec: Codec, start: bytes, file: IO[bytes]) -> Codec:
    """The codec with the dictionary that a `.warc.zst` carries in its first frame, where there is one and it is whole."""
    if codec.name != "zstd" or not start.startswith(ZSTD_DICTIONARY):
        return codec
    at = file.tell()
    file.seek(4)
    size = int.from_bytes(file.read(4), "little")
    stored = file.read(min(size, 16 * 2**20))
    file.seek(at)
    try:
        if stored.startswith(b"\x28\xb5\x2f\xfd"):
            stored = _zstd(MEMORY).decompress(stored, 16 * 2**20)
        dictionary = zstd.ZstdDict(stored, is_raw=False)
    except (ValueError, EOFError, zstd.ZstdError) as error:
        # Frames that do without it can still be read.
        return replace(codec, note=f"; the dictionary at the start of the file is damaged: {error}")
    return replace(codec, make=lambda memory: _zstd(memory, dictionary))


def compression(name: str | Path) -> str | None:
    """`gzip`, `bz2`, `xz`, `zstd`, `lz4`, or None."""
    with storage.open_binary(name) as file:
        codec = codec_of(file.read(16))
    return codec.name if codec else None


class TrailingData(OSError):
    """What follows the last member of a compressed file is no member: all members were whole."""


class _Stream(io.BufferedReader):
    """Bytes up to damage are read before the damage is raised."""

    _failure: Exception | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes; fewer at the end, or where damage follows, which the next call raises."""
        if self._failure is not None:
            raise self._failure
        left = -1 if size is None else size
        parts: list[bytes] = []
        try:
            while left and (part := self.read1(left if left >= 0 else BLOCK)):
                parts.append(part)
                left -= len(part) if left > 0 else 0
        except DAMAGE as error:
            if not parts:
                raise
            self._failure = error
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Expanded(io.RawIOBase):
    """The decompressed bytes of a file, all its members one after the other."""

    def __init__(self, file: IO[bytes], codec: Codec, memory: int) -> None:
        self._file, self._codec, self._memory = file, codec, memory
        self._decompressor: Decompressor | None = None
        self._rest = b""
        self._members = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Decompress into a buffer; 0 at the end; OSError where the file is damaged."""
        while True:
            if self._decompressor is None:
                self._rest = self._rest.lstrip(b"\0")
                while not self._rest and (block := self._file.read(FEED)):
                    self._rest = block.lstrip(b"\0")  # zeros pad some files to a block size
                if not self._rest:
                    return 0
                if self._members and not self._begins_member():
                    raise TrailingData(f"no {self._codec.name} data follow its {self._members} members")
                self._decompressor = self._codec.make(self._memory)
                self._members += 1
            if self._decompressor.needs_input and not self._rest:
                self._rest = self._file.read(FEED)
                if not self._rest:
                    raise EOFError(f"the file ends inside a {self._codec.name} member")
            try:
                block = self._decompressor.decompress(
                    self._rest if self._decompressor.needs_input else b"", len(buffer)
                )
            except self._codec.errors as error:
                raise OSError(f"damaged {self._codec.name} data: {error}{self._codec.note}") from error
            self._rest = b""
            if self._decompressor.eof:
                self._rest, self._decompressor = self._decompressor.unused_data or b"", None
            if block:
                buffer[: len(block)] = block
                return len(block)

    def _begins_member(self) -> bool:
        while len(self._rest) < 16 and (block := self._file.read(FEED)):
            self._rest += block
        return self._codec.magic.match(self._rest) is not None


def open_stream(name: str | Path, memory: int = MEMORY) -> IO[bytes]:
    """The decompressed bytes of a file. Damage appears as one of `DAMAGE` while reading, after the bytes before it."""
    file = storage.open_binary(name)
    start = file.read(16)
    file.seek(0)
    codec = codec_of(start)
    if codec is None:
        return file
    return cast(IO[bytes], _Stream(_Expanded(file, with_dictionary(codec, start, file), memory), BLOCK))


def stream_of(file: IO[bytes], memory: int = MEMORY) -> IO[bytes]:
    """The decompressed bytes of a file that can only be read forward, such as a member of an archive."""
    buffered = (
        file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, file), BLOCK)
    )
    codec = codec_of(buffered.peek(16)[:16])
    return cast(IO[bytes], buffered if codec is None else _Stream(_Expanded(buffered, codec, memory), BLOCK))


def expand(start: bytes, size: int) -> bytes:
    """The first decompressed bytes of a file that starts with these; fewer, or none, where it is damaged."""
    codec = codec_of(start)
    if codec is None:
        return start[:size]
    data = b""
    try:
        file = io.BytesIO(start)
        stream = _Stream(_Expanded(file, with_dictionary(codec, start, file), MEMORY), size)
        while len(data) < size and (block := stream.read1(size - len(data))):
            data += block
    except DAMAGE:
        pass  # Whoever reads the file meets the same damage and reports it with its place.
    return data


def blocks(stream: IO[bytes], size: int = 2**20) -> Iterator[bytes]:
    """Blocks of a stream until it ends."""
    while block := stream.read(size):
        yield block
