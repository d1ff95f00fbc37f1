"""Variable-length flash attention (Dao 2023) as torch has it, in the versions that there are of it.

Shape suffixes as in `attention`; q tokens of all queries, t of all keys.
"""

from __future__ import annotations

import inspect
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

# Looked at once, and not in `flash`, which is traced by the compiler.
GROUPED = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""Whether keys and values may have fewer heads than queries: since torch 2.12."""
MOST_BUCKETS = 5
"""Lengths of the longest document that blocks are compiled for, of one length of rows."""


def bucket(longest: int, length: int) -> int:
    """The upper bound of a document's length that kernels are told: the next power of two, so that a row of short
    documents does not launch the blocks of a long one; at most `length`, and not so small that more than MOST_BUCKETS bounds
    exist, because blocks are compiled for each.
    """
    least = -(-length // 2 ** (MOST_BUCKETS - 1))
    return min(length, 1 << (max(longest, least, 1) - 1).bit_length())


def flash(
    q_qhe: Tensor,
    k_tke: Tensor,
    v_tke: Tensor,
    bounds_q: Tensor,
    bounds_k: Tensor,
    longest_q: int,
    longest_k: int,
) -> Tensor:
    """Attention [Q, H, E] of fragments, causal and aligned at their ends, scaled by 1 / sqrt(E).

    Args:
        bounds_q: int32 [N + 1], where fragments begin in the queries; the last element is their end.
        bounds_k: int32 [N + 1], the same in the keys.
        longest_q: upper bound of a fragment's queries.
        longest_k: upper bound of a fragment's keys.
    """
    grouped = q_qhe.size(1) != k_tke.size(1)
    if grouped and not GROUPED:
        repeats = q_qhe.size(1) // k_tke.size(1)
        k_tke, v_tke = (x.repeat_interleave(repeats, dim=1) for x in (k_tke, v_tke))
    more: dict[str, Any] = {"enable_gqa": True} if grouped and GROUPED else {}
    out = varlen_attn(
        q_qhe, k_tke, v_tke, bounds_q, bounds_k, longest_q, longest_k, window_size=(-1, 0), **more
    )
    assert isinstance(out, Tensor)
    return out


@cache
def use_fastest(device: torch.device) -> str:
    """Let torch use FlashAttention-3 (Shah et al. 2024) on Hopper where the package `flash_attn_interface` is installed;
    the kernels that are used then, `FA3` or `FA2`."""
    from torch.nn import attention

    if torch.cuda.get_device_capability(device)[0] != 9 or find_spec("flash_attn_interface") is None:
        return "FA2"
    activate = getattr(attention, "activate_flash_attention_impl", None)
    if activate is None:
        return "FA2"
    activate("FA3")
    return "FA3"
