"""Tasks on this machine: in this process, or in worker processes that live as long as the run.

`multiprocessing.Pool` waits for ever when a worker is killed, so the driver watches the processes itself: a task whose
worker died is given to a new one, and a task that keeps killing its worker ends the run with an error.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any

from data_pipeline import workers
from data_pipeline.executors.task import Task, exit_reason, limit_threads
from data_pipeline.stage import Stage, StageStep, die_with

TRIES = 3
"""Workers that one task may take with it before the run ends."""
RECYCLE_BYTES = 1 * 2**30
"""Memory of a worker above which it is replaced between two tasks, if it is also twice what its first one left."""


class LocalExecutor(Task):
    """What datatrove's local executor does, with workers that are kept from stage to stage.

    Not derived from it: to import that takes a quarter of a second, most of it for the client of a model hub.
    """

    def __init__(
        self, pipeline: list[Any], tasks: int, workers: int, logs: Path, sizes: Sequence[int]
    ) -> None:
        """Args:
        sizes: bytes of input of each task; of another length where they are not known.
        """
        self.pipeline, self.world_size, self.workers = pipeline, tasks, workers
        self.logging_dir, self.sizes = logs, sizes

    @property
    def folder(self) -> Path:
        """Folder of the stage's logs."""
        return Path(self.logging_dir)

    def run(self) -> None:
        """Run the tasks that are left.

        Raises:
            What a task raises.
            WorkerDied: a task ended its worker process several times.
        """
        completed = self.folder / "completions"
        ranks = [rank for rank in range(self.world_size) if not (completed / f"{rank:05d}").exists()]
        if len(self.sizes) == self.world_size:
            # The largest first: a large one at the end would keep one worker busy and the others idle.
            ranks.sort(key=lambda rank: -self.sizes[rank])
        if self.workers == 1:
            for rank in ranks:
                self._run_for_rank(rank)
        elif ranks:
            try:
                _pool(self.workers).run(self, ranks)
            except BaseException:
                close()
                raise


def run(stage: Stage, step: StageStep, workers: int, logs: Path, sizes: Sequence[int]) -> None:
    """Run what is left of a stage.

    Args:
        workers: at most so many tasks at a time.
        sizes: bytes of each unit of input; large ones come first where a stage has a task for each.

    Raises:
        What a task raises.
        RuntimeError: a task ended its worker process several times.
    """
    try:
        LocalExecutor([step], stage.tasks, workers, logs, sizes).run()
    except WorkerDied as error:
        raise RuntimeError(f"stage {stage.name}: {error}; the task's log is in {logs / 'logs'}") from None


class WorkerDied(RuntimeError):
    """A task ended its worker process several times."""


@dataclass
class _Worker:
    process: Any
    connection: Connection
    rank: int | None = None
    base: int = 0
    """Its memory after its first task of the stage: models stay loaded."""


class Pool:
    """Worker processes, each with one task at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._context = workers.context()
        self._workers: list[_Worker] = []

    def _start(self) -> _Worker:
        for attempt in range(3):
            mine, theirs = self._context.Pipe()
            process = self._context.Process(target=_work, args=(theirs, os.getpid()), daemon=True)
            try:
                process.start()
            except (EOFError, OSError):
                # The process that workers are forked from was killed; the next try starts another one, once the system
                # has noticed that it is gone.
                mine.close()
                theirs.close()
                if attempt == 2:
                    raise
                time.sleep(0.5)
                continue
            theirs.close()
            worker = _Worker(process, mine)
            self._workers.append(worker)
            return worker
        raise AssertionError

    def _stop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.connection.close()
        worker.process.kill()
        worker.process.join()

    def run(self, executor: LocalExecutor, ranks: list[int]) -> None:
        """Run tasks, in the order of `ranks` as far as there are free workers."""
        job = pickle.dumps(executor)
        waiting, deaths = deque(ranks), Counter[int]()
        left = len(ranks)
        for worker in self._workers:
            worker.base = 0
        while left:
            for worker in [w for w in self._workers if w.rank is None]:
                if waiting:
                    self._give(worker, job, waiting)
            while waiting and len(self._workers) < self.size:
                self._give(self._start(), job, waiting)
            busy = [w for w in self._workers if w.rank is not None]
            ready = wait([w.connection for w in busy] + [w.process.sentinel for w in busy])
            for worker in busy:
                if worker.connection in ready:
                    try:
                        error, size = worker.connection.recv()
                    except (EOFError, OSError):
                        self._bury(worker, waiting, deaths)
                        continue
                    worker.rank = None
                    left -= 1
                    if error is not None:
                        raise error
                    worker.base = worker.base or size
                    if size > max(RECYCLE_BYTES, 2 * worker.base):
                        self._stop(worker)
                elif worker.process.sentinel in ready:
                    self._bury(worker, waiting, deaths)

    def _give(self, worker: _Worker, job: bytes, waiting: deque[int]) -> None:
        rank = waiting.popleft()
        worker.rank = rank
        with contextlib.suppress(OSError):  # it died since its last task; the next look at it says so
            worker.connection.send((job, rank))

    def _bury(self, worker: _Worker, waiting: deque[int], deaths: Counter[int]) -> None:
        rank = worker.rank
        assert rank is not None
        worker.process.join(5)
        reason = exit_reason(worker.process.exitcode)
        self._stop(worker)
        deaths[rank] += 1
        if deaths[rank] >= TRIES:
            raise WorkerDied(
                f"the worker of task {rank} {reason}, {TRIES} times; "
                "with fewer `executor.workers` there is more memory for each"
            )
        print(f"  the worker of task {rank} {reason}; another one takes the task", file=sys.stderr)
        waiting.appendleft(rank)

    def close(self) -> None:
        """End the workers."""
        for worker in list(self._workers):
            self._stop(worker)


_current: Pool | None = None


def _pool(size: int) -> Pool:
    global _current
    if _current is None or _current.size < size:
        close()
        _current = Pool(size)
    return _current


@atexit.register
def close() -> None:
    """End the workers of this process."""
    global _current
    if _current is not None:
        _current.close()
        _current = None


def _work(connection: Connection, driver: int) -> None:
    """The life of a worker: tasks, one after the other, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver, which ends the workers
    die_with(driver)
    limit_threads(1)
    known: tuple[bytes, Any] = (b"", None)
    while True:
        try:
            job, rank = connection.recv()
        except (EOFError, OSError):
            return
        if job != known[0]:
            known = (job, pickle.loads(job))
        error: Any = None
        try:
            known[1]._run_for_rank(rank)
        except Exception as raised:
            error = _sendable(raised)
        connection.send((error, _resident_bytes()))


def _sendable(error: Exception) -> Any:
    """The error with its traceback, as something that survives pickling."""
    try:
        wrapped = ExceptionWithTraceback(error, error.__traceback__)
        pickle.loads(pickle.dumps(wrapped))
        return wrapped
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
