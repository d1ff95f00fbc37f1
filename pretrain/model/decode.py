"""Incremental decoding: a Llama that keeps keys and values, so that each new token costs one position.

For one process and an unsplit model. Projections, norms, feed-forward and rotary embedding are those of
`pretrain.model.llama`; only attention differs, because its keys come from the cache. Shape suffixes as there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.model.llama import Block, Llama, rope_table, rotate


@dataclass(frozen=True)
class Cache:
    """Keys and values of the past of B texts, each of its own length."""

    k_lbske: Tensor
    """[layers, B, S, KV heads, head width]; S is the longest text it can hold."""
    v_lbske: Tensor
    """Like the keys."""
    lengths: Tensor
    """int64 [B]: tokens of each text in the cache."""

    @classmethod
    def empty(cls, model: Llama, rows: int, size: int) -> Cache:
        """A cache for `rows` texts of at most `size` tokens."""
        config, weight = model.config, next(model.parameters())
        shape = (config.n_layers, rows, size, config.n_kv_heads, config.dim // config.n_heads)
        keys, values = weight.new_zeros(shape), weight.new_zeros(shape)
        return cls(keys, values, torch.zeros(rows, dtype=torch.int64, device=weight.device))

    def row(self, index: int) -> Cache:
        """A view of one text."""
        part = slice(index, index + 1)
        return Cache(self.k_lbske[:, part], self.v_lbske[:, part], self.lengths[part])

    def copy_row(self, source: int, target: int) -> None:
        """Make one text's past that of another."""
        for tensor in (self.k_lbske, self.v_lbske):
            tensor[:, target] = tensor[:, source]
        self.lengths[target] = self.lengths[source]


@torch.no_grad()
def decode(model: Llama, tokens_bt: Tensor, cache: Cache) -> Tensor:
    """Logits [B, V] after the given tokens, which are appended to the texts in the cache.

    Args:
        tokens_bt: int64 [B, T], the next tokens of each text; the cache must have room for them.
    """
    assert model.tok_embeddings is not None and model.norm is not None and model.output is not None
    positions_bt = cache.lengths[:, None] + torch.arange(tokens_bt.size(1), device=tokens_bt.device)
    h_btd = model.tok_embeddings(tokens_bt)
    rope = rope_table(model.config, positions_bt, h_btd.dtype)
    # A query sees the keys of its own text up to itself; behind them, the cache holds nothing yet.
    seen = int(positions_bt.max()) + 1
    mask_b1ts = (torch.arange(seen, device=tokens_bt.device) <= positions_bt[..., None])[:, None]
    for number, block in enumerate(model.layers.values()):
        assert isinstance(block, Block)
        x_btd = block.attention_norm(h_btd)
        q_bthe, k_btke, v_btke = (
            projection(x_btd).unflatten(-1, (-1, block.attention.head_dim))
            for projection in (block.attention.wq, block.attention.wk, block.attention.wv)
        )
        rows = torch.arange(len(tokens_bt), device=tokens_bt.device)[:, None]
        cache.k_lbske[number][rows, positions_bt] = rotate(k_btke, rope)
        cache.v_lbske[number][rows, positions_bt] = v_btke
        o_bhte = F.scaled_dot_product_attention(
            rotate(q_bthe, rope).transpose(1, 2),
            cache.k_lbske[number, :, :seen].transpose(1, 2),
            cache.v_lbske[number, :, :seen].transpose(1, 2),
            attn_mask=mask_b1ts,
            enable_gqa=True,
        )
        h_btd = h_btd + block.attention.wo(o_bhte.transpose(1, 2).flatten(-2))
        h_btd = h_btd + block.feed_forward(block.ffn_norm(h_btd))
    cache.lengths.add_(tokens_bt.size(1))
    last_b1d = model.norm(h_btd[:, -1:])
    weight = model.output.weight if model.output.weight is not None else model.tok_embeddings.weight
    return F.linear(last_b1d, weight)[:, 0, : model.vocab_size]
