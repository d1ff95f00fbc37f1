"""Blocks as compiled code: where that is done, what it needs, and tensor parallelism that overlaps with products."""

from __future__ import annotations

import warnings

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.torch_version import TorchVersion

from configs.edge import ConfigError
from configs.schema.train import ParallelConfig, TrainConfig
from pretrain.model.llama import Llama
from pretrain.parallel.pipeline_schedules import SPLIT

VARIANTS = 64
"""Shapes that blocks may be compiled for in one run: sequence lengths of phases, with and without gradients."""


def compiles(train: TrainConfig, parallel: ParallelConfig, device_type: str) -> bool:
    """Whether blocks are compiled: as configured, or where that is left open on CUDA, unless the schedule takes backward
    passes apart. Not on the CPU, where it takes a compiler and, for short runs, longer than it saves."""
    if train.compile is not None:
        return train.compile
    return device_type == "cuda" and not (parallel.pp > 1 and parallel.pp_schedule in SPLIT)


def check(train: TrainConfig, parallel: ParallelConfig, device_type: str) -> None:
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


def compile_blocks(part: Llama, mesh: DeviceMesh, async_tp: bool) -> None:
    """Compile each block of a part as one graph; blocks of equal shapes share the code.

    Args:
        mesh: dimensions pp, dp_replicate, dp_shard, cp, tp.
        async_tp: gather and scatter the sequence piece by piece while products run (Wang et al. 2023, "Overlap
            communication with dependent computation via decomposition").
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    if async_tp:
        torch._inductor.config._micro_pipeline_tp = True
        _share_memory(mesh["tp"].get_group())
    for block in part.layers.values():
        block.compile()


def _share_memory(group: dist.ProcessGroup) -> None:
    """Let the compiler use symmetric memory in a group."""
    from torch.distributed._symmetric_memory import enable_symm_mem_for_group

    if TorchVersion(torch.__version__) < "2.15":
        # Deprecated since 2.11, and yet asked for by the compiler up to 2.14.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            enable_symm_mem_for_group(group.group_name)


def _has_cpp_compiler() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True
