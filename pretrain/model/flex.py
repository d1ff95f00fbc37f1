"""FlexAttention (Dong et al. 2024) under document masks: a mask of blocks made from where each query's document starts.

Shape suffixes as in `attention`; t tokens of the keys' rows, s of the queries'.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128
"""Tokens of a side of a block, as the kernels' own."""


def block_mask(cu_seqlens: Tensor, length: int, index_bs: Tensor | None = None) -> BlockMask:
    """The mask under which a query sees its document up to itself; made on the device, without synchronisation.

    Args:
        cu_seqlens: int32 [B, M]: 0, …, T, padded by repeating T.
        length: tokens of a row, T.
        index_bs: int64 [B, S]: place in its row of each query; None: all places in order.
    """
    rows, device = cu_seqlens.size(0), cu_seqlens.device
    if index_bs is None:
        index_bs = torch.arange(length, device=device).expand(rows, length)
    last_bs = index_bs.contiguous()
    bounds = cu_seqlens.long().contiguous()
    first_bs = bounds.gather(1, torch.searchsorted(bounds, last_bs, right=True) - 1)

    def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k >= first_bs[b, q]) & (k <= last_bs[b, q])

    # Queries of a block see between `all` and `any` of the keys in between.
    n_q, n_k = -(-last_bs.size(1) // BLOCK), -(-length // BLOCK)
    starts, ends = (_in_blocks(x, n_q) for x in (first_bs, last_bs))
    key = torch.arange(n_k, device=device) * BLOCK
    key_end = (key + BLOCK).clamp(max=length) - 1
    some = (starts.amin(-1)[..., None] <= key_end) & (ends.amax(-1)[..., None] >= key)
    full = (starts.amax(-1)[..., None] <= key) & (ends.amin(-1)[..., None] >= key_end)
    return BlockMask.from_kv_blocks(
        *_ordered(some & ~full),
        *_ordered(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(last_bs.size(1), length),
    )


def flex(q_bshe: Tensor, k_btke: Tensor, v_btke: Tensor, mask: BlockMask) -> Tensor:
    """Attention [B, S, H, E], scaled by 1 / sqrt(E); compiled on CUDA, and on the CPU forward only."""
    function = _compiled() if q_bshe.is_cuda else flex_attention
    out = function(
        *(x.transpose(1, 2) for x in (q_bshe, k_btke, v_btke)),
        block_mask=mask,
        enable_gqa=q_bshe.size(2) != k_btke.size(2),
    )
    assert isinstance(out, Tensor)
    return out.transpose(1, 2)


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def _in_blocks(x_bs: Tensor, blocks: int) -> Tensor:
    """[B, blocks, BLOCK]; the last value fills the last block."""
    missing = blocks * BLOCK - x_bs.size(1)
    return torch.cat((x_bs, x_bs[:, -1:].expand(-1, missing)), dim=1).unflatten(1, (blocks, BLOCK))


def _ordered(blocks_bqk: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers [B, 1, Q] of the key blocks of each query block, and the blocks themselves first in [B, 1, Q, K]."""
    order = blocks_bqk.int().argsort(dim=-1, descending=True, stable=True)
    return blocks_bqk.sum(-1).int()[:, None], order.int()[:, None]
