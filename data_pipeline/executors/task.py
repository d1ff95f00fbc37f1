"""One task of a stage: what every executor runs, and the log that it leaves."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from datatrove.utils.stats import PipelineStats
from loguru import logger


class Task:
    """Replaces what datatrove does around a task: a tenth of the time, and nothing on the terminal.

    Left behind in the stage's log folder: `logs/task_RANK.log` and, once it is done, `completions/RANK`. The counts
    are written by the step itself.
    """

    pipeline: Any
    logging_dir: Any
    world_size: int

    @property
    def folder(self) -> Path:
        """Folder of the stage's logs."""
        return Path(self.logging_dir.path)

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        folder = self.folder
        done = folder / "completions" / f"{rank:05d}"
        if done.exists():
            return PipelineStats()
        with _log(folder / "logs" / f"task_{rank:05d}.log") as log:
            began, cpu = time.monotonic(), time.process_time()
            _say(log, f"task {rank} of {self.world_size}, process {os.getpid()} on {os.uname().nodename}")
            try:
                for step in self.pipeline:
                    step(None, rank, self.world_size)
            except BaseException:
                _say(log, "failed\n" + traceback.format_exc())
                raise
            peak = peak_memory() // 2**20
            took = f"{time.monotonic() - began:.2f} s, {time.process_time() - cpu:.2f} s of CPU"
            _say(log, f"done in {took}; peak memory of the process {peak} MiB")
        done.parent.mkdir(exist_ok=True)
        done.touch()
        return PipelineStats()


def peak_memory() -> int:
    """Most bytes that this process has held at once."""
    try:
        # Not `ru_maxrss`, which a process inherits from the one that started it.
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def limit_threads(threads: int) -> None:
    """Limit what libraries start in this process, so that workers do not take each other's cores.

    Without it encoding with two workers on two cores is slower than with one: each of them starts a thread a core. To be
    called before the first task; what the user has set in the environment stays.
    """
    for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # said, so that no fork is warned about
    import pyarrow

    pyarrow.set_cpu_count(threads)
    from threadpoolctl import threadpool_limits

    # Libraries that were loaded before have read their variables.
    threadpool_limits(int(os.environ["OMP_NUM_THREADS"]))


_open: list[IO[str]] = []
"""Logs of the tasks that run in this process now; the last one gets what libraries log."""
_installed = False


def _sink(message: str) -> None:
    if _open:
        _open[-1].write(message)


def quiet() -> None:
    """What libraries log reaches no terminal, only the log of the task that runs."""
    global _installed
    if not _installed:
        logger.remove()
        logger.add(_sink, level="INFO", format="{time:HH:mm:ss} {name}: {message}")
        _installed = True


@contextlib.contextmanager
def _log(path: Path) -> Iterator[IO[str]]:
    """A task's log; what libraries log and print goes there too."""
    quiet()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", buffering=1) as file:
        _open.append(file)
        try:
            with contextlib.redirect_stderr(file):
                yield file
        finally:
            _open.pop()


def _say(log: IO[str], text: str) -> None:
    log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def exit_reason(code: int | None) -> str:
    """How a process ended, in words."""
    if code == -9:
        return "was killed (signal 9; the system does this when memory runs out)"
    if code is not None and code < 0:
        return f"was ended by signal {-code}"
    return f"ended with status {code}"
