"""Causal attention inside documents: one function of (q, k, v, documents), one truth about boundaries, `cu_seqlens`.

Shape suffixes: b batch, s sequence, h query heads, k key/value heads (divides h; head h reads h // (H / K)), e head
width. Heads are those of this rank under tensor parallelism.

Three backends: variable-length flash attention for CUDA in half precision, FlexAttention for CUDA, and
`blocked_attention` for everything. None breaks a graph of torch.compile, or is compiled anew when documents change.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from pretrain.model.blocked import blocked_attention
from pretrain.model.context import Context, context_attention
from pretrain.model.flex import block_mask, flex
from pretrain.model.varlen import bucket, flash
from pretrain.options import Backend


@dataclass(frozen=True)
class Documents:
    """Document boundaries of a batch, prepared once for all blocks."""

    boundaries: Tensor
    """int32 [N + 1]: starts in the flattened batch; documents of length 0 are padding."""
    longest: int
    """Upper bound of the length of a document, tokens; one of few (`varlen.bucket`)."""
    fragments: Tensor
    """int64 [N + 1, 4]: the same for `blocked_attention`."""
    backend: Backend = "blocked"
    """What computes attention."""
    mask: BlockMask | None = None
    """The same for FlexAttention."""

    @staticmethod
    def of(
        cu_seqlens: Tensor, length: int, backend: Backend = "blocked", longest: int | None = None
    ) -> Documents:
        """Documents of rows of `length` tokens.

        Args:
            cu_seqlens: int32 [B, M]: 0, …, T, padded by repeating T.
            longest: tokens of the longest document, where the host knows it: it does not ask the device.
        """
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
        mask = block_mask(cu_seqlens, length) if backend == "flex" else None
        bound = length if longest is None or backend != "varlen" else bucket(longest, length)
        return Documents(boundaries, bound, fragments, backend, mask)


def attention(q_bshe: Tensor, k_bske: Tensor, v_bske: Tensor, documents: Documents | Context) -> Tensor:
    """Causal attention [B, T, H, E], scaled by 1 / sqrt(E); a position sees its own document up to itself.

    With a `Context`, T is this rank's share of the sequence.
    """
    if isinstance(documents, Context):
        return context_attention(q_bshe, k_bske, v_bske, documents)
    if documents.backend == "varlen":
        q, k, v = (x.flatten(0, 1) for x in (q_bshe, k_bske, v_bske))
        bounds, longest = documents.boundaries, documents.longest
        return flash(q, k, v, bounds, bounds, longest, longest).view_as(q_bshe)
    if documents.mask is not None:
        return flex(q_bshe, k_bske, v_bske, documents.mask)
    q, k, v = (x.flatten(0, 1) for x in (q_bshe, k_bske, v_bske))
    return blocked_attention(q, k, v, documents.fragments).view_as(q_bshe)


def reference_attention(q_bshe: Tensor, k_bske: Tensor, v_bske: Tensor, cu_seqlens: Tensor) -> Tensor:
    """The definition, document by document in float64: what every backend is tested against."""
    repeat = q_bshe.size(2) // k_bske.size(2)
    out = []
    for row, bounds in enumerate(cu_seqlens.tolist()):
        lengths = [end - start for start, end in itertools.pairwise(bounds)]
        q, k, v = (x[row].double().split(lengths) for x in (q_bshe, k_bske, v_bske))
        for q_she, k_ske, v_ske in zip(q, k, v, strict=True):
            keys, values = (x.repeat_interleave(repeat, dim=1) for x in (k_ske, v_ske))
            scores_hqk = torch.einsum("qhe,khe->hqk", q_she, keys) / math.sqrt(q_she.size(2))
            hidden = torch.ones_like(scores_hqk[0]).triu(1).bool()
            shares = scores_hqk.masked_fill(hidden, -math.inf).softmax(dim=-1)
            out.append(torch.einsum("hqk,khe->qhe", shares, values))
    return torch.cat(out).view(q_bshe.shape)
