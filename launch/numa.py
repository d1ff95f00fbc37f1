"""Where a rank runs on its node: on the cores, and with the memory, of the NUMA node that its GPU hangs on."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from launch.gpus import ROOT, Gpu

_MPOL_PREFERRED = 1
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}


def numa_nodes(
    gpus: Sequence[Gpu], nproc: int, environment: Mapping[str, str], root: Path = ROOT
) -> list[int | None]:
    """NUMA node of the GPU of each local rank; None: not known.

    Args:
        gpus: those of the node, from `look`.
        environment: `CUDA_VISIBLE_DEVICES` says which of them the ranks see, in which order.
    """
    seen: list[Gpu | None] = list(gpus)
    if (visible := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        seen = [_named(name.strip(), gpus) for name in visible.split(",")]
    ranks = [*seen[:nproc], *[None] * (nproc - len(seen))]
    return [None if gpu is None else _numa_node(gpu, root) for gpu in ranks]


def _named(name: str, gpus: Sequence[Gpu]) -> Gpu | None:
    """A GPU by number, or by the beginning of its UUID."""
    if name.isdigit():
        return gpus[int(name)] if int(name) < len(gpus) else None
    return next((gpu for gpu in gpus if name and gpu.uuid.startswith(name)), None)


def _numa_node(gpu: Gpu, root: Path) -> int | None:
    try:
        node = int((root / "sys/bus/pci/devices" / gpu.address / "numa_node").read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None  # -1: the machine does not say


def cores_of_nodes(root: Path = ROOT) -> dict[int, set[int]]:
    """Cores of each NUMA node that has any."""
    nodes = {}
    for folder in (root / "sys/devices/system/node").glob("node[0-9]*"):
        cores = set[int]()
        for part in (folder / "cpulist").read_text().strip().split(","):
            first, _, last = part.partition("-")
            cores |= set(range(int(first), int(last or first) + 1)) if first else set()
        if cores:
            nodes[int(folder.name.removeprefix("node"))] = cores
    return nodes


def bind(node: int, root: Path = ROOT) -> str:
    """Keep this process, and those that it starts, on the cores of a NUMA node, with memory of it while there is some.

    A process that may use cores of one node only was bound by somebody else, and stays as it is.

    Returns:
        What was done, in words.
    """
    if not sys.platform.startswith("linux"):
        return "not bound: this is not Linux"
    allowed, nodes = os.sched_getaffinity(0), cores_of_nodes(root)
    if sum(bool(cores & allowed) for cores in nodes.values()) < 2:
        return "not bound: its cores are of one NUMA node"
    cores = nodes.get(node, set()) & allowed
    if not cores:
        return f"not bound: it may use no core of NUMA node {node}"
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)
    memory = "" if prefer_memory(node) else ", memory where it is first touched"
    return f"bound to NUMA node {node}, {len(cores)} cores{memory}"


def prefer_memory(node: int) -> bool:
    """Take memory from a NUMA node while it has some (set_mempolicy(2)); False: kernel or container do not allow it.

    Preferred and not forced: a full node would otherwise end the process while another one has memory.
    """
    number = _SET_MEMPOLICY.get(platform.machine())
    if number is None:
        return False
    bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    words = node // bits + 1
    mask = (ctypes.c_ulong * words)()
    mask[node // bits] = 1 << (node % bits)
    call = ctypes.CDLL(None, use_errno=True).syscall
    # The kernel reads one bit less than it is told.
    return bool(call(number, _MPOL_PREFERRED, ctypes.byref(mask), ctypes.c_ulong(words * bits + 1)) == 0)
