"""Context parallelism: the tokens of a sequence are spread over ranks, keys and values are gathered (Llama 3, 3.3.2).

Each row is cut into chunks of equal length, and every rank gets as many of them, chosen so that ranks have about the same
number of (query, key) pairs under the document mask. Queries stay where they are; a rank gathers keys and values of the
whole row (few heads under grouped-query attention) and looks at those of its own documents only. Nothing is padded.

Shape suffixes as in `attention`; c ranks of the context-parallel group, s tokens of a row on one rank (T / c).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _resolve_process_group
from torch.nn.attention.flex_attention import BlockMask

from pretrain.collectives import all_gather_single, reduce_scatter_single
from pretrain.model.blocked import blocked_attention
from pretrain.model.flex import block_mask, flex
from pretrain.model.varlen import bucket, flash
from pretrain.options import Backend

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
    order: Tensor
    """int64 [B × T]: the place of each token of the batch among the gathered ones [c × B × T / c]."""
    fragments: Tensor
    """int64 [F, 4] for `blocked_attention`: queries in this rank's flattened tokens, keys in the batch's."""
    keys: Tensor
    """int64 [K]: for each fragment in turn, its keys, as places among the gathered tokens."""
    bounds_q: Tensor
    """int32 [N + 1]: fragments in this rank's flattened tokens."""
    bounds_k: Tensor
    """int32 [N + 1]: fragments in `keys`."""
    longest_q: int
    """Upper bound of the queries of a fragment; one of few (`varlen.bucket`)."""
    longest_k: int
    """Upper bound of its keys, likewise."""
    backend: Backend = "blocked"
    """What computes attention."""
    mask: BlockMask | None = None
    """The same for FlexAttention: this rank's queries [B, T / c] to the keys [B, T]."""

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


def spread(
    cu_seqlens: Tensor,
    length: int,
    group: dist.ProcessGroup,
    device: torch.device,
    backend: Backend = "blocked",
) -> Context:
    """This rank's part of a batch.

    Args:
        cu_seqlens: int32 [B, M] on the CPU: 0, …, T, padded by repeating T.
        length: tokens of a row, T.
    """
    ranks, me = dist.get_world_size(group), dist.get_rank(group)
    share = length // ranks
    rows = cu_seqlens.cpu().numpy().astype(np.int64)
    index = np.empty((len(rows), share), np.int64)
    order = np.empty((len(rows), length), np.int64)
    fragments = [np.zeros((1, 4), np.int64)]
    for b, bounds in enumerate(rows):
        owner = assign(bounds, length, ranks)
        owners = np.repeat(owner, length // len(owner))
        # A rank's tokens come in the order of the row.
        held = np.argsort(owners, kind="stable").reshape(ranks, share)
        order[b, held] = (np.arange(ranks)[:, None] * len(rows) + b) * share + np.arange(share)
        index[b] = mine = held[me]
        start = np.repeat(bounds[:-1], np.diff(bounds))[mine]
        first = np.flatnonzero(np.concatenate(([True], (np.diff(mine) != 1) | (start[1:] == mine[1:]))))
        queries = np.diff(np.append(first, share))
        fragments.append(
            np.stack(
                (b * share + first, queries, b * length + start[first], mine[first] + queries - start[first]),
                1,
            )
        )
    # The first fragment is padding: compiled code would be made anew for a single one.
    table = np.concatenate(fragments)
    ends = np.cumsum(table[:, [1, 3]], axis=0)
    # Runs of places, one after the other: a step of 1, but to the start of a run at its beginning.
    keys = np.arange(ends[-1, 1]) + np.repeat(table[:, 2] - ends[:, 1] + table[:, 3], table[:, 3])
    places = order.ravel()
    index_bs = _copied(index, device)
    mask = None
    if backend == "flex":
        mask = block_mask(cu_seqlens.to(device, non_blocking=True), length, index_bs)
    context = Context(
        group,
        index_bs,
        _copied(places, device),
        torch.from_numpy(table),
        _copied(places[keys], device),
        _copied(ends[:, 0].astype(np.int32), device),
        _copied(ends[:, 1].astype(np.int32), device),
        bucket(int(table[:, 1].max()), share),
        bucket(int(table[:, 3].max()), length),
        backend,
        mask,
    )
    for x in (context.fragments, context.keys, context.bounds_q, context.bounds_k):
        torch._dynamo.maybe_mark_dynamic(x, 0)
    return context


def _copied(array: np.ndarray, device: torch.device) -> Tensor:
    """An array on the device; the host does not wait for the copy."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@torch.library.custom_op("arriero::gather_tokens", mutates_args=())
def _gather(x: Tensor, group: str, ranks: int) -> Tensor:
    """Every rank's tensor, stacked; gradients are summed and each rank keeps those of its own."""
    out = x.new_empty((ranks * x.size(0), *x.shape[1:]))
    all_gather_single(out, x.contiguous(), _resolve_process_group(cast(Any, group)))
    return out


@_gather.register_fake
def _(x: Tensor, group: str, ranks: int) -> Tensor:
    return x.new_empty((ranks * x.size(0), *x.shape[1:]))


@torch.library.custom_op("arriero::scatter_sum", mutates_args=())
def _scatter(grad: Tensor, group: str, ranks: int) -> Tensor:
    # Gradients of many queries meet here: they are summed in fp32 at least.
    exact = grad if grad.dtype == torch.float64 else grad.float()
    out = exact.new_empty((len(exact) // ranks, *exact.shape[1:]))
    reduce_scatter_single(out, exact.contiguous(), _resolve_process_group(cast(Any, group)))
    return out.to(grad.dtype)


@_scatter.register_fake
def _(grad: Tensor, group: str, ranks: int) -> Tensor:
    return grad.new_empty((len(grad) // ranks, *grad.shape[1:]))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.group, ctx.ranks = inputs


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return _scatter(grad, ctx.group, ctx.ranks), None, None


_gather.register_autograd(_differentiate, setup_context=_save)


def context_attention(q_bshe: Tensor, k_bske: Tensor, v_bske: Tensor, context: Context) -> Tensor:
    """Causal attention inside documents of this rank's queries [B, T / c, H, E] to the keys of all ranks."""
    heads = k_bske.size(2)
    both = torch.cat((k_bske, v_bske), dim=2).flatten(0, 1)
    every = _gather(both, context.group.group_name, context.group.size())
    q = q_bshe.flatten(0, 1)
    if context.backend != "varlen":
        k, v = every[context.order].split(heads, dim=1)
        if context.mask is None:
            return blocked_attention(q, k, v, context.fragments).view_as(q_bshe)
        rows = q_bshe.size(0)
        return flex(q_bshe, k.unflatten(0, (rows, -1)), v.unflatten(0, (rows, -1)), context.mask)
    k, v = (x.contiguous() for x in every[context.keys].split(heads, dim=1))
    longest = context.longest_q, context.longest_k
    return flash(q, k, v, context.bounds_q, context.bounds_k, *longest).view_as(q_bshe)
