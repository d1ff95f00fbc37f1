"""Tasks as arrays of Slurm jobs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from datatrove.executor.slurm import SlurmPipelineExecutor

from configs.schema.pipeline import ExecutorConfig
from data_pipeline.executors.task import Task
from data_pipeline.packed.files import write_atomically
from data_pipeline.stage import Stage, StageStep


class SlurmExecutor(Task, SlurmPipelineExecutor):
    """datatrove's executor without its extra job for merging statistics: nothing would wait for it."""

    def launch_merge_stats(self) -> None:
        """There are none to merge."""


def run(run_dir: Path, stage: Stage, step: StageStep, settings: ExecutorConfig, logs: Path) -> None:
    """Submit what is left of a stage and wait for it.

    Raises:
        ValueError: no Slurm on this machine.
        RuntimeError: tasks failed.
    """
    if shutil.which("sbatch") is None:
        raise ValueError(
            "executor.kind=slurm needs `sbatch`, which is not on this machine; use executor.kind=local, "
            "or run on a login node"
        )
    record = run_dir / "stages" / f"{stage.name}.job"
    if record.is_file():
        # A driver that was killed may have left its array running: two arrays must not write the same shards.
        subprocess.run(["scancel", record.read_text()], check=False, capture_output=True)
        _wait(record.read_text(), settings.poll_seconds)
    activate = Path(sys.prefix) / "bin" / "activate"
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
