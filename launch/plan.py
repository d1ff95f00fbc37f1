"""What a run would take, before there is a cluster: memory, communication and time of a rank, by arithmetic.

Takes every key of `arriero train` and `cluster`; the world is cluster.nodes × cluster.nproc. With `model.size` or
`budget` the rest is derived first, as in `arriero size`. `probe=true` then builds one rank of the fullest pipeline stage
with the trainer's own code, in a process group that is only pretended and with tensors that hold no data, runs one
forward and backward pass, and counts.

Examples:

    # Llama 3 405B on 16,384 H100, as in table 4 of the report
    arriero plan model=405b parallel=405b_8k cluster.nproc=16384 accelerator=h100 train.global_batch_size=2048 \\
        train.activation_checkpointing=full parallel.pp_schedule=interleaved parallel.pp_virtual=7

    # an 8B on 64 GPUs in sequences of 8,192
    arriero plan model=8b cluster.nodes=8 cluster.nproc=8 accelerator=h100 train.global_batch_size=512 parallel.tp=2

    # what a budget buys, and what it takes
    arriero plan budget=1e22 cluster.nodes=4 cluster.nproc=8 accelerator=h200
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from configs import edge
from configs.schema.train import PlanRun
from pretrain.parallel.layout import Layout, stage_layers
from pretrain.sizing import fill, parts
from pretrain.sizing.collectives import Calls, collectives
from pretrain.sizing.footprint import USABLE, Footprint, footprint
from pretrain.sizing.shape import flops_per_token, format_size, parameters

GB, MB = 1e9, 1e6


def run(config: PlanRun) -> int:
    """Check the layout and print the plan; returns the exit status, 1 where it does not fit."""
    data = edge.to_dict(config)
    vocab_size, length = fill.dataset(data)
    here = fill.cluster_of(data)[1]()
    accelerator = fill.accelerator_of(data, here)
    config = replace(config, train=fill.on_paper(config.train, data, here))
    world_size = config.cluster.nodes * config.cluster.nproc
    layout = Layout.check(config.parallel, config.train, config.model, vocab_size, world_size)
    taken = footprint(
        config.model, vocab_size, config.parallel, config.train, layout, length, accelerator, config.optim
    )
    total = parameters(config.model, vocab_size)
    tokens = config.train.global_batch_size * length
    print(
        f"{config.model.name}: {format_size(total)} parameters ({total:,}), {vocab_size:,} tokens in the vocabulary; "
        f"{world_size:,} ranks = pp {layout.pp} × dp_replicate {layout.dp_replicate} × dp_shard {layout.dp_shard} × cp "
        f"{layout.cp} × tp {layout.tp}; {layout.micro_batches} micro-batches of {config.train.micro_batch_size} × "
        f"{length:,} tokens a step, {tokens / 1e6:.3g}M tokens in all; {config.train.dtype}\n",
        flush=True,  # the probe below takes seconds
    )
    calls = collectives(
        config.model, config.parallel, config.train, layout, length, taken.stage, config.optim
    )
    print(table(taken, accelerator.memory, calls))
    steps, per_token = config.train.steps, flops_per_token(config.model, vocab_size, length)
    compute, hours = per_token * tokens * steps, taken.seconds * steps / 3600
    print(
        f"\n{taken.seconds:.3g} s a step (estimated), {taken.flops / taken.seconds / 1e12:.0f} TFLOP/s a rank, MFU "
        f"{taken.mfu:.1%}; pipeline bubble {taken.bubble:.1%} of the time\n"
        f"{steps:,} steps: {tokens * steps:.3g} tokens, {compute:.3g} FLOPs, {hours:.4g} hours, "
        f"{hours * world_size:.3g} device hours; a checkpoint has {3 * total * 4 / GB:,.3g} GB"
    )
    if accelerator.per_node > 1:
        found = parts.parts(
            config.model,
            vocab_size,
            config.parallel,
            config.train,
            layout,
            length,
            accelerator,
            taken,
            config.optim,
        )
        print(f"\n{parts.table(found, taken.flops, accelerator.peak)}")
    if config.probe:
        print(probed(config, vocab_size, layout, length, taken.stage))
    fits = taken.memory <= USABLE * accelerator.memory
    if not fits:
        print(
            f"error: {taken.memory / GB:.0f} GB a rank do not fit: {USABLE:.0%} of a device are "
            f"{USABLE * accelerator.memory / GB:.0f} GB; raise parallel.tp or parallel.pp, recompute "
            "(train.activation_checkpointing=full), lower train.micro_batch_size, or use more ranks",
            file=sys.stderr,
        )
    return 0 if fits else 1


def table(taken: Footprint, memory: float, calls: Calls) -> str:
    """Memory and communication as text."""
    held = ("parameters", "gradients", "optimizer", "gathered", "activations", "loss")
    lines = [f"Memory of a rank of stage {taken.stage}"]
    lines += [f"  {name:<12}{_size(getattr(taken, name))}" for name in held]
    lines += [f"  {'in all':<12}{_size(taken.memory)} of {memory / GB:.0f} GB"]
    lines += ["Sent by a rank in a step, and its collectives or messages"]
    groups = {
        "tp": ("tensor", "tp"),
        "cp": ("context", "cp"),
        "fsdp": ("weights", "shard"),
        "replicate": ("replicas", "replicate"),
        "pp": ("pipeline", "pp"),
    }
    for key, (name, group) in groups.items():
        counts = [
            f"{n:,} {operation.replace('_', '-')}"
            for (operation, to), n in sorted(calls.items())
            if to == group
        ]
        lines += [f"  {name:<12}{_size(getattr(taken, 'sent_' + key))}  {', '.join(counts)}".rstrip()]
    return "\n".join(lines)


def _size(n_bytes: float) -> str:
    """Bytes as GB, or as MB below 0.1 GB, in a column."""
    return f"{n_bytes / GB:8.2f} GB" if n_bytes >= 0.1 * GB else f"{n_bytes / MB:8.2f} MB"


def probed(config: PlanRun, vocab_size: int, layout: Layout, length: int, stage: int) -> str:
    """What a rank of the stage counts when its part of the model is built and run without data, beside the arithmetic."""
    from pretrain.sizing.footprint import activation_bytes
    from pretrain.sizing.probe import probe
    from pretrain.sizing.shape import BYTES

    found = probe(config.model, vocab_size, config.parallel, config.train, layout, length, stage)
    recompute = config.train.activation_checkpointing
    tokens = config.train.micro_batch_size * length / layout.cp
    layers = len(stage_layers(config.model.n_layers, layout.pp, stage))
    kept = layers * activation_bytes(config.model, tokens, layout.tp, recompute, BYTES[config.train.dtype][0])
    lines = [
        f"\nProbe of stage {stage}: {found.parameters:,} parameters a rank, {layers} layers",
        f"  kept of a micro-batch  {_size(found.saved)} (by arithmetic, on CUDA, {_size(kept).strip()} of the layers)"
        if recompute in ("none", "full")
        else f"  kept of a micro-batch  {_size(kept)} (by arithmetic)",
    ]
    lines += [f"  sent, {name:<16} {_size(size)} a micro-batch" for name, size in found.sent.items()]
    lines += [f"  {n} × {operation}" for operation, n in found.calls.items()]
    return "\n".join(lines)


def derive(data: dict[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    """The dial, for the ranks of `cluster`."""
    return fill.for_cluster(data, chosen)


def main(argv: Sequence[str] | None = None) -> int:
    """`arriero plan`."""
    return edge.main("plan", PlanRun, run, __doc__ or "", argv, derive=derive)


if __name__ == "__main__":
    from launch.cli import guarded

    sys.exit(guarded(main))
