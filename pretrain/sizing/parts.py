"""What the seconds of a step go into on one rank of a GPU layout, each part with its reason. Arithmetic only; no torch.

A part is its FLOPs or its bytes at the rate that such kernels reach (`RATES`): published figures, not measured ones.
Their sum leaves out what no kernel does: gaps between kernels, waiting for slower ranks, clocks that a full load lowers. The
estimate of the step (`Footprint.seconds`) has these in its efficiency, which was fitted to whole runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from configs.schema.train import ModelConfig, OptimConfig, ParallelConfig, TrainConfig
from pretrain.hf import padded_vocab_size
from pretrain.parallel.layout import Layout
from pretrain.sizing.footprint import Accelerator, Footprint, stage_parameters
from pretrain.sizing.shape import BYTES, body_parameters

RATES = {"products": 0.7, "attention": 0.35, "bandwidth": 0.8}
"""Shares of a device's peak: of large bf16 products by cuBLAS; of flash attention, forward and backward, by the kernels that
come with torch (FlashAttention-2 on Hopper; Shah et al. 2024 measure 35% for it and up to 75% for FlashAttention-3); of its
memory's bandwidth by element-wise kernels."""


@dataclass(frozen=True)
class Part:
    """A part of a step."""

    name: str
    seconds: float
    why: str


def parts(
    model: ModelConfig,
    vocab_size: int,
    parallel: ParallelConfig,
    train: TrainConfig,
    layout: Layout,
    sequence_length: int,
    accelerator: Accelerator,
    taken: Footprint,
    optim: OptimConfig | None = None,
) -> list[Part]:
    """Parts of a step on an average rank.

    Args:
        sequence_length: tokens of a row.
        taken: the footprint of the same run.
        optim: the optimizer; None: AdamW.
    """
    vocab_size = padded_vocab_size(model, vocab_size)
    element, master = BYTES[train.dtype]
    products, memory = accelerator.peak * RATES["products"], accelerator.bandwidth * RATES["bandwidth"]
    d, f, tp = model.dim, model.ffn_dim, layout.tp
    k = model.n_kv_heads * (d // model.n_heads)
    # Tokens that pass through all blocks for each rank's time: a rank has 1 / pp of them and 1 / tp of each.
    tokens = train.global_batch_size * sequence_length / layout.world_size
    again = {"full": 4 / 3, "selective": 1.0, "budget": 1.1}.get(train.activation_checkpointing, 1.0)

    norms = (2 * model.n_layers + 1) * d
    blocks = 6.0 * (body_parameters(model) - norms) * tokens * again / products
    pairs = 12.0 * model.n_layers * d * (sequence_length + 1) / 2 * tokens
    attention = pairs * again / (accelerator.peak * RATES["attention"])
    # Read and written of a token: two norms and two residuals, rotary embedding, the gate; twice that in the backward pass.
    vectors = 3 * (8 * d + 4 * (d + k) + 3 * f)
    elementwise = vectors * model.n_layers * element * tokens * again / memory
    chunk = min(train.loss_chunk_tokens or tokens, train.micro_batch_size * sequence_length / layout.cp)
    head = 6.0 * vocab_size * d * tokens / products
    # Tokens of the last stage are split over tp and its own replicas alone; an average rank has 1 / pp of their time.
    passes = 3 * vocab_size * element * tokens / memory
    sums = 2 * vocab_size * d * master * tokens / chunk / memory
    own = stage_parameters(model, vocab_size, model.n_layers, True, True, tp) / layout.pp
    own /= layout.dp_shard * layout.cp
    moments = 2 if optim is None or optim.name == "adamw" else 1
    # Weights and moments are read and written, gradients read three times (norm, clipping, update) and written once.
    touched = (2 * (1 + moments) + 4) * master
    exposed = _exposed(layout, accelerator, taken, blocks + attention + elementwise + head)
    work = blocks + attention + elementwise + head + passes + sums + exposed
    return [
        Part("products of the blocks", blocks, f"6 FLOPs a weight and token at {products / 1e12:.0f} TFLOP/s"),
        Part("attention", attention, f"causal, at {accelerator.peak * RATES['attention'] / 1e12:.0f} TFLOP/s"),
        Part("norms, rotary, gate", elementwise, f"{vectors:,} numbers a token and block at {memory / 1e12:.1f} TB/s"),
        Part("products of the head", head, f"{vocab_size:,} tokens wide, at the rate of the blocks"),
        Part("loss", passes + sums, f"three passes over logits; the head's gradient once a chunk of {chunk:,.0f} tokens"),
        Part("optimizer", own * touched / memory, f"{touched} bytes for each of {own / 1e6:,.0f}M weights of the rank"),
        Part("exposed communication", exposed, _of_communication(layout, taken)),
        Part("pipeline bubble", work * taken.bubble / (1 - taken.bubble), f"{taken.bubble:.1%} of the time"),
    ]  # fmt: skip


def _exposed(layout: Layout, accelerator: Accelerator, taken: Footprint, compute: float) -> float:
    """Seconds of communication that nothing covers: between the products of tensor parallelism, and weights and gradients
    where they take longer than what is computed meanwhile."""
    near = layout.tp * layout.cp <= accelerator.per_node
    within = accelerator.link if layout.tp <= accelerator.per_node else accelerator.network
    around = accelerator.link if layout.world_size <= accelerator.per_node else accelerator.network
    between = taken.sent_tp / within + taken.sent_cp / (accelerator.link if near else accelerator.network)
    return between + max(0.0, (taken.sent_fsdp + taken.sent_replicate) / around - compute)


def _of_communication(layout: Layout, taken: Footprint) -> str:
    hidden = (taken.sent_fsdp + taken.sent_replicate) / 1e9
    if layout.tp * layout.cp == 1:
        return f"weights and gradients, {hidden:.3g} GB, travel while blocks are computed"
    return (
        f"{(taken.sent_tp + taken.sent_cp) / 1e9:.3g} GB between products; {hidden:.3g} GB travel meanwhile"
    )


def table(found: list[Part], flops: float, peak: float) -> str:
    """The parts as text.

    Args:
        flops: of a step on a rank.
        peak: FLOP/s of a device.
    """
    whole = sum(part.seconds for part in found)
    lines = ["Parts of a step, ms, by the rates of their kernels"]
    lines += [f"  {p.name:<24}{1e3 * p.seconds:9.1f}  {p.seconds / whole:6.1%}  {p.why}" for p in found]
    lines += [f"  {'in all':<24}{1e3 * whole:9.1f}          MFU {flops / (peak * whole):.1%} at the most"]
    return "\n".join(lines)
