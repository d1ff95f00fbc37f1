"""What pipelines do over several steps: batches that change, in any precision."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.distributed as dist
from parity_cases import GLOBAL, LENGTH, MODEL, TRAIN, VOCAB, global_batch, rows
from torch import Tensor
from torch.distributed.tensor import DTensor

from configs.schema.train import ParallelConfig
from pretrain.data.batch import Batch
from pretrain.parallel.engine import Engine
from pretrain.parallel.layout import Layout
from pretrain.parallel.mesh import build_mesh

SPLITS = ((GLOBAL, LENGTH), (3, LENGTH), (GLOBAL, LENGTH // 2), (1, LENGTH), (5, LENGTH))
"""Sequences of each step, in micro-batches of one, and their tokens."""


def shortened(sequences: int, length: int) -> Batch:
    """The beginning of a batch."""
    whole = rows(global_batch(1), slice(0, sequences))
    cu = whole.cu_seqlens.clamp(max=length)
    return Batch(whole.tokens[:, :length], whole.labels[:, :length], whole.positions[:, :length], cu)


def gradients(parallel: ParallelConfig, dtype: str) -> list[tuple[float, dict[str, Tensor]]]:
    """Loss and gradients of each step of `SPLITS`, in one engine, with an evaluation before each."""
    train = replace(TRAIN, dtype=dtype)  # type: ignore[arg-type]
    layout = Layout.check(parallel, train, MODEL, VOCAB, dist.get_world_size())
    mesh = build_mesh(layout, "cpu")
    engine = Engine(MODEL, VOCAB, parallel, train, mesh, torch.device("cpu"), seed=7)
    steps = []
    for sequences, length in SPLITS:
        batch = shortened(sequences, length)
        engine.token_losses(batch)
        micro_batches = [rows(batch, slice(i, i + 1)) for i in range(sequences)]
        loss = engine.forward_backward(micro_batches, batch.n_valid)
        steps.append((float(loss), _everywhere(engine)))
        engine.zero_grad()
    return steps


def _everywhere(engine: Engine) -> dict[str, Tensor]:
    """Whole gradients of all ranks' parameters."""
    mine: dict[str, Tensor] = {}
    for name, p in engine.named_parameters():
        assert p.grad is not None, name
        mine[name] = p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad
    every: list[dict[str, Tensor]] = [{}] * dist.get_world_size()
    dist.all_gather_object(every, mine)
    return {name: grad for one in every for name, grad in one.items()}


def several(cases: list[tuple[ParallelConfig, str]]) -> list[list[tuple[float, dict[str, Tensor]]]]:
    """All cases, one after the other, in one process group."""
    return [gradients(*case) for case in cases]
