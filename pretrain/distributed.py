"""The process group and the device of this process."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

import torch
import torch.distributed as dist

from configs import environment
from configs.edge import ConfigError
from pretrain.host import limit_threads
from pretrain.options import device_type

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)


@dataclass(frozen=True)
class Process:
    """This process among the others."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device


def setup(device: Literal["auto", "cpu", "cuda"], timeout: float, deterministic: bool = False) -> Process:
    """Join the process group that torchrun describes, or make a group of one without torchrun.

    gloo carries the collectives of CPU tensors (also of control messages on GPUs), NCCL those of CUDA tensors.

    Args:
        timeout: seconds after which a collective that does not finish raises.

    Raises:
        ConfigError: `device=cuda` on a machine without one, more local ranks than GPUs, or `device=auto` where Slurm gave
            GPUs and torch finds none.
    """
    limit_threads(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    use_cuda = device_type(device) == "cuda"
    if device == "auto" and not use_cuda and (given := _gpus_of_slurm(os.environ)):
        raise ConfigError(
            f"Slurm gave this node GPUs ({given}), but torch {torch.__version__} finds none, and device=auto would train on "
            "the CPU; install a CUDA build of torch and look at nvidia-smi on the node, or set device=cpu"
        )
    if use_cuda:
        if not torch.cuda.is_available():
            raise ConfigError(
                "`device` is cuda, but torch finds no CUDA device here; use device=cpu or device=auto"
            )
        index = 0 if _has_gpu_alone(os.environ, torch.cuda.device_count()) else local_rank
        if index >= torch.cuda.device_count():
            raise ConfigError(
                f"local rank {local_rank} has no GPU of its own: this machine has {torch.cuda.device_count()}; "
                "start at most that many processes here, or use device=cpu"
            )
        torch.cuda.set_device(index)
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
    chosen = torch.device("cuda", index) if use_cuda else torch.device("cpu")
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if use_cuda else "gloo"
        limit = timedelta(seconds=timeout)
        if "RANK" in os.environ:
            dist.init_process_group(backend, timeout=limit)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=limit)
    return Process(rank, world_size, local_rank, chosen)


def _gpus_of_slurm(environment: Mapping[str, str]) -> str:
    """The GPUs that Slurm gave this step, in its words; empty: none."""
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE"):
        value = environment.get(name, "") if "SLURM_JOB_ID" in environment else ""
        if value not in ("", "0" if name.endswith("ON_NODE") else ""):
            return f"{name}={value}"
    return ""


def _has_gpu_alone(environment: Mapping[str, str], visible: int) -> bool:
    """Whether Slurm shows each of its tasks (the local ranks) one GPU, which is number 0 in all of them."""
    local_rank = environment.get("LOCAL_RANK", "0")
    return visible == 1 and local_rank != "0" and environment.get("SLURM_LOCALID") == local_rank


def record_environment(run_dir: Path, process: Process) -> None:
    """Append code, libraries, hardware and command to the run directory's `environment.jsonl`."""
    if process.device.type == "cuda":
        gpu = torch.cuda.get_device_properties(process.device)
        environment.record(run_dir, gpu.name, gpu.total_memory, process.world_size)
    else:
        environment.record(run_dir, devices=process.world_size)


def teardown() -> None:
    """Leave the process group, together with all others."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def leave_alone() -> None:
    """Leave a group of one, after an error too; a group of several falls apart with its processes."""
    if dist.is_initialized() and dist.get_world_size() == 1:
        dist.destroy_process_group()


@contextlib.contextmanager
def process_group(device: Literal["auto", "cpu", "cuda"], timeout: float) -> Iterator[Process]:
    """`setup` and, at the end, `teardown`.

    An error that is not raised on every rank leaves a group of several as it is: the others may be in another collective,
    where a barrier of this rank would hold them until the timeout. They end when this process does.
    """
    try:
        yield setup(device, timeout)
        teardown()
    except Exception as error:
        if is_agreed(error):
            teardown()
        raise
    finally:
        leave_alone()


def run_to_end(main: Callable[[], int]) -> NoReturn:
    """Call `main` and end this process with its status, without the interpreter's own way out.

    Worker threads of gloo may hold the last tensors of a collective beyond `destroy_process_group`, which does not join
    them while a mesh or a module refers to its group. A tensor released while the interpreter ends aborts the process
    ("terminate called…", https://github.com/pytorch/pytorch/pull/179291), most often on a busy machine.
    """
    try:
        status = main()
    except (ConfigError, OSError) as error:
        status = 2 if isinstance(error, ConfigError) else 1
        if is_told_here(error):
            print(f"error: {error}", file=sys.stderr)
    except BaseException:
        status = 1
        traceback.print_exc()
    end(status)


def end(status: int) -> NoReturn:
    """End this process as `run_to_end` does."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):  # nobody reads it any more
            stream.flush()
    os._exit(status)


def together(function: Callable[[], T]) -> T:
    """Run `function` on every rank; if it raises a user's error on any, every rank raises the first rank's.

    So a check that fails on one rank alone (a file that only one node cannot read) ends all of them with the same
    message, instead of leaving the others in a collective until it times out.

    Raises:
        ConfigError, OSError: as raised by the function on the lowest rank that failed.
    """
    result, error = None, None
    try:
        result = function()
    except (ConfigError, OSError) as raised:
        error = raised
    raise_together(error)
    return result  # type: ignore[return-value]


def raise_together(error: Exception | None) -> None:
    """Raise the error of the lowest rank that has one, on every rank; nothing where none has."""
    errors: list[Exception | None] = [error] * dist.get_world_size()
    if dist.get_world_size() > 1:
        told = None if error is None else _tellable(error)
        dist.all_gather_object(errors, told)
    first = next((e for e in errors if e is not None), None)
    if first is not None:
        raise agreed(first) from error


def on_rank0(function: Callable[[], T]) -> T:
    """Run `function` on rank 0 alone and give its result (picklable) to all; its errors are raised on all."""
    box: list[T | None] = [None]

    def only_there() -> None:
        if dist.get_rank() == 0:
            box[0] = function()

    together(only_there)
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


AGREED = "raised on every rank"


def agreed(error: E) -> E:
    """Mark an error that every rank raises, so that one of them tells it."""
    error.add_note(AGREED)
    return error


def is_agreed(error: BaseException) -> bool:
    """Whether every rank raises this error."""
    return AGREED in getattr(error, "__notes__", [])


def is_told_here(error: BaseException) -> bool:
    """Whether this rank should print the error: its own, or, of one that all raise, rank 0 alone."""
    rank = dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", 0))
    return rank == 0 or not is_agreed(error)


def _tellable(error: Exception) -> Exception:
    """The error as one of two plain kinds, which surely can be pickled and which `main` knows to print."""
    return ConfigError(str(error)) if isinstance(error, ConfigError) else OSError(str(error))
