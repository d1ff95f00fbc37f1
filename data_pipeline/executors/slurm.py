"""Tasks as arrays of Slurm jobs."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from datatrove.executor.slurm import SlurmPipelineExecutor

from configs import children
from configs import slurm as asked
from configs.edge import ConfigError
from configs.schema.pipeline import ExecutorConfig
from data_pipeline.executors.task import Task
from data_pipeline.packed.files import write_atomically
from data_pipeline.stage import Stage, StageStep

OURS = (
    "array",
    "output",
    "error",
    "nodes",
    "ntasks",
    "wrap",
    "dependency",
    "export",
    "parsable",
    "test-only",
)
"""Options of sbatch that the executor sets itself: it waits for its array, and reads its logs."""


class SlurmExecutor(Task, SlurmPipelineExecutor):
    """datatrove's executor with the options and the prolog of the configuration.

    Without its extra job for merging statistics: nothing would wait for it.
    """

    def __init__(self, *args: Any, settings: ExecutorConfig, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings = settings

    def launch_merge_stats(self) -> None:
        """There are none to merge."""

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, str]:
        """What is asked of sbatch."""
        return {**_of_array(super().get_sbatch_args(max_array)), **requested(self._settings)}

    def get_launch_file_contents(self, sbatch_args: dict[str, str], run_script: str) -> str:
        """The batch script of a task."""
        # By the interpreter that submits, since PATH may be another one's on a node; datatrove quotes no path.
        step, path = run_script.split(" launch_pickled_pipeline ", 1)
        load = children.in_shell("datatrove.tools.launch_pickled_pipeline", path.strip())
        srun = shlex.join(["srun", *asked.words(_srun_options(self._settings))])
        command = f"{step.replace('srun ', f'{srun} ', 1)} {load}"
        return script(self._settings, sbatch_args, f"set -e\n{command}")


def requested(settings: ExecutorConfig) -> dict[str, str]:
    """The options of sbatch for one task, by their long names.

    Raises:
        ConfigError: `executor.options` or `executor.srun_options` holds what cannot be passed on.
    """
    _srun_options(settings)
    own = {
        "account": settings.account,
        "partition": settings.partition,
        "time": settings.time,
        "cpus-per-task": "1",
        "mem": f"{settings.mem_gb}G",
        "requeue": "",
    }
    return asked.merge(own, asked.options(settings.options, "executor.options", OURS))


def script(settings: ExecutorConfig, options: dict[str, str], command: str) -> str:
    """A batch script: options, prolog, command."""
    lines = ("#!/bin/bash", asked.directives(options), settings.prolog.rstrip("\n"), command.strip("\n"))
    return "\n".join(line for line in lines if line) + "\n"


def check(settings: ExecutorConfig) -> None:
    """Ask Slurm whether it would take a task, before a run writes anything.

    Raises:
        ConfigError: as `requested`, or Slurm refuses the request; with its own message.
        ValueError: no Slurm on this machine.
    """
    text = script(settings, requested(settings), "true")
    if shutil.which("sbatch") is None:
        raise ValueError(
            "executor.kind=slurm needs `sbatch`, which is not on this machine; use executor.kind=local, "
            "or run on a login node"
        )
    asks = ["sbatch", "--test-only"]
    done = subprocess.run(asks, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(
            f"Slurm refuses the tasks of this run: {done.stderr.strip() or done.stdout.strip()}; it was asked for "
            f"{shlex.join(asked.words(requested(settings)))} (keys: executor.partition, executor.time, executor.account, "
            "executor.mem_gb, executor.options)"
        )


def _srun_options(settings: ExecutorConfig) -> dict[str, str]:
    return asked.merge({}, asked.options(settings.srun_options, "executor.srun_options"))


def _of_array(options: dict[str, Any]) -> dict[str, str]:
    """What datatrove asks for that belongs to the array, and not to the request of a task."""
    return {
        name: str(options[name])
        for name in ("nodes", "job-name", "output", "error", "array")
        if name in options
    }


def run(run_dir: Path, stage: Stage, step: StageStep, settings: ExecutorConfig, logs: Path) -> None:
    """Submit what is left of a stage and wait for it.

    Raises:
        RuntimeError: sbatch refused the array, or tasks failed.
    """
    record = run_dir / "stages" / f"{stage.name}.job"
    if record.is_file():
        # A driver that was killed may have left its array running: two arrays must not write the same shards.
        subprocess.run(["scancel", record.read_text()], check=False, capture_output=True)
        _wait(record.read_text(), settings.poll_seconds)
    executor = SlurmExecutor(
        [step],
        tasks=stage.tasks,
        time=settings.time,
        partition=settings.partition or "",
        workers=settings.workers or -1,
        job_name=f"arriero-{stage.name}",
        qos="",
        logging_dir=str(logs),
        settings=settings,
    )
    try:
        executor.run()
    except subprocess.CalledProcessError as error:
        raise RuntimeError(
            f"stage {stage.name}: sbatch refused its array of tasks with status {error.returncode}, and its message is "
            f"above; the script is {logs / 'launch_script.slurm'}"
        ) from error
    job = str(executor.job_id)
    if job != "-1":  # everything was done already
        write_atomically(record, job, durable=True)  # a job whose id is lost would go on beside the next one
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
