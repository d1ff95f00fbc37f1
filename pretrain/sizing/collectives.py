"""The collectives and messages of a training step on one rank, counted from its layout. Arithmetic only.

A step on the fake device, counted as it runs, must have exactly these (tests/fake_device). Each is named by what it does and
by the group that it is for:

- `shard`: ranks that share the weights, dp_shard × cp; `replicate`, `cp`, `tp`, `pp`: those of the mesh.
- `ends`: the first and the last stage of a tied model.
- `world`: all ranks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from configs.schema.train import ModelConfig, OptimConfig, ParallelConfig, TrainConfig
from pretrain.parallel.layout import Layout, stage_layers, virtual_stages
from pretrain.parallel.pipeline_schedules import Message, program, rank_of, stages_of
from pretrain.sizing.shape import BYTES

Calls = Counter[tuple[str, str]]
"""Number of calls by operation (all_gather, reduce_scatter, all_reduce, send, receive) and group."""


@dataclass(frozen=True)
class BlockCalls:
    """Collectives of one block and micro-batch between its products, forward and backward."""

    tp_gathers: int
    tp_scatters: int
    cp_gathers: int
    cp_scatters: int


def of_block(recomputes: bool) -> BlockCalls:
    """Attention and feed-forward each gather the sequence and scatter their result, and the other way round in the
    backward pass; keys and values are gathered once and their gradients scattered.

    A backward pass that computes again gathers again; it stops before the last scatter, whose result nothing needs.
    """
    return BlockCalls(6, 5, 2, 1) if recomputes else BlockCalls(4, 4, 1, 1)


@dataclass(frozen=True)
class _Part:
    """A virtual stage on a rank."""

    layers: range
    first: bool
    last: bool
    tied: bool

    @property
    def freed(self) -> int:
        """FSDP's groups whose weights are freed after the forward pass: blocks, and an embedding beside a head."""
        return len(self.layers) + (self.first and self.last and not self.tied)

    @property
    def held(self) -> int:
        """FSDP's groups that are held from the forward to the backward pass: the head, and the norm and
        the embedding that no other group has."""
        return (self.last and not self.tied) + (self.first or self.last)


def collectives(
    model: ModelConfig,
    parallel: ParallelConfig,
    train: TrainConfig,
    layout: Layout,
    sequence_length: int,
    pipeline_rank: int = 0,
    optim: OptimConfig | None = None,
) -> Calls:
    """What a rank calls in one step of a checked layout, however many gradients were skipped or clipped.

    Logging, checkpoints and evaluation come on top, and with tensor or context parallelism over NVLink (`parallel.async_tp`)
    products take the place of the gathers.

    Args:
        sequence_length: tokens of a row.
        pipeline_rank: place of the rank in the pipeline.
        optim: the optimizer; None: AdamW, which calls nothing.
    """
    schedule, virtual, n = parallel.pp_schedule, virtual_stages(parallel), layout.micro_batches
    stages = layout.pp * virtual
    held = stages_of(schedule, pipeline_rank, layout.pp, virtual) if layout.pp > 1 else [0]
    parts = [
        _Part(stage_layers(model.n_layers, stages, s), s == 0, s == stages - 1, model.tied) for s in held
    ]
    recomputes = _recomputing(model, train)
    calls: Calls = Counter()
    for part in parts:
        _weights(calls, part, parallel, layout)
        _within(calls, part, recomputes, parallel, train, layout, sequence_length)
    if optim is not None and optim.name == "muon":
        _muon(calls, model, sum(len(part.layers) for part in parts), layout)
    if layout.pp > 1:
        for event in program(schedule, layout.pp, virtual, n, pipeline_rank):
            if isinstance(event, Message):
                calls["send" if event.source == pipeline_rank else "receive", "pp"] += 1
        ends = {rank_of(schedule, s, layout.pp) for s in (0, stages - 1)}
        if model.tied and len(ends) == 2 and pipeline_rank in ends:
            calls["all_reduce", "ends"] += 1
    # The loss, and the norm of the gradients.
    calls["all_reduce", "world"] += 2
    return +calls


def _weights(calls: Calls, part: _Part, parallel: ParallelConfig, layout: Layout) -> None:
    """FSDP: weights are gathered, gradients scattered and, once a step, summed over replicas."""
    groups = part.freed + part.held
    if layout.dp_shard * layout.cp > 1:
        if parallel.reshard_after_forward:
            calls["all_gather", "shard"] += layout.micro_batches * (2 * part.freed + part.held)
            calls["reduce_scatter", "shard"] += layout.micro_batches * groups
        else:
            calls["all_gather", "shard"] += groups
            calls["reduce_scatter", "shard"] += groups
    if layout.dp_replicate > 1:
        calls["all_reduce", "replicate"] += groups


def _within(
    calls: Calls,
    part: _Part,
    recomputes: list[bool],
    parallel: ParallelConfig,
    train: TrainConfig,
    layout: Layout,
    sequence_length: int,
) -> None:
    """Tensor, sequence and context parallelism."""
    n = layout.micro_batches
    for layer in part.layers:
        block = of_block(recomputes[layer])
        if layout.cp > 1:
            calls["all_gather", "cp"] += n * block.cp_gathers
            calls["reduce_scatter", "cp"] += n * block.cp_scatters
        if layout.tp > 1:
            calls["all_gather", "tp"] += n * block.tp_gathers
            calls["reduce_scatter", "tp"] += n * block.tp_scatters
    if layout.tp == 1:
        return
    # The embedding scatters its result, the head gathers the sequence; and their gradients the other way round.
    ends = part.first + part.last
    calls["all_gather", "tp"] += n * ends
    calls["reduce_scatter", "tp"] += n * ends
    if part.last:
        tokens = train.micro_batch_size * sequence_length // layout.cp
        calls["all_gather", "tp"] += n * -(-tokens // (train.loss_chunk_tokens or tokens))
    # Each rank has the gradients of the norms' weights from its own share of the sequence.
    norms = 2 * len(part.layers) + part.last
    calls["all_reduce", "tp"] += norms * (n if parallel.reshard_after_forward else 1)


def _muon(calls: Calls, model: ModelConfig, layers: int, layout: Layout) -> None:
    """Each matrix of the blocks is gathered whole; those of one shape are shared out over the first dimension of their mesh,
    and what became of them is gathered."""
    matrices = 7 * layers
    shards = layout.dp_shard * layout.cp
    if shards > 1:
        calls["all_gather", "shard"] += matrices
    if layout.tp > 1:
        calls["all_gather", "tp"] += matrices
    d, k, f = model.dim, model.n_kv_heads * (model.dim // model.n_heads), model.ffn_dim
    shapes = {(d, d), (k, d), (f, d), (d, f)}
    if layout.dp_replicate > 1:
        calls["all_gather", "replicate"] += len(shapes)
    elif shards > 1:
        calls["all_gather", "shard"] += len(shapes)


def _recomputing(model: ModelConfig, train: TrainConfig) -> list[bool]:
    """Whether each block computes again in its backward pass."""
    if train.activation_checkpointing != "budget":
        return [train.activation_checkpointing != "none"] * model.n_layers
    from pretrain.model.recompute import kept_by_layer

    kept = kept_by_layer(model, "budget", train.activation_budget, BYTES[train.dtype][0])
    return [one is not None for one in kept]
