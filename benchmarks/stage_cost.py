"""What a stage costs when it has nothing to do: milliseconds to start it, run its tasks and record it.

    python benchmarks/stage_cost.py

Local executor, medians over stages; the first stage with several workers starts them, and is shown apart. datatrove's own
local executor does the same with the same step.
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from configs import edge
from configs.schema.pipeline import DataRun
from data_pipeline import executors
from data_pipeline.stage import Stage, StageStep

STAGES = 9


def nothing(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """A task."""
    return {"tasks": 1}


def ours(run_dir: Path, config: DataRun, tasks: int) -> list[float]:
    """Milliseconds of each of some stages."""
    taken = []
    for i in range(STAGES):
        began = time.perf_counter()
        executors.run(run_dir, Stage(f"stage-{tasks}-{i}", nothing, tasks, ()), config, "fingerprint")
        taken.append(1e3 * (time.perf_counter() - began))
    return taken


def theirs(run_dir: Path, config: DataRun, tasks: int, workers: int) -> list[float]:
    """The same in datatrove."""
    from datatrove.executor.local import LocalPipelineExecutor
    from loguru import logger

    taken = []
    for i in range(3):
        step = StageStep(f"their-{tasks}-{i}", nothing, run_dir, config)
        began = time.perf_counter()
        logger.remove()
        LocalPipelineExecutor(
            [step], tasks=tasks, workers=workers, logging_dir=str(run_dir / "theirs" / f"{tasks}-{i}")
        ).run()
        taken.append(1e3 * (time.perf_counter() - began))
    return taken


def main() -> None:
    """Print the table."""
    logging.disable()
    print(f"{'workers':>7} {'tasks':>6} {'first, ms':>10} {'stage, ms':>10} {'datatrove, ms':>14}")
    for workers, tasks in ((1, 1), (1, 16), (2, 2), (2, 16)):
        with tempfile.TemporaryDirectory() as folder:
            words = ["input=x", f"output={folder}", f"executor.workers={workers}"]
            config = edge.load("data", DataRun, words)
            taken = ours(Path(folder), config, tasks)
            peer = theirs(Path(folder), config, tasks, workers)
            print(
                f"{workers:>7} {tasks:>6} {taken[0]:>10.0f} {statistics.median(taken[1:]):>10.1f} "
                f"{statistics.median(peer):>14.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
