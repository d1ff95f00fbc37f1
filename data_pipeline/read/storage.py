"""Where input lies: local paths, and every address that fsspec opens (`s3://`, `gs://`, `https://`, `memory://`, …).

Remote files are read by ranges. A request that fails is tried again; a server that stays away ends the task with an
error instead of passing for damaged data, so that a rerun reads what is missing.
"""

from __future__ import annotations

import glob
import io
import os
import re
import stat
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote, urlsplit

import xxhash

BLOCK_BYTES = 4 * 2**20
"""Bytes of one request."""
TRIES = 5
FIRST_WAIT = 0.5
"""Seconds before the second try; each further wait is twice as long."""
HEAD_BYTES = 64 * 1024
_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_VERSION_KEYS = (
    "etag",
    "content-md5",
    "generation",
    "mtime",
    "lastmodified",
    "last_modified",
    "last-modified",
    "updated",
    "created",
)
"""What file systems tell about the version of a file."""
_GONE = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError, ImportError, ValueError)


class Unreachable(RuntimeError):
    """Remote storage that does not answer: the run ends with this sentence, and goes on when it is started again."""


def is_remote(name: str) -> bool:
    """Whether a name is an address of remote storage; `file://` is local."""
    return _ADDRESS.match(name) is not None and not name.lower().startswith("file://")


def local_path(name: str) -> Path:
    """The path of a local name or `file://` address."""
    if name.lower().startswith("file://"):
        return Path(unquote(urlsplit(name).path))
    return Path(name)


def base_name(name: str) -> str:
    """The last part of a path or address, without a query."""
    return unquote(urlsplit(name).path.rsplit("/", 1)[-1]) if is_remote(name) else local_path(name).name


@cache
def _filesystem(scheme: str) -> Any:
    import fsspec

    try:
        return fsspec.filesystem(scheme)
    except (ImportError, ValueError) as error:
        raise ValueError(f"no driver for {scheme}:// addresses: {error}") from error


def _open_path(name: str) -> tuple[Any, str]:
    fs = _filesystem(name.split("://", 1)[0].lower())
    return fs, fs._strip_protocol(name)


def _try(name: str, action: Any) -> Any:
    """The result of a request, which is repeated when it fails for a reason that may pass."""
    for attempt in range(TRIES):
        try:
            return action()
        except _GONE:
            raise
        except Exception as error:
            if attempt == TRIES - 1:
                raise Unreachable(
                    f"{name} cannot be read after {TRIES} tries: {type(error).__name__}: {error}; "
                    "run the same command again when the storage answers"
                ) from error
            time.sleep(FIRST_WAIT * 2**attempt)
    raise AssertionError


class RemoteFile(io.RawIOBase):
    """A remote file, read by ranges."""

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size, self._at = name, size, 0
        self._fs, self._path = _open_path(name)

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position, bytes."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Stand at a position; nothing is read."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read the next range; 0 at the end."""
        want = min(len(buffer), self._size - self._at)
        if want <= 0:
            return 0
        begin, end = self._at, self._at + want
        data = _try(self._name, lambda: self._fs.cat_file(self._path, start=begin, end=end))
        if len(data) > want:
            raise Unreachable(
                f"{self._name}: the server does not answer requests for parts of a file; copy the file first"
            )
        if not data:
            raise Unreachable(
                f"{self._name} ended at byte {begin}, but has {self._size} bytes; did it change?"
            )
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def open_binary(name: str | Path) -> IO[bytes]:
    """The raw bytes of a file, seekable.

    Raises:
        OSError: a local file that cannot be opened.
        Unreachable: remote storage that does not answer.
    """
    if isinstance(name, str) and is_remote(name):
        return cast(IO[bytes], io.BufferedReader(RemoteFile(name, size_of(name)), BLOCK_BYTES))
    return local_path(str(name)).open("rb", buffering=2**18)


def size_of(name: str | Path) -> int:
    """Bytes of a file."""
    if isinstance(name, str) and is_remote(name):
        return int(_info(name)["size"])
    return local_path(str(name)).stat().st_size


@cache
def _info(name: str) -> dict[str, Any]:
    fs, path = _open_path(name)
    info = dict(_try(name, lambda: fs.info(path)))
    if info.get("size") is None:
        raise ValueError(f"input {name}: the server does not tell the size of the file; copy it first")
    return info


@dataclass(frozen=True)
class Head:
    """What planning needs to know about a file."""

    size: int
    """Bytes."""
    start: bytes
    """The first 64 KiB as stored."""
    version: str
    """Hash that changes when the file does: size, times, entity tag, first bytes."""


def head(name: str) -> Head:
    """Look at a file once.

    Raises:
        OSError: it cannot be opened.
    """
    with open_binary(name) as file:
        start = file.read(HEAD_BYTES)
        if is_remote(name):
            info = {k.lower(): str(v) for k, v in _info(name).items()}
            size, version = int(info["size"]), [info.get(key, "") for key in _VERSION_KEYS]
        else:
            status = os.fstat(file.fileno())
            size, version = status.st_size, [str(status.st_mtime_ns)]
    # The first bytes catch files that were replaced with their time stamps preserved.
    parts = "\0".join([str(size), *version, xxhash.xxh3_128_hexdigest(start)])
    return Head(size, start, xxhash.xxh3_128_hexdigest(parts.encode()))


@dataclass(frozen=True)
class Found:
    """Files of an input, sorted, and the names that stand for nothing that can be read."""

    files: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    """(name, why)."""


def find(pattern: str, output: Path | None = None) -> Found:
    """Files of a file, folder (to the bottom, hidden names left out), glob or address.

    Args:
        output: the folder of the run, whose files are no input even where it lies inside of one.

    Raises:
        ValueError: nothing is there.
    """
    if is_remote(pattern):
        return _find_remote(pattern)
    path = local_path(pattern).expanduser()
    left_out: list[tuple[str, str]] = []
    if path.is_dir():
        files, left_out = _below(path, output)
        if output is not None and path.resolve() == output.resolve():
            raise ValueError(f"input {pattern} is the folder that the run writes to; name another `output`")
        if not files and not left_out:
            raise ValueError(f"input {pattern} is an empty folder; expected files to read")
    elif path.exists():
        files = [path]
    else:
        matches = [Path(p) for p in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        files = [p for p in matches if p.is_file()]
        if not files:
            raise ValueError(
                f"input {pattern} matches no file; expected a file, a folder, a glob or an address"
            )
    # Links to one file are one file.
    names = {str(p.resolve()) for p in files}
    if output is not None:
        within = str(output.resolve()) + os.sep
        names = {n for n in names if not n.startswith(within)}
    unreadable = {n for n in names if not _is_utf8(n)}
    left_out += [(_printable(n), "its name is not UTF-8; rename it") for n in unreadable]
    left_out = [(_printable(n), why) for n, why in left_out]
    return Found(tuple(sorted(names - unreadable)), tuple(sorted(left_out)))


def _is_utf8(name: str) -> bool:
    """Whether a name has no bytes that are not UTF-8 (Python keeps them as lone surrogates)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")


def _below(folder: Path, output: Path | None) -> tuple[list[Path], list[tuple[str, str]]]:
    """Files of a folder, to the bottom; links to folders are followed, each folder once."""
    files: list[Path] = []
    left_out: list[tuple[str, str]] = []
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    if output is not None and output.is_dir():
        status = output.stat()
        seen.add((status.st_dev, status.st_ino))
    while waiting:
        parent = waiting.pop()
        try:
            status = parent.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(parent), key=lambda e: e.name)
        except OSError as error:
            left_out.append((str(parent), f"a folder that cannot be read: {error.strerror}"))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                mode = entry.stat().st_mode
            except OSError as error:
                left_out.append((entry.path, f"cannot be followed: {error.strerror}"))
                continue
            if stat.S_ISDIR(mode):
                waiting.append(Path(entry.path))
            elif stat.S_ISREG(mode):
                files.append(Path(entry.path))
            else:
                left_out.append((entry.path, "neither a file nor a folder"))
    return files, left_out


def _find_remote(pattern: str) -> Found:
    fs, path = _open_path(pattern)
    scheme = pattern.split("://", 1)[0].lower()
    web = scheme in ("http", "https")
    try:
        if re.search(r"[*\[]", path) or ("?" in path and not web):
            names = _try(pattern, lambda: fs.glob(path))
        elif path.endswith("/") or (not web and _try(pattern, lambda: fs.isdir(path))):
            names = _try(pattern, lambda: fs.find(path))
        else:
            _info(pattern)
            names = [path]
    except FileNotFoundError as error:
        if error.__cause__ is not None and getattr(error.__cause__, "status", None) != 404:
            # HTTP file systems call every answer but success a missing file.
            raise ValueError(f"input {pattern} cannot be read: {error.__cause__}") from error
        names = []
    except _GONE as error:
        raise ValueError(f"input {pattern} cannot be listed: {error}") from error
    shown = {name: fs.unstrip_protocol(name) for name in map(str, names)}
    files = [
        a
        for n, a in shown.items()
        if not any(p.startswith(".") for p in n.split("/") if p not in (".", ".."))
    ]
    files = [f for f in files if not f.endswith("/")]
    if not files:
        raise ValueError(
            f"input {pattern} matches no file; expected a file, a folder that ends in `/`, or a glob"
        )
    return Found(tuple(sorted(set(files))), ())
