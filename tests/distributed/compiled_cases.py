"""Training steps whose compilations are counted."""

from __future__ import annotations

import torch
from parity_cases import Case, build, global_batch, micro_batches
from torch._dynamo.utils import counters

from configs.schema.train import ParallelConfig


def graphs() -> tuple[int, int]:
    """Graphs and graph breaks of four steps of four blocks, every batch with other documents, and of two evaluations."""
    torch._dynamo.reset()
    counters.clear()
    case = Case(
        ParallelConfig(), train=(("compile", True), ("micro_batch_size", 4), ("loss_chunk_tokens", 0))
    )
    engine, optimizer = build(case)
    for step in range(1, 5):
        batch = global_batch(step)
        engine.forward_backward(micro_batches(case, engine, batch), batch.n_valid)
        optimizer.step(1.0)
        optimizer.zero_grad()
        if step > 2:
            engine.token_losses(micro_batches(case, engine, batch)[0])
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
