"""Jobs of 8 GPUs a node as they are submitted.

`python tests/rendered_jobs.py` writes the files in tests/launch/jobs anew; read the difference as an engineer would.
"""

from __future__ import annotations

import sys
from pathlib import Path

from configs import children, edge
from configs.schema.train import LaunchRun
from launch import slurm
from launch.slurm_request import Node, request

HERE = Path(__file__).parent / "launch" / "jobs"
NODES = (1, 2, 16, 2048)
NODE = Node("gpu0001", 192, 2_000_000, 8, "h200")
"""Of an H200 cluster: two sockets of 48 cores with two threads each."""


def config(nodes: int, *more: str) -> LaunchRun:
    """The launch of a large model."""
    words = [
        "cluster=slurm",
        "model=8b",
        "device=cuda",
        f"cluster.nodes={nodes}",
        "cluster.nproc=8",
        "cluster.partition=gpu",
        "data.path=/data/packed",
        "run.dir=/runs/llama",
    ]
    return edge.load("launch", LaunchRun, [*words, *more])


def text(nodes: int) -> str:
    """The script and the command of an attempt, without what is of this machine."""
    read = config(nodes)
    shown = slurm.show(read, Path("/runs/llama"), request(read.cluster, read.device, [NODE]))
    for here, there in (
        (f"PYTHONPATH={children.CHECKOUT}", "PYTHONPATH=/src"),
        (sys.executable, "/venv/bin/python"),
        (f"--chdir={Path.cwd()}", "--chdir=/work"),
    ):
        shown = shown.replace(here, there)
    return shown + "\n"


def file(nodes: int) -> Path:
    """Where the job of so many nodes is."""
    return HERE / f"{nodes}-nodes.sbatch"


if __name__ == "__main__":
    for count in NODES:
        file(count).write_text(text(count))
