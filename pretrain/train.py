"""Train a Llama on a packed dataset, in this process group.

Started again with the same command, a run continues from its newest checkpoint that verifies. SIGTERM, SIGUSR1 and
Ctrl-C finish the step, write a checkpoint and leave with exit status 75: started again, the run goes on. Other exit
statuses: 0 finished, 2 a configuration that cannot be used, 1 anything else.

Examples:
  torchrun --nproc-per-node 2 -m pretrain.train model=debug data.path=out/packed run.dir=runs/a train.steps=200
  arriero train model=4m optim=muon data.path=out/packed run.dir=runs/b train.steps=1000 device=cpu
  torchrun --nproc-per-node 8 -m pretrain.train model=8b parallel.tp=8 data.path=out/packed run.dir=runs/c
  torchrun --nproc-per-node 8 -m pretrain.train model=8b data.path=out/packed run.dir=runs/c train.dry_run=true
  torchrun --nproc-per-node 8 -m pretrain.train model.size=160m data.path=out/packed run.dir=runs/d   # the rest is derived
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import TrainRun
from data_pipeline.packed import PackedError
from pretrain import dry_run
from pretrain.advice import block, warnings
from pretrain.checks import before, check
from pretrain.data import PlanError
from pretrain.distributed import (
    Process,
    is_agreed,
    is_told_here,
    leave_alone,
    on_rank0,
    record_environment,
    run_to_end,
    setup,
    teardown,
    together,
)
from pretrain.dtype import settle
from pretrain.ending import ending
from pretrain.garbage import GarbageCollection
from pretrain.metrics.records import Records
from pretrain.optim.schedule import lr_factor
from pretrain.parallel.mesh import limit_waiting
from pretrain.resilience import EXIT_PREEMPTED, Heartbeat, StopRequest, die_with_parent, dump_stacks_on_signal
from pretrain.resume import begin, forget_heartbeats
from pretrain.rundir import RunLock, begin_anew, prepare
from pretrain.sizing.fill import in_process
from pretrain.step import train_step
from pretrain.trainer import Trainer, TrainingStopped


def train(config: TrainRun, process: Process, stop: StopRequest, records: Records) -> int:
    """One run, from its checks to its end; returns the exit status.

    Raises:
        ConfigError, PackedError, PlanError, OSError: what is wrong and what to do; the same on every rank where every
            rank can know.
        TrainingStopped: too many steps in a row were not finite.
    """
    trainer = set_up(config, process, stop, records)
    engine, optimizer, steps = trainer.engine, trainer.optimizer, config.train.steps
    limit_waiting(timedelta(seconds=config.resilience.collective_timeout))
    with trainer.batches() as global_batches, GarbageCollection(config.train.gc_every) as garbage:
        while trainer.progress.step < steps:
            step = trainer.begin_step(global_batches)
            factor = lr_factor(config.schedule, step.number, steps)
            loss_sum, grad_norm = train_step(
                config,
                engine,
                optimizer,
                step.micro_batches,
                step.n_valid,
                factor,
                trainer.meter.start_optimizer,
            )
            trainer.end_step(step, loss_sum, grad_norm, factor)
            garbage.at(step.number)

            last = step.number == steps
            if trainer.due(config.train.eval_every) and not last:
                trainer.evaluate()
            if trainer.due(config.checkpoint.every) or last or step.stopping:
                trainer.save()
            if step.stopping and not last:
                trainer.preempt()
                return EXIT_PREEMPTED
    trainer.finish()
    return 0


def set_up(config: TrainRun, process: Process, stop: StopRequest, records: Records) -> Trainer:
    """All that comes before the first step: checks, plan, model, and where the run goes on."""
    run_dir, steps, say = Path(config.run.dir), config.train.steps, records.console.say
    on_rank0(lambda: forget_heartbeats(run_dir))
    heartbeat = Heartbeat(run_dir, process.rank, config.resilience.heartbeat_every)
    heartbeat.beat(0, "starting")
    # The checks that need no weights, and the plan, before anything is built.
    checked = together(lambda: check(config, process.world_size))
    say(f"{checked.table(steps)}\n")
    if found := warnings(config, on_rank0(lambda: before(config, run_dir, checked))):
        say(f"{block(found)}\n")
    if (layout := checked.layout).pp > 1:
        say(layout.describe_pipeline(config.parallel))
    begun = begin(config, process, checked, records, heartbeat)
    on_rank0(lambda: prepare(run_dir, config, checked.packed))
    where = f"restored at step {begun.progress.step}" if begun.progress.step else "new weights"
    say(f"Training {steps - begun.progress.step} of {steps} steps ({where})")
    records.start_trackers(config)
    records.console.start(begun.progress.step, steps)
    return Trainer(config, process, checked, begun, stop, heartbeat, records)


def run(config: TrainRun, supervised: bool = False, raises: bool = False) -> int:
    """Own the run directory and the process group around `train`; returns the exit status, 75 when preempted.

    Args:
        supervised: the supervisor looks after the files of an earlier run, and says at the end what was made.
        raises: errors for users are raised instead of printed; for callers in Python.
    """
    if config.train.dry_run:
        return dry_run.run(config)
    began, run_dir = time.time(), Path(config.run.dir)
    if "WORLD_SIZE" not in os.environ and not run_dir.exists():
        try:
            check(config, 1)  # a mistake leaves no folder behind; several ranks agree on theirs below
        except ConfigError as error:
            if raises:
                raise
            print(f"error: {error}", file=sys.stderr, flush=True)
            return 2
    stop, rank = StopRequest(), int(os.environ.get("RANK", 0))
    records, lock, code = (
        Records(config, rank == 0),
        RunLock(run_dir / "lock", config.resilience.heartbeat_every),
        1,
    )
    world_size = os.environ.get("WORLD_SIZE", "1")
    ranks = "1 rank" if world_size == "1" else f"{world_size} ranks"
    records.console.say(f"train: {config.model.name} on {config.data.path} → {run_dir}, {ranks}; preparing")
    try:
        process = setup(config.device, config.resilience.start_timeout, config.train.deterministic)
        on_rank0(lock.acquire)
        dump_stacks_on_signal(run_dir, rank)
        if not supervised and (aside := on_rank0(lambda: begin_anew(run_dir))) is not None:
            records.console.say(f"no checkpoint is left of an earlier run; its records are now in {aside}")
        on_rank0(records.open)
        on_rank0(lambda: record_environment(run_dir, process))
        config, precision = settle(config, process.device)
        precision.tell(records.console.say, records.console.warn)
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
        records.console.close()
        if code == 0 and not supervised and rank == 0:
            print(ending(run_dir), flush=True)
        teardown()
    except BrokenPipeError:  # `| head`: as every verb, without a word
        records.failed("the reader of the output has gone", 1)
        raise
    except (ConfigError, PackedError, PlanError, TrainingStopped, OSError) as error:
        code = 2 if isinstance(error, ConfigError) else 1
        records.failed(str(error), code)
        if is_told_here(error) and not raises:
            print(f"error: {error}", file=sys.stderr, flush=True)
        if is_agreed(error):
            teardown()
        if raises:
            raise
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
    return edge.main("train", TrainRun, run, __doc__, argv, derive=in_process)


if __name__ == "__main__":
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    run_to_end(main)
