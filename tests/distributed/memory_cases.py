"""A few steps with options that save memory, in any layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from parity_cases import GLOBAL, MODEL, TRAIN, VOCAB, global_batch, rows
from torch import Tensor
from torch.distributed.tensor import DTensor

from configs.schema.train import OptimConfig, ParallelConfig
from pretrain.optim.optimizer import Optimizer
from pretrain.parallel.engine import Engine
from pretrain.parallel.layout import Layout
from pretrain.parallel.mesh import build_mesh

# Sizes that float8 products take, on two tensor-parallel ranks too.
WIDE = replace(MODEL, dim=64, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=96, max_sequence_length=32)


@dataclass(frozen=True)
class Setting:
    """One way to train; options of `configs.schema.train`."""

    parallel: tuple[tuple[str, Any], ...] = ()
    train: tuple[tuple[str, Any], ...] = ()
    optim: tuple[tuple[str, Any], ...] = ()
    steps: int = 3
    one_batch: bool = False
    """Every step sees the first batch again."""


@dataclass(frozen=True)
class Trained:
    """What it gave, whole."""

    losses: list[float]
    norms: list[float]
    tensors: dict[str, Tensor]
    """Weights and states."""
    devices_and_grads: tuple[set[str], int]
    """Devices of the parameters, and gradients that are left after the backward pass."""


def train(setting: Setting) -> Trained:
    """Train in this process group; whole results on rank 0."""
    parallel = ParallelConfig(**({"dp_shard": 1} | dict(setting.parallel)))
    options = replace(TRAIN, **dict(setting.train))
    optim = OptimConfig(**({"lr": 0.01, "clip": 0.0} | dict(setting.optim)))
    layout = Layout.check(parallel, options, WIDE, VOCAB, dist.get_world_size())
    engine = Engine(WIDE, VOCAB, parallel, options, build_mesh(layout, "cpu"), torch.device("cpu"), seed=7)
    optimizer = Optimizer(engine.named_parameters(), optim, options.dtype, 7)
    if optim.in_backward:
        engine.use_gradients(optimizer.update)
    losses, norms, left = [], [], 0
    for step in range(1, setting.steps + 1):
        whole = global_batch(1 if setting.one_batch else step)
        share = GLOBAL // engine.dp_size
        mine = rows(whole, slice(engine.dp_rank * share, (engine.dp_rank + 1) * share))
        size = options.micro_batch_size
        optimizer.begin(0.5)
        loss = engine.forward_backward(
            [rows(mine, slice(i, i + size)) for i in range(0, share, size)], whole.n_valid
        )
        left = sum(p.grad is not None for _, p in engine.named_parameters())
        norms.append(float(engine.clip_grad_norm(optim.clip)))
        optimizer.step(0.5)
        optimizer.zero_grad()
        losses.append(float(loss) / float(whole.n_valid))
    devices = {str(p.device) for _, p in engine.named_parameters()}
    tensors = merged({**engine.state_dict(), **optimizer.state_dict()})
    return Trained(losses, norms, tensors, (devices, left))


def merged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors of all ranks; ranks that have the same one must agree to the last bit."""
    mine = {name: t.full_tensor() if isinstance(t, DTensor) else t.clone() for name, t in tensors.items()}
    every: list[dict[str, Tensor]] = [{}] * dist.get_world_size()
    dist.all_gather_object(every, mine)
    result: dict[str, Tensor] = {}
    for one in every:
        for name, tensor in one.items():
            assert torch.equal(result.setdefault(name, tensor), tensor), f"ranks differ in {name}"
    return result


def trained(settings: list[Setting]) -> list[Trained]:
    """All of them, one after the other."""
    return [train(setting) for setting in settings]
