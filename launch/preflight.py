"""Everything that can be known to be wrong with a launch before anything starts: data, layout, memory, time, disk.

What the ranks would say within seconds on this machine, a job may wait for days to say.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from configs import folders
from configs.edge import ConfigError
from configs.schema.train import LaunchRun
from launch.plan import table as memory_table
from launch.slurm_request import nodes_of
from launch.worker import train_config
from pretrain.advice import warnings
from pretrain.checkpoint_folders import committed
from pretrain.checks import before, check
from pretrain.init_check import check_init_from
from pretrain.manifest import CheckpointError
from pretrain.options import device_type
from pretrain.sizing import fill
from pretrain.sizing.collectives import Calls, collectives
from pretrain.sizing.footprint import ACCELERATORS, USABLE, Accelerator, Footprint, footprint
from pretrain.sizing.shape import parameters

GB = 1e9
HERE_ALONE = ("tmpfs", "ramfs", "devtmpfs")
"""File systems that no other machine sees, and that are gone after a restart."""


@dataclass
class Preflight:
    """What was found."""

    plan: str = ""
    """What the run consumes and takes, as text; as far as it can be known."""
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """What cannot be, one sentence each with what to change."""


def preflight(config: LaunchRun, run_dir: Path) -> Preflight:
    """Look at a launch before it starts; finds as much as it can at once, and raises nothing."""
    found, parts = Preflight(), list[str]()
    node_memory = _node_memory(config, found)
    _location(config, run_dir, found)
    _start(config, run_dir, found)
    train = train_config(config)
    if on_gpus(config):  # of the job, not of the machine that submits it
        train = replace(train, device="cuda")
    world_size = config.cluster.nodes * config.cluster.nproc
    taken = None
    try:
        checked = check(train, world_size)
        parts.append(checked.table(config.train.steps))
        device = _device(config, node_memory)
        length, vocab_size = checked.packed.sequence_length, checked.packed.vocab_size
        taken = footprint(
            config.model,
            vocab_size,
            config.parallel,
            config.train,
            checked.layout,
            length,
            device,
            config.optim,
        )
        facts = replace(before(train, run_dir, checked), native_bf16=_native_bf16(config))
        found.warnings += warnings(train, facts)
    except ConfigError as error:
        found.errors.append(str(error))
    else:
        calls = collectives(
            config.model,
            config.parallel,
            config.train,
            checked.layout,
            length,
            taken.stage,
            config.optim,
        )
        parts += _memory(config, taken, device, calls, found)
        parts.append(_time(config, taken, config.train.steps - facts.steps_done))
        if folders.refusal(run_dir) is None:
            parts.append(_disk(config, run_dir, parameters(config.model, vocab_size), found))
    found.plan = "\n\n".join(parts)
    return found


def on_gpus(config: LaunchRun) -> bool:
    """Whether the ranks compute on GPUs, as far as the configuration says."""
    from configs.slurm import gpus_per_node

    if config.cluster.kind == "slurm":
        return gpus_per_node(config.cluster, config.device) > 0
    return config.device == "cuda"


def _native_bf16(config: LaunchRun) -> bool:
    """Whether the ranks multiply in bf16 natively; True where it cannot be known here, or does not matter."""
    here = config.cluster.kind == "local" and config.train.dtype in ("bf16", "bf16_pure")
    if not here or device_type(config.device) != "cpu":
        return True
    from pretrain.metrics.speed import multiplies_bf16  # multiplies, with torch

    return multiplies_bf16("cpu")


def _node_memory(config: LaunchRun, found: Preflight) -> float:
    """Bytes of a node's memory that the processes share; 0: not known."""
    if config.cluster.kind == "local":
        if config.cluster.nproc > 4 * (os.cpu_count() or 1):
            found.warnings.append(
                f"cluster.nproc={config.cluster.nproc} processes share {os.cpu_count()} cores of this machine"
            )
        return float(psutil.virtual_memory().total)
    from launch.slurm import wanted

    try:
        asks = wanted(config)
    except ConfigError as error:
        found.errors.append(str(error))
        return 0.0
    if asks.memory not in (None, "0"):
        return _bytes(asks.memory or "")
    return asks.node.memory_mb * 2.0**20 if asks.node and asks.node.memory_mb > 1024 else 0.0


def _bytes(text: str) -> float:
    """Bytes of a memory as sbatch takes it: megabytes without a unit; 0 where it is not understood."""
    known = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text.strip().upper())
    return float(known[1]) * 2.0 ** {"K": 10, "": 20, "M": 20, "G": 30, "T": 40}[known[2]] if known else 0.0


def _device(config: LaunchRun, node_memory: float) -> Accelerator:
    """The device that the estimate reckons with; a CPU's memory is the process's share of its node."""
    name: str = config.accelerator
    if name == "auto" and config.cluster.kind == "slurm":
        name = "h100" if on_gpus(config) else "cpu"
    elif name == "auto":
        name = "cpu" if config.device == "cpu" else fill.this_accelerator()
    device = ACCELERATORS[name]
    if name == "cpu" and node_memory:
        device = replace(device, memory=node_memory / config.cluster.nproc)
    return device


def _memory(
    config: LaunchRun, taken: Footprint, device: Accelerator, calls: Calls, found: Preflight
) -> list[str]:
    said = f"{taken.memory / GB:.3g} GB a rank, of {device.memory / GB:.3g} GB (estimated)"
    advice = (
        "recompute (train.activation_checkpointing=full), lower train.micro_batch_size, raise parallel.tp or parallel.pp, "
        "or use more ranks"
    )
    if config.accelerator == "auto" and on_gpus(config):
        advice += "; for GPUs with more memory than an H100's, set accelerator"
    if taken.memory > device.memory:
        found.errors.append(f"it does not fit: {said}; {advice}")
    elif taken.memory > USABLE * device.memory:
        found.warnings.append(f"memory is tight: {said}; {advice}")
    return [memory_table(taken, device.memory, calls)]


def _time(config: LaunchRun, taken: Footprint, steps: int) -> str:
    seconds = taken.seconds * max(0, steps)
    text = f"Time: {taken.seconds:.3g} s a step, {seconds / 3600:.3g} hours for {max(0, steps):,} steps (estimated)"
    if config.cluster.kind != "slurm" or (limit := _limit(config.cluster.time)) is None:
        return text
    useful = max(1.0, limit - config.cluster.signal_before)
    jobs = -(-seconds // useful)
    after = f", so about {jobs:,.0f} times, requeued each time" if jobs > 1 else ""
    return f"{text}; the job may run for {limit / 3600:.3g} hours (cluster.time={config.cluster.time}){after}"


def _limit(text: str) -> float | None:
    """Seconds of a time limit as sbatch takes it (`minutes`, `h:m:s`, `d-h:m:s`, …); None: no limit, or not understood."""
    known = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if known is None:
        return None
    days, first, second, third = (None if part is None else int(part) for part in known.groups())
    if days is not None:
        return 86400.0 * days + 3600 * (first or 0) + 60 * (second or 0) + (third or 0)
    if second is None:
        return 60.0 * (first or 0)
    if third is None:
        return 60.0 * (first or 0) + second
    return 3600.0 * (first or 0) + 60 * second + third


def _location(config: LaunchRun, run_dir: Path, found: Preflight) -> None:
    """Whether the run directory can be made and written, and whether other nodes see it."""
    if reason := folders.refusal(run_dir):
        found.errors.append(
            f"`run.dir={config.run.dir}` cannot be made or written: {reason}; choose another run.dir"
        )
    if config.cluster.kind != "slurm":
        return
    for key, path in (("run.dir", run_dir), ("data.path", Path(config.data.path).absolute())):
        if (kind := folders.file_system(folders.existing(path))) in HERE_ALONE:
            found.warnings.append(
                f"`{key}` is {path}, on a {kind} of this machine: the nodes of the job will not see it; use a shared "
                "file system"
            )


def _start(config: LaunchRun, run_dir: Path, found: Preflight) -> None:
    """Whether the weights that a new run starts from are there, and are those of its model."""
    if config.model.init_from is None or committed(run_dir):
        return
    try:
        check_init_from(config.model, Path(config.model.init_from))
    except (ConfigError, CheckpointError) as error:
        found.errors.append(str(error))


def _disk(config: LaunchRun, run_dir: Path, total: int, found: Preflight) -> str:
    """What the checkpoints take, against what is free."""
    size = {"fp64": 8, "bf16_pure": 2}.get(config.train.dtype, 4)
    moments = 2 if config.optim.name == "adamw" else 1
    each = (1 + moments) * size * total
    every, keep, steps = config.checkpoint.every, config.checkpoint.keep, config.train.steps
    written = -(-steps // every)
    # One more is written before the oldest goes.
    kept = written if keep == 0 else min(written, keep + 1)
    there = len(committed(run_dir))
    needed, free = each * max(1, kept - there), shutil.disk_usage(folders.existing(run_dir)).free
    said = (
        f"{kept} checkpoints of {_size(each)} (checkpoint.every={every}, checkpoint.keep={keep})"
        + (f", {there} of them there" if there else "")
        + f"; free in {folders.existing(run_dir)}: {_size(free)}"
    )
    if needed > free:
        short = (
            f"the disk is too small: {said}; free {_size(needed - free)}, lower checkpoint.keep, or choose another "
            "run.dir"
        )
        if config.cluster.kind == "slurm" and nodes_of(config.cluster) is None:
            found.warnings.append(
                f"this machine has no Slurm; if the cluster's disk is as full as this one's, {short}"
            )
        else:
            found.errors.append(short)
    return f"Disk: {said}"


def _size(count: float) -> str:
    for unit, least in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= least:
            return f"{count / least:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
