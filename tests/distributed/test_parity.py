"""Every layout computes what one process computes: loss, token losses, every gradient, norm, initial weights."""

from __future__ import annotations

import shutil
from functools import cache

import pytest
import ranks
import torch
from parity_cases import Case, Outcome, outcomes

from configs.schema.train import ParallelConfig

BOUNDS = {"fp32": (1e-6, 1e-5), "fp64": (1e-9, 1e-9)}


def spread(cases: list[ParallelConfig], dtypes: tuple[str, ...], tied: tuple[bool, ...]) -> list[Case]:
    return [Case(parallel, t, dtype) for parallel in cases for t in tied for dtype in dtypes]


FSDP = ParallelConfig()
TP2 = ParallelConfig(tp=2)
PP2 = ParallelConfig(pp=2)
PP2_TP2 = ParallelConfig(pp=2, tp=2)
HSDP = ParallelConfig(dp_replicate=2)
CP2 = ParallelConfig(cp=2)

CORE = {
    2: [
        *spread([FSDP, TP2, PP2, CP2], ("fp32", "fp64"), (False,)),
        *spread([TP2, PP2], ("fp32",), (True,)),
        Case(CP2, tied=True, train=(("activation_checkpointing", "full"),)),
        Case(FSDP, train=(("micro_batch_size", 2),)),
        Case(ParallelConfig(reshard_after_forward=False), tied=True),
        Case(TP2, train=(("activation_checkpointing", "selective"),)),
        Case(ParallelConfig(pp=2, pp_schedule="gpipe"), train=(("activation_checkpointing", "full"),)),
    ],
    4: [
        *spread([TP2, PP2], ("fp32",), (False,)),
        *spread([PP2_TP2, HSDP], ("fp64",), (True,)),
        Case(ParallelConfig(pp=4), tied=True),
        Case(ParallelConfig(tp=4)),
        *spread([ParallelConfig(cp=4), ParallelConfig(cp=2, tp=2)], ("fp64",), (False,)),
        Case(CP2, train=(("micro_batch_size", 2), ("activation_checkpointing", "selective"))),
    ],
    8: [
        Case(PP2_TP2, tied=True),
        Case(PP2_TP2, dtype="fp64"),
        Case(ParallelConfig(pp=2, cp=2, tp=2), tied=True, dtype="fp64"),
        Case(ParallelConfig(dp_replicate=2, cp=2), dtype="fp64"),
    ],
}
FULL = {
    2: [
        *spread([FSDP, TP2, PP2, HSDP], ("fp32", "fp64"), (False, True)),
        *[
            Case(parallel, tied, train=(("activation_checkpointing", kind),))
            for parallel in (FSDP, TP2, PP2)
            for kind in ("full", "selective")
            for tied in (False, True)
        ],
    ],
    4: spread(
        [
            FSDP,
            TP2,
            ParallelConfig(tp=4),
            PP2,
            ParallelConfig(pp=4),
            ParallelConfig(pp=4, pp_schedule="gpipe"),
            PP2_TP2,
            HSDP,
            ParallelConfig(pp=2, reshard_after_forward=False),
            ParallelConfig(dp_replicate=2, tp=2, reshard_after_forward=False),
            CP2,
            ParallelConfig(cp=4),
            ParallelConfig(cp=2, tp=2),
            ParallelConfig(pp=2, cp=2),
            ParallelConfig(dp_replicate=2, cp=2),
        ],
        ("fp32", "fp64"),
        (False, True),
    ),
    8: spread(
        [
            FSDP,
            TP2,
            ParallelConfig(tp=4),
            PP2,
            PP2_TP2,
            ParallelConfig(pp=4, tp=2),
            ParallelConfig(pp=2, tp=4),
            HSDP,
            ParallelConfig(pp=2, dp_replicate=2),
            ParallelConfig(pp=2, dp_replicate=2, tp=2, pp_schedule="gpipe"),
            ParallelConfig(cp=8),
            ParallelConfig(cp=2, tp=4),
            ParallelConfig(pp=2, cp=2, tp=2),
            ParallelConfig(pp=2, dp_replicate=2, cp=2),
            ParallelConfig(dp_replicate=2, cp=2, tp=2),
        ],
        ("fp32", "fp64"),
        (False, True),
    ),
}


@cache
def alone() -> dict[tuple[bool, str], Outcome]:
    """One process, by (tied, dtype), with all rows in one micro-batch."""
    keys = [(tied, dtype) for tied in (False, True) for dtype in ("fp32", "fp64")]
    cases = [Case(FSDP, tied, dtype, (("micro_batch_size", 8),)) for tied, dtype in keys]
    return dict(zip(keys, ranks.run(outcomes, 1, cases), strict=True))


def check(case: Case, got: Outcome) -> list[str]:
    """What differs from one process by more than rounding."""
    expected = alone()[case.tied, case.dtype]
    loss_bound, grad_bound = BOUNDS[case.dtype]
    wrong = []
    if got.weights != expected.weights:
        wrong.append("initial weights")
    if abs(got.loss / expected.loss - 1) > loss_bound:
        wrong.append(f"loss {got.loss!r}, expected {expected.loss!r}")
    if not torch.allclose(got.token_losses, expected.token_losses, rtol=grad_bound, atol=grad_bound):
        wrong.append(f"token losses by up to {(got.token_losses - expected.token_losses).abs().max():.1e}")
    if abs(got.norm / expected.norm - 1) > grad_bound:
        wrong.append(f"gradient norm {got.norm!r}, expected {expected.norm!r}")
    assert got.grads.keys() == expected.grads.keys()
    for name, grad in got.grads.items():
        distance = float((grad - expected.grads[name]).norm() / expected.grads[name].norm())
        if not distance <= grad_bound:
            wrong.append(f"gradient of {name} by {distance:.1e}")
    return [f"{case.name}: {one}" for one in wrong]


def compare(world_size: int, cases: list[Case]) -> None:
    got = ranks.run(outcomes, world_size, cases, timeout=590)
    wrong = [line for case, one in zip(cases, got, strict=True) for line in check(case, one)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_layouts_equal_one_process(world_size: int) -> None:
    compare(world_size, CORE[world_size])


@pytest.mark.full
@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs g++ or clang++"
)
def test_compiled_layouts_equal_one_process() -> None:
    options = (("compile", True),)
    compare(2, [Case(parallel, tied, train=options) for parallel in (FSDP, PP2) for tied in (False, True)])


@pytest.mark.full
@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_every_layout_equals_one_process(world_size: int) -> None:
    compare(world_size, FULL[world_size])
