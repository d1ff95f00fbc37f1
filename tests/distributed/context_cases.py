"""Attention over documents whose tokens are spread over ranks: what the test compares with the definition."""

from __future__ import annotations

import itertools

import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.model.attention import attention, reference_attention
from pretrain.model.context import spread

LENGTH, HEADS, KV_HEADS, WIDTH = 96, 6, 2, 16


def boundaries(seed: int, rows: int = 3) -> Tensor:
    """Random documents of 1 token to the whole row."""
    g = torch.Generator().manual_seed(seed)
    cuts = [
        sorted({0, LENGTH, *torch.randint(1, LENGTH, (n,), generator=g).tolist()})
        for n in torch.randint(0, 30, (rows,), generator=g).tolist()
    ]
    width = max(map(len, cuts)) + 1
    return torch.tensor([c + [LENGTH] * (width - len(c)) for c in cuts], dtype=torch.int32)


def errors(seeds: list[int]) -> list[tuple[float, float]]:
    """(error of the output, largest error of a gradient), relative, for each seed."""
    return [_error(seed) for seed in seeds]


def _error(seed: int) -> tuple[float, float]:
    cu, group = boundaries(seed), dist.group.WORLD
    assert group is not None
    g = torch.Generator().manual_seed(seed)
    shapes = [(len(cu), LENGTH, n, WIDTH) for n in (HEADS, KV_HEADS, KV_HEADS, HEADS)]
    q, k, v, weight = (torch.randn(s, generator=g) for s in shapes)
    context = spread(cu, LENGTH, group, torch.device("cpu"))
    rows = torch.arange(len(cu))[:, None]
    mine = [x[rows, context.index_bs].requires_grad_() for x in (q, k, v)]
    out = attention(*mine, context)
    grads = torch.autograd.grad(out, mine, weight[rows, context.index_bs])
    got = [context.whole(x.detach(), LENGTH) for x in (out, *grads)]
    whole = [x.requires_grad_() for x in (q, k, v)]
    expected = reference_attention(*whole, cu)
    wanted = [expected, *torch.autograd.grad(expected, whole, weight.double())]
    far = [
        float((a.double() - b.double()).norm() / b.double().norm()) for a, b in zip(got, wanted, strict=True)
    ]
    return far[0], max(far[1:])


def documents(cu: Tensor) -> list[list[tuple[int, int]]]:
    """(start, end) of the documents of each row."""
    return [[(a, b) for a, b in itertools.pairwise(row) if b > a] for row in cu.tolist()]
