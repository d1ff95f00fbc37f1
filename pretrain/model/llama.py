"""Llama 3 (Dubey et al. 2024, "The Llama 3 Herd of Models", section 3.2), whole or one pipeline stage of it.

Shape suffixes: b batch, s sequence, d model width, h heads, k key/value heads, e head width, f feed-forward width,
v vocabulary. Under tensor parallelism the residual stream holds s / tp positions, and h, k, f, v are local counts.

Parameter names are Meta's: `tok_embeddings.weight`, `layers.N.attention.{wq,wk,wv,wo}.weight`,
`layers.N.feed_forward.{w1,w2,w3}.weight`, `layers.N.{attention_norm,ffn_norm}.weight`, `norm.weight`,
`output.weight`. A tied model has no `output.weight`; where its pipeline's last stage is not its first, the last one
holds its own copy of `tok_embeddings.weight` under the same name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema.train import ModelConfig
from pretrain.hf import padded_vocab_size
from pretrain.model import recompute
from pretrain.model.attention import Documents, attention
from pretrain.model.context import Context
from pretrain.model.loss import (
    Passes,
    compile_passes,
    linear_cross_entropy,
    linear_logits,
    linear_token_losses,
)
from pretrain.model.offload import HostMemory
from pretrain.model.recompute import Kept
from pretrain.options import choose_attention

Rope = tuple[Tensor, Tensor]


def rope_table(config: ModelConfig, positions_bs: Tensor, dtype: torch.dtype) -> Rope:
    """Cosines and sines [B, T, 1, head width] of the rotary embedding (Su et al. 2021) at each position.

    Angles are computed in fp32 whatever the compute dtype, as in the reference implementations, so that a model trained
    here gives the same logits there. The tables are fp32 too, fp64 where `dtype` is: bf16 has 8 bits for a cosine, and
    scores of one distance would depend on the positions.
    """
    head_dim, device = config.dim // config.n_heads, positions_bs.device
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64, device=device).float() / head_dim
    frequencies = 1.0 / (config.rope_theta**exponents)
    if config.rope_scaling is not None:
        scaling = config.rope_scaling
        wavelengths = 2 * math.pi / frequencies
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        smooth = ((scaling.original_max_position / wavelengths - low) / (high - low)).clamp(0, 1)
        # Between the two bounds the frequency is interpolated; outside, `smooth` is exactly 0 or 1.
        frequencies = (1 - smooth) * frequencies / scaling.factor + smooth * frequencies
    angles = positions_bs[..., None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)[:, :, None]
    exact = torch.promote_types(dtype, torch.float32)
    return angles.cos().to(exact), angles.sin().to(exact)


def rotate(x_bshe: Tensor, rope: Rope) -> Tensor:
    """Apply the rotary embedding in the dtype of its tables; the result is rounded once, to the dtype of `x_bshe`.

    Rows are half-split: e pairs with e + E/2, as Hugging Face stores them.
    """
    cos, sin = rope
    exact_bshe = x_bshe.to(cos.dtype)
    left, right = exact_bshe.chunk(2, dim=-1)
    return (exact_bshe * cos + torch.cat((-right, left), dim=-1) * sin).to(x_bshe.dtype)


class Linear(nn.Linear):
    """Without bias, in the precision of its input whatever that of its weight: one rank alone keeps only fp32 weights."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm (Zhang & Sennrich 2019), in fp32 inside and in the precision of its input outside."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023) inside documents."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.head_dim = config.dim // config.n_heads
        self.wq = Linear(config.dim, config.n_heads * self.head_dim)
        self.wk = Linear(config.dim, config.n_kv_heads * self.head_dim)
        self.wv = Linear(config.dim, config.n_kv_heads * self.head_dim)
        self.wo = Linear(config.n_heads * self.head_dim, config.dim)

    def forward(self, x_bsd: Tensor, rope: Rope, documents: Documents | Context) -> Tensor:
        # The number of heads is left to `view`, because tensor parallelism leaves a part of them here.
        q_bshe = self.wq(x_bsd).unflatten(-1, (-1, self.head_dim))
        k_bske = self.wk(x_bsd).unflatten(-1, (-1, self.head_dim))
        v_bske = self.wv(x_bsd).unflatten(-1, (-1, self.head_dim))
        o_bshe = attention(rotate(q_bshe, rope), rotate(k_bske, rope), v_bske, documents)
        return self.wo(o_bshe.flatten(-2))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): w2(silu(w1 x) · w3 x)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.w1 = Linear(config.dim, config.ffn_dim)
        self.w2 = Linear(config.ffn_dim, config.dim)
        self.w3 = Linear(config.dim, config.ffn_dim)

    def forward(self, x_bsd: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x_bsd)) * self.w3(x_bsd))


class Block(nn.Module):
    """One pre-norm transformer block.

    Args:
        kept: what stays for the backward pass (`pretrain/model/recompute.py`).
        host: where its input waits for the backward pass; None: it stays on the device.
    """

    def __init__(self, config: ModelConfig, kept: Kept = None, host: HostMemory | None = None):
        super().__init__()
        self.kept, self.host = kept, host
        self.attention_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.feed_forward = FeedForward(config)
        self.run = self.checkpointed

    def forward(self, h_bsd: Tensor, rope: Rope, documents: Documents | Context) -> Tensor:
        # Compiled or not, checkpointed or not, all is inside of FSDP's hooks: parameters are gathered once, and the hooks
        # break no graph.
        if self.host is None or not torch.is_grad_enabled():
            return self.run(h_bsd, rope, documents)
        with self.host.keep(h_bsd):
            return self.run(h_bsd, rope, documents)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the block as one graph; arguments as of `torch.compile`."""
        self.run = torch.compile(self.run, *args, fullgraph=True, dynamic=False, **kwargs)

    def checkpointed(self, h_bsd: Tensor, rope: Rope, documents: Documents | Context) -> Tensor:
        """The block, with what its backward pass computes again."""
        return recompute.run(self.kept, self.compute, h_bsd, rope, documents)

    def compute(self, h_bsd: Tensor, rope: Rope, documents: Documents | Context) -> Tensor:
        """The block itself."""
        h_bsd = h_bsd + self.attention(self.attention_norm(h_bsd), rope, documents)
        return h_bsd + self.feed_forward(self.ffn_norm(h_bsd))


class Head(nn.Module):
    """The output projection with the loss behind it; logits of all tokens never exist at a time during training.

    Args:
        vocab_size: tokens; behind their rows there may be rows of padding (`rows` in all).
        tied: hold no weight; the embedding's is given at each call.
        chunk_tokens: tokens whose logits exist at a time; 0: all.
        z_loss: weight of the squared logsumexp of the logits in what gradients are computed of.
    """

    weight: nn.Parameter | None

    def __init__(self, dim: int, vocab_size: int, rows: int, tied: bool, chunk_tokens: int, z_loss: float):
        super().__init__()
        self.vocab_size, self.chunk_tokens, self.z_loss = vocab_size, chunk_tokens, z_loss
        self.passes: Passes | None = None
        self.register_parameter("weight", None if tied else nn.Parameter(torch.empty(rows, dim)))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the passes over the logits; arguments as of `torch.compile`."""
        self.passes = compile_passes(*args, **kwargs)

    def forward(
        self, x_bsd: Tensor, labels_bs: Tensor | None, per_token: bool, weight_vd: Tensor | None
    ) -> Tensor:
        weight = weight_vd if self.weight is None else self.weight
        assert weight is not None
        if labels_bs is None:
            return linear_logits(x_bsd, weight, self.vocab_size)
        # On the CPU they gain nothing, since a chunk of logits stays in its caches; and Inductor's code for AVX2
        # (torch 2.13) is wrong in fp64 where the columns are no multiple of 8.
        passes = None if x_bsd.device.type == "cpu" else self.passes
        if per_token:
            return linear_token_losses(x_bsd, weight, labels_bs, self.chunk_tokens, self.vocab_size, passes)
        return linear_cross_entropy(
            x_bsd, weight, labels_bs, self.chunk_tokens, self.z_loss, self.vocab_size, passes
        )


class Llama(nn.Module):
    """The model, or the part of it that a pipeline stage holds.

    Args:
        vocab_size: tokens; embedding and head are padded to a multiple of `config.vocab_multiple` rows.
        layers: blocks of this part; None: all.
        first: this part holds the embedding.
        last: this part holds the final norm and the head.
        chunk_tokens: tokens whose logits exist at a time in the loss; 0: all.
        kept: what each block of the whole model keeps for its backward pass; None: everything.
        offload: inputs of blocks wait in the host's memory.
        z_loss: weight of the squared logsumexp of the logits in what gradients are computed of.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        layers: range | None = None,
        first: bool = True,
        last: bool = True,
        chunk_tokens: int = 2048,
        kept: Sequence[Kept] | None = None,
        offload: bool = False,
        z_loss: float = 0.0,
    ):
        super().__init__()
        self.config, self.vocab_size, self.first, self.last = config, vocab_size, first, last
        self.compute_dtype: torch.dtype | None = None
        """Precision of the hidden state; None: that of the embedding."""
        rows = padded_vocab_size(config, vocab_size)
        self.tok_embeddings = nn.Embedding(rows, config.dim) if first or (last and config.tied) else None
        numbers = range(config.n_layers) if layers is None else layers
        self.host = HostMemory() if offload else None
        self.layers = nn.ModuleDict(
            {str(n): Block(config, None if kept is None else kept[n], self.host) for n in numbers}
        )
        self.norm = RMSNorm(config.dim, eps=config.norm_eps) if last else None
        self.output = Head(config.dim, vocab_size, rows, config.tied, chunk_tokens, z_loss) if last else None

    def forward(
        self,
        x: Tensor,
        positions_bs: Tensor,
        boundaries: Tensor | Documents | Context,
        labels_bs: Tensor | None = None,
        per_token: bool = False,
    ) -> Tensor:
        """What this part computes.

        Args:
            x: int64 tokens [B, T] for the first part, else the hidden state [B, T, D] of the part before.
            positions_bs: int64 [B, T], restarting in each document.
            boundaries: int32 [B, M], document boundaries of each row: 0, …, T, padded by repeating T; or what
                is made of them, under context parallelism for this rank, whose share is T.
            labels_bs: int64 [B, T], -100 where ignored.

        Returns:
            The hidden state of a part that is not the last. Of the last: logits [B, T, V] without labels; with
            labels the sum of token losses (fp64 scalar); with `per_token` the loss of each [B, T] (fp32 or fp64,
            0 where ignored, without gradient).
        """
        if self.first:
            assert self.tok_embeddings is not None
            # Under sequence parallelism the embedding's result is an asynchronous collective tensor, for which
            # compiled blocks give wrong gradients unless it is copied first.
            h_bsd = self.tok_embeddings(x)
            h_bsd = h_bsd if type(h_bsd) is Tensor else h_bsd.clone()
            h_bsd = h_bsd if self.compute_dtype is None else h_bsd.to(self.compute_dtype)
        else:
            h_bsd = x
        documents = boundaries
        if isinstance(documents, Tensor):
            backend = choose_attention(
                "auto",
                h_bsd.device.type,
                str(h_bsd.dtype).removeprefix("torch."),
                self.config.dim // self.config.n_heads,
            )
            documents = Documents.of(documents, positions_bs.size(1), backend)
        rope = rope_table(self.config, positions_bs, h_bsd.dtype)
        if self.host is not None:
            self.host.begin()
        for block in self.layers.values():
            h_bsd = block(h_bsd, rope, documents)
        if not self.last:
            return h_bsd
        assert self.norm is not None and self.output is not None
        tied = self.tok_embeddings.weight if self.config.tied and self.tok_embeddings is not None else None
        return self.output(self.norm(h_bsd), labels_bs, per_token, tied)
