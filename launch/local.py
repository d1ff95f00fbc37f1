"""A run on this machine: the command that starts its processes, and how to end them."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs import children
from configs.environment import cores
from configs.schema.train import ClusterConfig, LaunchRun
from configs.slurm import gpus_per_node
from launch.agent import GRACE, GRACE_ON_GPUS
from launch.processes import kill_descendants

DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
"""What machines with GPUs have; torch takes seconds to say so."""


def on_gpus(config: LaunchRun) -> bool:
    """Whether the ranks of a launch compute on GPUs."""
    if config.cluster.kind == "slurm":
        return gpus_per_node(config.cluster, config.device) > 0
    return config.device == "cuda" or (config.device == "auto" and any(path.exists() for path in DRIVERS))


def gpus(config: LaunchRun) -> int:
    """GPUs of a node that the ranks of a launch compute on: one each."""
    return config.cluster.nproc if on_gpus(config) else 0


def command(
    cluster: ClusterConfig, run_dir: Path, exits: Path, grace: float = GRACE, gpus: int = 0
) -> list[str]:
    """The command of one attempt: torchrun on this machine (through `launch.agent`).

    Args:
        gpus: that the ranks compute on.
    """
    # Port 0: torchrun listens on one that is free, and nobody can take it between a look and the use.
    endpoint = f"localhost:{cluster.port or 0}"
    # The name of this host, by which ranks would meet, resolves on few laptops.
    here = "--local-addr=localhost"
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", f"--rdzv-id={run_dir.name}"]
    return [*agent(cluster, exits, grace, gpus), here, *torchrun(cluster.nproc, 1, meeting, run_dir)]


def agent(cluster: ClusterConfig, exits: Path, grace: float, gpus: int) -> list[str]:
    """The start of the command on each node.

    Args:
        grace: seconds that the workers get after one of them has failed.
        gpus: that the ranks of a node compute on.
    """
    words = ["--exits", str(exits), f"--grace={grace:g}"]
    if gpus:
        words += [f"--gpus={gpus}", *(["--check"] if cluster.gpu_health else [])]
        words += ["--bind"] if binds(cluster) else []
    return children.command("launch.agent", *words, "--")


def binds(cluster: ClusterConfig) -> bool:
    """Whether ranks are bound by us: not where the user has asked srun to do it."""
    given = {str(name).replace("_", "-").removeprefix("--") for name in cluster.srun_options}
    return cluster.numa_binding and not given & {"cpu-bind", "mem-bind"}


def grace(config: LaunchRun) -> float:
    """Seconds that the workers of a node get after one of them has failed."""
    return GRACE_ON_GPUS if on_gpus(config) else GRACE


def torchrun(nproc: int, nodes: int, meeting: Sequence[str], run_dir: Path) -> list[str]:
    """torchrun's arguments. Restarts are the supervisor's alone, so torchrun has none.

    Args:
        meeting: how the nodes find each other.
    """
    return [
        f"--nnodes={nodes}",
        f"--nproc-per-node={nproc}",
        "--max-restarts=0",
        *meeting,
        "--monitor-interval=0.5",
        # All other signals are for the agent, which passes them on instead of killing the workers.
        "--signals-to-handle=SIGQUIT",
        "-m",
        "launch.worker",
        str(run_dir),
    ]


def for_gpus(run_dir: Path) -> dict[str, str]:
    """Environment of ranks on GPUs, where the user has not set it."""
    own = {
        # A number means the same GPU to CUDA, nvidia-smi and Slurm.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # Rows and documents differ from batch to batch: blocks of fixed size would leave holes.
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        # A rank whose collective failed ends, and so tells the supervisor, instead of computing on.
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",
        # Gloo carries control messages there: ranks connect when they exchange one, not all with all in each group.
        "TORCH_GLOO_LAZY_INIT": "1",
        # The flight recorder: each rank's last collectives, written where one of them waited in vain.
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_DUMP_TEMP_FILE": f"{run_dir.absolute()}/logs/nccl-rank-",
    }
    other_names = {
        "PYTORCH_CUDA_ALLOC_CONF": "PYTORCH_ALLOC_CONF",
        "TORCH_FR_BUFFER_SIZE": "TORCH_NCCL_TRACE_BUFFER_SIZE",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "TORCH_FR_DUMP_ON_TIMEOUT",
        "TORCH_FR_DUMP_TEMP_FILE": "TORCH_NCCL_DEBUG_INFO_TEMP_FILE",
    }
    return {
        name: value
        for name, value in own.items()
        if not {name, other_names.get(name, name)} & os.environ.keys()
    }


def environment(cluster: ClusterConfig, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of torchrun and of the ranks.

    Args:
        more: what the kind of device needs besides (`for_gpus`).
    """
    return {
        # Activations are freed and allocated anew each step. Kept in the heap instead of being returned to the kernel,
        # a step on the CPU takes less time (glibc; the user's own settings win).
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**32),
        # glibc cuts a few bytes off each aligned block. Were they cached for small objects, the freed block could not be
        # joined with them and would be too small for a block of its own size: the heap grows for thousands of steps.
        "GLIBC_TUNABLES": "glibc.malloc.mxfast=0:glibc.malloc.tcache_count=0",
        # torchrun would give each of several processes one thread.
        "OMP_NUM_THREADS": str(max(1, cores() // cluster.nproc)),
        **(more or {}),
        **children.environment(),
        **({} if cluster.threads is None else {"OMP_NUM_THREADS": str(cluster.threads)}),
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",  # of the logs, whatever the terminal's is
    }


def show(config: LaunchRun, run_dir: Path) -> str:
    """The command of an attempt as a line of a shell, with what its environment has besides this process's own."""
    more = for_gpus(run_dir) if on_gpus(config) else None
    own = {k: v for k, v in environment(config.cluster, more).items() if os.environ.get(k) != v}
    exits = run_dir / "logs" / "exits"
    words = command(config.cluster, run_dir, exits, grace(config), gpus(config))
    return shlex.join(["env", *(f"{name}={value}" for name, value in own.items()), *words])


def kill(process: subprocess.Popen[bytes]) -> None:
    """End an attempt at once, with everything that it started."""
    if process.poll() is None:
        process.kill()
    kill_descendants()
    process.wait()
