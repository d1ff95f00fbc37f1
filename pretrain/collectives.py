"""Collectives of torch.distributed by the names that this torch has for them: torch 2.13 renamed two, 2.15 made setting a
time limit public."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d


def all_gather_single(out: Tensor, x: Tensor, group: dist.ProcessGroup | None) -> None:
    """Gather the tensors of all ranks of a group, one behind the other, into `out`."""
    _first("all_gather_single", "all_gather_into_tensor")(out, x, group=group)


def reduce_scatter_single(out: Tensor, x: Tensor, group: dist.ProcessGroup | None) -> None:
    """Sum the tensors of all ranks of a group, and give each rank its share, in order of the ranks."""
    _first("reduce_scatter_single", "reduce_scatter_tensor")(out, x, group=group)


def set_timeout(limit: timedelta, group: dist.ProcessGroup) -> None:
    """Limit how long a collective of a group may take."""
    if hasattr(dist, "set_timeout"):
        dist.set_timeout(limit, group)
    else:
        distributed_c10d._set_pg_timeout(limit, group)


def _first(*names: str) -> Any:
    return next(getattr(dist, name) for name in names if hasattr(dist, name))
