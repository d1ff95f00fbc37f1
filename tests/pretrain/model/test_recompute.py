"""What blocks keep is what the arithmetic says, and what is chosen for a budget fits into it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from configs.edge import ConfigError
from configs.schema.train import ModelConfig, TrainConfig
from pretrain.model import offload
from pretrain.model.attention import Documents
from pretrain.model.init import init_weights
from pretrain.model.llama import Block, Llama, rope_table
from pretrain.model.recompute import (
    EVERY,
    Kept,
    Recompute,
    block_bytes,
    kept_by_layer,
)
from pretrain.options import check_recompute

MODEL = ModelConfig("tiny", dim=64, n_layers=6, n_heads=4, n_kv_heads=2, ffn_dim=96, init_std=0.1)
LENGTH = 1024


def block_and_arguments(kept: Kept, dtype: torch.dtype) -> tuple[Block, Tensor, Callable[[Tensor], Tensor]]:
    torch.manual_seed(0)
    block = Block(MODEL, kept).to(dtype)
    documents = Documents.of(torch.tensor([[0, 300, LENGTH]], dtype=torch.int32), LENGTH)
    rope = rope_table(MODEL, torch.arange(LENGTH)[None], dtype)
    leaf = torch.randn(1, LENGTH, MODEL.dim, dtype=dtype, requires_grad=True)
    return block, leaf, lambda h: block(h, rope, documents)


def live_bytes(run: Callable[[], object]) -> int:
    """Bytes that are allocated in `run` and alive while its result is."""
    # What earlier graphs left in cycles would be freed while it counts.
    gc.collect()
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            result = run()
    finally:
        gc.enable()
    del result
    events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    return sum(event.nbytes() for event in events if event.name() == "[memory]")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kept", [None, (), EVERY, ("attention", "wo", "w1"), ("wk",)])
def test_a_block_keeps_the_bytes_that_the_arithmetic_says(kept: Kept, dtype: torch.dtype) -> None:
    _, leaf, compute = block_and_arguments(kept, dtype)
    compute(leaf * 1)

    def forward() -> object:
        # Only the graph stays: neither the input nor the output, unless it needs them.
        return compute(leaf * 1).grad_fn

    expected = block_bytes(MODEL, kept, dtype.itemsize) * LENGTH
    assert live_bytes(forward) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("kept", [(), EVERY, ("attention", "wo", "w1"), ("wk",), ("w3", "wv")])
def test_whatever_is_kept_no_gradient_changes(kept: Kept) -> None:
    gradients = []
    for one in (None, kept):
        block, leaf, compute = block_and_arguments(one, torch.float64)
        compute(leaf).square().sum().backward()
        gradients.append([leaf.grad, *(p.grad for p in block.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("fused_norm", [False, True])
def test_a_budget_is_kept_and_used(fused_norm: bool) -> None:
    def total(kept: list[Kept]) -> int:
        return sum(block_bytes(MODEL, one, 2, fused_norm) for one in kept)

    whole, least = total(kept_by_layer(MODEL, "none")), total(kept_by_layer(MODEL, "full"))
    before = 0
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        used = total(kept_by_layer(MODEL, "budget", share, 2, fused_norm))
        assert used <= max(share * whole, least) and used >= before
        # What is left over is less than what the next thing would take.
        rest = block_bytes(MODEL, None, 2, fused_norm) - block_bytes(MODEL, EVERY, 2)
        assert share * whole - used < max(rest, 2 * MODEL.ffn_dim) or used == whole
        before = used
    assert kept_by_layer(MODEL, "budget", 0.0) == kept_by_layer(MODEL, "full")
    assert kept_by_layer(MODEL, "budget", 1.0) == kept_by_layer(MODEL, "none")


def test_the_most_expensive_per_byte_is_kept_first_and_evenly_over_the_depth() -> None:
    for share in (0.25, 0.3, 0.35, 0.4, 0.45, 0.5):
        kept = kept_by_layer(MODEL, "budget", share)
        counts = [[name in (one or EVERY) for one in kept] for name in EVERY]
        assert all(abs(sum(row[:3]) - sum(row[3:])) <= 1 for row in counts)
        # Attention costs most for each byte.
        assert all(sum(row) <= sum(counts[EVERY.index("attention")]) for row in counts)


@pytest.mark.parametrize("compiled", [False, True])
def test_offloaded_inputs_come_back_and_nothing_else_goes(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two passes of three blocks, the second begun before the first is taken back, as in a pipeline."""
    torch._dynamo.reset()
    came, get = [], offload._Waiting.get
    monkeypatch.setattr(offload._Waiting, "get", lambda self: came.append(get(self)) or came[-1])
    tokens = torch.randint(96, (2, 1, 64), generator=torch.Generator().manual_seed(0))
    positions, bounds = torch.arange(64)[None], torch.tensor([[0, 30, 64]], dtype=torch.int32)
    gradients = []
    for away in (False, True):
        model = Llama(replace(MODEL, n_layers=3), 96, kept=[()] * 3, offload=away).double()
        init_weights([model], 0)
        if compiled:
            for block in model.layers.values():
                block.compile(backend="aot_eager")
        losses = [model(one, positions, bounds, one) for one in tokens]
        for loss in losses[::-1]:
            loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert [x.shape for x in came] == [(1, 64, MODEL.dim)] * 6


def options(mode: Recompute, budget: float = 0.5, offload: bool = False) -> TrainConfig:
    return TrainConfig(
        1, 1, 1, activation_checkpointing=mode, activation_budget=budget, activation_offload=offload
    )


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"activation_budget. is a share between 0 and 1, but it is 1\.5"):
        check_recompute(options("budget", 1.5))
    with pytest.raises(
        ConfigError, match=r"only with train\.activation_checkpointing=full, but it is selective"
    ):
        check_recompute(options("selective", offload=True))
    check_recompute(options("full", offload=True))
