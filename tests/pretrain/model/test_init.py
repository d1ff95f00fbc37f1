"""Initial weights: a known generator, a normal distribution, one value for each place whatever is computed around."""

from __future__ import annotations

import math

import pytest
import torch

from configs.schema.train import ModelConfig
from pretrain.model.init import init_weights, normal, philox
from pretrain.model.llama import Llama

MODEL = ModelConfig("tiny", dim=64, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=96)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_vectors(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    words = philox(tuple(torch.tensor([c]) for c in counter), key)  # type: ignore[arg-type]
    assert tuple(int(w) for w in words) == expected


def test_values_are_standard_normal() -> None:
    values = normal(0, "x", torch.arange(2000), torch.arange(1000)).flatten()
    assert abs(values.mean()) < 3 / math.sqrt(len(values))
    assert abs(values.std() - 1) < 2e-3
    assert abs((values**4).mean() - 3) < 0.05
    for z, share in ((0.0, 0.5), (1.0, 0.841345), (2.0, 0.97725), (3.0, 0.99865)):
        assert abs((values < z).double().mean() - share) < 1.5e-3
    assert abs(torch.corrcoef(values.view(2000, 1000)[:, :2].T)[0, 1]) < 0.1


def test_a_value_depends_on_its_place_alone() -> None:
    whole = normal(3, "x", torch.arange(64), torch.arange(50))
    part = normal(3, "x", torch.arange(10, 30), torch.arange(7, 45))
    assert torch.equal(whole[10:30, 7:45], part)
    assert not torch.equal(whole, normal(3, "y", torch.arange(64), torch.arange(50)))
    assert not torch.equal(whole, normal(4, "x", torch.arange(64), torch.arange(50)))


def test_scale_of_each_kind_of_parameter() -> None:
    model = Llama(MODEL, 512)
    init_weights([model], 0)
    for name, p in model.named_parameters():
        if p.ndim == 1:
            assert bool((p == 1).all()), name
        else:
            residual = name.endswith(("wo.weight", "w2.weight"))
            expected = 0.02 / math.sqrt(4) if residual else 0.02
            assert abs(float(p.detach().std()) / expected - 1) < 0.05, name


def test_double_precision_holds_the_same_values() -> None:
    single, double = Llama(MODEL, 96), Llama(MODEL, 96).double()
    init_weights([single], 5)
    init_weights([double], 5)
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        assert torch.equal(a.double(), b)
