"""Processes that never outlive who started them (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

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


def kill_descendants(wait: float = 60.0) -> None:
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


_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST, _USUAL_RANGE = 10_000, 32_768


def free_port() -> int:
    """A TCP port that is free on this machine now, and that nobody gets who asks the kernel for any port.

    Whoever is to listen on it does so seconds later. By then another process could have been given a port of the
    kernel's own range, for instance for one of the many connections of Gloo.
    """
    try:
        end = int(_RANGE.read_text().split()[0])
    except OSError:
        end = _USUAL_RANGE
    if end <= _LOWEST:  # the kernel gives out all ports
        end = 2**16
    draw = random.SystemRandom()
    for _ in range(1000):
        port = draw.randrange(_LOWEST, end)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("", port))
            return port
    raise OSError(f"no free TCP port among {_LOWEST} to {end - 1}; set cluster.port")
