"""A part of the model, spread over its mesh: one ordered recipe of tensor parallelism, compilation and FSDP."""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from configs.schema.train import ParallelConfig, TrainConfig
from pretrain.model.llama import Head, Llama
from pretrain.options import compiles
from pretrain.parallel.compiled import compile_blocks
from pretrain.parallel.precision import COMPUTE_DTYPES, REDUCE_DTYPES, use_float8


def shard(part: Llama, mesh: DeviceMesh, train: TrainConfig, parallel: ParallelConfig) -> None:
    """Spread a part, built on the meta device, over the mesh, in place.

    The order matters: FSDP shards what tensor parallelism left on this rank, and wraps what was compiled. One rank alone
    is left unwrapped, unless it needs what FSDP does besides: its copies would be copies of what it has. It computes in the
    precision of the hidden state, weights cast at each use.

    Args:
        mesh: dimensions pp, dp_replicate, dp_shard, cp, tp.
        train: its precision; with float8, layers take the weights as FSDP casts them.
    """
    if train.float8:
        use_float8(part, mesh["tp"].size(), train.float8_least)
    if mesh["tp"].size() > 1:
        tensor_parallel(part, mesh["tp"])
    if compiles(train, parallel, mesh.device_type):
        compile_blocks(part, mesh, parallel.async_tp)
    part.compute_dtype = COMPUTE_DTYPES[train.dtype]
    if mesh.size() > 1 or train.float8 or parallel.cpu_offload:
        fully_sharded(part, mesh, train.dtype, parallel)


def tensor_parallel(part: Llama, mesh: DeviceMesh) -> None:
    """Tensor parallelism (Shoeybi et al. 2019, section 3) with sequence parallelism (Korthikanti et al. 2022, 4.2).

    Between modules the hidden state is a plain tensor that holds this rank's share of the sequence; the norms and the
    residual stream work on it. Attention and feed-forward gather the sequence and split heads and columns.
    """
    for block in part.layers.values():
        parallelize_module(
            block,
            mesh,
            {
                "attention_norm": SequenceParallel(),
                "attention": PrepareModuleInput(
                    input_layouts=(Shard(1), None, None), desired_input_layouts=(Replicate(), None, None)
                ),
                "attention.wq": ColwiseParallel(),
                "attention.wk": ColwiseParallel(),
                "attention.wv": ColwiseParallel(),
                "attention.wo": RowwiseParallel(output_layouts=Shard(1)),
                "ffn_norm": SequenceParallel(),
                "feed_forward": PrepareModuleInput(
                    input_layouts=(Shard(1),), desired_input_layouts=(Replicate(),)
                ),
                "feed_forward.w1": ColwiseParallel(),
                "feed_forward.w3": ColwiseParallel(),
                "feed_forward.w2": RowwiseParallel(output_layouts=Shard(1)),
            },
        )
    outer: dict[str, ParallelStyle] = {}
    if part.tok_embeddings is not None:
        outer["tok_embeddings"] = RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1))
    if part.norm is not None:
        outer["norm"] = SequenceParallel(use_local_output=True)
    parallelize_module(part, mesh, outer)
    if part.output is not None and part.output.weight is not None:
        distribute_module(part.output, mesh, _split_vocabulary)


def _split_vocabulary(name: str, module: nn.Module, mesh: DeviceMesh) -> None:
    assert isinstance(module, Head) and module.weight is not None
    module.weight = nn.Parameter(distribute_tensor(module.weight, mesh, [Shard(0)]))


def fully_sharded(part: Llama, mesh: DeviceMesh, dtype: str, parallel: ParallelConfig) -> None:
    """FSDP2 (Zhao et al. 2023) over dp_shard × cp, replicated over dp_replicate; one group a block.

    Gradients are summed, not averaged: the loss is divided by the global number of tokens before. With `cpu_offload` the
    shards of parameters and gradients, and so the optimizer's states, are in the host's memory (Ren et al. 2021,
    "ZeRO-Offload").
    """
    reshard_after_forward = parallel.reshard_after_forward
    fsdp_mesh = mesh["dp_shard"]
    if mesh["cp"].size() > 1:
        # Context-parallel ranks see other tokens with the same weights, as data-parallel ones do.
        fsdp_mesh = mesh["dp_shard", "cp"]._flatten("dp_shard_cp")
    if mesh["dp_replicate"].size() > 1:
        fsdp_mesh = DeviceMesh._concatenate([mesh["dp_replicate"], fsdp_mesh])
    # Inputs keep their precision: rotary angles are exact, and the hidden state has the compute precision already.
    policy = MixedPrecisionPolicy(
        param_dtype=COMPUTE_DTYPES[dtype], reduce_dtype=REDUCE_DTYPES[dtype], cast_forward_inputs=False
    )
    offload = OffloadPolicy()
    if parallel.cpu_offload:
        offload = CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda")
    for block in part.layers.values():
        fully_shard(
            block,
            mesh=fsdp_mesh,
            mp_policy=policy,
            offload_policy=offload,
            reshard_after_forward=reshard_after_forward,
        )
    if part.output is not None and part.output.weight is not None:
        # Used last in the forward pass and first in the backward pass: nothing is won by freeing it between.
        fully_shard(
            part.output, mesh=fsdp_mesh, mp_policy=policy, offload_policy=offload, reshard_after_forward=False
        )
        if part.tok_embeddings is not None:
            fully_shard(
                part.tok_embeddings,
                mesh=fsdp_mesh,
                mp_policy=policy,
                offload_policy=offload,
                reshard_after_forward=reshard_after_forward,
            )
    fully_shard(part, mesh=fsdp_mesh, mp_policy=policy, offload_policy=offload, reshard_after_forward=False)
    for module in part.modules():
        if isinstance(module, FSDPModule):
            # gloo has no reduction with a factor, only plain sums.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
