"""What a training step takes on one rank: memory, communication, time. Arithmetic only, in microseconds; no torch.

`pretrain.sizing.probe` runs the real model on fake tensors, and a test holds the two together.

Shape letters: s tokens of a micro-batch on this rank, d model width, f feed-forward width, k width of keys or of values,
v vocabulary, t tensor-parallel ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from configs.schema.train import ModelConfig, OptimConfig, ParallelConfig, TrainConfig
from pretrain.hf import padded_vocab_size
from pretrain.parallel.layout import Layout, stage_layers, virtual_stages
from pretrain.parallel.pipeline_schedules import Schedule, timeline
from pretrain.sizing.collectives import of_block
from pretrain.sizing.shape import BYTES, flops_per_token


@dataclass(frozen=True)
class Accelerator:
    """What a device can do, from its vendor's data sheet."""

    memory: float
    """Bytes."""
    peak: float
    """Dense bf16 FLOP/s."""
    link: float
    """Bytes/s that one device sends to others of its node."""
    network: float
    """Bytes/s that one device sends to other nodes."""
    bandwidth: float
    """Bytes/s of its memory."""
    per_node: int = 8
    """Devices that share the fast link."""


ACCELERATORS = {
    "a100": Accelerator(80e9, 312e12, 300e9, 25e9, 2.0e12),
    "h100": Accelerator(80e9, 989e12, 450e9, 50e9, 3.35e12),
    "h200": Accelerator(141e9, 989e12, 450e9, 50e9, 4.8e12),
    "b200": Accelerator(180e9, 2250e12, 900e9, 50e9, 8.0e12),
    "cpu": Accelerator(16e9, 0.3e12, 10e9, 1e9, 20e9, 1),
}
EFFICIENCY = 0.5
"""Share of the peak that the kernels of a step reach, communication and bubble apart: fitted to the Llama 3 report's 400
TFLOP/s on 16,384 H100 at 8K (table 4) and rounded; its other rows are then predicted."""
USABLE = 0.9
"""Share of a device's memory that a plan may use; the rest is the allocator's, CUDA's and NCCL's."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of the fullest rank, bytes that a rank sends in a step, and seconds of a step."""

    parameters: float
    """Master weights of this rank's shard."""
    gradients: float
    """Gradients of the shard, and whole ones that wait for the last micro-batch."""
    optimizer: float
    """Moments."""
    gathered: float
    """Weights of whole layers in compute precision, while they are used."""
    activations: float
    """What the backward pass needs of all micro-batches in flight."""
    loss: float
    """Logits of a chunk, and the head's gradient."""
    stage: int
    """Pipeline stage of the fullest rank."""
    sent_tp: float
    """Bytes a rank sends in a step for tensor and sequence parallelism."""
    sent_cp: float
    """… to gather keys and values."""
    sent_fsdp: float
    """… to gather weights and scatter gradients."""
    sent_replicate: float
    """… to add up gradients of replicas."""
    sent_pp: float
    """… to the neighbouring stages."""
    bubble: float
    """Share of the ranks' time in which they wait for each other's stages, 0 to 1: idle ÷ (working + idle). The same number
    as `pipeline_schedules.Timeline.bubble`."""
    flops: float
    """FLOPs of a step on one rank, recomputation not counted."""
    seconds: float
    """Estimated time of a step."""
    mfu: float
    """Estimated model FLOPs utilisation."""

    @property
    def memory(self) -> float:
        """Bytes in all."""
        return (
            self.parameters + self.gradients + self.optimizer + self.gathered + self.activations + self.loss
        )


def stage_parameters(
    model: ModelConfig, vocab_size: int, layers: int, first: bool, last: bool, tp: int
) -> float:
    """Parameters of a stage on one tensor-parallel rank, before FSDP; norms are whole on each."""
    k = model.n_kv_heads * (model.dim // model.n_heads)
    block = (2 * model.dim * (model.dim + k) + 3 * model.dim * model.ffn_dim) / tp + 2 * model.dim
    table = vocab_size * model.dim / tp
    tables = (1 if first else 0) + (1 if last and not (model.tied and first) else 0)
    return layers * block + tables * table + (model.dim if last else 0)


def activation_bytes(model: ModelConfig, tokens: float, tp: int, recompute: str, element: int) -> float:
    """Bytes that the backward pass of one block keeps for `tokens` tokens, with the kernels of CUDA.

    `pretrain.model.recompute.block_bytes` under tensor and sequence parallelism: what is gathered over the sequence for a
    matrix product stays gathered, and a result before its reduction over ranks is whole. Compare Korthikanti et al. 2022,
    equation 2.
    """
    d, f = model.dim, model.ffn_dim
    k = model.n_kv_heads * (d // model.n_heads)
    if recompute == "full":
        return tokens * d / tp * element
    if recompute in ("selective", "budget"):
        # The input; queries, keys, values; what attention gives; wo; w1 and w3.
        return tokens * ((3 * d + 2 * k + 2 * f) / tp + d) * element
    # Inputs of the norms, their gathered results; queries, keys, values, what attention gives, with a number a head; four
    # vectors of the feed-forward.
    return tokens * (((4 * d + 2 * k + 4 * f) / tp + 2 * d) * element + 4 * model.n_heads / tp)


@cache
def pipelined(
    schedule: Schedule, stages: int, virtual: int, micro_batches: int
) -> tuple[float, tuple[float, ...]]:
    """What a schedule makes of a pipeline, by carrying it out.

    Returns:
        (bubble: share of the ranks' time in which they wait, 0 to 1; for each rank the micro-batches whose activations
        it holds at the most, as multiples of one through all its layers).
    """
    # More micro-batches than that change neither the seconds of idling nor, but for GPipe, what is held.
    few = min(micro_batches, 4 * stages)
    run = timeline(schedule, stages, virtual, few)
    idle, work = run.bubble * few, (1 - run.bubble) * micro_batches
    held = (float(micro_batches),) * stages if schedule == "gpipe" else tuple(n / virtual for n in run.held)
    return idle / (idle + work), held


def ring(ranks: int) -> float:
    """Share of a gathered tensor that a rank sends, in a ring or any other way without waste."""
    return (ranks - 1) / ranks


def footprint(
    model: ModelConfig,
    vocab_size: int,
    parallel: ParallelConfig,
    train: TrainConfig,
    layout: Layout,
    sequence_length: int,
    accelerator: Accelerator,
    optim: OptimConfig | None = None,
) -> Footprint:
    """Memory, communication and time of a step in a checked layout.

    Args:
        sequence_length: tokens of a row.
        optim: the optimizer; None: AdamW.
    """
    vocab_size = padded_vocab_size(model, vocab_size)
    element, master = BYTES[train.dtype]
    pp, cp, tp, shards = layout.pp, layout.cp, layout.tp, layout.dp_shard * layout.cp
    micro_batches, schedule = layout.micro_batches, parallel.pp_schedule
    virtual = virtual_stages(parallel)
    bubble, held = pipelined(schedule, pp, virtual, micro_batches) if pp > 1 else (0.0, (1.0,))
    tokens = train.micro_batch_size * sequence_length / cp
    recompute, d = train.activation_checkpointing, model.dim
    k = model.n_kv_heads * (d // model.n_heads)
    head_bytes = vocab_size * d / tp

    def of_stage(stage: int) -> dict[str, float]:
        first, last = stage == 0, stage == pp - 1
        layers = len(stage_layers(model.n_layers, pp, stage))
        whole = stage_parameters(model, vocab_size, layers, first, last, tp)
        block = stage_parameters(model, vocab_size, 1, False, False, tp)
        own = whole / shards
        tables = stage_parameters(model, vocab_size, 0, first, last, tp)
        if shards == 1:
            gathered, waiting = whole * element, 0.0
        elif parallel.reshard_after_forward:
            # Two blocks (one is fetched ahead), the whole gradient of one, and what is never freed.
            gathered, waiting = (2 * block + tables) * element, block * (element + master)
        else:
            gathered, waiting = (
                whole * element,
                whole * master if micro_batches > 1 else block * (element + master),
            )
        activations = held[stage] * layers * activation_bytes(model, tokens, tp, recompute, element)
        if recompute != "none":
            # One block is computed again at a time.
            activations += activation_bytes(model, tokens, tp, "none", element)
        loss = 0.0
        if last:
            chunk = min(train.loss_chunk_tokens or tokens, tokens)
            # Logits in compute precision, fp32 and as a gradient; the head's gradient; that of the hidden state.
            loss = (
                chunk * vocab_size / tp * (2 * element + master)
                + head_bytes * master
                + 2 * tokens * d * element
            )
        moments = 2.0 if optim is None or optim.name == "adamw" else 1.0
        return {
            "parameters": own * master,
            "gradients": own * master + waiting,
            "optimizer": own * moments * master,
            "gathered": gathered,
            "activations": activations,
            "loss": loss,
        }

    stages = [of_stage(stage) for stage in range(pp)]
    fullest = max(range(pp), key=lambda stage: sum(stages[stage].values()))

    layers = -(-model.n_layers // pp)
    block = of_block(recompute != "none")
    travel = block.tp_gathers + block.tp_scatters
    sent_tp = micro_batches * layers * travel * ring(tp) * tokens * d * element if tp > 1 else 0.0
    # Gradients of keys and values are summed in fp32 at least.
    wide = block.cp_gathers * element + block.cp_scatters * max(4, element)
    sent_cp = micro_batches * layers * wide * ring(cp) * (tokens * cp) * 2 * k / tp if cp > 1 else 0.0
    whole = max(
        stage_parameters(
            model, vocab_size, len(stage_layers(model.n_layers, pp, stage)), stage == 0, stage == pp - 1, tp
        )
        for stage in {0, min(1, pp - 1), pp - 1}
    )
    gathers = 2 * micro_batches if parallel.reshard_after_forward else 1
    scatters = micro_batches if parallel.reshard_after_forward else 1
    sent_fsdp = ring(shards) * whole * (gathers * element + scatters * master)
    sent_replicate = 2 * ring(layout.dp_replicate) * whole / shards * master
    hops = 2 * virtual
    sent_pp = micro_batches * hops * tokens / tp * d * element if pp > 1 else 0.0

    all_tokens = train.global_batch_size * sequence_length
    flops = flops_per_token(model, vocab_size, sequence_length) * all_tokens / layout.world_size
    again = {"full": 4 / 3, "selective": 1.03, "budget": 1.1}.get(recompute, 1.0)
    compute = flops * again / (accelerator.peak * EFFICIENCY)
    # Tensor parallelism stands between the matrix products; weights and gradients travel meanwhile.
    within = accelerator.link if tp <= accelerator.per_node else accelerator.network
    around = accelerator.link if layout.world_size <= accelerator.per_node else accelerator.network
    near = accelerator.link if tp * cp <= accelerator.per_node else accelerator.network
    exposed = sent_tp / within + sent_cp / near
    hidden = (sent_fsdp + sent_replicate) / around
    seconds = max((compute + exposed) / (1 - bubble), hidden) + 0.05 * min(compute, hidden)
    return Footprint(
        **stages[fullest],
        stage=fullest,
        sent_tp=sent_tp,
        sent_cp=sent_cp,
        sent_fsdp=sent_fsdp,
        sent_replicate=sent_replicate,
        sent_pp=sent_pp,
        bubble=bubble,
        flops=flops,
        seconds=seconds,
        mfu=flops / (accelerator.peak * seconds),
    )
