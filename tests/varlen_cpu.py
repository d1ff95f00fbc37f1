"""Kernels for the CPU of the operators behind torch's `varlen_attn`: what every user of a GPU runs, computed in every
test run.

The operators have kernels for CUDA alone. These compute the same, fragment by fragment, in the precision of their inputs;
shapes are those of the operators: q [Q, H, E], k and v [T, K, E], bounds [N + 1], logsumexp [H, Q].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

import pretrain.model.varlen  # noqa: F401  (defines the operators)


@cache
def register() -> None:
    """Register both kernels in this process."""
    torch.library.register_kernel("torch_attn::_varlen_attn", "cpu", _forward)
    torch.library.register_kernel("torch_attn::_varlen_attn_backward", "cpu", _backward)


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds_q: Tensor,
    bounds_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    scale: float | None = None,
    window_size: list[int] | None = None,
    enable_gqa: bool = False,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    assert is_causal and window_size == [-1, 0] and scale is None and not any(x is not None for x in others)
    assert enable_gqa or q.size(1) == k.size(1)
    out, lse = torch.zeros_like(q), q.new_zeros((q.size(1), q.size(0)), dtype=_exact(q))
    for queries, keys, hidden in _fragments(bounds_q, bounds_k, max_q, max_k):
        scores_hqt = _scores(q[queries], k[keys]).masked_fill(hidden, -math.inf)
        lse[:, queries] = scores_hqt.logsumexp(-1)
        shares_hqt = (scores_hqt - lse[:, queries, None]).exp()
        out[queries] = torch.einsum("hqt,the->qhe", shares_hqt, _heads(v[keys], q)).to(q.dtype)
    return out, lse, torch.zeros(2, dtype=torch.uint64)


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    bounds_q: Tensor,
    bounds_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool,
    rng_state: Tensor,
    scale: float | None = None,
    window_size: list[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    exact = _exact(q)
    dq, dk, dv = (torch.zeros_like(x, dtype=exact) for x in (q, k, v))
    groups, width = (k.size(1), q.size(1) // k.size(1)), q.size(2)
    for queries, keys, hidden in _fragments(bounds_q, bounds_k, max_q, max_k):
        scores_hqt = _scores(q[queries], k[keys]).masked_fill(hidden, -math.inf)
        shares_hqt = (scores_hqt - lse[:, queries, None]).exp()
        do, o = grad[queries].to(exact), out[queries].to(exact)
        dshares_hqt = torch.einsum("qhe,the->hqt", do, _heads(v[keys], q))
        dscores_hqt = shares_hqt * (dshares_hqt - (do * o).sum(-1).T[:, :, None]) / math.sqrt(width)
        dq[queries] = torch.einsum("hqt,the->qhe", dscores_hqt, _heads(k[keys], q))
        for into, weights_hqt, rows in ((dk, dscores_hqt, q[queries].to(exact)), (dv, shares_hqt, do)):
            into[keys] += torch.einsum("hqt,qhe->the", weights_hqt, rows).unflatten(1, groups).sum(2)
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def _fragments(
    bounds_q: Tensor, bounds_k: Tensor, max_q: int, max_k: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Queries and keys of each fragment, and which keys a query does not see; both are aligned at their ends."""
    for (a, b), (c, d) in zip(
        itertools.pairwise(bounds_q.tolist()), itertools.pairwise(bounds_k.tolist()), strict=True
    ):
        if a < b:
            # The kernels of CUDA leave out what is longer than they are told.
            assert b - a <= max_q and d - c <= max_k
            hidden = torch.ones(b - a, d - c, dtype=torch.bool).triu(d - c - (b - a) + 1)
            yield slice(a, b), slice(c, d), hidden


def _exact(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _heads(x: Tensor, q: Tensor) -> Tensor:
    return x.to(_exact(q)).repeat_interleave(q.size(1) // x.size(1), dim=1)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return torch.einsum("qhe,the->hqt", q.to(_exact(q)), _heads(k, q)) / math.sqrt(q.size(2))
