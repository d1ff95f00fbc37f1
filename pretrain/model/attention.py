"""Causal attention inside documents: one function of (q, k, v, documents), one truth about boundaries, `cu_seqlens`.

Shape suffixes: b batch, s sequence, h query heads, k key/value heads (divides h; head h reads h // (H / K)), e head
width. Heads are those of this rank under tensor parallelism.

On CUDA in half precision this is variable-length flash attention (Dao 2023), elsewhere `blocked_attention`. Each is one
operation for torch.compile, which neither breaks the graph nor compiles anew when documents change.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.model.blocked import blocked_attention
from pretrain.model.context import Context, context_attention


@dataclass(frozen=True)
class Documents:
    """Document boundaries of a batch, prepared once for all blocks."""

    boundaries: Tensor
    """int32 [N + 1]: starts in the flattened batch; documents of length 0 are padding."""
    longest: int
    """Upper bound of the length of a document, tokens."""
    fragments: Tensor
    """int64 [N + 1, 4]: the same for `blocked_attention`."""

    @staticmethod
    def of(cu_seqlens: Tensor, length: int) -> Documents:
        """Documents of rows of `length` tokens; `cu_seqlens` is int32 [B, M]: 0, …, T, padded by repeating T."""
        rows = cu_seqlens.size(0)
        starts = torch.arange(rows, dtype=torch.int32, device=cu_seqlens.device)[:, None] * length
        end = torch.full((1,), rows * length, dtype=torch.int32, device=cu_seqlens.device)
        boundaries = torch.cat(((cu_seqlens[:, :-1] + starts).flatten().to(torch.int32), end))
        # One fragment is padding: compiled code would be made anew for a single one.
        bounds = torch.cat((boundaries, end)).long()
        first, lengths = bounds[:-1], bounds.diff()
        fragments = torch.stack((first, lengths, first, lengths), dim=1)
        for x in (boundaries, fragments):
            torch._dynamo.maybe_mark_dynamic(x, 0)
        return Documents(boundaries, length, fragments)


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
    q, k, v = (x.flatten(0, 1) for x in (q_bshe, k_bske, v_bske))
    return blocked_attention(q, k, v, documents.fragments).view_as(q_bshe)


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
