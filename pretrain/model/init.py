"""Initial weights that do not depend on the layout, from a counter-based generator.

The value at (row, column) of a parameter is a function of (seed, parameter name, row, column) alone: Philox4x32-10
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") in integer arithmetic, turned into a normal value
by a table with products and sums that IEEE arithmetic fixes to the last bit. So a rank computes its shard only, and
every layout and device gets the same bits.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from functools import cache
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor

from pretrain.model.llama import Llama

_MASK = 0xFFFFFFFF
_CELLS = 4096
# Values computed at a time: the generator's integers take about 100 bytes each.
_CHUNK = 1 << 20


@torch.no_grad()
def init_weights(parts: Iterable[Llama], seed: int) -> None:
    """Set all parameters: norms to 1, matrices normal with `init_std`, and those that write to the residual stream
    (`wo`, `w2`) with `init_std` / sqrt(2 × n_layers) (Radford et al. 2019, section 2.3).

    Values are rounded to fp32 whatever the parameters' precision. Parameters may be tensors or DTensors of any
    placement, on any device; no communication.
    """
    for part in parts:
        for name, parameter in part.named_parameters():
            init_parameter(name, parameter, seed, part.config.init_std, part.config.n_layers)


def init_parameter(name: str, parameter: nn.Parameter, seed: int, std: float, n_layers: int) -> None:
    """Set one parameter, or this rank's shard of it."""
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    if parameter.ndim == 1:
        local.fill_(1.0)
        return
    if name.endswith((".attention.wo.weight", ".feed_forward.w2.weight")):
        std = std / math.sqrt(2 * n_layers)
    rows, columns = local_indices(parameter, 0), local_indices(parameter, 1)
    if len(rows) == 0 or len(columns) == 0:
        return
    step = max(1, _CHUNK // len(columns))
    for start in range(0, len(rows), step):
        values = normal(seed, name, rows[start : start + step].to(local.device), columns.to(local.device))
        local[start : start + step] = (values * std).float().to(local.dtype)


def normal(seed: int, name: str, rows: Tensor, columns: Tensor) -> Tensor:
    """Standard normal values, fp64 [rows, columns], at these indices (int64) of the parameter `name`.

    The quantile function is a table of 4,096 cells with linear interpolation; the outermost cells end at ±4.
    """
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    key = (int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little"))
    # One call of the generator gives the values of four neighbouring columns.
    blocks, where = torch.unique_consecutive(columns // 4, return_inverse=True)
    row, block = rows[:, None].expand(-1, len(blocks)), blocks[None].expand(len(rows), -1)
    words = philox((block & _MASK, block >> 32, row & _MASK, row >> 32), key)
    bits = torch.stack(words, dim=-1)[:, where, columns % 4]
    table = _quantiles().to(rows.device)
    cell = bits >> 20
    inside = (bits & 0xFFFFF).double() * 2.0**-20
    low = table[cell]
    return low + inside * (table[cell + 1] - low)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10: four 32-bit words, as int64, of each counter."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # Products of 32-bit words wrap in int64, which leaves all 64 bits right; the shift's sign is masked away.
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32 & _MASK) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32 & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


@cache
def _quantiles() -> Tensor:
    # Rounded to 2^-30, so that a last bit of the platform's logarithm makes no difference.
    inner = [NormalDist().inv_cdf(i / _CELLS) for i in range(1, _CELLS)]
    return torch.tensor([-4.0, *(round(z * 2**30) / 2**30 for z in inner), 4.0], dtype=torch.float64)


def local_indices(parameter: Tensor, dim: int) -> Tensor:
    """Global indices along `dim` of this rank's shard, int64: an index vector, sharded as the parameter is."""
    indices = torch.arange(parameter.size(dim))
    if not isinstance(parameter, DTensor):
        return indices
    placements: list[Placement] = []
    for placement in parameter.placements:
        if isinstance(placement, Shard) and placement.dim == dim:
            placements.append(placement if dim == 0 else Shard(0))
        elif type(placement).__name__ == "_StridedShard" and getattr(placement, "dim", None) == dim:
            placements.append(placement)
        else:
            placements.append(Replicate())
    device = parameter.device_mesh.device_type
    spread = distribute_tensor(indices.to(device), parameter.device_mesh, placements, src_data_rank=None)
    return spread.to_local().cpu()
