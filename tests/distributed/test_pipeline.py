"""Pipelines whose batches change from step to step, and backward passes in two halves."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import ranks
import torch
from parity_cases import MODEL, VOCAB, global_batch
from pipeline_cases import SPLITS, several
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from configs.schema.train import ParallelConfig
from pretrain.model.init import init_weights
from pretrain.model.llama import Llama
from pretrain.model.recompute import Recompute, kept_by_layer
from pretrain.parallel.zero_bubble import Current, WeightGradients

ONE = ParallelConfig()
LAYOUTS = {
    "1f1b": ParallelConfig(pp=2, reshard_after_forward=False),
    "interleaved": ParallelConfig(pp=2, pp_schedule="interleaved", pp_virtual=2),
    "zbv": ParallelConfig(pp=2, pp_schedule="zbv", reshard_after_forward=False),
    "dualpipev": ParallelConfig(pp=2, pp_schedule="dualpipev", reshard_after_forward=False),
}


@cache
def steps() -> dict[tuple[str, str], list[tuple[float, dict[str, Tensor]]]]:
    """Loss and gradients of every step, by (schedule, precision)."""
    keys = [(name, dtype) for name in LAYOUTS for dtype in ("fp64", "bf16")]
    piped = ranks.run(several, 2, [(LAYOUTS[name], dtype) for name, dtype in keys])
    return {
        **dict(zip(keys, piped, strict=True)),
        ("one", "fp64"): ranks.run(several, 1, [(ONE, "fp64")])[0],
    }


def distance(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Largest relative error of a gradient."""
    assert mine.keys() == theirs.keys()
    return max(float((mine[name] - theirs[name]).norm() / theirs[name].norm()) for name in theirs)


@pytest.mark.parametrize("schedule", LAYOUTS)
def test_micro_batches_may_change_in_number_and_length_from_step_to_step(schedule: str) -> None:
    """Also to fewer than there are stages, which a configuration is refused for but a pipeline survives."""
    for got, expected in zip(steps()[schedule, "fp64"], steps()["one", "fp64"], strict=True):
        assert got[0] == pytest.approx(expected[0], rel=1e-12)
        assert distance(got[1], expected[1]) <= 1e-12


@pytest.mark.parametrize("schedule", ["zbv", "dualpipev"])
def test_half_precision_gradients_are_accumulated_in_full_precision(schedule: str) -> None:
    """As under 1F1B, where FSDP does it: the same products, added in the same precision."""
    for got, expected in zip(steps()[schedule, "bf16"], steps()["1f1b", "bf16"], strict=True):
        # Sums in bf16 would be off by its rounding, 4e-3.
        assert distance(got[1], expected[1]) <= 1e-6
    assert len(SPLITS) > 1


@pytest.mark.parametrize("recompute", ["none", "full", "selective"])
def test_the_halves_of_a_backward_pass_are_the_whole_and_compute_nothing_twice(recompute: Recompute) -> None:
    kept = kept_by_layer(MODEL, recompute)
    plain = Llama(MODEL, VOCAB, range(2), first=False, last=False, kept=kept)
    init_weights([plain], 7)
    split, current = copy.deepcopy(plain), Current()
    current.replace_linears(split)
    batch = global_batch(1)
    x = torch.randn(*batch.tokens.shape, MODEL.dim)
    out_grad = torch.randn_like(x)

    def forward(part: Llama) -> tuple[Tensor, Tensor]:
        hidden = x.clone().requires_grad_()
        out: Tensor = part(hidden, batch.positions, batch.cu_seqlens)
        return hidden, out

    # Around the forward passes too: what is computed again must be what was computed.
    with FlopCounterMode(display=False) as flops:
        hidden, out = forward(plain)
        start = flops.get_total_flops()
        out.backward(out_grad)
        whole = flops.get_total_flops() - start

        current.gradients = weights = WeightGradients()
        split_hidden, out = forward(split)
        weights.waiting = True
        start = flops.get_total_flops()
        out.backward(out_grad)
        first = flops.get_total_flops() - start
        assert hidden.grad is not None and split_hidden.grad is not None
        assert torch.equal(split_hidden.grad, hidden.grad)
        waiting = {name for name, p in split.named_parameters() if p.grad is None}
        assert waiting == {name for name, p in plain.named_parameters() if p.ndim == 2}
        start = flops.get_total_flops()
        weights.compute()
        second = flops.get_total_flops() - start
    assert whole == first + second
    # All weight gradients of the blocks' products wait: a third of forward and backward passes.
    products = sum(p.numel() for p in plain.parameters() if p.ndim == 2)
    assert second == 2 * products * batch.tokens.numel()
    grads = dict(plain.named_parameters())
    for name, p in split.named_parameters():
        assert p.grad is not None and grads[name].grad is not None
        torch.testing.assert_close(p.grad, grads[name].grad, rtol=1e-5, atol=1e-6)
