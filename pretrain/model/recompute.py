"""What a block keeps for its backward pass and what it computes again, and how many bytes that is.

Modes: `none` keeps everything; `full` only the block's input (Chen et al. 2016, "Training deep nets with sublinear
memory cost"); `selective` also the results of its linear layers and of attention, so that nothing expensive is computed
twice (Touvron et al. 2023, "LLaMA", section 2.4); `budget` what fits into a share of what `none` keeps, the most
expensive per byte first.
The last product of a block (w2) is kept in no mode: its result goes into the residual stream, and no gradient needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from configs.schema.train import ModelConfig

Recompute = Literal["none", "full", "selective", "budget"]
Kept = tuple[str, ...] | None
"""Names of the operations of a block whose results are kept beside its input; None: everything is."""
PRODUCTS = ("wq", "wk", "wv", "wo", "w1", "w3")
"""Linear layers in the order in which a block computes them, but the last one, w2."""
EVERY = ("wq", "wk", "wv", "attention", "wo", "w1", "w3")


def flops(config: ModelConfig) -> dict[str, float]:
    """Floating-point operations per token of each operation that can be kept; attention over one document as long as the
    model allows, on average half of it."""
    d, f = config.dim, config.ffn_dim
    q, kv = _widths(config)
    ffn = 2.0 * d * f
    return {
        "wq": 2.0 * d * q,
        "wk": 2.0 * d * kv,
        "wv": 2.0 * d * kv,
        "attention": 2.0 * q * config.max_sequence_length,
        "wo": 2.0 * d * q,
        "w1": ffn,
        "w3": ffn,
    }


def result_bytes(config: ModelConfig, element: int) -> dict[str, int]:
    """Bytes per token of the result of each operation that can be kept.

    Args:
        element: bytes of a number in compute precision.
    """
    q, kv = _widths(config)
    f = config.ffn_dim
    widths = {"wq": q, "wk": kv, "wv": kv, "attention": q, "wo": config.dim, "w1": f, "w3": f}
    return {name: width * element for name, width in widths.items()}


def block_bytes(config: ModelConfig, kept: Kept, element: int, fused_norm: bool = False) -> int:
    """Bytes per token that a block keeps between its forward and its backward pass, its input included; without tensor
    parallelism.

    While a block's backward pass runs, what it computes again comes on top: up to `block_bytes(config, None, element)`.

    Args:
        element: bytes of a number in compute precision: 2, 4 or 8.
        fused_norm: RMSNorm is one operation that keeps its input and one number a token (CUDA), instead of also the
            normalised hidden state, which in half precision exists in fp32, like its input (CPU).
    """
    d = config.dim
    if kept is not None:
        results = result_bytes(config, element)
        return d * element + sum(results[name] for name in kept)
    q, kv = _widths(config)
    wide = max(4, element)
    norm = d * element + wide
    if not fused_norm:
        norm += d * wide + (d * wide if element < 4 else 0)
    # The input and the stream between the two halves, which in half precision the unfused norm's copies replace; two norms;
    # rotated queries and keys, values, what attention gives; w1, silu(w1), w3 and their product.
    streams = 2 * d * element if fused_norm or element >= 4 else 0
    return streams + 2 * norm + (2 * q + 2 * kv + 4 * config.ffn_dim) * element


def kept_by_layer(
    config: ModelConfig, recompute: Recompute, budget: float = 1.0, element: int = 2, fused_norm: bool = True
) -> list[Kept]:
    """What each block of the model keeps.

    Args:
        budget: share of the bytes of `none` that `budget` may keep. The inputs of blocks are kept whatever it is.
    """
    fixed: dict[str, Kept] = {"none": None, "full": (), "selective": EVERY}
    if recompute != "budget":
        return [fixed[recompute]] * config.n_layers
    whole = block_bytes(config, None, element, fused_norm)
    left = budget * whole * config.n_layers - block_bytes(config, (), element) * config.n_layers
    size, cost = result_bytes(config, element), flops(config)
    chosen: list[set[str]] = [set() for _ in range(config.n_layers)]
    # Blocks in an order that spreads any number of them evenly over the depth, and so over the stages of a pipeline.
    order = sorted(range(config.n_layers), key=lambda n: n * 0.618034 % 1)
    for name in sorted(EVERY, key=lambda name: -cost[name] / size[name]):
        for n in order:
            if size[name] <= left:
                chosen[n].add(name)
                left -= size[name]
    kept: list[Kept] = [tuple(name for name in EVERY if name in one) for one in chosen]
    rest = whole - block_bytes(config, EVERY, element)
    for n in order:
        if kept[n] == EVERY and rest <= left:
            kept[n] = None
            left -= rest
    return kept


def run(kept: Kept, compute: Callable[..., Tensor], *args: Any) -> Tensor:
    """`compute(*args)` of a block, keeping for the backward pass what is asked for."""
    if kept is None or not torch.is_grad_enabled():
        return compute(*args)
    # Nothing in a block is random, so no generator's state has to be kept.
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if kept:
        options["context_fn"] = partial(_contexts, kept)
    return checkpoint(compute, *args, **options)  # type: ignore[no-any-return]


def _contexts(kept: tuple[str, ...]) -> tuple[Any, Any]:
    """One pair for each pass, because the policy counts its linear layers."""
    seen = {False: 0, True: 0}
    products = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten._scaled_mm}
    attention = _attention_ops()

    def policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        packet, name = getattr(op, "_overloadpacket", None), None
        if packet in products:
            number = seen[context.is_recompute]
            seen[context.is_recompute] += 1
            name = PRODUCTS[number] if number < len(PRODUCTS) else None
        elif packet in attention:
            name = "attention"
        return (
            CheckpointPolicy.MUST_SAVE
            if name is not None and name in kept
            else CheckpointPolicy.PREFER_RECOMPUTE
        )

    return create_selective_checkpoint_contexts(policy)  # type: ignore[no-any-return]


def _attention_ops() -> set[Any]:
    ops = {
        torch.ops.arriero.blocked_attention,
        torch.ops.aten._scaled_dot_product_flash_attention,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
        torch.ops.aten._scaled_dot_product_efficient_attention,
        torch.ops.aten._scaled_dot_product_cudnn_attention,
    }
    varlen = getattr(torch.ops.torch_attn, "_varlen_attn", None)
    return ops if varlen is None else {*ops, varlen}


def _widths(config: ModelConfig) -> tuple[int, int]:
    """Of queries, and of keys or values."""
    head = config.dim // config.n_heads
    return config.n_heads * head, config.n_kv_heads * head
