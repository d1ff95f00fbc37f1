"""The loss over a large vocabulary: its three passes over the logits give what torch's own operations give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pretrain.model.loss import (
    Passes,
    gradient_in_place,
    linear_cross_entropy,
    linear_token_losses,
    logsumexp_of,
    reference_loss,
)

PASSES = Passes(logsumexp_of, gradient_in_place)
"""As they are compiled; tests/distributed/test_compiled_blocks.py compiles them."""
BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}


def inputs(dtype: torch.dtype, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 24, 16, generator=g, dtype=torch.float64).mul(3).to(dtype).requires_grad_()
    weight = torch.randn(rows, 16, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
    labels = torch.randint(0, 50, (2, 24), generator=g)
    labels[0, 3:9] = -100
    labels[1, :7] = -100  # a whole chunk
    return x, weight, labels


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("rows", [50, 64])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_passes_over_the_logits_give_the_reference(dtype: torch.dtype, rows: int, z_loss: float) -> None:
    x, weight, labels = inputs(dtype, rows)
    with torch.no_grad():
        weight[50:] = 9.0  # padding, which would win
    exact = [t.detach().double().requires_grad_() for t in (x, weight)]
    logits = (exact[0] @ exact[1].mT)[..., :50]
    z = logits.logsumexp(-1)[labels >= 0].square().sum()
    expected = torch.autograd.grad((reference_loss(logits, labels) + z_loss * z) / 3, exact)
    for passes in (PASSES, None):
        loss = linear_cross_entropy(x, weight, labels, 7, z_loss, 50, passes)
        torch.testing.assert_close(loss, reference_loss(logits, labels).detach(), rtol=BOUNDS[dtype], atol=0)
        for got, one in zip(torch.autograd.grad(loss / 3, (x, weight)), expected, strict=True):
            assert (got.double() - one).norm() <= BOUNDS[dtype] * one.norm()
        losses = linear_token_losses(x, weight, labels, 7, 50, passes)
        torch.testing.assert_close(losses.double().sum(), loss.detach(), rtol=BOUNDS[dtype], atol=0)
        assert (losses[labels < 0] == 0).all()


def test_logits_so_large_that_their_exponentials_overflow_and_a_rank_of_padding_are_finite() -> None:
    logits = torch.tensor([[3e4, -3e4, 2e4], [-3e38, -3e38, -3e38]])
    torch.testing.assert_close(logsumexp_of(logits, 0), logits.double().logsumexp(1).float())
    for dtype in BOUNDS:
        assert logsumexp_of(torch.zeros(2, 3, dtype=dtype), 3).isfinite().all()
