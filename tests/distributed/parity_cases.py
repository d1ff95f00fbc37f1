"""A tiny training step in any layout: what one process and many are compared by."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from configs.schema.train import ModelConfig, ParallelConfig, TrainConfig
from pretrain.data.batch import Batch
from pretrain.parallel.engine import Engine, weights_hash
from pretrain.parallel.layout import Layout
from pretrain.parallel.mesh import build_mesh

VOCAB, LENGTH, GLOBAL = 96, 32, 8
MODEL = ModelConfig("tiny", dim=32, n_layers=4, n_heads=8, n_kv_heads=4, ffn_dim=48, init_std=0.1)
TRAIN = TrainConfig(steps=1, global_batch_size=GLOBAL, micro_batch_size=1, dtype="fp32", loss_chunk_tokens=24)


@dataclass(frozen=True)
class Case:
    """One layout of one model."""

    parallel: ParallelConfig
    tied: bool = False
    dtype: str = "fp32"
    train: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        p = self.parallel
        sizes = [f"{k}{getattr(p, k)}" for k in ("pp", "dp_replicate", "cp", "tp") if getattr(p, k) > 1]
        options = [f"{k}={v}" for k, v in self.train] + [p.pp_schedule] * (p.pp > 1)
        options += ["whole"] * (not p.reshard_after_forward)
        return "-".join(["fsdp", *sizes, "tied" * self.tied or "untied", self.dtype, *options])


@dataclass(frozen=True)
class Outcome:
    """What a step gave: everything whole, by the unsplit model's names."""

    loss: float
    token_losses: Tensor
    grads: dict[str, Tensor]
    norm: float
    weights: str


def global_batch() -> Batch:
    """Packed documents with very unequal numbers of valid labels: rows of one long document, of many short ones, of
    almost nothing but padding."""
    g = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, VOCAB, (GLOBAL, LENGTH), generator=g)
    bounds = [
        [0, 32],
        [0, 5, 32],
        [0, 1, 2, 3, 17, 32],
        [0, 31, 32],
        [0, 32],
        [0, 16, 32],
        [0, 3, 32],
        [0, 20, 32],
    ]
    width = max(len(b) for b in bounds)
    labels, positions = torch.full_like(tokens, -100), torch.zeros_like(tokens)
    for row, b in enumerate(bounds):
        for start, end in itertools.pairwise(b):
            labels[row, start : end - 1] = tokens[row, start + 1 : end]
            positions[row, start:end] = torch.arange(end - start)
    labels[4, 2:] = -100
    labels[5] = -100
    cu = torch.tensor([b + [LENGTH] * (width - len(b)) for b in bounds], dtype=torch.int32)
    return Batch(tokens, labels, positions, cu)


def rows(batch: Batch, part: slice) -> Batch:
    """Some rows of a batch."""
    return Batch(batch.tokens[part], batch.labels[part], batch.positions[part], batch.cu_seqlens[part])


def build(case: Case) -> tuple[Engine, Layout]:
    """The engine of a case in this process group."""
    model = replace(MODEL, tied=case.tied)
    train = replace(TRAIN, dtype=case.dtype, **dict(case.train))  # type: ignore[arg-type]
    layout = Layout.check(case.parallel, train, model, VOCAB, dist.get_world_size())
    mesh = build_mesh(layout, "cpu")
    return Engine(model, VOCAB, case.parallel, train, mesh, torch.device("cpu"), seed=7), layout


def outcome(case: Case) -> Outcome:
    """One step of a case, and an evaluation; whole results on rank 0."""
    engine, layout = build(case)
    whole = global_batch()
    weights = weights_hash(engine)
    size = dict(case.train).get("micro_batch_size", TRAIN.micro_batch_size)
    share = GLOBAL // engine.dp_size
    mine = rows(whole, slice(engine.dp_rank * share, (engine.dp_rank + 1) * share))
    micro = [rows(mine, slice(i, i + size)) for i in range(0, share, size)]
    assert len(micro) == layout.micro_batches
    n_valid = whole.n_valid
    losses = engine.token_losses(whole)
    loss = engine.forward_backward(micro, n_valid)
    grads: dict[str, Tensor] = {}
    for name, p in engine.named_parameters():
        assert p.grad is not None, name
        grads[name] = p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad.clone()
    every: list[dict[str, Tensor]] = [{}] * dist.get_world_size()
    dist.all_gather_object(every, grads)
    merged: dict[str, Tensor] = {}
    for one in every:
        for name, grad in one.items():
            assert torch.equal(merged.setdefault(name, grad), grad), f"ranks differ in the gradient of {name}"
    norm = float(engine.clip_grad_norm(0.5))
    return Outcome(float(loss) / float(n_valid), losses, merged, norm, weights)


def outcomes(cases: list[Case]) -> list[Outcome]:
    """All cases, one after the other, in one process group."""
    return [outcome(case) for case in cases]
