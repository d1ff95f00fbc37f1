"""Train a Llama on a packed dataset, in this process group.

Started again with the same command, a run continues from its newest checkpoint that verifies. SIGTERM, SIGUSR1 and
Ctrl-C finish the step, write a checkpoint and leave with exit status 75: started again, the run goes on. Other exit
statuses: 0 finished, 2 a configuration that cannot be used, 1 anything else.

Examples:
  torchrun --nproc-per-node 2 -m pretrain.train model=debug data.path=out/packed run.dir=runs/a train.steps=200
  arriero train model=4m optim=muon data.path=out/packed run.dir=runs/b train.steps=1000 device=cpu
  torchrun --nproc-per-node 8 -m pretrain.train model=8b parallel.tp=8 data.path=out/packed run.dir=runs/c
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import TrainRun
from data_pipeline.packed import PackedError
from pretrain.checkpoint import Checkpointer, CheckpointError
from pretrain.checkpoint.state import Progress, random_states, run_state
from pretrain.data import Batch, Loader, PlanError
from pretrain.distributed import (
    Process,
    agreed,
    is_agreed,
    is_told_here,
    leave_alone,
    on_rank0,
    raise_together,
    setup,
    teardown,
    together,
)
from pretrain.metrics.flops import attention_pairs, peak_flops, step_flops
from pretrain.metrics.heldout import heldout_loss
from pretrain.metrics.meter import Meter, StepNumbers
from pretrain.metrics.records import Records
from pretrain.optim.optimizer import Optimizer
from pretrain.optim.schedule import lr_factor
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import build_mesh
from pretrain.resilience import EXIT_PREEMPTED, Heartbeat, StopRequest, die_with_parent, dump_stacks_on_signal
from pretrain.resume import check, forget_heartbeats, resume, start_from, weights_and_moments
from pretrain.rundir import RunLock, prepare


class TrainingStopped(RuntimeError):
    """The run stopped itself, because going on would be of no use."""


def train(config: TrainRun, process: Process, stop: StopRequest, records: Records) -> int:
    """One run, from its checks to its end; returns the exit status.

    Raises:
        ConfigError, PackedError, PlanError, OSError: what is wrong and what to do; the same on every rank where every
            rank can know.
        TrainingStopped: too many steps in a row were not finite.
    """
    run_dir, device, steps = Path(config.run.dir), process.device, config.train.steps
    say = records.console.say
    on_rank0(lambda: forget_heartbeats(run_dir))
    heartbeat = Heartbeat(run_dir, process.rank, config.resilience.heartbeat_every)
    heartbeat.beat(0, "starting")

    # The checks that need no weights, and the plan, before anything is built.
    packed, plan, layout = together(lambda: check(config, process.world_size))
    sequences = steps * config.train.global_batch_size
    say(f"Plan: {sequences:,} sequences of {packed.sequence_length} tokens\n{plan.table(sequences)}\n")

    # The model and its optimizer, new or as the newest checkpoint that verifies has them.
    mesh = build_mesh(layout, device.type)

    def build() -> tuple[Engine, Optimizer]:
        made = Engine(
            config.model, packed.vocab_size, config.parallel, config.train, mesh, device, config.seed
        )
        return made, Optimizer(made.named_parameters(), config.optim, config.train.dtype)

    engine, optimizer = build()
    heartbeat.beat(0, "restoring")
    try:
        progress, plan, passed_over = resume(config, process, engine, optimizer, packed, plan, records.ledger)
        for reason in passed_over:
            records.console.warn(f"a checkpoint was passed over: {reason}")
    except CheckpointError as error:
        # Nothing is left to walk back to, and parts of a broken checkpoint have been read: begin anew.
        records.console.warn(f"{error}; the run begins again at step 1")
        records.event("restored", 0, n=0, passed_over=[str(error)])
        (engine, optimizer), progress = build(), Progress()
        start_from(config, engine)
    on_rank0(lambda: prepare(run_dir, config, packed))
    begun = f"restored at step {progress.step}" if progress.step else "new weights"
    say(f"Training {steps - progress.step} of {steps} steps ({begun})")

    # What the loop works with.
    checkpointer = Checkpointer(
        run_dir, config.checkpoint.keep, config.checkpoint.asynchronous, records.ledger
    )
    batch_size, dp_size = config.train.global_batch_size, engine.dp_size
    loader = Loader(
        packed, plan, batch_size, config.train.micro_batch_size, engine.dp_rank, dp_size, progress.n
    )
    ranks_per_batch = process.world_size // dp_size
    tokens_per_step = batch_size * packed.sequence_length
    peak = peak_flops(device, config.train.dtype) * process.world_size
    meter = Meter(device, peak, tokens_per_step)
    first_step = progress.step

    def flush() -> None:
        records.steps(meter.flush(), progress.step, progress.n, batch_size)

    def save() -> None:
        flush()
        heartbeat.beat(progress.step, "saving")
        tensors = {**weights_and_moments(engine, optimizer), **random_states(process.rank, device)}
        state = run_state(config, plan, progress, packed.tokenizer_hash, records.ledger_position)
        checkpointer.start(progress.step, tensors, state)

    def evaluate() -> None:
        flush()
        began, step = time.time(), progress.step
        rows = heldout_loss(
            engine,
            packed,
            device,
            config.train.micro_batch_size,
            config.train.eval_sequences,
            lambda: heartbeat.beat(step, "evaluating"),
        )
        records.evaluation(rows, step, time.time() - began)

    records.start_trackers()
    records.console.start(progress.step, steps)
    with loader.prefetch(
        steps - progress.step, config.data.prefetch, pin_memory=device.type == "cuda"
    ) as global_batches:
        while progress.step < steps:
            step = progress.step + 1
            heartbeat.beat(step, "training")
            meter.start_step()
            micro_batches, damage = read_next(global_batches)
            data_wait = meter.elapsed()

            # One small collective tells every rank what all must agree on; it is on the CPU and waits for no GPU.
            valid = sum(int(batch.n_valid) for batch in micro_batches)
            pairs = sum(attention_pairs(batch.cu_seqlens) for batch in micro_batches)
            told = torch.tensor(
                [valid, pairs, int(bool(stop)), int(checkpointer.busy), int(damage is not None)]
            )
            dist.all_reduce(told)
            if told[4]:
                raise_together(damage)
            n_valid, n_pairs = (int(x) // ranks_per_batch for x in told[:2])
            stopping, writing = bool(told[2]), bool(told[3])
            if checkpointer.open and not writing:
                checkpointer.commit()

            loss_sum = engine.forward_backward(micro_batches, torch.tensor(n_valid, device=device))
            grad_norm = engine.clip_grad_norm(config.optim.clip)
            factor = lr_factor(config.schedule, step, steps)
            # Both numbers are global, so every rank decides alike.
            if config.resilience.skip_nonfinite and not bool(torch.isfinite(loss_sum + grad_norm)):
                # Weights, moments and the optimizer's own step count stay; the data and the schedule move on.
                progress.skipped_in_a_row += 1
            else:
                optimizer.step(factor)
                progress.skipped_in_a_row = 0
            optimizer.zero_grad()
            progress.step, progress.n = step, progress.n + batch_size

            flops = step_flops(config.model, packed.vocab_size, tokens_per_step, n_pairs)
            lr = factor * config.optim.lr
            meter.add(StepNumbers(step, loss_sum, n_valid, grad_norm, lr, flops, data_wait, meter.elapsed()))
            if progress.skipped_in_a_row:
                flush()
                give_up_or_note(config, progress, float(loss_sum) / n_valid, float(grad_norm), records)
            if step % config.run.log_every == 0 or meter.due():
                flush()
            if config.train.eval_every and step % config.train.eval_every == 0 and step < steps:
                evaluate()
            if step % config.checkpoint.every == 0 or step == steps or stopping:
                save()
            if stopping and step < steps:
                checkpointer.finish()
                records.event("preempted", step, signal=stop.signal_name or "sent to another rank")
                say(f"Told to stop: checkpoint of step {step} written. The same command continues.")
                return EXIT_PREEMPTED

    checkpointer.finish()
    checkpointer.close()
    if progress.step > first_step or not records.evaluated(progress.step):
        evaluate()
    return 0


def read_next(global_batches: Iterator[list[Batch]]) -> tuple[list[Batch], Exception | None]:
    """This rank's micro-batches of the next step; or none, and why the data cannot be read."""
    try:
        return next(global_batches), None
    except (PackedError, PlanError, OSError) as error:
        return [], error


def give_up_or_note(
    config: TrainRun, progress: Progress, loss: float, grad_norm: float, records: Records
) -> None:
    """Write down a skipped step; raise TrainingStopped when it is one too many in a row."""
    in_a_row, limit = progress.skipped_in_a_row, config.resilience.max_skipped
    reason = f"loss {loss:g}, gradient norm {grad_norm:g}"
    records.event("skipped", progress.step, reason=reason, in_a_row=in_a_row)
    records.console.warn(f"step {progress.step} was skipped: {reason} ({in_a_row} in a row)")
    if in_a_row >= limit:
        text = (
            f"{in_a_row} steps in a row were not finite (resilience.max_skipped={limit}), the last with {reason}; "
            "look at the data of these steps, or lower optim.lr"
        )
        records.event("stopped", progress.step, reason=text)
        raise agreed(TrainingStopped(text))


def run(config: TrainRun) -> int:
    """Own the run directory and the process group around `train`; returns the exit status, 75 when preempted."""
    began, run_dir = time.time(), Path(config.run.dir)
    stop, rank = StopRequest(), int(os.environ.get("RANK", 0))
    records, lock, code = (
        Records(config, rank == 0),
        RunLock(run_dir / "lock", config.resilience.heartbeat_every),
        1,
    )
    try:
        process = setup(config.device, config.resilience.collective_timeout, config.train.deterministic)
        on_rank0(lock.acquire)
        dump_stacks_on_signal(run_dir, rank)
        on_rank0(records.open)
        records.event(
            "started",
            0,
            world_size=process.world_size,
            host=socket.gethostname(),
            pid=os.getpid(),
            total_steps=config.train.steps,
        )
        code = train(config, process, stop, records)
        if code == 0:
            records.event("finished", config.train.steps, seconds=time.time() - began)
        records.close()
        teardown()
    except (ConfigError, PackedError, PlanError, TrainingStopped, OSError) as error:
        code = 2 if isinstance(error, ConfigError) else 1
        records.failed(str(error), code)
        if is_told_here(error):
            print(f"error: {error}", file=sys.stderr, flush=True)
        if is_agreed(error):
            teardown()
    except BaseException as error:
        records.failed(f"{type(error).__name__}: {error}", 1)
        raise
    finally:
        records.console.close()
        lock.release()
        leave_alone()
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """`arriero train`."""
    return edge.main("train", TrainRun, run, __doc__, argv)


if __name__ == "__main__":
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Communication threads that are still alive would abort the interpreter on its way out, and change the status.
    os._exit(status)
