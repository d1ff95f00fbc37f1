"""Ranks that fail in the middle of a step: what the others see."""

from __future__ import annotations

from datetime import timedelta

import torch.distributed as dist
from parity_cases import Case, build, global_batch, micro_batches
from ranks import PATIENCE
from torch import Tensor

from pretrain.model.llama import Llama


class Deserted(Exception):
    """Put into a rank."""


def desert(case: Case, rank: int) -> list[str]:
    """One rank stops in the forward pass of its second micro-batch, and is silent until all others have left the step;
    the error that ended it on every rank."""
    engine, _ = build(case)
    real, calls = Llama.forward, iter(range(1000))
    # By the store: process groups are of no use after an error.
    store = dist.distributed_c10d._get_default_store()
    store.set_timeout(timedelta(seconds=PATIENCE))

    def forward(part: Llama, *arguments: object) -> Tensor:
        if dist.get_rank() == rank and next(calls) == 1:
            for other in set(range(dist.get_world_size())) - {rank}:
                store.get(f"left-{other}")
            raise Deserted("this rank has stopped")
        out: Tensor = real(part, *arguments)  # type: ignore[arg-type]
        return out

    Llama.forward = forward  # type: ignore[method-assign, assignment]
    whole, error = global_batch(1), ""
    try:
        engine.forward_backward(micro_batches(case, engine, whole), whole.n_valid)
    except (RuntimeError, Deserted) as raised:
        error = f"{type(raised).__name__}: {raised}"
    store.set(f"left-{dist.get_rank()}", error)
    return [store.get(f"left-{r}").decode() for r in range(dist.get_world_size())]
