"""High-water mark of memory."""

from __future__ import annotations

import resource

import torch


def high_water(device: torch.device) -> int:
    """Most bytes this process has held: of its GPU, or resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
