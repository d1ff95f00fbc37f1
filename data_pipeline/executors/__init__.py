"""Running a stage on this machine, Slurm or Ray, with progress, and with errors that a person can read.

Each executor is one of datatrove's, runs the same tasks and leaves the same files.
"""

from __future__ import annotations

import errno
import importlib
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.schema.pipeline import DataRun, ExecutorConfig
from data_pipeline import compiling, progress, workers
from data_pipeline import stage as stages
from data_pipeline.executors import task
from data_pipeline.stage import Stage, StageStep, State

FULL_DISK = ("No space left on device", "Not enough free space")
"""What Arrow and NumPy say of a full disk, in errors without a number."""


def run(run_dir: Path, stage: Stage, config: DataRun, expected: str, sizes: Sequence[int] = ()) -> State:
    """Run what is left of a stage.

    Args:
        sizes: bytes of each unit of input; the local executor begins with the largest.

    Raises:
        Whatever the stage raises. RuntimeError naming the task's log where a worker process or a Slurm job failed.
        OSError: the disk is full.
    """
    try:
        return _run(run_dir, stage, config, expected, sizes)
    except Exception as error:
        # Libraries in native code say it in words alone.
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if not full and not any(words in str(error) for words in FULL_DISK):
            raise
        raise OSError(
            f"stage {stage.name}: no space left on the disk of {run_dir}; free some, then run the same command again "
            "(finished stages are kept)"
        ) from error


def check(config: ExecutorConfig) -> None:
    """Raise ConfigError or ValueError where tasks cannot be started with this configuration."""
    if config.kind == "slurm":
        from data_pipeline.executors import slurm

        slurm.check(config)


def prepare(run_dir: Path, todo: Sequence[Stage], expected: Mapping[str, str], config: DataRun) -> None:
    """Compile the kernels of stages that are not done, and begin what workers need to start."""
    left = [stage for stage in todo if not stages.state(run_dir, stage, expected[stage.name]).done]
    code = {name for stage in left for name in stage.code}
    compiling.ensure(compiling.needed(code), lambda line: print(f"  {line}", flush=True))
    if code:
        workers.start(config)  # where it had to wait for kernels
    if config.executor.kind == "local" and workers.number(config) > 1:
        # Stages of one task run in this process, which has nothing to do while workers are busy with those before.
        alone = {name for stage in left if stage.tasks == 1 for name in stage.code}
        names = list(map(compiling.module_name, compiling.needed(alone)))
        threading.Thread(target=lambda: list(map(importlib.import_module, names)), daemon=True).start()


def _run(run_dir: Path, stage: Stage, config: DataRun, expected: str, sizes: Sequence[int]) -> State:
    stages.prepare(run_dir, stage, expected)
    began = time.monotonic()
    logs = run_dir / "logs" / stage.name
    for output in stage.outputs:
        if not Path(output).suffix:
            (run_dir / output).mkdir(parents=True, exist_ok=True)
    task.quiet()
    step = StageStep(stage.name, stage.function, run_dir, config)
    with progress.bar(logs, stage):
        if config.executor.kind == "local":
            from data_pipeline.executors import local

            n_workers = workers.number(config)
            # A stage of one task runs in this process, with the threads of all workers.
            task.limit_threads(n_workers)
            local.run(stage, step, min(n_workers, stage.tasks), logs, sizes)
        elif config.executor.kind == "slurm":
            from data_pipeline.executors import slurm

            slurm.run(run_dir, stage, step, config.executor, logs)
        else:
            from data_pipeline.executors import ray

            ray.run(stage, step, config.executor, logs)
    return stages.finish(run_dir, stage, expected, time.monotonic() - began)
