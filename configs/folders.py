"""Whether the working folder is there, and a folder that a run writes can be made; known before anything starts."""

from __future__ import annotations

import os
import re
from pathlib import Path

from configs.fields import ConfigError
from configs.own_path import DELETED

MOUNTS = Path("/proc/self/mounts")
OF_THE_KERNEL = (
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "mqueue",
    "proc",
    "pstore",
    "securityfs",
    "sysfs",
    "tracefs",
)
"""File systems that show what the kernel knows; they look writable and hold no files."""


def require_working_folder() -> None:
    """Raise ConfigError where the working folder was deleted: relative paths mean nothing then."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        raise ConfigError(DELETED) from None


def existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    return next(p for p in (path, *path.parents) if p.exists())


def file_system(path: Path) -> str:
    """Kind of the file system that a path lies on (`ext4`, `tmpfs`, …); empty where it is not known."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    place, kind, longest = path.resolve(), "", -1
    for line in lines:
        _, mount, name, *_ = line.split(" ")
        # White space and backslashes of a name are octal numbers. Of several mounts at one place the last is seen.
        mount = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), mount)
        if len(mount) >= longest and place.is_relative_to(mount):
            kind, longest = name, len(mount)
    return kind


def refusal(path: Path) -> str | None:
    """Why nothing can be written in a folder that is there or has to be made; null: nothing speaks against it."""
    above = existing(path.absolute())
    if not above.is_dir():
        return f"{above} is a file"
    if (kind := file_system(above)) in OF_THE_KERNEL:
        return f"{above} is a `{kind}` file system, which shows the kernel and holds no files"
    if not os.access(above, os.W_OK | os.X_OK):
        return f"{above} does not allow it"
    return None
