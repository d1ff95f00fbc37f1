"""torchrun of one node, with what became of its workers written where the supervisor reads it.

    python -m launch.agent --exits DIR -- TORCHRUN ARGUMENTS

This is `torch.distributed.run` with additions. How each failed worker ended goes to `DIR/node-N.json` (torchrun itself
exits with 1 whatever happened). SIGUSR1, SIGUSR2, SIGTERM and SIGINT are passed on to the workers, which checkpoint (or
dump their stacks) and exit; torchrun would kill them after 30 seconds. When a worker has failed, the others, stuck in
collectives, are killed after `--grace` seconds instead of 30. And with `--gpus` it looks at the GPUs of the node before
it starts anything: bad ones end it (`--check`), and each worker is told the NUMA node of its own (`--bind`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipeline.packed.files import write_atomically
from launch import gpus, numa
from launch.cli import EXIT_BAD_NODE, EXIT_PREEMPTED
from launch.processes import die_with_parent

GRACE = 4.0
"""Seconds that the workers of a node get after one of them has failed."""
GRACE_ON_GPUS = 45.0
"""The same where NCCL writes down its last collectives first, which it gives itself 15 seconds for, in each rank."""
FORWARDED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m launch.agent", description=__doc__)
    parser.add_argument("--exits", type=Path, required=True, help="folder for node-N.json")
    parser.add_argument(
        "--grace", type=float, default=GRACE, help="seconds that workers get after one of them has failed"
    )
    parser.add_argument(
        "--gpus", type=int, default=0, help="GPUs that this node must have; 0: none is looked at"
    )
    parser.add_argument("--check", action="store_true", help="start nothing on GPUs that are not healthy")
    parser.add_argument("--bind", action="store_true", help="bind each worker to the NUMA node of its GPU")
    parser.add_argument("torchrun", nargs=argparse.REMAINDER, help="-- and torchrun's arguments")
    arguments = parser.parse_args(argv)
    die_with_parent()
    _forward_signals()
    threading.Thread(target=_kill_survivors, args=(arguments.grace,), daemon=True).start()

    node = int(os.environ.get("SLURM_NODEID", "0"))
    report = arguments.exits / f"node-{node}.json"
    torchrun = arguments.torchrun[1:] if arguments.torchrun[:1] == ["--"] else arguments.torchrun
    if "--rdzv-backend=static" in torchrun:
        torchrun = [f"--node-rank={node}", *torchrun]
    if arguments.gpus:
        found = gpus.look(arguments.gpus)
        if arguments.check and found.problems:
            write_exits(report, {None: EXIT_BAD_NODE}, found.problems)
            return EXIT_BAD_NODE
        if arguments.bind and found.gpus:
            nodes = numa.numa_nodes(found.gpus, arguments.gpus, os.environ)
            torchrun = [*torchrun, "numa=" + ",".join("" if n is None else str(n) for n in nodes)]

    # Imported late: a signal during these seconds must already be handled.
    import torch.distributed.run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        torch.distributed.run.main(torchrun)
    except ChildFailedError as error:
        write_exits(report, {rank: f.exitcode for rank, f in error.failures.items()})
        return 1
    write_exits(report, {})
    return 0


def write_exits(path: Path, exits: Mapping[int | None, int], problems: Sequence[str] = ()) -> None:
    """Write how the failed workers of a node ended (negative: the signal that killed it), atomically.

    Args:
        exits: by rank; None: the node itself, which started none.
        problems: what is wrong with the node.
    """
    # The name by which Slurm knows the node, where it is there.
    host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    rows = [
        {"rank": rank, "exit_code": exits[rank], "host": host, "problems": list(problems)}
        for rank in sorted(exits, key=lambda rank: -1 if rank is None else rank)
    ]
    write_atomically(path, json.dumps({"time": time.time(), "failures": rows}))


_SEEN = threading.Event()
"""Whether there have been workers."""


def _workers() -> list[int]:
    import psutil

    return [p.pid for p in psutil.Process().children()]


def _forward_signals() -> None:
    """Pass signals on from a thread: the main one may wait for other nodes inside torch, and run no handler for minutes."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in FORWARDED:
        signal.signal(number, lambda number, frame: None)

    def forward() -> None:
        while number := os.read(reading, 1):
            if number[0] in FORWARDED:
                _forward(number[0])

    threading.Thread(target=forward, daemon=True).start()


def _forward(number: int) -> None:
    workers = _workers()
    if not workers and not _SEEN.is_set() and number != signal.SIGUSR2:
        os._exit(EXIT_PREEMPTED)  # told to stop before there was anything to stop
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _kill_survivors(grace: float) -> None:
    """Wait for a worker that fails, then kill those that are left after the grace period.

    The kernel wakes this thread when a worker ends: looking for it would cost a tenth of a core beside the training.
    The exit status is read without reaping it (WNOWAIT): the process belongs to torchrun.
    """
    failed = False
    while not failed:
        try:
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                _SEEN.set()
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:  # no workers yet, or none any more
            ended = None
        failed = ended is not None and _is_failure(ended)
        time.sleep(0.05)  # one that ended well is there until torchrun reaps it
    time.sleep(grace)
    for pid in _workers():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # each worker leads a session of its own


def _is_failure(ended: os.waitid_result) -> bool:
    return ended.si_code != os.CLD_EXITED or ended.si_status not in (0, EXIT_PREEMPTED)


if __name__ == "__main__":
    sys.exit(main())
