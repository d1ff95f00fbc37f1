"""One training step: loss, gradients, clipping, update."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import record_function

from configs.schema.train import TrainRun
from pretrain.data.batch import Batch
from pretrain.optim.optimizer import Optimizer
from pretrain.parallel.engine import Engine


def train_step(
    config: TrainRun,
    engine: Engine,
    optimizer: Optimizer,
    micro_batches: list[Batch],
    n_valid: int,
    lr_factor: float,
    before_update: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Update the weights from this rank's micro-batches of a global batch with `n_valid` labels; collective.

    The update is skipped, on the device, where loss or gradient norm are not finite (`resilience.skip_nonfinite`).

    Args:
        before_update: called between the backward pass and the update.

    Returns:
        Sum of token losses and norm of the gradients, fp64 scalars of the whole global batch.
    """
    optimizer.begin(lr_factor)
    loss_sum = engine.forward_backward(micro_batches, torch.full((), n_valid, device=engine.device))
    before_update()
    with record_function("optimizer"):
        grad_norm = engine.clip_grad_norm(config.optim.clip)
        # The data and the schedule move on, whether or not the step is skipped; the host learns it later.
        skip = ~torch.isfinite(loss_sum + grad_norm) if config.resilience.skip_nonfinite else None
        optimizer.step(lr_factor, skip)
        optimizer.zero_grad()
    return loss_sum, grad_norm
