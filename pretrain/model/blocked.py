"""Causal attention of fragments by matrix products over blocks of queries: what runs where there is no flash kernel.

A fragment is a run of queries and the keys that they may see: the last query sees the last key, the one before it all
but the last, and so on. A document is a fragment with as many queries as keys. Scores are computed anew in the backward
pass, block by block (Dao 2023, "FlashAttention-2", sections 3.1 and 3.2), but a block holds whole rows, all keys that its
queries see: the softmax needs no second pass, and nothing but q, k and v is kept.

Shape suffixes: n query tokens, m key tokens, k key/value heads, h query heads, g query heads of a key head (H / K),
e head width; b products of a batch: key heads × fragments; r rows of scores: queries × g; l keys of a fragment;
w G × E or E. Tensors "by head" are [K, 1 + tokens, W]; their first token is zero, and padding reads it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROWS = 128
"""Rows of scores in a block, about: half of the square of its queries is computed for nothing."""
SCORES = 1 << 18
"""Scores that each thread has in flight: smaller batches cost more calls than they save in cache misses."""
LEAST_QUERIES = 16
"""In a block, however many query heads share a key head."""
SMALL = 1 << 15
"""Scores that take about as long as the calls of a block: so many are padded rather than computed apart."""

Places = slice | Tensor
"""Tokens of a group in a tensor by head: neighbours, or int64 indices."""


@torch.library.custom_op("arriero::blocked_attention", mutates_args=())
def blocked_attention(q_nhe: Tensor, k_mke: Tensor, v_mke: Tensor, fragments: Tensor) -> Tensor:
    """Attention [N, H, E], scaled by 1 / sqrt(E), differentiable in q, k and v; zero for queries of no fragment.

    One operation for torch.compile and for activation checkpointing, whatever the fragments.

    Args:
        q_nhe: [N, H, E] of any floating type.
        k_mke: [M, K, E]; K divides H, and query head h sees key head h // (H / K).
        v_mke: [M, K, E].
        fragments: int64 [F, 4]: first query, queries, first key, keys (at least as many as queries). Fragments share
            no query; those without queries are padding.
    """
    heads, kv = q_nhe.size(1), k_mke.size(1)
    precision = _Precision.of(q_nhe)
    q, k, v = (_by_head(x, kv, precision.exact) for x in (q_nhe, k_mke, v_mke))
    schedule = _schedule(fragments.numpy(force=True).tobytes(), heads)
    out = _filled(q, schedule.queries)
    for group in schedule.groups:
        part = _take("q", q, group, group.rows, heads // kv)
        result = _scratch("out", part.shape, out)
        _forward(
            precision,
            heads // kv,
            part,
            _take("k", k, group, group.columns),
            _take("v", v, group, group.columns),
            result,
        )
        _put(out, group.rows, result)
    return _by_token(out, q_nhe)


@blocked_attention.register_fake
def _(q_nhe: Tensor, k_mke: Tensor, v_mke: Tensor, fragments: Tensor) -> Tensor:
    return _like(q_nhe)


@torch.library.custom_op("arriero::blocked_attention_backward", mutates_args=())
def _backward_op(
    grad_nhe: Tensor, q_nhe: Tensor, k_mke: Tensor, v_mke: Tensor, fragments: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    heads, kv = q_nhe.size(1), k_mke.size(1)
    precision = _Precision.of(q_nhe)
    schedule = _schedule(fragments.numpy(force=True).tobytes(), heads)
    grad, q, k, v = (_by_head(x, kv, precision.exact) for x in (grad_nhe, q_nhe, k_mke, v_mke))
    dq = _filled(q, schedule.queries)
    dk, dv = (_filled(x, 0 if schedule.overlaps else schedule.queries) for x in (k, v))
    for group in schedule.groups:
        q_brw, grad_brw = (_take(n, x, group, group.rows, heads // kv) for n, x in (("q", q), ("grad", grad)))
        k_ble, v_ble = (_take(n, x, group, group.columns) for n, x in (("k", k), ("v", v)))
        results = (
            _scratch("dq", q_brw.shape, dq),
            _scratch("dk", k_ble.shape, dk),
            _scratch("dv", v_ble.shape, dv),
        )
        _backward(precision, heads // kv, grad_brw, q_brw, k_ble, v_ble, *results)
        _put(dq, group.rows, results[0])
        _put(dk, group.columns, results[1], schedule.overlaps)
        _put(dv, group.columns, results[2], schedule.overlaps)
    return _by_token(dq, q_nhe), _by_token(dk, k_mke), _by_token(dv, v_mke)


@_backward_op.register_fake
def _(
    grad_nhe: Tensor, q_nhe: Tensor, k_mke: Tensor, v_mke: Tensor, fragments: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _like(q_nhe), _like(k_mke), _like(v_mke)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad_nhe: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward_op(grad_nhe, *ctx.saved_tensors), None)


blocked_attention.register_autograd(_differentiate, setup_context=_save)


@dataclass(frozen=True)
class _Group:
    """Fragments that are computed together, padded at the end to equal numbers of queries and of keys."""

    count: int
    rows: Places
    columns: Places


@dataclass(frozen=True)
class _Schedule:
    groups: tuple[_Group, ...]
    queries: int
    overlaps: bool
    """A key may be in several fragments."""


# All blocks of a model ask for the same one, forward and backward. Few are kept: their small tensors lie between those
# that a step frees, and with 64 of them memory of a rank grew by another 1.3%.
@lru_cache(maxsize=4)
def _schedule(fragments: bytes, heads: int) -> _Schedule:
    table = np.frombuffer(fragments, np.int64).reshape(-1, 4)
    table = table[table[:, 1] > 0]
    table = table[np.argsort(-table[:, 3], kind="stable")]
    whole = table[:, 1] == table[:, 3]
    groups = [_group(table[i : i + 1]) for i in np.flatnonzero(~whole)]
    documents = table[whole]
    squares = documents[:, 3] ** 2
    at = 0
    while at < len(documents):
        padding = (squares[at] - squares[at:]) * heads // 2
        size = int(np.searchsorted(padding, SMALL, side="right"))
        groups.append(_group(documents[at : at + size]))
        at += size
    return _Schedule(tuple(groups), int(table[:, 1].sum()), not bool(whole.all()))


def _group(table: np.ndarray) -> _Group:
    return _Group(
        len(table),
        _places(table[:, 0], table[:, 1], int(table[0, 1])),
        _places(table[:, 2], table[:, 3], int(table[0, 3])),
    )


def _places(starts: np.ndarray, lengths: np.ndarray, padded: int) -> Places:
    if len(starts) == 1 and lengths[0] == padded:
        return slice(int(starts[0]) + 1, int(starts[0] + padded) + 1)
    inside = np.arange(padded)
    return torch.from_numpy(np.where(inside < lengths[:, None], starts[:, None] + inside + 1, 0).ravel())


def _by_head(x: Tensor, kv_heads: int, dtype: torch.dtype) -> Tensor:
    tokens, heads, e = x.shape
    out = x.new_empty((kv_heads, tokens + 1, heads // kv_heads * e), dtype=dtype)
    out[:, 0].zero_()
    out[:, 1:].copy_(x.reshape(tokens, kv_heads, -1).transpose(0, 1))
    return out


def _filled(like: Tensor, tokens: int) -> Tensor:
    """Results by head; zeros, unless groups write all of `tokens` tokens."""
    return torch.empty_like(like) if tokens == like.size(1) - 1 else torch.zeros_like(like)


def _by_token(x: Tensor, like: Tensor) -> Tensor:
    out = _like(like)
    out.view(len(like), len(x), -1).copy_(x[:, 1:].transpose(0, 1))
    return out


def _take(name: str, x: Tensor, group: _Group, places: Places, per_token: int = 1) -> Tensor:
    """Tokens of a group, [B, R or L, E]; a part of `x`, or scratch memory of this name."""
    if isinstance(places, slice):
        part = x[:, places]
    else:
        part = _scratch(f"taken {name}", (len(x), len(places), x.size(2)), x)
        torch.index_select(x, 1, places.to(x.device), out=part)
    return part.view(len(x) * group.count, -1, x.size(2) // per_token)


def _put(x: Tensor, places: Places, part: Tensor, add: bool = False) -> None:
    """The way back, where nothing else is yet, or add to what is there."""
    part = part.view(len(x), -1, x.size(2))
    if isinstance(places, slice):
        (x[:, places].add_ if add else x[:, places].copy_)(part)
    else:
        (x.index_add_ if add else x.index_copy_)(1, places.to(x.device), part)


@dataclass(frozen=True)
class _Precision:
    exact: torch.dtype
    """Scores, softmax and sums."""
    factors: torch.dtype
    """Factors of the products that are not of scores."""

    @staticmethod
    def of(q: Tensor) -> _Precision:
        exact = torch.float64 if q.dtype == torch.float64 else torch.float32
        # Not in bf16 on the CPU: oneDNN builds code for each shape and stride of such a product, 0.6 to 0.9 MB and 0.8 ms,
        # and keeps it for 1,024 of them, so that memory grows for as long as documents of new lengths come.
        return _Precision(exact, exact if q.device.type == "cpu" else q.dtype)


def _queries(per_token: int) -> int:
    """Queries of a block."""
    return max(LEAST_QUERIES, ROWS // per_token)


@cache
def _hidden(per_token: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[R, queries] of a whole block: -inf where a key of a block comes after the query of the row; smaller blocks have its
    upper left part."""
    queries = _queries(per_token)
    hidden = torch.full((queries, queries), -math.inf, dtype=dtype, device=device).triu(1)
    return hidden.repeat_interleave(per_token, 0)


@dataclass(frozen=True)
class _Block:
    """Rows `r` of a piece, which see keys up to `end`; the last `queries` keys are those of its own queries."""

    r: slice
    end: int
    queries: int


def _pieces(
    rows: int, keys: int, products: int, per_token: int
) -> Iterator[tuple[slice | int, list[_Block]]]:
    """Products of a group, a few at a time, and the blocks of each, from the last query to the first."""
    queries = rows // per_token
    size = _queries(per_token)
    blocks = []
    for start in reversed(range(0, queries, size)):
        end = min(start + size, queries)
        blocks.append(_Block(slice(start * per_token, end * per_token), keys - queries + end, end - start))
    budget = SCORES * torch.get_num_threads() // max((x.r.stop - x.r.start) * x.end for x in blocks)
    piece = max(1, budget)
    for at in range(0, products, piece):
        # A batch of one is a matrix, whose parts need not be copied.
        yield (at if min(piece, products - at) == 1 else slice(at, at + piece)), blocks


def _shares(block: _Block, q: Tensor, k: Tensor) -> Tensor:
    """Softmax [(B,) R, L] of the scores of a block; q and k in exact precision."""
    rows = q[..., block.r, :]
    scores = _scratch("scores", (*rows.shape[:-1], block.end), q)
    _multiply(scores, rows, k[..., : block.end, :].mT, scale=q.size(-1) ** -0.5)
    hidden = _hidden(rows.size(-2) // block.queries, scores.dtype, scores.device)
    scores[..., block.end - block.queries :].add_(hidden[: rows.size(-2), : block.queries])
    return torch.ops.aten._softmax.out(scores, -1, False, out=scores)


def _multiply(out: Tensor, a: Tensor, b: Tensor, *, scale: float = 1.0, add: bool = False) -> None:
    """scale × a @ b, or that added to `out`; matrices or batches of them, factors perhaps of lower precision."""
    if a.dtype == out.dtype:
        function = torch.addmm if a.dim() == 2 else torch.baddbmm
        function(out, a, b, beta=int(add), alpha=scale, out=out)
        return
    product = torch.matmul(a, b, out=_scratch("product", out.shape, a))
    if add:
        out.add_(product, alpha=scale)
    else:
        torch.mul(product, scale, out=out)


def _cast(name: str, x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` itself, or in another dtype in scratch memory."""
    return x if x.dtype == dtype else _scratch(name, x.shape, x, dtype).copy_(x)


def _forward(
    precision: _Precision, per_token: int, q_bre: Tensor, k_ble: Tensor, v_ble: Tensor, out_bre: Tensor
) -> None:
    for b, blocks in _pieces(q_bre.size(1), k_ble.size(1), len(q_bre), per_token):
        q, k, out = q_bre[b], k_ble[b], out_bre[b]
        v = _cast("low v", v_ble[b], precision.factors)
        for block in blocks:
            shares = _cast("low shares", _shares(block, q, k), precision.factors)
            _multiply(out[..., block.r, :], shares, v[..., : block.end, :])


def _backward(
    precision: _Precision,
    per_token: int,
    grad_bre: Tensor,
    q_bre: Tensor,
    k_ble: Tensor,
    v_ble: Tensor,
    dq_bre: Tensor,
    dk_ble: Tensor,
    dv_ble: Tensor,
) -> None:
    scale = q_bre.size(2) ** -0.5
    for b, blocks in _pieces(q_bre.size(1), k_ble.size(1), len(q_bre), per_token):
        grad, q, k, v = grad_bre[b], q_bre[b], k_ble[b], v_ble[b]
        dq, dk, dv = dq_bre[b], dk_ble[b], dv_ble[b]
        grad_low, q_low, k_low = (
            _cast(f"low {n}", x, precision.factors) for n, x in (("grad", grad), ("q", q), ("k", k))
        )
        for number, block in enumerate(blocks):
            # The first block sees all keys, so the others find a value to add to.
            r, seen, add = block.r, slice(0, block.end), number > 0
            shares = _shares(block, q, k)
            low = _cast("low shares", shares, precision.factors)
            _multiply(dv[..., seen, :], low.mT, grad_low[..., r, :], add=add)
            ds = _scratch("gradients", shares.shape, shares)
            _multiply(ds, grad[..., r, :], v[..., seen, :].mT)
            torch.ops.aten._softmax_backward_data.out(ds, shares, -1, precision.exact, grad_input=ds)
            low = _cast("low shares", ds, precision.factors)
            _multiply(dq[..., r, :], low, k_low[..., seen, :], scale=scale)
            _multiply(dk[..., seen, :], low.mT, q_low[..., r, :], scale=scale, add=add)


_held = threading.local()


def _scratch(name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Memory that stays from step to step. Groups and blocks have a new size each: allocated one by one, they would leave
    the heap in pieces that nothing fits into, and it would grow; or the system would take them back and clear them again."""
    dtype = like.dtype if dtype is None else dtype
    size, key = math.prod(shape), (name, dtype, like.device)
    spaces: dict[Any, Tensor] = _held.__dict__
    if key not in spaces or spaces[key].numel() < size:
        # As much as most groups take, and touched, at once: otherwise memory would grow with the largest group so far, and
        # what is replaced would leave holes in the heap.
        most = max(size, like.numel(), SCORES * torch.get_num_threads())
        spaces[key] = torch.empty(1 << (most - 1).bit_length(), dtype=dtype, device=like.device).zero_()
    return spaces[key][:size].view(shape)
