"""Start one process a rank on this machine, run a function in each, give back what rank 0 returned."""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from launch.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 900.0
"""Seconds for what takes a few on an idle machine."""


def run(
    function: Callable[..., Any],
    world_size: int,
    *args: Any,
    timeout: float = PATIENCE,
    collective: float = PATIENCE,
) -> Any:
    """`function(*args)` on `world_size` gloo ranks, one thread each.

    The function must be importable and take no part in pytest. A rank that fails ends the others and fails the test
    with its traceback. The ranks are forked from one process that has imported everything: a world of 8 starts in
    the time of one.

    Args:
        timeout: seconds for all of it.
        collective: seconds after which a collective that does not finish raises.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder, "job")
        job.write_bytes(pickle.dumps((function.__module__, function.__name__, args, collective)))
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, Path(__file__).parent, Path(__file__).parents[1]))),
            "PYTHONWARNINGS": "ignore",
        }
        logs = [Path(folder, f"{rank}.log") for rank in range(world_size)]
        with Path(folder, "launcher.log").open("wb+") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "ranks", str(job), str(world_size)],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                tails = "\n".join(log.read_text(errors="replace")[-2000:] for log in logs if log.exists())
                raise AssertionError(f"{world_size} ranks did not end within {timeout} s:\n{tails}") from None
            finally:
                # Its ranks die with it.
                process.kill()
                process.wait()
            if process.returncode:
                output.seek(0)
                first = output.read().decode(errors="replace")
                failed = int(first.split()[-1]) if first.startswith("failed rank ") else None
                text = first if failed is None else logs[failed].read_text(errors="replace")
                raise AssertionError(f"rank {failed} of {world_size}:\n{text[-6000:]}")
        return torch.load(Path(folder, "result"), weights_only=False)


def main() -> None:
    """Fork the ranks and wait for them; the first that failed is named."""
    _die_with_parent()
    job, world_size = Path(sys.argv[1]), int(sys.argv[2])
    # What is imported here is shared by all ranks. Nothing before the fork may start a thread.
    module, name, args, collective = pickle.loads(job.read_bytes())
    function = getattr(importlib.import_module(module), name)
    ranks: dict[int, int] = {}
    for rank in range(world_size):
        pid = os.fork()
        if pid == 0:
            _one_rank(rank, world_size, job, function, args, collective)
        ranks[pid] = rank
    failed: int | None = None
    while ranks:
        pid, status = os.wait()
        rank = ranks.pop(pid)
        if status and failed is None:
            failed = rank
            for other in ranks:
                os.kill(other, signal.SIGKILL)
    if failed is not None:
        print("failed rank", failed, flush=True)
    os._exit(failed is not None)


def _one_rank(
    rank: int, world_size: int, job: Path, function: Callable[..., Any], args: Any, collective: float
) -> None:
    code = 1
    try:
        _die_with_parent()
        log = os.open(job.with_name(f"{rank}.log"), os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        torch.set_num_threads(1)
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
        dist.init_process_group("gloo", timeout=timedelta(seconds=collective))
        result = function(*args)
        if rank == 0:
            torch.save(result, job.with_name("result"))
        meet("done", world_size)
        if rank == 0:
            # It holds the store that the others have just asked.
            meet("gone", world_size)
        else:
            dist.distributed_c10d._get_default_store().set(f"gone-{rank}", "")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # gloo's threads sometimes abort an ordinary exit.
        os._exit(code)


def meet(name: str, world_size: int) -> None:
    """Wait for all ranks, by the store: process groups are of no use after an error."""
    store = dist.distributed_c10d._get_default_store()
    store.set(f"{name}-{dist.get_rank()}", "")
    store.wait([f"{name}-{rank}" for rank in range(world_size)], timedelta(seconds=PATIENCE))


def _die_with_parent() -> None:
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
