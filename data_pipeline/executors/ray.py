"""Tasks on a Ray cluster, or on a Ray that is started on this machine for the run."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from datatrove.executor.ray import RayPipelineExecutor
from loguru import logger

from configs.schema.pipeline import ExecutorConfig
from data_pipeline.executors.task import Task
from data_pipeline.stage import Stage, StageStep

RETRIES = 2
"""Times that a task is given to another worker after its worker or node died."""


class RayExecutor(Task, RayPipelineExecutor):
    """datatrove's executor with plain Ray tasks.

    Its own `run` makes a placement group, an actor and a process pool for every task, which takes seconds for each
    task of each stage.
    """

    def run(self) -> None:
        """Run the tasks that are left; the first one that fails ends the others."""
        import ray

        ranks = self.get_incomplete_ranks()
        remote = ray.remote(_run).options(
            num_cpus=self.cpus_per_task, memory=self.mem_per_cpu_gb * 2**30, max_retries=RETRIES
        )
        executor = ray.put(self)
        limit = self.workers if self.workers > 0 else len(ranks)
        running: list[Any] = []
        try:
            while ranks or running:
                while ranks and len(running) < limit:
                    running.append(remote.remote(executor, ranks.pop(0)))
                finished, running = ray.wait(running, num_returns=1)
                ray.get(finished)
        except BaseException:
            for task in running:
                ray.cancel(task, force=True)
            raise


def _run(executor: RayExecutor, rank: int) -> None:
    executor._run_for_rank(rank)


def run(stage: Stage, step: StageStep, settings: ExecutorConfig, logs: Path) -> None:
    """Run what is left of a stage.

    Raises:
        ValueError: Ray is not installed, or its cluster does not answer.
        What a task raises; RuntimeError where workers died.
    """
    # Ray reports its use to its makers otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError("executor.kind=ray needs Ray: pip install 'arriero[ray]'") from error
    if not ray.is_initialized():
        workers = settings.workers or os.cpu_count() or 1
        here: dict[str, Any] = (
            {"num_cpus": workers, "include_dashboard": False} if settings.address is None else {}
        )
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        try:
            ray.init(
                address=settings.address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": {"PYTHONPATH": path}},
                **here,
            )
        except (ConnectionError, RuntimeError, TimeoutError) as error:
            raise ValueError(
                f"Ray at {settings.address or 'this machine'} cannot be reached: {error}"
            ) from error
    logger.disable("datatrove.executor.ray")  # its warning that the folder must be shared, at every stage
    executor = RayExecutor(
        [step],
        tasks=stage.tasks,
        workers=settings.workers or -1,
        mem_per_cpu_gb=0 if settings.address is None else settings.mem_gb,
        cpus_per_task=1,
        logging_dir=str(logs),
    )
    try:
        executor.run()
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from None
    except ray.exceptions.RayError as error:
        raise RuntimeError(
            f"stage {stage.name}: Ray could not finish its tasks: {str(error).splitlines()[0]}; see {logs / 'logs'}, "
            "then run the same command again"
        ) from error
