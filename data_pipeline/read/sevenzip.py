"""7z archives, streamed: the bytes of chosen members go to a function as they are decompressed, nothing to disk.

The reader is py7zr (extra `7z`), imported when an archive is met: pure Python with wheels for every codec of 7-Zip, which
hands over what it decompresses block by block. libarchive streams too, but its Python bindings bring no library in a wheel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data_pipeline.read import storage

MAGIC = b"7z\xbc\xaf\x27\x1c"
LZMA, LZMA2, PPMD = b"\x03\x01\x01", b"\x21", b"\x03\x04\x01"
"""Coders whose memory the archive chooses."""
MAX_MEMBERS = 100_000
"""Members of an archive at the most."""


class ArchiveError(OSError):
    """The archive is damaged, encrypted, or wants more memory than is allowed."""


def feed_members(
    name: str, wanted: Callable[[str], bool], feed: Callable[[str, bytes], None], memory: int
) -> list[str]:
    """Hand the decompressed bytes of members to `feed(member, block)`, in the order of the archive; members' names.

    Args:
        name: path or address.
        wanted: whether a member is read, by its name. Links and folders never are.
        feed: what takes the bytes; what it raises ends the reading.
        memory: bytes that a dictionary may take.

    Raises:
        ArchiveError: the archive cannot be read to its end; the bytes before have been handed over.
        ImportError: py7zr is not installed.
    """
    try:
        import py7zr
        from py7zr.io import Py7zIO, WriterFactory
    except ImportError as error:
        raise ImportError(
            f"{name} is a 7z archive; to read it: pip install 'arriero[7z]' ({error})"
        ) from None

    failures: list[BaseException] = []

    class Sink(Py7zIO):  # type: ignore[misc]
        def __init__(self, member: str) -> None:
            self._member, self._size = member, 0

        def write(self, data: bytes | bytearray) -> int:
            try:
                feed(self._member, bytes(data))
            except BaseException as error:
                failures.append(error)
                raise
            self._size += len(data)
            return len(data)

        def read(self, size: int | None = None) -> bytes:
            return b""

        def seek(self, offset: int, whence: int = 0) -> int:
            return 0

        def flush(self) -> None:
            return None

        def size(self) -> int:
            return self._size

    class Sinks(WriterFactory):  # type: ignore[misc]
        def __init__(self, member: str) -> None:
            self._member = member

        def create(self, filename: str) -> Py7zIO:
            return Sink(self._member)

    with storage.open_binary(name) as file:
        try:
            with py7zr.SevenZipFile(file, "r") as archive:
                _check(archive, memory)
                members = [
                    m.filename for m in archive.files if not (m.is_directory or m.is_symlink or m.is_junction)
                ]
                if len(members) > MAX_MEMBERS:
                    raise ArchiveError(f"{len(members)} members, more than {MAX_MEMBERS}")
                for member in sorted({m for m in members if wanted(m)}):
                    archive.reset()
                    archive.extract(targets=[member], factory=Sinks(member))
        except ArchiveError:
            raise
        except Exception as error:
            # Damaged archives raise anything from py7zr; what is ours goes on as it is.
            if failures:
                raise failures[0] from None
            raise ArchiveError(f"damaged 7z archive: {type(error).__name__}: {error}") from error
    return members


def _check(archive: Any, memory: int) -> None:
    """Refuse what cannot be decompressed within `memory`, before anything is."""
    if archive.password_protected:
        raise ArchiveError("an encrypted 7z archive")
    streams = archive.header.main_streams
    for folder in streams.unpackinfo.folders if streams is not None else ():
        for coder in folder.coders:
            wants = dictionary_bytes(bytes(coder["method"]), bytes(coder.get("properties") or b""))
            if wants > memory:
                raise ArchiveError(
                    f"a 7z archive with a dictionary of {wants} bytes; raise `recipe.max_window_bytes` to read it"
                )


def dictionary_bytes(method: bytes, properties: bytes) -> int:
    """Bytes that a coder keeps of what it has decompressed, from its properties (7zFormat.txt, Methods.txt); 0: few."""
    if method == LZMA2 and properties:
        bits = properties[0] & 63
        return 2**32 - 1 if bits >= 40 else (2 | (bits & 1)) << (bits // 2 + 11)
    if method in (LZMA, PPMD) and len(properties) >= 5:
        return int.from_bytes(properties[1:5], "little")
    return 0
