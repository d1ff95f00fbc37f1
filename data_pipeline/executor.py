"""Running a stage: datatrove's local or Slurm executor, with progress, and with errors that a person can read."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import multiprocess
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.utils.stats import PipelineStats
from loguru import logger
from tqdm import tqdm

from configs.schema.pipeline import DataRun
from data_pipeline import stage as stages
from data_pipeline.stage import Stage, StageStep, State

PRELOAD = [
    "data_pipeline.stage",
    "data_pipeline.collect",
    "data_pipeline.annotate.heuristics",
    "data_pipeline.policy",
    "data_pipeline.flow",
    "data_pipeline.dedup.minhash",
]
"""Imported once by the process that workers are forked from, instead of once by each worker of each stage."""


class LocalExecutor(LocalPipelineExecutor):
    """datatrove's executor, whose log goes to files only, and whose processes end with the driver.

    datatrove hands out ranks through a manager process: a fork of the driver that outlives its `kill -9`, and with it
    holds the lock on the run directory. Ranks need no handing out here.
    """

    def run(self) -> None:
        """Run the tasks that are left."""
        self.save_executor_as_json()
        ranks = self.get_incomplete_ranks()
        if self.workers == 1:
            for rank in ranks:
                deepcopy(self)._run_for_rank(rank)
        elif ranks:
            context = multiprocess.get_context(self.start_method)
            with context.Pool(min(self.workers, len(ranks))) as pool:
                for _ in pool.imap_unordered(self._run_for_rank, ranks):
                    pass

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        with contextlib.redirect_stderr(io.StringIO()):
            return super()._run_for_rank(rank, local_rank, node_rank)


class SlurmExecutor(SlurmPipelineExecutor):
    """datatrove's executor without its extra job for merging statistics: nothing would wait for it."""

    def launch_merge_stats(self) -> None:
        """Statistics are read from the tasks' files."""


def run(run_dir: Path, stage: Stage, config: DataRun, expected: str) -> State:
    """Run what is left of a stage.

    Raises:
        Whatever the stage raises. With Slurm: RuntimeError naming the task's log where a task failed.
        OSError: the disk is full.
    """
    try:
        return _run(run_dir, stage, config, expected)
    except Exception as error:
        # Libraries in native code say it in words alone.
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if not full and "No space left on device" not in str(error):
            raise
        raise OSError(
            f"stage {stage.name}: no space left on the disk of {run_dir}; free some, then run the same command again "
            "(finished stages are kept)"
        ) from error


def _run(run_dir: Path, stage: Stage, config: DataRun, expected: str) -> State:
    stages.prepare(run_dir, stage, expected)
    began = time.monotonic()
    logs = run_dir / "logs" / stage.name
    for output in stage.outputs:
        if not Path(output).suffix:
            (run_dir / output).mkdir(parents=True, exist_ok=True)
    local = config.executor.kind == "local"
    step = StageStep(stage.name, stage.function, run_dir, config, os.getpid() if local else None)
    with progress(logs / "completions", stage):
        if local:
            _run_local(stage, step, config, logs)
        else:
            _run_slurm(run_dir, stage, step, config, logs)
    return stages.finish(run_dir, stage, expected, time.monotonic() - began)


def _run_local(stage: Stage, step: StageStep, config: DataRun, logs: Path) -> None:
    workers = min(config.executor.workers or os.cpu_count() or 1, stage.tasks)
    logger.remove()
    multiprocess.set_forkserver_preload(PRELOAD)
    executor = LocalExecutor(
        [step], tasks=stage.tasks, workers=workers, logging_dir=str(logs), start_method="forkserver"
    )
    executor.run()


def _run_slurm(run_dir: Path, stage: Stage, step: StageStep, config: DataRun, logs: Path) -> None:
    if shutil.which("sbatch") is None:
        raise ValueError(
            "executor.kind=slurm needs `sbatch`, which is not on this machine; use executor.kind=local, "
            "or run on a login node"
        )
    record = run_dir / "stages" / f"{stage.name}.job"
    if record.is_file():
        # A driver that was killed may have left its array running: two arrays must not write the same shards.
        subprocess.run(["scancel", record.read_text()], check=False, capture_output=True)
        _wait(record.read_text(), config.executor.poll_seconds)
    activate = Path(sys.prefix) / "bin" / "activate"
    settings = config.executor
    executor = SlurmExecutor(
        [step],
        tasks=stage.tasks,
        time=settings.time,
        partition=settings.partition,
        cpus_per_task=1,
        mem_per_cpu_gb=settings.mem_gb,
        workers=settings.workers or -1,
        job_name=f"arriero-{stage.name}",
        qos="",
        venv_path=str(activate) if activate.is_file() else None,
        logging_dir=str(logs),
        requeue=True,
    )
    executor.run()
    job = str(executor.job_id)
    if job != "-1":  # everything was done already
        record.write_text(job)
        try:
            _wait(job, settings.poll_seconds)
        except KeyboardInterrupt:
            subprocess.run(["scancel", job], check=False)
            raise
    record.unlink(missing_ok=True)
    if left := executor.get_incomplete_ranks(skip_completed=True):
        raise RuntimeError(
            f"stage {stage.name}: {len(left)} of {stage.tasks} tasks of Slurm job {job} failed (first: {left[0]}); "
            f"see {logs / 'slurm_logs'} and {logs / 'logs'}, then run the same command again"
        )


def _wait(job: str, poll_seconds: float) -> None:
    """Until the queue no longer knows a job."""
    while True:
        listed = subprocess.run(
            ["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True, check=False
        )
        if listed.returncode == 0 and not listed.stdout.strip():
            return
        if listed.returncode != 0 and "Invalid job id" in listed.stderr:
            return
        time.sleep(poll_seconds)


@contextlib.contextmanager
def progress(completions: Path, stage: Stage) -> Iterator[None]:
    """A progress bar over finished tasks, on a terminal only."""
    over = threading.Event()

    def finished() -> int:
        try:
            return len(os.listdir(completions))  # noqa: PTH208
        except FileNotFoundError:
            return 0

    def show() -> None:
        with tqdm(total=stage.tasks, desc=f"{stage.name:<16}", unit="task", leave=False) as bar:
            while not over.wait(0.2):
                bar.update(finished() - bar.n)

    if not sys.stderr.isatty():
        yield
        return
    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
