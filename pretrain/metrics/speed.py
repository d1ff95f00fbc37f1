"""How fast a device multiplies matrices, measured so that other work on the machine does not change the result.

On the CPU a single thread multiplies and its own processor time counts, which stands still while another process has the
core; the best of several trials is taken, since caches and memory are shared. What several threads could do is that times
their number.
"""

from __future__ import annotations

import math
import time
from functools import cache

import torch

from configs.environment import cores

SIZES = {"cpu": (192, 384, 768), "cuda": (4096,)}
"""Sides of square matrices; on the CPU the fastest is one that fits into a core's own cache."""
TRIALS = 5
NATIVE = 1.2
"""Times as fast as fp32 from which bf16 counts as native on a processor. Where it is emulated, it is slower than fp32."""
LIMIT = 0.1
"""Seconds after which slow products are not tried again."""


def products_per_second(device: torch.device, dtype: torch.dtype, sizes: tuple[int, ...] = ()) -> float:
    """FLOP/s of square matrix products on a GPU or on one thread of the CPU; above 0.

    Args:
        sizes: sides of the matrices to try; empty: those at which this kind of device is fastest.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return max(_measure(device, dtype, n) for n in sizes or SIZES[device.type])
    finally:
        torch.set_num_threads(threads)


def threads_of_process() -> int:
    """Threads that torch computes with, at most the cores that this process may run on."""
    return min(torch.get_num_threads(), cores())


def bf16_speedup(device: torch.device) -> float:
    """How many times as fast as fp32 a device multiplies in bf16: infinite on GPUs that are known to do so natively, about
    2 to 16 on such processors, below 1 where libraries convert each factor, 0.03 where they multiply number by number.

    Masks of instruction sets (`ONEDNN_MAX_CPU_ISA`, `ATEN_CPU_CAPABILITY`) count, since the products themselves are timed.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return math.inf
    sizes = (256,) if device.type == "cpu" else SIZES[device.type]
    return products_per_second(device, torch.bfloat16, sizes) / products_per_second(
        device, torch.float32, sizes
    )


@cache
def multiplies_bf16(device_type: str) -> bool:
    """Whether this machine's devices of a kind multiply in bf16 natively."""
    return bf16_speedup(torch.device(device_type)) >= NATIVE


def _measure(device: torch.device, dtype: torch.dtype, n: int) -> float:
    a = torch.ones(n, n, device=device, dtype=dtype)
    clock = time.perf_counter if device.type == "cuda" else time.thread_time
    a @ a  # allocates, and compiles code for this shape
    best, total, trials = float("inf"), 0.0, 0
    # A clock may be too coarse for one product, so a trial takes as many as it needs to move.
    repeats = 1
    while trials < TRIALS and (trials == 0 or total < LIMIT):
        _synchronise(device)
        began = clock()
        for _ in range(repeats):
            a @ a
        _synchronise(device)
        seconds = clock() - began
        if seconds <= 0:
            repeats *= 2
            continue
        best, total, trials = min(best, seconds / repeats), total + seconds, trials + 1
    return 2.0 * n**3 / best


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
