"""Causal attention inside documents: one function of (q, k, v, documents), one truth about boundaries, `cu_seqlens`.

Shape suffixes: b batch, s sequence, h query heads, k key/value heads (divides h; head h reads h // (H / K)), e head
width. Heads are those of this rank under tensor parallelism.

On CUDA in bf16 this is variable-length flash attention (Dao 2023). Elsewhere documents of similar length are computed
together: a causal mask hides padding at a document's end from its real positions, so a group of unequal documents
needs no mask of its own.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.model.context import Context, context_attention

# Documents share a group while the shortest has at least this part of the longest's length: padding costs less than
# the calls that it saves.
SIMILAR = 0.8
# Below this length bf16 matrix products with an explicit softmax beat the CPU's flash kernel, whose backward does not
# use the processor's bf16 units (512 tokens: 63 against 99 ms, 2,048: 328 against 204, one thread of a processor
# with avx512_bf16).
EXPLICIT_LENGTH = 1024
EXPLICIT_BLOCK = 128


@dataclass(frozen=True)
class Documents:
    """Document boundaries of a batch, prepared once for all blocks.

    `boundaries` is for variable-length kernels, the rest for grouped ones. A grouped batch is a permutation of the
    flattened tokens, in which padding repeats a document's last token.
    """

    boundaries: Tensor
    """int32 [N + 1]: starts in the flattened batch; documents of length 0 are padding."""
    longest: int
    """Upper bound of the length of a document, tokens."""
    groups: tuple[tuple[int, int], ...] = ()
    """(documents, padded length) of each group."""
    gather: Tensor | None = None
    """int64 [P]: flat token of each place of the grouped batch; None: the batch is grouped as it stands."""
    scatter: Tensor | None = None
    """int64 [B × T]: place in the grouped batch of each flat token."""

    @staticmethod
    def of(cu_seqlens: Tensor, length: int) -> Documents:
        """Documents of rows of `length` tokens; `cu_seqlens` is int32 [B, M]: 0, …, T, padded by repeating T."""
        rows = cu_seqlens.size(0)
        starts = torch.arange(rows, dtype=torch.int32, device=cu_seqlens.device)[:, None] * length
        end = torch.full((1,), rows * length, dtype=torch.int32, device=cu_seqlens.device)
        boundaries = torch.cat(((cu_seqlens[:, :-1] + starts).flatten().to(torch.int32), end))
        if cu_seqlens.is_cuda and _has_varlen():
            # Grouping would read lengths back from the device; `attention` asks for it only where it must.
            return Documents(boundaries, length)
        return _grouped(boundaries, length)


def attention(q_bshe: Tensor, k_bske: Tensor, v_bske: Tensor, documents: Documents | Context) -> Tensor:
    """Causal attention [B, T, H, E], scaled by 1 / sqrt(E); a position sees its own document up to itself.

    With a `Context`, T is this rank's share of the sequence.
    """
    flash = q_bshe.is_cuda and q_bshe.dtype in (torch.bfloat16, torch.float16) and _has_varlen()
    if isinstance(documents, Context):
        if not flash:
            return context_attention(q_bshe, k_bske, v_bske, documents, None)
        from torch.nn.attention.varlen import varlen_attn

        return context_attention(q_bshe, k_bske, v_bske, documents, varlen_attn)
    if flash:
        return _varlen(q_bshe, k_bske, v_bske, documents)
    return _grouped_attention(q_bshe, k_bske, v_bske, documents)


def _has_varlen() -> bool:
    try:
        import torch.nn.attention.varlen  # noqa: F401
    except ImportError:
        return False
    return True


def _varlen(q_bshe: Tensor, k_bske: Tensor, v_bske: Tensor, documents: Documents) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        q_bshe.flatten(0, 1),
        k_bske.flatten(0, 1),
        v_bske.flatten(0, 1),
        documents.boundaries,
        documents.boundaries,
        documents.longest,
        documents.longest,
        window_size=(-1, 0),
        enable_gqa=q_bshe.size(2) != k_bske.size(2),
    )
    assert isinstance(out, Tensor)
    return out.view_as(q_bshe)


def _grouped(boundaries: Tensor, length: int) -> Documents:
    bounds = boundaries.cpu().numpy().astype(np.int64)
    lengths = np.diff(bounds)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    groups: list[tuple[int, int]] = []
    index: list[np.ndarray] = []
    at = 0
    while at < len(order):
        longest = int(lengths[order[at]])
        members = order[at:][lengths[order[at:]] >= SIMILAR * longest]
        inside = np.minimum(np.arange(longest)[None], lengths[members][:, None] - 1)
        index.append((bounds[members][:, None] + inside).ravel())
        groups.append((len(members), longest))
        at += len(members)
    gather = np.concatenate(index)
    if len(gather) == bounds[-1] and bool((gather == np.arange(len(gather))).all()):
        return Documents(boundaries, length, tuple(groups))
    # Of the places that repeat a token the first is the token's own: NumPy keeps the last assignment.
    scatter = np.empty(bounds[-1], np.int64)
    scatter[gather[::-1]] = np.arange(len(gather))[::-1]
    device = boundaries.device
    return Documents(
        boundaries,
        length,
        tuple(groups),
        torch.from_numpy(gather).to(device),
        torch.from_numpy(scatter).to(device),
    )


@torch.compiler.disable  # its shapes follow the documents: each batch would be compiled anew
def _grouped_attention(q_bshe: Tensor, k_bske: Tensor, v_bske: Tensor, documents: Documents) -> Tensor:
    if not documents.groups:
        documents = _grouped(documents.boundaries, documents.longest)
    q, k, v = (x.flatten(0, 1) for x in (q_bshe, k_bske, v_bske))
    gather, scatter = documents.gather, documents.scatter
    if gather is not None:
        q, k, v = (_Regroup.apply(x, gather, scatter) for x in (q, k, v))
    parts = []
    sizes = [n * length for n, length in documents.groups]
    for (n, _), *parts_qkv in zip(
        documents.groups, q.split(sizes), k.split(sizes), v.split(sizes), strict=True
    ):
        parts.append(_causal(*(x.unflatten(0, (n, -1)) for x in parts_qkv)).flatten(0, 1))
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    if scatter is not None:
        out = _Ungroup.apply(out, scatter)
    return out.reshape(q_bshe.shape)


class _Regroup(torch.autograd.Function):
    """Flat tokens → grouped batch. Padding gets no gradient from real positions, so the way back is a gather too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gather: Tensor, scatter: Tensor) -> Tensor:
        ctx.save_for_backward(scatter)
        return x[gather]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return grad[ctx.saved_tensors[0]], None, None


class _Ungroup(torch.autograd.Function):
    """Grouped batch → flat tokens; the gradient of padding is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scatter: Tensor) -> Tensor:
        ctx.save_for_backward(scatter)
        ctx.places = len(x)
        return x[scatter]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        out = grad.new_zeros((ctx.places, *grad.shape[1:]))
        out[ctx.saved_tensors[0]] = grad
        return out, None


def _causal(q_nshe: Tensor, k_nske: Tensor, v_nske: Tensor) -> Tensor:
    """Causal attention of n documents of equal length."""
    if q_nshe.device.type == "cpu" and q_nshe.dtype == torch.bfloat16 and q_nshe.size(1) <= EXPLICIT_LENGTH:
        return _explicit(q_nshe, k_nske, v_nske)
    return F.scaled_dot_product_attention(
        q_nshe.transpose(1, 2),
        k_nske.transpose(1, 2),
        v_nske.transpose(1, 2),
        is_causal=True,
        enable_gqa=q_nshe.size(2) != k_nske.size(2),
    ).transpose(1, 2)


def _explicit(q_nshe: Tensor, k_nske: Tensor, v_nske: Tensor) -> Tensor:
    """The same by matrix products over blocks of queries, each with the keys up to its end."""
    n, s, h, e = q_nshe.shape
    kv = k_nske.size(2)
    # The query heads of one key head are rows of one matrix: keys are not repeated.
    q = (q_nshe * e**-0.5).view(n, s, kv, h // kv, e).permute(0, 2, 3, 1, 4)
    k = k_nske.transpose(1, 2).reshape(n * kv, s, e)
    v = v_nske.transpose(1, 2).reshape(n * kv, s, e)
    out = []
    for start in range(0, s, EXPLICIT_BLOCK):
        end = min(start + EXPLICIT_BLOCK, s)
        rows = q[:, :, :, start:end].reshape(n * kv, -1, e)
        scores = torch.bmm(rows, k[:, :end].mT).view(n * kv, h // kv, end - start, end)
        mask = torch.full((end - start, end), -math.inf, dtype=q.dtype, device=q.device).triu(start + 1)
        shares = torch.softmax(scores + mask, dim=-1).view(n * kv, -1, end)
        out.append(torch.bmm(shares, v[:, :end]).view(n, kv, h // kv, end - start, e))
    return torch.cat(out, dim=3).permute(0, 3, 1, 2, 4).reshape(n, s, h, e)


def reference_attention(q_bshe: Tensor, k_bske: Tensor, v_bske: Tensor, cu_seqlens: Tensor) -> Tensor:
    """The definition, document by document in float64: what every backend is tested against."""
    q, k, v = (x.double() for x in (q_bshe, k_bske, v_bske))
    repeat = q.size(2) // k.size(2)
    out = torch.zeros_like(q)
    for row, bounds in enumerate(cu_seqlens.tolist()):
        for start, end in itertools.pairwise(bounds):
            for head in range(q.size(2)):
                scores = q[row, start:end, head] @ k[row, start:end, head // repeat].T / math.sqrt(q.size(3))
                hidden = torch.ones_like(scores).triu(1).bool()
                shares = scores.masked_fill(hidden, -math.inf).softmax(dim=-1)
                out[row, start:end, head] = shares @ v[row, start:end, head // repeat]
    return out
