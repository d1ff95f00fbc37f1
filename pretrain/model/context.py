"""Context parallelism: the tokens of a sequence are spread over ranks, keys and values are gathered (Llama 3, 3.3.2).

Each row is cut into chunks of equal length, and every rank gets as many of them, chosen so that ranks have about the same
number of (query, key) pairs under the document mask. Queries stay where they are; a rank gathers keys and values of the
whole row (few heads under grouped-query attention) and looks at those of its own documents only. Nothing is padded.

Shape suffixes as in `attention`; c ranks of the context-parallel group, s tokens of a row on one rank (T / c).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

# Chunks that a rank gets of a row. More of them balance better, but the keys of a long document are read once for each.
CHUNKS = (2, 4, 8)
BALANCED = 1.05
"""Largest load of a rank, as a multiple of the mean, at which no finer cut is tried."""


@dataclass(frozen=True)
class Context:
    """What one rank computes of a batch. N fragments: runs of this rank's tokens that are neighbours in one document."""

    group: dist.ProcessGroup
    """The context-parallel group."""
    index_bs: Tensor
    """int64 [B, T / c]: place in its row of each token of this rank, ascending."""
    keys: Tensor
    """int64 [K]: for each fragment in turn, its keys, as places among the gathered tokens [c × B × T / c]."""
    bounds_q: Tensor
    """int32 [N + 1]: fragments in this rank's flattened tokens."""
    bounds_k: Tensor
    """int32 [N + 1]: fragments in `keys`."""
    sizes: tuple[tuple[int, int], ...]
    """(queries, keys) of each fragment; the last query sees the last key."""

    def local(self, x_bt: Tensor) -> Tensor:
        """This rank's tokens of a tensor [B, T] that all ranks hold."""
        return x_bt.gather(1, self.index_bs)

    def whole(self, x_bs: Tensor, length: int) -> Tensor:
        """A tensor [B, T, …] on every rank from each rank's tokens; without gradient."""
        out = x_bs.new_zeros((x_bs.size(0), length, *x_bs.shape[2:]))
        rows = torch.arange(x_bs.size(0), device=x_bs.device)[:, None]
        out[rows, self.index_bs] = x_bs
        dist.all_reduce(out, group=self.group)
        return out


def assign(bounds: np.ndarray, length: int, ranks: int) -> np.ndarray:
    """Rank of each chunk of a row, int64 [chunks]; every rank gets as many chunks.

    Args:
        bounds: document boundaries of the row: 0, …, T, possibly repeated.
    """
    best: tuple[float, np.ndarray] | None = None
    position = np.arange(length) - np.repeat(bounds[:-1], np.diff(bounds))
    for per_rank in CHUNKS:
        chunks = per_rank * ranks
        if length % chunks:
            continue
        costs = (position + 1).reshape(chunks, -1).sum(axis=1)
        owner, loads = np.empty(chunks, np.int64), np.zeros(ranks, np.int64)
        room = np.full(ranks, per_rank)
        # The heaviest first, each to the lightest rank that has room; ties to the first, so every rank finds the same.
        for chunk in np.argsort(-costs, kind="stable"):
            rank = int(np.where(room > 0, loads, np.iinfo(np.int64).max).argmin())
            owner[chunk], room[rank] = rank, room[rank] - 1
            loads[rank] += costs[chunk]
        imbalance = loads.max() / loads.mean()
        if best is None or imbalance < best[0]:
            best = imbalance, owner
        if imbalance <= BALANCED:
            break
    if best is None:
        raise ValueError(
            f"a sequence of {length} tokens does not divide into {CHUNKS[0]} chunks for each of {ranks} "
            "context-parallel ranks"
        )
    return best[1]


def spread(cu_seqlens: Tensor, length: int, group: dist.ProcessGroup, device: torch.device) -> Context:
    """This rank's part of a batch.

    Args:
        cu_seqlens: int32 [B, M] on the CPU: 0, …, T, padded by repeating T.
        length: tokens of a row, T.
    """
    ranks, me = dist.get_world_size(group), dist.get_rank(group)
    share = length // ranks
    rows = cu_seqlens.cpu().numpy().astype(np.int64)
    index = np.empty((len(rows), share), np.int64)
    keys: list[np.ndarray] = []
    sizes: list[tuple[int, int]] = []
    for b, bounds in enumerate(rows):
        owner = assign(bounds, length, ranks)
        owners = np.repeat(owner, length // len(owner))
        # Where each token of the row lies among the gathered ones: its rank's tokens come in the order of the row.
        place = np.empty(length, np.int64)
        for rank in range(ranks):
            held = np.flatnonzero(owners == rank)
            place[held] = (rank * len(rows) + b) * share + np.arange(share)
            if rank == me:
                index[b] = held
        start_of = np.repeat(bounds[:-1], np.diff(bounds))
        mine = index[b]
        breaks = np.flatnonzero((np.diff(mine) != 1) | (start_of[mine[1:]] == mine[1:])) + 1
        for run in np.split(mine, breaks):
            first, last = start_of[run[0]], run[-1] + 1
            keys.append(place[first:last])
            sizes.append((len(run), int(last - first)))
    ends = np.cumsum(np.array([(0, 0), *sizes], np.int32), axis=0, dtype=np.int32)
    return Context(
        group,
        torch.from_numpy(index).to(device),
        torch.from_numpy(np.concatenate(keys)).to(device),
        torch.from_numpy(ends[:, 0].copy()).to(device),
        torch.from_numpy(ends[:, 1].copy()).to(device),
        tuple(sizes),
    )


class _Gather(torch.autograd.Function):
    """Every rank's tensor, stacked; gradients are summed and each rank keeps those of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        out = x.new_empty((dist.get_world_size(group) * x.size(0), *x.shape[1:]))
        dist.all_gather_into_tensor(out, x.contiguous(), group=group)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        # Gradients of many queries meet here: they are summed in fp32 at least.
        exact = grad if grad.dtype == torch.float64 else grad.float()
        out = exact.new_empty((len(exact) // dist.get_world_size(ctx.group), *exact.shape[1:]))
        dist.reduce_scatter_tensor(out, exact.contiguous(), group=ctx.group)
        return out.to(grad.dtype), None


@torch.compiler.disable  # its shapes follow the documents
def context_attention(
    q_bshe: Tensor, k_bske: Tensor, v_bske: Tensor, context: Context, varlen: Callable[..., Any] | None
) -> Tensor:
    """Causal attention inside documents of this rank's queries [B, T / c, H, E] to the keys of all ranks.

    Args:
        varlen: torch's variable-length attention where it can be used (CUDA, half precision); None: fragment by
            fragment.
    """
    heads = k_bske.size(2)
    both = torch.cat((k_bske, v_bske), dim=2).flatten(0, 1)
    k, v = _Gather.apply(both, context.group)[context.keys].split(heads, dim=1)
    q = q_bshe.flatten(0, 1)
    if varlen is not None:
        out = varlen(
            q,
            k.contiguous(),
            v.contiguous(),
            context.bounds_q,
            context.bounds_k,
            max(n for n, _ in context.sizes),
            max(m for _, m in context.sizes),
            window_size=(-1, 0),
            enable_gqa=q.size(1) != heads,
        )
        return out.view_as(q_bshe)
    queries, seen = zip(*context.sizes, strict=True)
    parts = [_fragment(*part) for part in zip(q.split(queries), k.split(seen), v.split(seen), strict=True)]
    return torch.cat(parts).view_as(q_bshe)


def _fragment(q_nhe: Tensor, k_mke: Tensor, v_mke: Tensor) -> Tensor:
    """Attention of the last n tokens of a document's first m."""
    n, m = len(q_nhe), len(k_mke)
    out = F.scaled_dot_product_attention(
        q_nhe.transpose(0, 1)[None],
        k_mke.transpose(0, 1)[None],
        v_mke.transpose(0, 1)[None],
        attn_mask=None if n in (1, m) else _aligned_at_the_end(n, m, q_nhe.device),
        is_causal=n == m and n > 1,
        enable_gqa=q_nhe.size(1) != k_mke.size(1),
    )
    return out[0].transpose(0, 1)


@cache
def _aligned_at_the_end(n: int, m: int, device: torch.device) -> Tensor:
    """bool [n, m]: query i sees the keys up to m - n + i."""
    return torch.ones(n, m, dtype=torch.bool, device=device).tril(m - n)
