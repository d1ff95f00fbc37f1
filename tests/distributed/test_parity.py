"""Every layout computes what one process computes: initial weights, losses, every gradient, weights after AdamW steps."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace

import pytest
import ranks
import torch
from parity_cases import CLIP, GLOBAL, OPTIM, SCHEDULE, STEPS, Case, Outcome, global_batch, outcomes
from parity_layouts import COMPILED, CORE, FULL
from parity_layouts import case as layout

from pretrain.model.init import init_weights
from pretrain.model.llama import Llama
from pretrain.model.loss import reference_loss
from pretrain.optim.schedule import lr_factor

BOUNDS = {"fp32": (1e-6, 1e-5), "fp64": (1e-9, 1e-9)}
"""Largest relative error of a loss, and of gradients and weights (norm of the difference ÷ norm)."""
_ALONE: dict[Case, Outcome] = {}


def alone(cases: Iterable[Case]) -> dict[Case, Outcome]:
    """What one process computes of these cases, with all rows in one micro-batch; by `Case.alone`."""
    missing = list(dict.fromkeys(c.alone for c in cases if c.alone not in _ALONE))
    if missing:
        _ALONE.update(zip(missing, ranks.run(outcomes, 1, missing), strict=True))
    return _ALONE


def distances(case: Case, got: Outcome) -> dict[str, float]:
    """Relative errors against one process, the largest of each kind; infinite where initial weights differ."""
    expected = alone([case])[case.alone]
    assert got.grads.keys() == expected.grads.keys() == got.initial.keys()

    def worst(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
        return max(
            (float((mine[name] - theirs[name]).norm() / theirs[name].norm()) for name in theirs), default=0.0
        )

    def relative(mine: tuple[float, ...], theirs: tuple[float, ...]) -> float:
        return max(abs(a / b - 1) for a, b in zip(mine, theirs, strict=True))

    return {
        "initial weights": 0.0 if got.initial == expected.initial else float("inf"),
        "loss": relative(got.losses, expected.losses),
        "gradient": worst(got.grads, expected.grads),
        "gradient norm": relative(got.norms, expected.norms),
        "loss of a token": max(
            float((a - b).abs().max() / b.max())
            for a, b in zip(got.token_losses, expected.token_losses, strict=True)
        ),
        "weights": worst(got.weights, expected.weights),
    }


def wrong(case: Case, got: Outcome) -> list[str]:
    """What differs by more than rounding."""
    loss, other = BOUNDS[case.dtype]
    lines = []
    for what, distance in distances(case, got).items():
        # Written so that NaN counts as wrong.
        if not distance <= (loss if what == "loss" else other):
            lines.append(f"{case.name}: {what} by {distance:.1e}")
    return lines


def compare(cases: list[Case], world_size: int, dtypes: Iterable[str] = BOUNDS) -> None:
    chosen = [replace(c, dtype=dtype) for c in cases if c.world_size == world_size for dtype in dtypes]
    assert chosen
    alone(chosen)
    got = ranks.run(outcomes, world_size, chosen, timeout=3500)
    lines = [line for case, one in zip(chosen, got, strict=True) for line in wrong(case, one)]
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_layouts_equal_one_process(world_size: int) -> None:
    # fp32, which says less, where it costs least; in every layout by the campaign.
    compare(CORE, world_size, BOUNDS if world_size == 2 else ["fp64"])


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("world_size", [2, 4, 8, 16, 32])
def test_every_layout_equals_one_process(world_size: int) -> None:
    compare(FULL, world_size)


@pytest.mark.full
@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs g++ or clang++"
)
def test_compiled_layouts_equal_one_process() -> None:
    compare(COMPILED, 2)


@pytest.mark.parametrize("tied", [False, True])
def test_one_process_computes_the_definition(tied: bool) -> None:
    """Mean cross-entropy over the valid labels of the whole batch, torch's AdamW and clipping, the plain model."""
    case = replace(layout(tied), dtype="fp64").alone
    got = alone([case])[case]
    model = Llama(case.model_config, case.vocab_size).double()
    init_weights([model], 7)
    decayed = [p for name, p in model.named_parameters() if p.ndim == 2 and "embeddings" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim == 1 or "embeddings" in name]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": OPTIM.weight_decay}, {"params": others, "weight_decay": 0.0}],
        betas=OPTIM.betas,
        eps=OPTIM.eps,
    )
    for step in range(1, STEPS + 1):
        batch = global_batch(step)
        logits = model(batch.tokens, batch.positions, batch.cu_seqlens)
        loss = reference_loss(logits, batch.labels) / (batch.labels >= 0).sum()
        optimizer.zero_grad()
        loss.backward()
        assert got.losses[step - 1] == pytest.approx(loss.item(), rel=1e-12)
        if step == 1:
            for name, p in model.named_parameters():
                assert p.grad is not None
                assert (got.grads[name] - p.grad).norm() <= 1e-12 * p.grad.norm(), name
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        assert got.norms[step - 1] == pytest.approx(norm.item(), rel=1e-12)
        for group in optimizer.param_groups:
            group["lr"] = OPTIM.lr * lr_factor(SCHEDULE, step, STEPS)
        optimizer.step()
    for name, p in model.named_parameters():
        assert (got.weights[name] - p).norm() <= 1e-12 * p.norm(), name


def test_the_batches_are_what_is_hard() -> None:
    """Clipped and unclipped steps, rows without a valid label, documents of one token, ranks with nothing to learn."""
    case = replace(layout(), dtype="fp64").alone
    norms = alone([case])[case].norms
    assert min(norms) < CLIP < max(norms), norms
    valid = (global_batch(1).labels >= 0).sum(dim=1)
    assert 0 in valid and 31 in valid and valid.shape == (GLOBAL,)
    assert int((global_batch(3).labels[GLOBAL // 2 :] >= 0).sum()) == 0
    assert len(CORE) >= 20
