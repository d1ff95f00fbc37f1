"""Blocks as compiled code: where that is done, what it needs, and tensor parallelism that overlaps with products."""

from __future__ import annotations

import warnings

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.torch_version import TorchVersion

from pretrain.model.llama import Llama

VARIANTS = 64
"""Shapes that blocks may be compiled for in one run: sequence lengths of phases, with and without gradients."""


def compile_blocks(part: Llama, mesh: DeviceMesh, async_tp: bool) -> None:
    """Compile each block of a part as one graph, and the passes over the logits; blocks of equal shapes share the code.

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
    if part.output is not None:
        part.output.compile()


def _share_memory(group: dist.ProcessGroup) -> None:
    """Let the compiler use symmetric memory in a group."""
    from torch.distributed._symmetric_memory import enable_symm_mem_for_group

    if TorchVersion(torch.__version__) < "2.15":
        # Deprecated since 2.11, and yet asked for by the compiler up to 2.14.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            enable_symm_mem_for_group(group.group_name)
