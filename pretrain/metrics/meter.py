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

_TICK = 1e-9
"""Shortest time of a step, s: a clock may not have moved."""


@dataclass(frozen=True)
class StepNumbers:
    """What a step leaves behind."""

    step: int
    batch_sequences: int
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
    data_wait_seconds: float
    """Seconds of the host."""
    comm_share: float | None = None
    """Share of the step in which this rank did nothing but communicate; None: not measured."""


@dataclass(frozen=True)
class _Held:
    """A step whose numbers may not have come yet."""

    numbers: StepNumbers
    values: Tensor
    """fp64 [2], in the host's memory: loss sum and gradient norm."""
    laps: tuple[float, float, float, float]
    """When the step began, its forward pass, its optimizer, and when it ended: seconds of the host's clock."""
    events: tuple[torch.cuda.Event, ...] | None
    """The same four on the device, and the arrival of the step's values on the host; None on the CPU."""


class Meter:
    """Collects steps and turns them into rows.

    Args:
        peak: FLOP/s of one device; 0: unknown. `mfu` is null where a step was faster.
        devices: how many there are.
    """

    def __init__(self, device: torch.device, peak: float, devices: int = 1):
        self._device, self._peak, self._devices = device, peak, devices
        self._highest = 0
        self._held: list[_Held] = []
        self._rows: list[dict[str, Any]] = []
        self._flushed = time.monotonic()
        self._laps: list[float] = []
        self._events: list[torch.cuda.Event] = []

    def start_step(self) -> None:
        """A step begins."""
        self._laps, self._events = [], []
        self._lap()

    def elapsed(self) -> float:
        """Seconds of the host since the step began."""
        return time.perf_counter() - self._laps[0]

    def start_forward(self) -> None:
        """The step has its batch; forward and backward passes follow."""
        self._lap()

    def start_optimizer(self) -> None:
        """Forward and backward passes are done; clipping and the update follow."""
        self._lap()

    def stop_step(self) -> None:
        """A step ends; what follows is not its time."""
        self._lap()

    def _lap(self) -> None:
        self._laps.append(time.perf_counter())
        if (event := self._record()) is not None:
            self._events.append(event)

    def add(self, numbers: StepNumbers) -> None:
        """Take the numbers of the step that ended last; does not wait for the device."""
        values = torch.stack([numbers.loss_sum.double(), numbers.grad_norm.double()])
        begin, forward, optimizer, end = self._laps
        events = None
        if self._events:
            on_host = torch.empty(2, dtype=torch.float64, pin_memory=True)
            values = on_host.copy_(values, non_blocking=True)
            arrived = self._record()
            assert arrived is not None
            events = (*self._events, arrived)
        self._held.append(_Held(numbers, values, (begin, forward, optimizer, end), events))

    def due(self) -> bool:
        """Whether the last flush is a second ago, so that a kill loses little."""
        return time.monotonic() - self._flushed >= 1.0

    def poll(self) -> bool:
        """Take in the numbers that have come; whether a step among those not yet flushed was not finite."""
        while self._held and (self._held[0].events is None or self._held[0].events[-1].query()):
            self._rows.append(self._row(self._held.pop(0)))
        return any(not is_finite(row) for row in self._rows)

    def flush(self, wait: bool = True) -> list[dict[str, Any]]:
        """Rows of the steps since the last flush: of all, or (`wait=False`) of those whose numbers have come."""
        if wait and self._held and self._held[-1].events is not None:
            self._held[-1].events[-1].synchronize()
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
        return {
            "memory_peak_bytes": self._highest,
            "memory_interval_peak_bytes": interval,
            "memory_resident_bytes": resident(),
        }

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
        begin, forward, optimizer, end = held.laps
        seconds, passes, update = end - begin, optimizer - forward, end - optimizer
        if held.events is not None:
            began, forwarded, optimized, ended, _ = held.events
            seconds, passes, update = (
                a.elapsed_time(b) / 1000
                for a, b in ((began, ended), (forwarded, optimized), (optimized, ended))
            )
        seconds = max(seconds, _TICK)
        speed, full_speed = (flops / seconds / self._devices for flops in (n.flops, n.full_flops))
        # A step above the peak shows that the peak is not that of this device: better no share than a wrong one.
        known = self._peak > 0 and speed <= self._peak
        return {
            "step": n.step,
            "loss": loss,
            "tokens": n.tokens,
            "batch_sequences": n.batch_sequences,
            "grad_norm": grad_norm,
            "lr": n.lr,
            "perplexity": math.exp(loss) if loss < 700 else math.inf,
            "tokens_per_second": n.batch_tokens / seconds,
            "tokens_per_second_per_device": n.batch_tokens / seconds / self._devices,
            "tflop_per_second_per_device": speed / 1e12,
            "mfu": speed / self._peak if known else None,
            "mfu_full": full_speed / self._peak if known else None,
            "memory_peak_bytes": None,  # the three are filled in when rows are handed out
            "memory_interval_peak_bytes": None,
            "memory_resident_bytes": None,
            "step_seconds": seconds,
            "data_wait_seconds": n.data_wait_seconds,
            "forward_backward_seconds": passes,
            "optimizer_seconds": update,
            "comm_share": n.comm_share,
            "time_unix_seconds": time.time(),
        }


def is_finite(row: dict[str, Any]) -> bool:
    """Whether loss and gradient norm of a row are finite: the optimizer skips the update of a step where one is not."""
    return math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])
