"""The device mesh: [pp, dp_replicate, dp_shard, cp, tp], tensor parallelism innermost (Llama 3 report, 3.3.2)."""

from __future__ import annotations

from datetime import timedelta

import torch.distributed as dist
from torch.distributed import distributed_c10d
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from pretrain.collectives import set_timeout
from pretrain.parallel.layout import Layout

DIMS = ("pp", "dp_replicate", "dp_shard", "cp", "tp")


def build_mesh(layout: Layout, device_type: str) -> DeviceMesh:
    """The mesh of a layout over all ranks, on `cpu` or `cuda`.

    Without a process group a gloo group of this one process is made, so that single-process tools need not.
    """
    if not dist.is_initialized():
        if layout.world_size != 1:
            raise RuntimeError(f"a mesh of {layout.world_size} ranks needs an initialised process group")
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    sizes = (layout.pp, layout.dp_replicate, layout.dp_shard, layout.cp, layout.tp)
    return init_device_mesh(device_type, sizes, mesh_dim_names=DIMS)


def single_mesh(device_type: str) -> DeviceMesh:
    """The mesh of one process."""
    return build_mesh(Layout(1, 1, 1, 1, 1, 1), device_type)


def limit_waiting(limit: timedelta | None = None) -> None:
    """Limit how long a collective of any process group that exists may take.

    Args:
        limit: None: that of the default group, which new groups do not take over.
    """
    world = dist.group.WORLD
    assert world is not None
    limit = world._get_backend(world._device_types[0]).options._timeout if limit is None else limit
    for group in distributed_c10d._world.pg_map:
        set_timeout(limit, group)
