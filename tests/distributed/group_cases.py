"""What the process groups of a mesh cost, and how long they wait."""

from __future__ import annotations

from datetime import timedelta

import psutil
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from pretrain.parallel.layout import Layout
from pretrain.parallel.mesh import build_mesh, limit_waiting


def connections() -> dict[str, int]:
    """Connections of this rank once the mesh of a layout is made, and after a collective of one of its groups; and whether
    control messages and that collective gave the right results."""
    dist.barrier()  # connects ranks in the default group
    before = _established()
    mesh = build_mesh(Layout(2, 1, 2, 1, 1, 1), "cpu")
    dist.barrier()
    made = _established() - before
    ranks: list[int] = [-1] * dist.get_world_size()
    dist.all_gather_object(ranks, dist.get_rank())
    before, number = _established(), torch.tensor(dist.get_rank())
    dist.all_reduce(number, group=mesh.get_group("pp"))
    right = ranks == [0, 1, 2, 3] and int(number) == sum(
        mesh.mesh[:, 0, mesh.get_local_rank("dp_shard")].flatten()
    )
    dist.barrier()
    return {"mesh": made, "collective": _established() - before, "right": right}


def timeouts() -> list[float]:
    """Seconds that each group waits after the limit of steps is set."""
    build_mesh(Layout(2, 1, 2, 1, 1, 1), "cpu")
    limit_waiting(timedelta(seconds=77))
    groups = distributed_c10d._world.pg_map
    limits = [group._get_backend(torch.device("cpu")).options._timeout.total_seconds() for group in groups]
    dist.barrier()
    return limits


def _established() -> int:
    return sum(c.status == psutil.CONN_ESTABLISHED for c in psutil.Process().net_connections())
