"""Rows of `metrics.jsonl`, made from numbers that may still be on the device."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pretrain.metrics.memory import high_water


@dataclass(frozen=True)
class StepNumbers:
    """What a step leaves behind; tensors are read at the next flush, so that the device need not be waited for."""

    step: int
    batch_size: int
    """Packed sequences of the global batch."""
    batch_tokens: int
    """Tokens of the global batch, valid or not."""
    loss_sum: Tensor
    """Sum of token losses over the global batch."""
    tokens: int
    """Valid tokens of the global batch."""
    grad_norm: Tensor
    lr: float
    flops: float
    """Of the global batch."""
    data_wait: float
    """Seconds."""
    step_time: float
    """Seconds, data wait included."""


class Meter:
    """Collects steps and turns them into rows.

    Args:
        peak: FLOP/s of all devices together; 0: unknown, `mfu` is null.
    """

    def __init__(self, device: torch.device, peak: float):
        self._device, self._peak = device, peak
        self._held: list[StepNumbers] = []
        self._flushed = time.monotonic()
        self._began = time.perf_counter()

    def start_step(self) -> None:
        """A step begins."""
        self._began = time.perf_counter()

    def elapsed(self) -> float:
        """Seconds since the step began."""
        return time.perf_counter() - self._began

    def add(self, numbers: StepNumbers) -> None:
        """Take the numbers of a step."""
        self._held.append(numbers)

    def due(self) -> bool:
        """Whether the last flush is a second ago, so that a kill loses little."""
        return time.monotonic() - self._flushed >= 1.0

    def flush(self) -> list[dict[str, Any]]:
        """Rows of the steps taken since the last flush. Waits for the device."""
        rows = [self._row(numbers) for numbers in self._held]
        self._held = []
        self._flushed = time.monotonic()
        return rows

    def _row(self, n: StepNumbers) -> dict[str, Any]:
        loss = n.loss_sum.item() / n.tokens
        return {
            "step": n.step,
            "loss": loss,
            "tokens": n.tokens,
            "batch_size": n.batch_size,
            "grad_norm": n.grad_norm.item(),
            "lr": n.lr,
            "perplexity": math.exp(loss) if loss < 700 else math.inf,
            "tokens_per_second": n.batch_tokens / n.step_time,
            "mfu": n.flops / n.step_time / self._peak if self._peak else None,
            "memory": high_water(self._device),
            "data_wait": n.data_wait,
            "step_time": n.step_time,
            "time": time.time(),
        }
