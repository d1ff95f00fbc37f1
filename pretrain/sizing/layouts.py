"""The layout that a run of a given size gets: the fastest by arithmetic that fits into the devices' memory. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from configs.edge import ConfigError
from configs.schema.train import ModelConfig, OptimConfig, ParallelConfig, TrainConfig
from pretrain.parallel.layout import Layout
from pretrain.sizing.footprint import USABLE, Accelerator, Footprint, footprint

RECOMPUTE = ("none", "selective", "full")
ENOUGH_TOKENS = 16_384
"""Tokens of a micro-batch beyond which matrix products do not get faster."""


@dataclass(frozen=True)
class Placed:
    """A layout with what it takes."""

    parallel: ParallelConfig
    train: TrainConfig
    layout: Layout
    footprint: Footprint


def place(
    model: ModelConfig,
    vocab_size: int,
    parallel: ParallelConfig,
    train: TrainConfig,
    optim: OptimConfig,
    sequence_length: int,
    world_size: int,
    accelerator: Accelerator,
    fixed: Mapping[str, Any],
) -> Placed:
    """Choose tensor, pipeline and context parallelism, micro-batch and recomputation.

    Of all that fit, the one with the shortest estimated step; among those within 2% of it, the one that recomputes least,
    has the fewest kinds of parallelism and the larger micro-batch.

    Args:
        fixed: dotted keys that the user set; `parallel` and `train` hold their values.

    Raises:
        ConfigError: nothing divides, or nothing fits; says what comes nearest.
    """
    placed, refused = [], None
    for p, t in _candidates(parallel, train, sequence_length, accelerator, fixed):
        try:
            layout = Layout.check(p, t, model, vocab_size, world_size)
        except ConfigError as error:
            refused = refused or error
            continue
        taken = footprint(model, vocab_size, p, t, layout, sequence_length, accelerator, optim)
        placed.append(Placed(p, t, layout, taken))
    if not placed:
        assert refused is not None
        raise refused
    fitting = [x for x in placed if x.footprint.memory <= USABLE * accelerator.memory]
    if not fitting:
        least = min(placed, key=lambda x: x.footprint.memory)
        raise ConfigError(
            f"no layout of {world_size} ranks fits: the smallest takes {least.footprint.memory / 1e9:.0f} GB a rank "
            f"(parallel.tp={least.parallel.tp} parallel.pp={least.parallel.pp}, recomputation "
            f"{least.train.activation_checkpointing}), and {USABLE:.0%} of a device are "
            f"{USABLE * accelerator.memory / 1e9:.0f} GB; use more devices, or a smaller model.size"
        )
    fastest = min(x.footprint.seconds for x in fitting)
    near = [x for x in fitting if x.footprint.seconds <= 1.02 * fastest]
    return min(near, key=_order)


def _order(x: Placed) -> tuple[float, ...]:
    tokens = x.train.micro_batch_size
    return (
        RECOMPUTE.index(x.train.activation_checkpointing)
        if x.train.activation_checkpointing in RECOMPUTE
        else 3,
        (x.layout.tp > 1) + (x.layout.pp > 1) + (x.layout.cp > 1),
        x.layout.tp * x.layout.pp * x.layout.cp,
        -tokens,
        x.footprint.seconds,
    )


def _candidates(
    parallel: ParallelConfig,
    train: TrainConfig,
    sequence_length: int,
    accelerator: Accelerator,
    fixed: Mapping[str, Any],
) -> Iterator[tuple[ParallelConfig, TrainConfig]]:
    def options(key: str, value: Any, *free: Any) -> tuple[Any, ...]:
        return (value,) if key in fixed else free

    cluster = accelerator.per_node > 1
    micro = [m for m in (1, 2, 4, 8, 16, 32, 64) if m == 1 or m * sequence_length <= ENOUGH_TOKENS]
    tps = [n for n in (1, 2, 4, 8) if n <= accelerator.per_node]
    for tp in options("parallel.tp", parallel.tp, *tps):
        for pp in options("parallel.pp", parallel.pp, *((1, 2, 4, 8, 16) if cluster else (1,))):
            for cp in options(
                "parallel.cp",
                parallel.cp,
                *((1, 2, 4, 8, 16) if cluster and sequence_length > 16384 else (1,)),
            ):
                # Under a pipeline weights are gathered once a step, as Llama 3 did (section 3.3.2).
                for reshard in options(
                    "parallel.reshard_after_forward", parallel.reshard_after_forward, pp == 1
                ):
                    p = dataclasses.replace(parallel, tp=tp, pp=pp, cp=cp, reshard_after_forward=reshard)
                    for size in options("train.micro_batch_size", train.micro_batch_size, *micro):
                        for recompute in options(
                            "train.activation_checkpointing",
                            train.activation_checkpointing,
                            *(RECOMPUTE if cluster else RECOMPUTE[:1] + RECOMPUTE[2:]),
                        ):
                            yield (
                                p,
                                dataclasses.replace(
                                    train, micro_batch_size=size, activation_checkpointing=recompute
                                ),
                            )
