"""What a rank does to be stopped, watched and looked into: signals, heartbeats, stack dumps."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import time
from pathlib import Path
from types import FrameType

import orjson

from data_pipeline.packed.files import write_atomically

EXIT_PREEMPTED = 75
"""Exit status of a run that was asked to stop, checkpointed, and can be continued (EX_TEMPFAIL of sysexits.h)."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Set by SIGTERM, SIGUSR1 (Slurm's warning) or Ctrl-C; the loop looks at it between steps.

    A second Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle)

    def __bool__(self) -> bool:
        return self.signal_name is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_name == "SIGINT":
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it dies (Linux).

    torchrun puts its workers into sessions of their own; when torchrun itself is killed they would go on, alone, and
    keep the run directory locked.
    """
    PR_SET_PDEATHSIG = 1
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


class Heartbeat:
    """`heartbeats/rank-N.json`, `{time, step, pid, host, phase}`, written by the main loop itself.

    A thread would go on beating while the loop hangs; so the loop beats, at most every `every` seconds, and the
    supervisor reads the age of `time`.
    """

    def __init__(self, run_dir: Path, rank: int, every: float):
        self.path = run_dir / "heartbeats" / f"rank-{rank}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.every = every
        self._last = 0.0
        self._phase = ""

    def beat(self, step: int, phase: str) -> None:
        """Say that this rank is in `phase` of `step`; written on a change of phase, or when `every` has passed."""
        now = time.time()
        if phase == self._phase and now - self._last < self.every:
            return
        self._last, self._phase = now, phase
        record = {
            "time": now,
            "step": step,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "phase": phase,
        }
        write_atomically(self.path, orjson.dumps(record))


def dump_stacks_on_signal(run_dir: Path, rank: int) -> Path:
    """On SIGUSR2, append the Python stacks of all threads to `logs/stacks-rank-N.txt`; returns that path.

    `faulthandler` writes from the signal handler itself, so it works while the interpreter waits in a collective.
    """
    path = run_dir / "logs" / f"stacks-rank-{rank}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    # The file stays open for the life of the process: a handler cannot open one.
    file = path.open("a")
    faulthandler.register(signal.SIGUSR2, file=file, all_threads=True, chain=False)
    return path
