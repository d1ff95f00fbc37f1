"""Rows of `metrics.jsonl`, made from numbers that may still be on the device.

On CUDA the numbers of a step follow it in the stream, into page-locked memory: the host reads them when they have come,
and never waits for them unless it is asked to. Times are those of the device there, because the host runs ahead of it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pretrain.metrics.memory import high_water, reset_high_water, resident


@dataclass(frozen=True)
class StepNumbers:
    """What a step leaves behind."""

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
    """Of the global batch, by `step_flops`."""
    full_flops: float
    """Of the global batch, by `full_flops`."""
    data_wait: float
    """Seconds."""
    comm_share: float | None = None
    """Share of the step in which this rank did nothing but communicate; None: not measured."""


@dataclass(frozen=True)
class _Held:
    """A step whose numbers may not have come yet."""

    numbers: StepNumbers
    values: Tensor
    """fp64 [2], in the host's memory: loss sum and gradient norm."""
    step_time: float
    """Seconds of the host, data wait included."""
    events: tuple[torch.cuda.Event, torch.cuda.Event, torch.cuda.Event] | None
    """Begin and end of the step on the device, and the arrival of its values on the host; None on the CPU."""


class Meter:
    """Collects steps and turns them into rows.

    Args:
        peak: FLOP/s of one device; 0: unknown, `mfu` is null.
        devices: how many there are.
    """

    def __init__(self, device: torch.device, peak: float, devices: int = 1):
        self._device, self._peak, self._devices = device, peak, devices
        self._highest = 0
        self._held: list[_Held] = []
        self._rows: list[dict[str, Any]] = []
        self._flushed = time.monotonic()
        self._began = time.perf_counter()
        self._seconds = 0.0
        self._begin_event: torch.cuda.Event | None = None
        self._end_event: torch.cuda.Event | None = None

    def start_step(self) -> None:
        """A step begins."""
        self._began = time.perf_counter()
        self._begin_event = self._record()

    def elapsed(self) -> float:
        """Seconds of the host since the step began."""
        return time.perf_counter() - self._began

    def stop_step(self) -> None:
        """A step ends; what follows is not its time."""
        self._seconds = self.elapsed()
        self._end_event = self._record()

    def add(self, numbers: StepNumbers) -> None:
        """Take the numbers of the step that ended last; does not wait for the device."""
        values = torch.stack([numbers.loss_sum.double(), numbers.grad_norm.double()])
        events = None
        if self._begin_event is not None and self._end_event is not None:
            on_host = torch.empty(2, dtype=torch.float64, pin_memory=True)
            values = on_host.copy_(values, non_blocking=True)
            arrived = self._record()
            assert arrived is not None
            events = (self._begin_event, self._end_event, arrived)
        self._held.append(_Held(numbers, values, self._seconds, events))

    def due(self) -> bool:
        """Whether the last flush is a second ago, so that a kill loses little."""
        return time.monotonic() - self._flushed >= 1.0

    def poll(self) -> bool:
        """Take in the numbers that have come; whether a step among those not yet flushed was not finite."""
        while self._held and (self._held[0].events is None or self._held[0].events[2].query()):
            self._rows.append(self._row(self._held.pop(0)))
        return any(not is_finite(row) for row in self._rows)

    def flush(self, wait: bool = True) -> list[dict[str, Any]]:
        """Rows of the steps since the last flush: of all, or (`wait=False`) of those whose numbers have come."""
        if wait and self._held and self._held[-1].events is not None:
            self._held[-1].events[2].synchronize()
        self.poll()
        rows, self._rows = self._rows, []
        if rows:
            memory = self._look_at_memory()
            rows = [row | memory for row in rows]
        self._flushed = time.monotonic()
        return rows

    def _look_at_memory(self) -> dict[str, int]:
        """Bytes: the most ever held, the most held since the last look, what the host holds now."""
        interval = high_water(self._device)
        reset_high_water(self._device)
        self._highest = max(self._highest, interval)
        return {"memory": self._highest, "memory_interval": interval, "resident": resident()}

    def _record(self) -> torch.cuda.Event | None:
        if self._device.type != "cuda":
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _row(self, held: _Held) -> dict[str, Any]:
        n = held.numbers
        loss_sum, grad_norm = held.values.tolist()
        loss = loss_sum / max(1, n.tokens)
        seconds = held.step_time
        if held.events is not None:
            seconds = held.events[0].elapsed_time(held.events[1]) / 1000
        speed, full_speed = (flops / seconds / self._devices for flops in (n.flops, n.full_flops))
        return {
            "step": n.step,
            "loss": loss,
            "tokens": n.tokens,
            "batch_size": n.batch_size,
            "grad_norm": grad_norm,
            "lr": n.lr,
            "perplexity": math.exp(loss) if loss < 700 else math.inf,
            "tokens_per_second": n.batch_tokens / seconds,
            "tokens_per_second_device": n.batch_tokens / seconds / self._devices,
            "tflops": speed / 1e12,
            "mfu": speed / self._peak if self._peak else None,
            "mfu_full": full_speed / self._peak if self._peak else None,
            "memory": None,  # the three are filled in when rows are handed out
            "memory_interval": None,
            "resident": None,
            "data_wait": n.data_wait,
            "comm_share": n.comm_share,
            "step_time": seconds,
            "time": time.time(),
        }


def is_finite(row: dict[str, Any]) -> bool:
    """Whether loss and gradient norm of a row are finite: the optimizer skips the update of a step where one is not."""
    return math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])
