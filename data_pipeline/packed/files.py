"""Files and folders that appear under their name whole or not at all.

Everything is first made under a temporary name beside its own, `.NAME.HOST-PID-RANDOM.tmp`, and renamed when it is
complete. No two processes, threads or calls share such a name; it begins with a dot and ends in `.tmp`, so no pattern for
output matches it; and it names its process, so what a killed one left behind is recognised. HOST is a hash of the
machine's name, its start and the process namespace: within it a process id has one meaning.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_TEMPORARY = re.compile(r"\.(?P<name>.*)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.tmp", re.DOTALL)
_LONGEST_NAME = 200
"""Bytes of a name that are repeated in the temporary one: file systems take 255."""
_OTHER_HOST_SECONDS = 7 * 24 * 3600
"""Age after which a temporary of another host is taken for left over; its process cannot be asked."""
_EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h
_HERE = -100  # AT_FDCWD


def write_atomically(path: Path, data: bytes | str, durable: bool = False) -> None:
    """Write a file that is there whole or not at all; missing folders are made.

    Args:
        path: replaced where it exists.
        data: text is encoded as UTF-8.
        durable: return after the file is on disk under its name, so that a crash of the machine cannot lose it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, durable) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that a disk, or a user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full_message(path: Path | str, needed: int | None = None) -> str:
    """One sentence about a full disk: which, how much is needed and free, and what to do.

    Args:
        path: what was being written; it need not exist.
        needed: its bytes, where they are known.
    """
    folder = Path(path).absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    needs = "" if needed is None else f"{needed / 2**20:,.1f} MiB are needed and "
    return (
        f"{path}: no space left on the disk, where {needs}{free / 2**20:,.1f} MiB are free; free some or choose another "
        "folder, then run the same command again"
    )


def _name(error: BaseException, path: Path, temporary: Path) -> None:
    """Say in an error what was being written, in the place of its temporary name, which nobody knows.

    A write to an open file on a full disk names none.
    """
    if not isinstance(error, OSError):
        return
    named, partial = str(error.filename or ""), str(temporary)
    if is_disk_full(error):
        error.filename = str(path)
    elif named == partial or named.startswith(f"{partial}{os.sep}"):
        error.filename, error.filename2 = f"{path}{named[len(partial) :]}", None


@contextlib.contextmanager
def atomic_file(path: Path, durable: bool = False) -> Iterator[Path]:
    """A name beside `path` to write a file under, which is renamed to `path` at the end of the `with` block.

    After an error inside the block the partial file is removed and `path` is what it was. The folder must exist.

    Args:
        path: replaced where it exists.
        durable: see `write_atomically`.
    """
    temporary = _temporary_name(path)
    try:
        yield temporary
        if durable:
            _sync(temporary)
        temporary.replace(path)
    except BaseException as error:
        _name(error, path, temporary)
        with contextlib.suppress(OSError):  # the error that led here is the one to report
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path, durable: bool = False, replace: bool = False) -> Iterator[Path]:
    """An empty folder beside `path`, which is renamed to `path` at the end of the `with` block.

    Missing parents are made, and what killed processes left of earlier attempts at the same folder is removed. After an
    error inside the block the partial folder is removed and `path` is what it was.

    Args:
        durable: have all files of the folder on disk before it is renamed.
        replace: take the place of a folder that exists, in one exchange; otherwise that is an OSError, unless it is empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name)
    with scratch_folder(path) as temporary:
        yield temporary
        if durable:
            for folder, _, names in os.walk(temporary):
                for name in names:
                    _sync(Path(folder, name))
                sync_directory(Path(folder))
        if replace and path.is_dir():
            exchange(temporary, path)
        else:
            temporary.replace(path)
        if durable:
            sync_directory(path.parent)


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, under a temporary name of it, which is removed at the end of the `with` block."""
    temporary = _temporary_name(path)
    try:
        temporary.mkdir()
        yield temporary
    except OSError as error:
        _name(error, path, temporary)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def exchange(new: Path, old: Path) -> None:
    """Give two folders each other's name, at once.

    On file systems without such an exchange the old one is first moved to `NAME.old`: a kill just then leaves no folder
    of that name, and `recover` puts it back.
    """
    with contextlib.suppress(AttributeError, OSError):
        call = ctypes.CDLL(None, use_errno=True).renameat2
        if call(_HERE, os.fsencode(new), _HERE, os.fsencode(old), _EXCHANGE) == 0:
            return
    aside = _aside(old)
    if aside.exists():
        shutil.rmtree(aside)
    old.rename(aside)
    new.rename(old)
    aside.rename(new)


def recover(path: Path) -> None:
    """Put back a folder that a kill left under `NAME.old`, see `exchange`."""
    if not path.exists() and _aside(path).is_dir():
        _aside(path).rename(path)


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".old")


def is_temporary(path: Path) -> bool:
    """Whether a name is one of those that files and folders have before they are complete."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_leftovers(folder: Path, name: str | None = None, alone: bool = False) -> list[Path]:
    """Remove temporary files and folders that ended processes left in a folder; returns what was removed.

    Args:
        folder: looked at without its subfolders; it need not exist.
        name: only those of the file or folder of this name.
        alone: the caller knows that no process writes into the folder, so all of them are left over. Otherwise they are
            when their process is gone; of other hosts, which cannot be asked, when they are a week old.
    """
    removed = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            found = _TEMPORARY.fullmatch(entry.name)
            if found is None or (name is not None and found["name"] != _shortened(name)):
                continue
            if not alone and _may_live(entry, found["host"], int(found["pid"])):
                continue
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _may_live(entry: os.DirEntry[str], host: str, pid: int) -> bool:
    if host == _host():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # it runs, under another user
            return True
        return True
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime < _OTHER_HOST_SECONDS
    except FileNotFoundError:
        return False


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{_shortened(path.name)}.{_host()}-{os.getpid()}-{os.urandom(4).hex()}.tmp")


def _shortened(name: str) -> str:
    return os.fsencode(name)[:_LONGEST_NAME].decode(errors="ignore")


@cache
def _host() -> str:
    """8 hexadecimal digits of the host, its start, and the namespace of process ids."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not Linux: the name has to do
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Have what was renamed within a folder on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems refuse fsync on directories; the rename is atomic there all the same.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
