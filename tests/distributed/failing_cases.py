"""Ranks that fail in the middle of a step: what the others see."""

from __future__ import annotations

import time
from datetime import timedelta

import torch.distributed as dist
from parity_cases import Case, build, global_batch, micro_batches
from torch import Tensor

from pretrain.model.llama import Llama


class Deserted(Exception):
    """Put into a rank."""


def desert(case: Case, rank: int, seconds: float) -> list[tuple[float, str]]:
    """One rank stops in the forward pass of its second micro-batch, and is silent for `seconds`; how long every rank was
    in the step, and the error that ended it."""
    engine, _ = build(case)
    real, calls = Llama.forward, iter(range(1000))

    def forward(part: Llama, *arguments: object) -> Tensor:
        if dist.get_rank() == rank and next(calls) == 1:
            time.sleep(seconds)
            raise Deserted("this rank has stopped")
        out: Tensor = real(part, *arguments)  # type: ignore[arg-type]
        return out

    Llama.forward = forward  # type: ignore[method-assign, assignment]
    whole, began, error = global_batch(1), time.monotonic(), ""
    try:
        engine.forward_backward(micro_batches(case, engine, whole), whole.n_valid)
    except (RuntimeError, Deserted) as raised:
        error = f"{type(raised).__name__}: {raised}"
    waited = time.monotonic() - began
    # By the store: process groups are of no use after an error.
    store = dist.distributed_c10d._get_default_store()
    store.set_timeout(timedelta(seconds=300))
    store.set(f"left-{dist.get_rank()}", f"{waited} {error}")
    texts = [store.get(f"left-{r}").decode().split(" ", 1) for r in range(dist.get_world_size())]
    return [(float(waited), error) for waited, error in texts]
