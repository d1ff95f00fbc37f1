"""What a process takes of its machine, settled before it computes; what the user has set in the environment stays."""

from __future__ import annotations

import os

import torch

from configs.environment import cores


def limit_threads(processes: int) -> None:
    """Let torch compute with this process's share of the cores, unless `OMP_NUM_THREADS` or `MKL_NUM_THREADS` is set.

    torch takes a thread for each core of the machine, also where a container may use a few of them or other ranks do the
    same; threads then wait for each other longer than they compute. torchrun sets OMP_NUM_THREADS=1 for several ranks.

    Args:
        processes: that share this machine, this one included.
    """
    if not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & set(os.environ):
        torch.set_num_threads(max(1, cores() // processes))
