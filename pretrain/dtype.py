"""What `dtype=auto` means: bf16 where the device of every rank multiplies in it natively, otherwise fp32."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch
import torch.distributed as dist

from configs.schema.train import TrainRun
from pretrain.checkpoint import CheckpointError, newest, open_checkpoint
from pretrain.distributed import on_rank0
from pretrain.metrics.speed import NATIVE, bf16_speedup

Dtype = Literal["bf16", "bf16_pure", "fp32", "fp64"]
HALF = ("bf16", "bf16_pure")


@dataclass(frozen=True)
class Precision:
    """The dtype to compute in, and what to tell the user."""

    dtype: Dtype
    line: str | None = None
    """What `auto` became and why; None: the dtype was set."""
    warning: str | None = None
    """What was set is slow here, with the factor measured."""

    def tell(self, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
        """Tell the user, in a line each."""
        if self.line is not None:
            say(self.line)
        if self.warning is not None:
            warn(self.warning)


def settle(config: TrainRun, device: torch.device) -> tuple[TrainRun, Precision]:
    """A run's configuration with `train.dtype` decided, the same on every rank; collective.

    A run that has a checkpoint keeps the dtype of its newest one, also on a device of another kind, unless `train.dtype`
    is set: a run that moves to another machine goes on computing the same.
    """
    asked = config.train.dtype
    before = on_rank0(lambda: _dtype_of_checkpoint(Path(config.run.dir))) if asked == "auto" else None
    precision = decide(before or asked, device, "train.dtype", config.train.float8)
    if before is not None:
        line = f"Precision: {before} (train.dtype=auto: that of the run's newest checkpoint)"
        precision = replace(precision, line=line)
    return replace(config, train=replace(config.train, dtype=precision.dtype)), precision


def decide(asked: str, device: torch.device, key: str = "dtype", float8: bool = False) -> Precision:
    """The dtype to compute in, the same on every rank; collective where there is a process group.

    Args:
        asked: a dtype, or `auto`.
        key: configuration key that messages name.
        float8: linear layers multiply in float8, made from bf16.
    """
    if asked not in ("auto", *HALF):
        return Precision(cast(Dtype, asked))
    # The slowest rank decides, because all compute in one dtype.
    speedup = _least(bf16_speedup(device))
    native, why = speedup >= NATIVE, _comparison(speedup, device)
    dtype = cast(Dtype, asked if asked != "auto" else "bf16" if native or float8 else "fp32")
    slow = dtype in HALF and not native
    return Precision(
        dtype,
        f"Precision: {dtype} ({key}=auto: {why})" if asked == "auto" else None,
        f"{key}={dtype} is slow here: {why}; set {key}=fp32" if slow else None,
    )


def _least(value: float) -> float:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    told = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(told, dist.ReduceOp.MIN)
    return told.item()


def _comparison(speedup: float, device: torch.device) -> str:
    several = dist.is_initialized() and dist.get_world_size() > 1
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "this processor"
    where = "the slowest rank" if several and not math.isinf(speedup) else where
    if math.isinf(speedup):
        return f"{where} multiplies bf16 natively"
    if speedup >= 1:
        return f"{where} multiplies bf16 {speedup:.1f} times as fast as fp32"
    return f"{where} multiplies bf16 {1 / speedup:.3g} times slower than fp32"


def _dtype_of_checkpoint(run_dir: Path) -> str | None:
    """`train.dtype` of the newest checkpoint that can be read; None: there is none, or it holds weights alone."""
    for path in newest(run_dir):
        try:
            state = open_checkpoint(path).state
        except CheckpointError:
            continue  # restoring passes it over too, and says why
        return cast("str | None", state.get("config", {}).get("train", {}).get("dtype"))
    return None
