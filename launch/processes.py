"""Processes that never outlive who started them (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however the parent ends."""
    parent = os.getppid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that `kill_descendants` finds them."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}) failed: {os.strerror(error)}")


def kill_descendants(wait: float = 10.0) -> None:
    """SIGKILL every descendant of this process and wait until they are gone, `wait` seconds at the most."""
    end = time.monotonic() + wait
    while descendants := psutil.Process().children(recursive=True):
        for process in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(descendants, timeout=max(0.0, min(0.5, end - time.monotonic())))
        if time.monotonic() > end:
            pids = ", ".join(str(p.pid) for p in descendants)
            raise RuntimeError(
                f"processes {pids} are still there {wait:.0f} s after SIGKILL; look at them with ps"
            )


def free_port() -> int:
    """A TCP port that is free on this machine now."""
    with socket.socket() as s:
        s.bind(("", 0))
        return s.getsockname()[1]
