"""`train.dry_run=true`: full steps on the worst batch of each phase, before the run: does it fit, and how long will it take.

Everything is as in the run (ranks, layout, model, optimizer, number of micro-batches) but the data, which no batch of the
run can exceed: every sequence is one document of full length, and its boundaries are padded to half as many as tokens. The
first step of a shape compiles and allocates, the second is timed. Nothing is restored and nothing written: the run
directory is left as it is, or absent.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Replicate

from configs.edge import ConfigError
from configs.schema.train import TrainRun
from pretrain.checks import Checked, check
from pretrain.data.batch import Batch
from pretrain.data.ramp import Stretch
from pretrain.distributed import Process, is_agreed, is_told_here, leave_alone, setup, teardown, together
from pretrain.dtype import settle
from pretrain.metrics.console import Console
from pretrain.metrics.flops import attention_pairs, peak_flops, step_flops
from pretrain.metrics.memory import high_water, reset_high_water, resident
from pretrain.optim.optimizer import Optimizer
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import build_mesh
from pretrain.resume import build, weights_and_moments
from pretrain.step import train_step

GRACE = 20.0
"""Seconds that a rank waits to hear why another one failed."""
KEY, HEARD = "dry run: what failed", "dry run: ranks that know"


class DryRunFailed(RuntimeError):
    """A step that cannot be computed; the message says what and what to change."""


class _Failed(Exception):
    """What this rank was doing when it failed, and the error."""

    def __init__(self, doing: str, cause: Exception):
        super().__init__(doing)
        self.doing, self.cause = doing, cause


@dataclass(frozen=True)
class Shape:
    """Steps of one batch size and sequence length."""

    size: int
    length: int
    steps: int
    """Of the run."""


def run(config: TrainRun) -> int:
    """The dry run in this process group; returns the exit status: 0 it fits, 1 it does not, 2 wrong configuration."""
    try:
        process = setup(config.device, config.resilience.start_timeout, config.train.deterministic)
        config, precision = settle(config, process.device)
        console = Console(process.rank == 0, progress=False)
        precision.tell(console.say, console.warn)
        checked = together(lambda: check(config, process.world_size))
        with _Others(process) as others:
            try:
                lines = _in_steps(config, process, checked)
            except _Failed as failed:
                advice = _advice(failed.cause, config, process.device)
                raise others.fail(
                    f"the dry run failed on rank {process.rank}, {failed.doing}: {advice}"
                ) from failed.cause
        if process.rank == 0:
            print("\n".join(lines), flush=True)
        teardown()
        return 0
    except DryRunFailed as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except (ConfigError, OSError) as error:
        if is_told_here(error):
            print(f"error: {error}", file=sys.stderr, flush=True)
        if is_agreed(error):
            teardown()
        return 2 if isinstance(error, ConfigError) else 1
    finally:
        leave_alone()


def shapes(stretches: tuple[Stretch, ...], steps: int) -> list[Shape]:
    """The shapes of the first `steps` steps, largest batch of tokens first, each with its number of steps."""
    counts: dict[tuple[int, int], int] = {}
    for stretch in stretches:
        count = min(steps - stretch.first_step + 1, steps if stretch.steps is None else stretch.steps)
        if count > 0:
            key = stretch.size, stretch.length
            counts[key] = counts.get(key, 0) + count
    return [Shape(*key, count) for key, count in sorted(counts.items(), reverse=True)]


def worst_batch(rows: int, length: int, vocab_size: int) -> Batch:
    """Rows of one document each: the most pairs of query and key, a label at every position; int64 [rows, length]."""
    tokens = torch.randint(vocab_size, (rows, length))
    cu_seqlens = torch.full((rows, length // 2 + 2), length, dtype=torch.int32)
    cu_seqlens[:, 0] = 0
    return Batch(tokens, tokens.roll(-1, 1), torch.arange(length).repeat(rows, 1), cu_seqlens)


def _in_steps(config: TrainRun, process: Process, checked: Checked) -> list[str]:
    """Run the steps; returns what there is to say. Raises DryRunFailed where a step cannot be computed."""
    doing = "making the model and its optimizer"
    try:
        mesh = build_mesh(checked.layout, process.device.type)
        engine, optimizer = build(config, process, checked.packed.vocab_size, mesh)
        capacity = _capacity(process.device)
        lines = []
        total = 0.0
        for shape in shapes(checked.ramp.stretches, config.train.steps):
            doing = f"a step of {shape.size} sequences in rows of {shape.length} tokens"
            seconds, line = _measure(config, process, checked, engine, optimizer, shape, capacity)
            total += seconds * shape.steps
            lines.append(line)
        doing = "staging a checkpoint"
        stored = _checkpoint_bytes(engine, optimizer)
        whole = torch.tensor(stored, dtype=torch.float64)
        dist.all_reduce(whole)
    except Exception as error:
        raise _Failed(doing, error) from error
    ranks = "1 rank" if process.world_size == 1 else f"{process.world_size} ranks"
    return [
        f"Dry run of {config.model.name} on {ranks} ({process.device.type}); worst batches, nothing kept",
        *lines,
        f"estimated run: {_duration(total)} for {config.train.steps:,} steps, without evaluations, checkpoints, restarts",
        f"checkpoint: {_gib(whole.item())}, of which rank 0 stages {_gib(stored)} in the host's memory",
    ]


def _measure(
    config: TrainRun,
    process: Process,
    checked: Checked,
    engine: Engine,
    optimizer: Optimizer,
    shape: Shape,
    capacity: int,
) -> tuple[float, str]:
    """Seconds of the second step of a shape on the slowest rank, and a line about it."""
    train, vocab_size = config.train, checked.packed.vocab_size
    rows = train.micro_batch_size * checked.packed.sequence_length // shape.length
    batch = worst_batch(rows, shape.length, vocab_size)
    micro_batches = [batch] * (shape.size // (engine.dp_size * train.micro_batch_size))
    tokens = shape.size * checked.packed.sequence_length
    reset_high_water(process.device)
    seconds = 0.0
    for _ in range(2):
        dist.barrier()
        began = time.perf_counter()
        # A learning rate of next to nothing: weights made of random tokens must not grow until steps are not finite.
        loss_sum, _ = train_step(config, engine, optimizer, micro_batches, tokens, 1e-9)
        loss = loss_sum.item() / tokens  # waits for the device
        seconds = time.perf_counter() - began
    if not math.isfinite(loss):
        raise DryRunFailed(
            f"the loss of random tokens is {loss}; try train.dtype=fp32, or look at the weights"
        )
    told = torch.tensor([seconds, float(high_water(process.device))], dtype=torch.float64)
    dist.all_reduce(told, dist.ReduceOp.MAX)
    seconds, peak = told.tolist()
    flops = step_flops(
        config.model,
        vocab_size,
        tokens,
        attention_pairs(batch.cu_seqlens[:1]) * tokens // shape.length,
    )
    speed = flops / seconds / process.world_size
    return seconds, (
        f"batch {shape.size} × {checked.packed.sequence_length} tokens in rows of {shape.length}, {len(micro_batches)} "
        f"micro-batches a rank: peak {_gib(peak)} of {_gib(capacity)} ({peak / capacity:.0%}), {seconds:.2f} s a step, "
        f"{tokens / seconds:,.0f} tokens/s, {speed / 1e12:.3g} TFLOP/s a device "
        f"({speed / peak_flops(process.device, train.dtype):.1%} MFU); {shape.steps:,} steps"
    )


class _Others:
    """What a rank tells the others when it fails: they may be in a collective with it, which would never end.

    The reason goes through the store of the process group. On every rank a thread looks there; where it finds another
    rank's reason, it prints it and ends the process.
    """

    def __init__(self, process: Process):
        self._process = process
        self._over = threading.Event()

    def __enter__(self) -> _Others:
        if self._process.world_size > 1:
            threading.Thread(target=self._watch, name="dry-run", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def fail(self, reason: str) -> DryRunFailed:
        """The error that this rank ends with; if it is the first to fail, once the others have heard of it."""
        others = self._process.world_size - 1
        if others == 0:
            return DryRunFailed(reason)
        store, deadline = _store(), time.monotonic() + GRACE
        first = store.compare_set(KEY, "", reason).decode()
        if first == reason:
            self._over.set()
            while store.add(HEARD, 0) < others and time.monotonic() < deadline:
                time.sleep(0.05)
            return DryRunFailed(reason)
        # A consequence of the first failure: the thread says so and ends this process.
        time.sleep(GRACE)
        return DryRunFailed(first)

    def _watch(self) -> None:
        store = _store()
        while not self._over.wait(0.25):
            if store.check([KEY]):
                reason = store.get(KEY).decode()
                print(f"error: {reason}", file=sys.stderr, flush=True)
                store.add(HEARD, 1)
                os._exit(1)


def _store() -> dist.Store:
    """A connection of its own to the process group's store: another thread may be waiting in the usual one."""
    store: Any = dist.distributed_c10d._get_default_store()
    return store.clone()


def _advice(error: Exception, config: TrainRun, device: torch.device) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    is_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text
    if not is_memory:
        return f"{type(error).__name__}: {text}" if not isinstance(error, DryRunFailed) else text
    train, parallel = config.train, config.parallel
    what = []
    if train.micro_batch_size > 1:
        what.append(f"train.micro_batch_size={train.micro_batch_size // 2} (now {train.micro_batch_size})")
    if train.activation_checkpointing == "none":
        what.append("train.activation_checkpointing=selective, or full")
    elif train.activation_checkpointing != "full":
        what.append("train.activation_checkpointing=full")
    if parallel.reshard_after_forward is False:
        what.append("parallel.reshard_after_forward=true")
    what.append(
        "more shards (parallel.dp_shard, parallel.tp, parallel.pp, or parallel.cp for long sequences)"
    )
    held = _gib(high_water(device) if device.type == "cuda" else resident())
    return f"out of memory with {held} held of {_gib(_capacity(device))} ({text}); try {'; or '.join(what)}"


def _capacity(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return int(psutil.virtual_memory().total)


def _checkpoint_bytes(engine: Engine, optimizer: Optimizer) -> float:
    """Bytes that this rank stages; what several ranks hold is staged by one of them, so each counts its part."""
    pipeline, total = engine.mesh.size(0), 0.0
    for tensor in weights_and_moments(engine, optimizer).values():
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        holders = dist.get_world_size() // pipeline
        if isinstance(tensor, DTensor):
            sizes = zip(tensor.device_mesh.shape, tensor.placements, strict=True)
            holders = math.prod(size for size, placement in sizes if isinstance(placement, Replicate))
        total += local.numel() * local.element_size() / holders
    return total


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:.2f} GiB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
