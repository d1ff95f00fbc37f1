"""What a run holds while it trains, and the chores around its steps: reading, agreeing, writing down, saving."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.profiler import record_function

from configs.schema.train import TrainRun
from data_pipeline.packed import PackedError
from pretrain.checkpoint import Checkpointer
from pretrain.checkpoint.state import random_states, run_state
from pretrain.checks import Checked
from pretrain.data import PlanError, Span
from pretrain.data.batch import Batch
from pretrain.data.loader import Loader, Prefetcher
from pretrain.distributed import Process, agreed, raise_together
from pretrain.metrics.flops import attention_pairs, full_flops, peak_flops, step_flops
from pretrain.metrics.heldout import heldout_loss
from pretrain.metrics.meter import Meter, StepNumbers, is_finite
from pretrain.metrics.records import Records
from pretrain.profiler import Profiler
from pretrain.resilience import Heartbeat, StopRequest
from pretrain.resume import Begun, weights_and_moments


class TrainingStopped(RuntimeError):
    """The run stopped itself, because going on would be of no use."""


@dataclass(frozen=True)
class Step:
    """What every rank knows of a step before it is computed."""

    number: int
    """From 1."""
    span: Span
    """What it consumes."""
    micro_batches: list[Batch]
    """This rank's."""
    n_valid: int
    """Labels of the global batch that take part in the loss."""
    pairs: int
    """Pairs of query and key of the global batch, under the document mask."""
    data_wait_seconds: float
    """Seconds that this rank waited for its micro-batches."""
    stopping: bool
    """Some rank was told to stop."""


class Trainer:
    """The state of a run in this process; every method but `due` is called by all ranks at the same step."""

    def __init__(
        self,
        config: TrainRun,
        process: Process,
        checked: Checked,
        begun: Begun,
        stop: StopRequest,
        heartbeat: Heartbeat,
        records: Records,
    ):
        self.config, self.process = config, process
        self.packed, self.ramp = checked.packed, checked.ramp
        self.engine, self.optimizer = begun.engine, begun.optimizer
        self.plan, self.progress = begun.plan, begun.progress
        self.stop, self.heartbeat, self.records = stop, heartbeat, records
        self.first_step = begun.progress.step
        self.given_up: str | None = None
        """Why the run should stop itself; ranks learn it at different times, and stop at the same step."""
        checkpoint, warn = config.checkpoint, records.console.warn
        self.checkpointer = Checkpointer(
            Path(config.run.dir), checkpoint.keep, checkpoint.asynchronous, records.ledger, warn
        )
        peak = peak_flops(process.device, config.train.dtype)
        self.meter = Meter(process.device, peak, process.world_size)
        self.profiler = Profiler(config.profile, Path(config.run.dir), process, records.console.say)

    def batches(self) -> Prefetcher:
        """This rank's micro-batches of the steps that are left, read ahead."""
        size, engine = self.config.train.micro_batch_size, self.engine
        loader = Loader(self.packed, self.plan, size, engine.dp_rank, engine.dp_size)
        spans = self.ramp.spans(self.progress.step + 1, self.config.train.steps)
        return loader.prefetch(spans, self.config.data.prefetch, self.process.device.type == "cuda")

    def begin_step(self, global_batches: Iterator[list[Batch]]) -> Step:
        """Read this rank's part of the next step, agree on what all must know, commit what has been written.

        Raises:
            ConfigError, OSError: on every rank, where one cannot read its data.
            TrainingStopped: on every rank, where too many steps in a row were not finite.
        """
        number = self.progress.step + 1
        self.heartbeat.beat(number, "training")
        self.profiler.begin(number)
        self.meter.start_step()
        with record_function("data"):
            micro_batches, damage = _read_next(global_batches)
        data_wait_seconds = self.meter.elapsed()
        # One small collective tells every rank what all must agree on; it is on the CPU and waits for no GPU.
        valid = sum(int(batch.n_valid) for batch in micro_batches)
        pairs = sum(attention_pairs(batch.cu_seqlens) for batch in micro_batches)
        flags = (bool(self.stop), self.checkpointer.busy, damage is not None, self.given_up is not None)
        told = torch.tensor([valid, pairs, *map(int, flags)])
        dist.all_reduce(told)
        if told[4]:
            raise_together(damage)
        if told[5]:
            self.flush()
        ranks_per_batch = self.process.world_size // self.engine.dp_size
        n_valid, n_pairs = (int(x) // ranks_per_batch for x in told[:2])
        if self.checkpointer.open and not told[3]:
            self.checkpointer.commit()
        span = self.ramp.span(number)
        self.meter.start_forward()
        return Step(number, span, micro_batches, n_valid, n_pairs, data_wait_seconds, bool(told[2]))

    def end_step(self, step: Step, loss_sum: Tensor, grad_norm: Tensor, lr_factor: float) -> None:
        """Count a step, take its numbers, and write down what is due."""
        self.meter.stop_step()
        comm_share = self.profiler.end(step.number)
        config, progress = self.config, self.progress
        progress.step, progress.n = step.number, self.ramp.used(step.number)
        tokens = step.span.size * self.packed.sequence_length
        self.meter.add(
            StepNumbers(
                step=step.number,
                batch_sequences=step.span.size,
                batch_tokens=tokens,
                loss_sum=loss_sum,
                tokens=step.n_valid,
                grad_norm=grad_norm,
                lr=lr_factor * config.optim.lr,
                flops=step_flops(config.model, self.packed.vocab_size, tokens, step.pairs),
                full_flops=full_flops(config.model, self.packed.vocab_size, tokens, step.span.length),
                data_wait_seconds=step.data_wait_seconds,
                comm_share=comm_share,
            )
        )
        # A range of steps in the ledger has one batch size.
        if self.due(config.run.log_every) or self.ramp.span(step.number + 1).size != step.span.size:
            self.flush()
        elif self.meter.poll() or self.meter.due():
            self._write_down(wait=False)

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps (0: never) happens now."""
        return bool(every) and self.progress.step % every == 0

    def flush(self) -> None:
        """Write down all steps since the last time. Waits for the device; called by all ranks at the same step.

        Raises:
            TrainingStopped: too many steps in a row were not finite.
        """
        self._write_down(wait=True)
        if self.given_up is not None:
            self.records.event("stopped", self.progress.step, reason=self.given_up)
            raise agreed(TrainingStopped(self.given_up))

    def save(self) -> None:
        """Begin a checkpoint of this step."""
        self.flush()
        self.heartbeat.beat(self.progress.step, "saving")
        rng = random_states(self.process.rank, self.process.device)
        tensors = {**weights_and_moments(self.engine, self.optimizer), **rng}
        position = self.records.ledger_position
        packed = self.packed
        state = run_state(
            self.config,
            self.plan,
            self.progress,
            packed.tokenizer_hash,
            packed.sequence_length,
            position,
        )
        self.checkpointer.start(self.progress.step, tensors, state)

    def evaluate(self) -> None:
        """Held-out loss by source."""
        self.flush()
        began, step, train = time.time(), self.progress.step, self.config.train
        rows = heldout_loss(
            self.engine,
            self.packed,
            train.micro_batch_size,
            train.eval_sequences,
            lambda: self.heartbeat.beat(step, "evaluating"),
        )
        self.records.evaluation(rows, step, time.time() - began)

    def preempt(self) -> None:
        """Leave with the checkpoint of this step."""
        self.checkpointer.finish()
        step = self.progress.step
        self.records.event("preempted", step, signal=self.stop.signal_name or "sent to another rank")
        self.records.console.say(
            f"Told to stop: checkpoint of step {step} written. The same command continues."
        )

    def finish(self) -> None:
        """Wait for the last checkpoint, and evaluate the end of the run unless that was done."""
        self.checkpointer.finish()
        self.checkpointer.close()
        if self.progress.step > self.first_step or not self.records.evaluated(self.progress.step):
            self.evaluate()

    def _write_down(self, wait: bool) -> None:
        rows = self.meter.flush(wait)
        if not rows:
            return
        first, last = rows[0]["step"], rows[-1]["step"]
        self.records.steps(rows, self.ramp.used(first - 1), self.ramp.used(last))
        for row in rows:
            self._note(row)

    def _note(self, row: dict[str, Any]) -> None:
        """Write down a step whose update was skipped, and whether it was one too many."""
        resilience, progress = self.config.resilience, self.progress
        if is_finite(row) or not resilience.skip_nonfinite:
            progress.skipped_in_a_row = 0
            return
        progress.skipped_in_a_row += 1
        in_a_row, limit = progress.skipped_in_a_row, resilience.max_skipped
        reason = f"loss {row['loss']:g}, gradient norm {row['grad_norm']:g}"
        self.records.event("skipped", row["step"], reason=reason, in_a_row=in_a_row)
        self.records.console.warn(f"step {row['step']} was skipped: {reason} ({in_a_row} in a row)")
        if in_a_row >= limit and self.given_up is None:
            self.given_up = (
                f"{in_a_row} steps in a row were not finite (resilience.max_skipped={limit}), the last with {reason}; "
                "look at the data of these steps, or lower optim.lr"
            )


def _read_next(global_batches: Iterator[list[Batch]]) -> tuple[list[Batch], Exception | None]:
    """This rank's micro-batches of the next step; or none, and why the data cannot be read."""
    try:
        return next(global_batches), None
    except (PackedError, PlanError, OSError) as error:
        return [], error
