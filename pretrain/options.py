"""Options that exclude each other or that a device lacks, and what `auto` stands for. Imports no torch, unless a GPU or a
compiler must be asked for."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from configs.edge import ConfigError
from configs.schema.train import (
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    ProfileConfig,
    TrainConfig,
    TrainRun,
)
from pretrain.parallel.pipeline_schedules import SPLIT

Backend = Literal["varlen", "flex", "blocked"]
"""What computes attention."""
GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Device files of NVIDIA's driver, of GPUs under WSL, and of AMD's driver. Without one there is no GPU, and torch, which
takes seconds to import, is not asked."""
COMPUTE_DTYPES = {"bf16": "bfloat16", "bf16_pure": "bfloat16", "fp32": "float32", "fp64": "float64"}
"""Of hidden states and products, by torch's names."""
_FLOAT8_UNIT = 16  # Sizes that float8 products take are multiples of it.
_WIDEST, _WIDTH_UNIT = 256, 8  # Widths of heads that flash attention's kernels take.
_FLEX_NARROWEST = 16  # Width of heads below which FlexAttention has no kernel.


def device_type(device: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """The kind of device that a configured one means on this machine."""
    if device != "auto":
        return device
    if "torch" not in sys.modules and not any(Path(path).exists() for path in GPU_DEVICES):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_attention(
    wanted: Literal["auto", "varlen", "flex", "blocked"], device_type: str, dtype: str, head_dim: int
) -> Backend:
    """The backend of `train.attention` for heads of this width in this precision on this device.

    Args:
        dtype: by torch's name, such as `bfloat16`.

    Raises:
        ConfigError: it does not work there.
    """
    half = device_type == "cuda" and dtype in ("bfloat16", "float16")
    if wanted == "auto":
        if half and takes_width(head_dim):
            return "varlen"
        # Blocks are cut on the host, which would wait for the device in each layer.
        flex = device_type == "cuda" and dtype != "float64" and _FLEX_NARROWEST <= head_dim <= _WIDEST
        return "flex" if flex else "blocked"
    if wanted == "varlen" and not half:
        raise ConfigError(
            "`train.attention=varlen` is for CUDA in half precision; set train.attention=auto, or device=cuda and "
            "train.dtype=bf16"
        )
    if wanted == "varlen" and not takes_width(head_dim):
        raise ConfigError(
            "`train.attention=varlen` takes heads that are a multiple of 8 wide and at most 256, but model.dim / "
            f"model.n_heads is {head_dim}; set train.attention=auto, or change model.n_heads"
        )
    if wanted == "flex" and (device_type != "cuda" or dtype == "float64"):
        raise ConfigError(
            "`train.attention=flex` has no backward pass on the CPU and no kernel for fp64; set train.attention=auto, or "
            "device=cuda and train.dtype=bf16 or fp32"
        )
    return wanted


def takes_width(head_dim: int) -> bool:
    """Whether the kernels take heads of this width."""
    return head_dim % _WIDTH_UNIT == 0 and head_dim <= _WIDEST


def check_recompute(train: TrainConfig) -> None:
    """Raise ConfigError where the options of recomputation contradict each other."""
    if not 0 <= train.activation_budget <= 1:
        raise ConfigError(
            f"`train.activation_budget` is a share between 0 and 1, but it is {train.activation_budget}"
        )
    if train.activation_offload and train.activation_checkpointing != "full":
        raise ConfigError(
            "`train.activation_offload` moves the inputs of blocks to the host, which are all that is kept only with "
            f"train.activation_checkpointing=full, but it is {train.activation_checkpointing}"
        )


def check_optim(config: OptimConfig) -> None:
    """Raise ConfigError where a value makes no sense."""
    for name in ("lr", "muon_lr", "eps"):
        if getattr(config, name) <= 0:
            raise ConfigError(f"`optim.{name}` must be above 0, but it is {getattr(config, name)}")
    for name in ("weight_decay", "clip"):
        if getattr(config, name) < 0:
            raise ConfigError(f"`optim.{name}` must not be negative, but it is {getattr(config, name)}")
    if not all(0 <= beta < 1 for beta in (*config.betas, config.muon_momentum)):
        raise ConfigError("`optim.betas` and `optim.muon_momentum` must lie in [0, 1)")


def check_in_backward(run: TrainRun, micro_batches: int) -> None:
    """Raise ConfigError where gradients that are used and dropped at once cannot give the step that is asked for."""
    if not run.optim.in_backward:
        return
    why = "`optim.in_backward` uses each gradient as soon as it is there"
    if run.optim.clip:
        raise ConfigError(
            f"{why}, but clipping needs the norm of all of them first (optim.clip={run.optim.clip}); set optim.clip=0 "
            "or optim.in_backward=false"
        )
    if run.resilience.skip_nonfinite:
        raise ConfigError(
            f"{why}, so a step cannot be skipped when its loss turns out not to be finite; set "
            "resilience.skip_nonfinite=false or optim.in_backward=false"
        )
    if run.optim.name != "adamw":
        raise ConfigError(
            f"{why}, while optim.name={run.optim.name} shares the work on many matrices among ranks; set "
            "optim=adamw or optim.in_backward=false"
        )
    if run.parallel.pp > 1:
        raise ConfigError(
            f"{why}, but a pipeline (parallel.pp={run.parallel.pp}) adds up those of many micro-batches; set "
            "parallel.pp=1 or optim.in_backward=false"
        )
    if micro_batches > 1:
        raise ConfigError(
            f"{why}, but a step has {micro_batches} micro-batches on each rank, whose gradients must be added first; "
            "raise train.micro_batch_size until there is one, or set optim.in_backward=false"
        )


def check_precision(
    train: TrainConfig, parallel: ParallelConfig, optim: OptimConfig, model: ModelConfig
) -> None:
    """Raise ConfigError where a precision cannot be had with the other options."""
    if train.dtype == "bf16_pure" and optim.name != "adamw":
        raise ConfigError(
            f"train.dtype=bf16_pure rounds AdamW's updates stochastically, but optim.name is {optim.name}; set "
            "optim=adamw or train.dtype=bf16"
        )
    if not train.float8:
        return
    if COMPUTE_DTYPES[train.dtype] != "bfloat16":
        raise ConfigError(
            f"`train.float8` computes linear layers from bf16 in float8, but train.dtype is {train.dtype}; set "
            "train.dtype=bf16 or train.float8=false"
        )
    if find_spec("torchao") is None:
        raise ConfigError(
            "`train.float8` needs torchao, which is not installed; pip install 'arriero[float8]', or set "
            "train.float8=false"
        )
    if parallel.pp > 1 and parallel.pp_schedule in ("zbv", "dualpipev"):
        raise ConfigError(
            f"parallel.pp_schedule={parallel.pp_schedule} computes gradients of weights by itself, not in float8; set "
            "parallel.pp_schedule=interleaved or train.float8=false"
        )
    for name, size in (("dim", model.dim), ("ffn_dim", model.ffn_dim)):
        if size % (_FLOAT8_UNIT * parallel.tp):
            raise ConfigError(
                f"float8 products need sizes that are multiples of {_FLOAT8_UNIT} on each rank, but `model.{name}` is "
                f"{size} over parallel.tp={parallel.tp}; change it, or set train.float8=false"
            )
    widths = model.dim // model.n_heads * model.n_kv_heads
    if widths % (_FLOAT8_UNIT * parallel.tp):
        raise ConfigError(
            f"float8 products need sizes that are multiples of {_FLOAT8_UNIT} on each rank, but keys are {widths} wide over "
            f"parallel.tp={parallel.tp}; change model.n_kv_heads, or set train.float8=false"
        )


def compiles(train: TrainConfig, parallel: ParallelConfig, device_type: str) -> bool:
    """Whether blocks are compiled: as configured, or where that is left open on CUDA, unless the schedule takes backward
    passes apart. Not on the CPU, where it takes a compiler and, for short runs, longer than it saves."""
    if train.compile is not None:
        return train.compile
    return device_type == "cuda" and not (parallel.pp > 1 and parallel.pp_schedule in SPLIT)


def check_compiled(train: TrainConfig, parallel: ParallelConfig, device_type: str) -> None:
    """Raise ConfigError where blocks should be compiled and cannot be."""
    compiled = compiles(train, parallel, device_type)
    if compiled and device_type == "cpu" and not _has_cpp_compiler():
        raise ConfigError(
            "`train.compile` needs a C++ compiler on the CPU, and there is none here; install g++, or set "
            "train.compile=false"
        )
    if not parallel.async_tp:
        return
    if device_type != "cuda":
        raise ConfigError("`parallel.async_tp` overlaps copies between GPUs; set it to false on the CPU")
    if parallel.tp == 1:
        raise ConfigError("`parallel.async_tp` needs parallel.tp above 1; set one of the two")
    if not compiled:
        raise ConfigError("`parallel.async_tp` is done by the compiler; set train.compile=true")
    if train.micro_batch_size == 1:
        raise ConfigError(
            "`parallel.async_tp` overlaps nothing with one row a micro-batch, where torch gathers the sequence in a form "
            "that its compiler does not recognize; set train.micro_batch_size to 2 or more, or parallel.async_tp=false"
        )


def _has_cpp_compiler() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


def check_profile(config: ProfileConfig, world_size: int) -> None:
    """Raise ConfigError for ranks that do not exist."""
    if wrong := [rank for rank in config.ranks if not 0 <= rank < world_size]:
        raise ConfigError(
            f"`profile.ranks` holds {wrong[0]}, but the {world_size} ranks are 0 to {world_size - 1}"
        )
