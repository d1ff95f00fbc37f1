"""Memory of this process: what it holds, and the most it has held."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import psutil
import torch


def high_water(device: torch.device) -> int:
    """Most bytes this process has held, of its GPU, or resident on the CPU, since `reset_high_water`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_high_water(device: torch.device) -> None:
    """Begin `high_water` anew from what is held now; where the system cannot, it goes on from the start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # Linux: 5 resets the peak of the resident set
        Path("/proc/self/clear_refs").write_text("5")


def resident() -> int:
    """Bytes of this process in the host's memory now."""
    return int(psutil.Process().memory_info().rss)
