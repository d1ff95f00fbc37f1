"""Start one process a rank on this machine, run a function in each, give back what rank 0 returned."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[2]


def run(function: Callable[..., Any], world_size: int, *args: Any, timeout: float = 300) -> Any:
    """`function(*args)` on `world_size` gloo ranks, one thread each.

    The function must be importable and take no part in pytest. A rank that fails ends the others and fails the test
    with its traceback.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder, "job")
        job.write_bytes(pickle.dumps((function.__module__, function.__name__, args)))
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}",
            "PYTHONWARNINGS": "ignore",
        }
        logs = [Path(folder, f"{rank}.log") for rank in range(world_size)]
        processes = []
        for rank, log in enumerate(logs):
            with log.open("wb") as output:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "ranks", str(job)],
                        cwd=ROOT,
                        env=environment | {"RANK": str(rank), "WORLD_SIZE": str(world_size)},
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )
        try:
            for process in processes:
                process.wait(timeout)
        except subprocess.TimeoutExpired:
            tails = "\n".join(log.read_text(errors="replace")[-2000:] for log in logs)
            raise AssertionError(f"{world_size} ranks did not end within {timeout} s:\n{tails}") from None
        finally:
            for process in processes:
                process.kill()
                process.wait()
        for rank, (process, log) in enumerate(zip(processes, logs, strict=True)):
            if process.returncode:
                raise AssertionError(
                    f"rank {rank} of {world_size}:\n{log.read_text(errors='replace')[-6000:]}"
                )
        return torch.load(Path(folder, "result"), weights_only=False)


def main() -> None:
    """One rank."""
    import importlib

    torch.set_num_threads(1)
    job = Path(sys.argv[1])
    module, name, args = pickle.loads(job.read_bytes())
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    result = getattr(importlib.import_module(module), name)(*args)
    if dist.get_rank() == 0:
        torch.save(result, job.with_name("result"))
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    # gloo's threads sometimes abort an ordinary exit.
    os._exit(0)


if __name__ == "__main__":
    main()
