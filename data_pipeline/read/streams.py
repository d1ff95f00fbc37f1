"""Compressed files as byte streams: compression is recognised by magic bytes, never by name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import zstandard

MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError)
"""What decompressors raise on damaged input (bz2 and gzip raise OSError)."""


def compression(path: Path) -> str | None:
    """`gzip`, `bz2`, `xz`, `zstd`, or None."""
    with path.open("rb") as file:
        head = file.read(8)
    # A zstd file may begin with a skippable frame that holds a dictionary or an index.
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return "zstd"
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


def open_stream(path: Path) -> IO[bytes]:
    """The decompressed bytes of a file. Damage appears as one of `DAMAGE` while reading."""
    kind = compression(path)
    if kind == "gzip":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if kind == "bz2":
        return cast(IO[bytes], bz2.open(path, "rb"))
    if kind == "xz":
        return cast(IO[bytes], lzma.open(path, "rb"))
    if kind == "zstd":
        # Frames written by `zstd --long` need a window larger than the library's default of 128 MiB.
        decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
        reader = decompressor.stream_reader(path.open("rb"), read_across_frames=True, closefd=True)
        return cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, reader), 2**20))
    return path.open("rb")


def head(path: Path, size: int) -> bytes:
    """The first decompressed bytes of a file; fewer, or none, where it is damaged."""
    data = b""
    try:
        with open_stream(path) as stream:
            while len(data) < size and (block := stream.read(size - len(data))):
                data += block
    except DAMAGE:
        pass  # Whoever reads the file meets the same damage and reports it with its place.
    return data


def blocks(stream: IO[bytes], size: int = 2**20) -> Iterator[bytes]:
    """Blocks of a stream until it ends."""
    while block := stream.read(size):
        yield block
