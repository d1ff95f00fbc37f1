"""Options that save memory, in many layouts: what they must not change, and what they must."""

from __future__ import annotations

from functools import cache

import pytest
import ranks
import torch
from memory_cases import Setting, Trained, trained

from pretrain.model.recompute import Recompute

FSDP = (("dp_shard", 2),)
TP = (("tp", 2),)
HSDP_TP = (("dp_replicate", 2), ("tp", 2))
EIGHT = (("micro_batch_size", 8), ("dtype", "fp64"))
FOUR = (("micro_batch_size", 4), ("dtype", "fp64"))


@cache
def results(world_size: int, settings: tuple[Setting, ...]) -> list[Trained]:
    return ranks.run(trained, world_size, list(settings))  # type: ignore[no-any-return]


def distance(got: Trained, expected: Trained) -> float:
    """Largest relative difference of losses, norms, weights and states."""
    assert got.tensors.keys() == expected.tensors.keys()
    pairs = zip(got.losses + got.norms, expected.losses + expected.norms, strict=True)
    numbers = max(abs(a / b - 1) for a, b in pairs)
    tensors = max(
        float((got.tensors[n] - expected.tensors[n]).norm() / expected.tensors[n].norm())
        for n in expected.tensors
    )
    return max(numbers, tensors)


def same_bits(got: Trained, expected: Trained) -> bool:
    return got.tensors.keys() == expected.tensors.keys() and all(
        torch.equal(got.tensors[n], expected.tensors[n]) for n in expected.tensors
    )


IN_BACKWARD = (("in_backward", True),)


@pytest.mark.parametrize(
    ("world_size", "layouts"),
    [(1, [()]), (2, [FSDP, TP]), pytest.param(4, [HSDP_TP], marks=pytest.mark.full)],
)
def test_optimizer_in_backward_equals_the_ordinary_one_to_the_last_bit(
    world_size: int, layouts: list[tuple[tuple[str, int], ...]]
) -> None:
    settings = []
    for parallel in layouts:
        size = ("micro_batch_size", 8 if parallel in ((), TP) else 4)
        for dtype in ("fp64", "bf16_pure"):
            settings += [Setting(parallel, (size, ("dtype", dtype)), optim) for optim in ((), IN_BACKWARD)]
    found = iter(results(world_size, tuple(settings)))
    for after, during in zip(found, found, strict=True):
        assert same_bits(during, after)
        assert during.norms == pytest.approx(after.norms, rel=1e-6)
        # No gradient outlives its update.
        assert during.devices_and_grads[1] == 0 < after.devices_and_grads[1]


Z = (("z_loss", 0.01),)
OFFLOAD = (("cpu_offload", True),)
BUDGET = (("activation_checkpointing", "budget"), ("activation_budget", 0.4))


@pytest.mark.parametrize(
    ("world_size", "ways"),
    [
        (1, [(OFFLOAD, EIGHT)]),
        (
            2,
            [
                (FSDP + OFFLOAD, FOUR),
                (TP, EIGHT + Z),
                (TP, EIGHT + BUDGET),
                (FSDP, FOUR + BUDGET + Z),
                ((("cp", 2),), EIGHT + BUDGET + Z),
                ((("pp", 2),), (("dtype", "fp64"), *BUDGET, *Z)),
            ],
        ),
    ],
)
def test_memory_options_change_nothing_in_any_layout(
    world_size: int, ways: list[tuple[tuple[tuple[str, object], ...], tuple[tuple[str, object], ...]]]
) -> None:
    optim = (("clip", 1.0),)
    plain, with_z = results(1, (Setting((), EIGHT, optim), Setting((), EIGHT + Z, optim)))
    assert distance(with_z, plain) > 1e-4
    found = results(world_size, tuple(Setting(parallel, train, optim) for parallel, train in ways))
    for got, (_, train) in zip(found, ways, strict=True):
        assert distance(got, with_z if set(Z) <= set(train) else plain) <= 1e-9
        assert got.devices_and_grads[0] == {"cpu"}


def test_muon_is_exact_in_every_layout() -> None:
    optim = (("name", "muon"), ("clip", 1.0))
    (alone,) = results(1, (Setting((), EIGHT, optim),))
    settings = [Setting(p, FOUR if p == FSDP else EIGHT, optim) for p in (FSDP, TP, (("cp", 2),))]
    for got in results(2, tuple(settings)):
        assert distance(got, alone) <= 1e-9


def test_pure_bf16_is_bf16_throughout_and_follows_fp32() -> None:
    pure, full = (
        Setting((), (("micro_batch_size", 8), ("dtype", dtype)), steps=20, one_batch=True)
        for dtype in ("bf16_pure", "fp32")
    )
    got, expected = results(1, (pure, full))
    steps = {n for n in got.tensors if n.endswith(".step")}
    assert {t.dtype for n, t in got.tensors.items() if n not in steps} == {torch.bfloat16}
    assert expected.losses[-1] < expected.losses[0] - 1
    assert got.losses == pytest.approx(expected.losses, abs=0.1)
    (sharded,) = results(
        2, (Setting(FSDP, (("micro_batch_size", 4), ("dtype", "bf16_pure")), steps=20, one_batch=True),)
    )
    assert sharded.losses == pytest.approx(expected.losses, abs=0.1)


@pytest.mark.parametrize(
    "mode",
    ["none", pytest.param("selective", marks=pytest.mark.full), pytest.param("full", marks=pytest.mark.full)],
)
def test_float8_learns_as_bf16_does(mode: Recompute) -> None:
    pytest.importorskip("torchao")
    half = (("dtype", "bf16"), ("micro_batch_size", 8))
    float8 = (("dtype", "bf16"), ("activation_checkpointing", mode), ("float8", True), ("float8_least", 0))
    expected, alone = results(
        1,
        tuple(
            Setting((), train, steps=20, one_batch=True)
            for train in (half, (*float8, ("micro_batch_size", 8)))
        ),
    )
    assert expected.losses[-1] < expected.losses[0] - 1
    sizes = {FSDP: 4, TP: 8}
    spread = results(
        2,
        tuple(
            Setting(parallel, (*float8, ("micro_batch_size", size)), steps=20, one_batch=True)
            for parallel, size in sizes.items()
        ),
    )
    for got in (alone, *spread):
        assert got.losses == pytest.approx(expected.losses, abs=0.15)
        # Not the same numbers: the products are those of float8.
        assert max(abs(a - b) for a, b in zip(got.losses, expected.losses, strict=True)) > 1e-3
