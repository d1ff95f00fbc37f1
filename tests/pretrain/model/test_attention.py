"""Attention equals its float64 definition, in every backend of this machine, and never leaves a document."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pretrain.model.attention import Documents, attention, reference_attention

BOUNDS = [
    [[0, 1, 2, 3, 40, 96], [0, 96], [0, 50, 95, 96], [0, 48, 96]],
    [[0, 96], [0, 96]],
    [[0, 32, 64, 96], [0, 64, 96]],
    [[0, *range(5, 96, 7), 96]],
]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-2}


def cu_seqlens(bounds: list[list[int]]) -> Tensor:
    width = max(len(b) for b in bounds) + 1
    return torch.tensor([b + [b[-1]] * (width - len(b)) for b in bounds], dtype=torch.int32)


def inputs(
    bounds: list[list[int]], dtype: torch.dtype, heads: int, kv_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    shape = (len(bounds), bounds[0][-1])
    return tuple(  # type: ignore[return-value]
        torch.randn(*shape, n, 16, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
        for n in (heads, kv_heads, kv_heads)
    )


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
def test_values_and_gradients_equal_the_definition(
    bounds: list[list[int]], dtype: torch.dtype, heads: int, kv_heads: int
) -> None:
    qkv, cu = inputs(bounds, dtype, heads, kv_heads), cu_seqlens(bounds)
    out = attention(*qkv, Documents.of(cu, bounds[0][-1]))
    expected = reference_attention(*qkv, cu)
    assert out.dtype == dtype
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(expected)
    grads = torch.autograd.grad(out, qkv, weights.to(dtype))
    references = torch.autograd.grad(expected, qkv, weights)
    for got, want in zip((out, *grads), (expected, *references), strict=True):
        assert (got.double() - want.double()).norm() <= TOLERANCES[dtype] * want.double().norm()


def test_long_documents_span_several_blocks() -> None:
    bounds = [[0, 131, 700], [0, 700, 700]]
    qkv, cu = inputs(bounds, torch.bfloat16, 4, 2), cu_seqlens(bounds)
    out = attention(*qkv, Documents.of(cu, bounds[0][-1]))
    expected = reference_attention(*qkv, cu)
    assert (out.double() - expected).norm() <= 1e-2 * expected.norm()


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
def test_another_document_changes_no_bit(dtype: torch.dtype) -> None:
    bounds = [[0, 30, 33, 96], [0, 20, 96, 96]]
    cu = cu_seqlens(bounds)
    documents = Documents.of(cu, 96)
    q, k, v = inputs(bounds, dtype, 4, 2)
    before = attention(q, k, v, documents)
    with torch.no_grad():
        k[0, :30] = torch.nan
        v[1, 20:] = torch.nan
    after = attention(q, k, v, documents)
    assert torch.equal(before[0, 30:], after[0, 30:]) and torch.equal(before[1, :20], after[1, :20])
    assert after[0, :30].isnan().all() and after[1, 20:].isnan().all()
