"""What a run was made with: command, code, libraries, hardware; a line of `environment.jsonl` for each start.

Imports no torch: `arriero data` must not wait for it. `docs/run-directory.md` documents the fields.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import psutil

FORMAT_VERSION = 2
"""Of run directories. 2: names of fields carry their units."""
NAME = "environment.jsonl"
ROOT = Path(__file__).parent.parent


def record(
    folder: Path, device: str = "cpu", device_memory_bytes: int | None = None, devices: int = 1
) -> dict[str, Any]:
    """Append what this process runs with to `environment.jsonl` of a run directory.

    Args:
        folder: the run directory; it exists.
        device: `cpu`, or the name of the GPU.
        device_memory_bytes: of one GPU; None on a CPU.
        devices: ranks of a training run, or workers of a data run.

    Returns:
        The line.
    """
    process = psutil.Process()
    line = {
        "format_version": FORMAT_VERSION,
        "time_unix_seconds": time.time(),
        "command": shlex.join(process.cmdline()),
        "started_by": _started_by(process),
        "directory": str(Path.cwd()),
        "arriero": {"version": _version("arriero"), **_checkout(ROOT)},
        "python": platform.python_version(),
        "libraries": libraries(),
        "hardware": {
            "host": socket.gethostname(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "processor": processor(),
            "processor_cores": cores(),
            "memory_bytes": psutil.virtual_memory().total,
            "device": device,
            "device_memory_bytes": device_memory_bytes,
            "devices": devices,
        },
    }
    with (folder / NAME).open("ab") as file:
        file.write(orjson.dumps(line) + b"\n")
    return line


def libraries() -> dict[str, str]:
    """Version of every installed library that the package declares, by name."""
    try:
        declared = importlib.metadata.requires("arriero") or []
    except importlib.metadata.PackageNotFoundError:
        declared = ["torch", "numpy"]  # run from a checkout that is not installed
    names = {re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower() for line in declared} - {"arriero"}
    found = {name: _version(name) for name in sorted(names)}
    return {name: version for name, version in found.items() if version is not None}


def processor() -> str:
    """Model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _started_by(process: psutil.Process) -> list[str]:
    """Command lines of the Python processes above this one, the outermost first: a launcher, torchrun."""
    above: list[str] = []
    for parent in process.parents():
        try:
            words = parent.cmdline()
        except psutil.Error:
            break
        if not words or not re.match(r"python|pypy", Path(words[0]).name):
            break
        above.insert(0, shlex.join(words))
    return above


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _checkout(root: Path) -> dict[str, Any]:
    """Commit of the checkout that the code is in, and whether its tracked files differ from it; None: no checkout."""
    commit = _git(root, ["rev-parse", "HEAD"]) if (root / ".git").exists() else None
    if commit is None:
        return {"git_commit": None, "git_dirty": None}
    changed = _git(root, ["status", "--porcelain", "--untracked-files=no"])
    return {"git_commit": commit, "git_dirty": None if changed is None else bool(changed)}


def _git(root: Path, words: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):  # no git, or one that refuses this folder
        return None
    return done.stdout.strip()


def cores() -> int:
    """Cores that this process may use: those of its affinity mask, and no more than its control group's quota of time."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return max(1, math.ceil(min(allowed, quota)))


def _quota(membership: Path, mount: Path) -> float:
    """Processor seconds a second that a process's control groups allow, those above its own included.

    Args:
        membership: `/proc/PID/cgroup`.
        mount: where control groups are mounted, of version 2 or 1.
    """
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:  # not Linux
        return math.inf
    least = math.inf
    for _, controllers, path in lines:
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mount / controllers if controllers else mount
        # In a container the path is the host's, and what is mounted is the container's own group.
        folder = root / path.strip("/")
        for group in (folder, *folder.parents):
            if group == root.parent:
                break
            least = min(least, _quota_of(group))
    return least


def _quota_of(group: Path) -> float:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((group / name).read_text() for name in names).split()
        except OSError:
            continue
        if quota not in ("max", "-1"):
            return int(quota) / int(period)
    return math.inf
