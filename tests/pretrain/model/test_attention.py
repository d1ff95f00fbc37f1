"""Attention equals its float64 definition, in every backend of this machine, and never leaves a document."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import varlen_cpu
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from configs.edge import ConfigError
from pretrain.metrics.speed import multiplies_bf16
from pretrain.model import varlen
from pretrain.model.attention import Documents, attention, reference_attention
from pretrain.model.blocked import blocked_attention
from pretrain.model.flex import block_mask
from pretrain.options import choose_attention

BOUNDS = [
    [[0, 1, 2, 3, 40, 96], [0, 96], [0, 50, 95, 96], [0, 48, 96]],
    [[0, 96], [0, 96]],
    [[0, 32, 64, 96], [0, 64, 96]],
    [[0, *range(5, 96, 7), 96]],
]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-2}


RANDOM = [
    [0, *sorted(random.Random(row).sample(range(1, 384), documents - 1)), 384]
    for row, documents in enumerate((1, 3, 30))
]


def cu_seqlens(bounds: list[list[int]]) -> Tensor:
    width = max(len(b) for b in bounds) + 1
    return torch.tensor([b + [b[-1]] * (width - len(b)) for b in bounds], dtype=torch.int32)


def inputs(
    bounds: list[list[int]], dtype: torch.dtype, heads: int, kv_heads: int, width: int = 16
) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    shape = (len(bounds), bounds[0][-1])
    return tuple(  # type: ignore[return-value]
        torch.randn(*shape, n, width, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
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


def results(out: Tensor, qkv: tuple[Tensor, ...]) -> list[Tensor]:
    """Output and gradients, for gradients of the output drawn from a fixed seed."""
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return [out, *torch.autograd.grad(out, qkv, weights.to(torch.bfloat16).to(out.dtype))]


def errors(got: list[Tensor], wanted: list[Tensor]) -> list[float]:
    return [
        float((a.detach().double() - b.detach().double()).norm() / b.detach().double().norm())
        for a, b in zip(got, wanted, strict=True)
    ]


@pytest.mark.parametrize("width", [32, 64, 128])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_random_documents_of_many_blocks(kv_heads: int, width: int) -> None:
    qkv, cu = inputs(RANDOM, torch.float32, 4, kv_heads, width), cu_seqlens(RANDOM)
    wanted = results(reference_attention(*qkv, cu), qkv)
    output, *gradients = errors(results(attention(*qkv, Documents.of(cu, 384)), qkv), wanted)
    assert output <= 1e-6 and max(gradients) <= 1e-5


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_errors_in_bf16_are_those_of_sdpa(scale: float) -> None:
    q, k, v = inputs([[0, 600], [0, 600]], torch.bfloat16, 4, 2, 64)
    qkv = ((q * scale).detach().requires_grad_(), k, v)
    cu = cu_seqlens([[0, 600], [0, 600]])
    wanted = results(reference_attention(*qkv, cu), qkv)
    ours = errors(results(attention(*qkv, Documents.of(cu, 600)), qkv), wanted)
    sdpa = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in qkv), is_causal=True, enable_gqa=True)
    theirs = errors(results(sdpa.transpose(1, 2), qkv), wanted)
    # Shares of a row are rounded after they are normalised, SDPA's before.
    assert ours[0] <= 1.4 * theirs[0]
    assert all(a <= b for a, b in zip(ours[1:], theirs[1:], strict=True))


@pytest.mark.parametrize("bounds", [*BOUNDS, RANDOM])
def test_flex_equals_the_definition(bounds: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    # The one obstacle to gradients on the CPU, where FlexAttention as it is written (not compiled) has them.
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *qkv: None)
    qkv, cu = inputs(bounds, torch.float32, 4, 2), cu_seqlens(bounds)
    documents = Documents.of(cu, bounds[0][-1], "flex")
    output, *gradients = errors(
        results(attention(*qkv, documents), qkv), results(reference_attention(*qkv, cu), qkv)
    )
    assert output <= 1e-6 and max(gradients) <= 1e-5


def test_flex_computes_no_block_that_no_query_sees() -> None:
    mask = block_mask(torch.tensor([[0, 512, 1024], [0, 1024, 1024]], dtype=torch.int32), 1024)
    seen = mask.kv_num_blocks + mask.full_kv_num_blocks
    assert seen[:, 0].tolist() == [[1, 2, 3, 4, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8]]
    assert mask.kv_num_blocks[:, 0].eq(1).all(), "only the diagonal needs the mask inside blocks"


def test_new_documents_compile_nothing_anew() -> None:
    torch._dynamo.reset()
    counter = CompileCounter()

    @torch.compile(backend=counter, fullgraph=True, dynamic=False)
    def block(q: Tensor, k: Tensor, v: Tensor, documents: Documents) -> Tensor:
        return attention(q * 2, k, v, documents) + 1

    for several in BOUNDS:
        bounds = [several[0], several[-1]]
        qkv = inputs(bounds, torch.float32, 4, 2)
        documents = Documents.of(cu_seqlens(bounds), 96)
        expected = attention(qkv[0] * 2, *qkv[1:], documents) + 1
        assert torch.equal(block(*qkv, documents), expected)
    assert counter.frame_count == 1


def test_custom_operations_keep_their_promises() -> None:
    q, k, v = (x.flatten(0, 1).detach().requires_grad_() for x in inputs(BOUNDS[0], torch.float64, 4, 2, 4))
    documents = Documents.of(cu_seqlens(BOUNDS[0]), 96)
    torch.library.opcheck(blocked_attention, (q, k, v, documents.fragments))


@pytest.mark.parametrize(
    ("wanted", "device", "dtype", "message"),
    [
        (
            "flex",
            "cpu",
            "float32",
            "train.attention=flex.* no backward pass on the CPU.* set train.attention=auto",
        ),
        ("flex", "cuda", "float64", "no kernel for fp64"),
        (
            "varlen",
            "cpu",
            "bfloat16",
            "train.attention=varlen.* CUDA in half precision; set train.attention=auto",
        ),
        ("varlen", "cuda", "float32", "train.dtype=bf16"),
    ],
)
def test_a_backend_that_cannot_work_is_refused(wanted: Any, device: str, dtype: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_attention(wanted, device, dtype, 64)


def test_auto_is_flash_where_it_works() -> None:
    assert choose_attention("auto", "cuda", "bfloat16", 64) == "varlen"
    assert choose_attention("auto", "cpu", "bfloat16", 64) == "blocked"


def test_auto_on_a_gpu_without_flash_does_not_wait_for_the_host() -> None:
    assert choose_attention("auto", "cuda", "float32", 64) == "flex"
    assert choose_attention("auto", "cuda", "float64", 64) == "blocked"


@pytest.mark.parametrize(("width", "backend"), [(12, "blocked"), (100, "flex"), (264, "blocked")])
def test_heads_that_flash_does_not_take_are_computed_otherwise(width: int, backend: str) -> None:
    assert choose_attention("auto", "cuda", "bfloat16", width) == backend
    with pytest.raises(ConfigError, match=f"is {width}; set train.attention=auto, or change model.n_heads"):
        choose_attention("varlen", "cuda", "bfloat16", width)


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("bounds", [*BOUNDS, RANDOM])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("grouped", [True, False])
def test_flash_equals_the_definition(
    bounds: list[list[int]],
    dtype: torch.dtype,
    kv_heads: int,
    grouped: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the operators' kernels of `varlen_cpu`; with and without (torch 2.11) fewer heads of keys than of queries."""
    if grouped and not varlen.GROUPED:
        pytest.skip("this torch has no enable_gqa")
    monkeypatch.setattr(varlen, "GROUPED", grouped)
    varlen_cpu.register()
    qkv, cu = inputs(bounds, dtype, 4, kv_heads), cu_seqlens(bounds)
    documents = Documents.of(cu, bounds[0][-1], "varlen", int(cu.diff().max()))
    got = results(attention(*qkv, documents), qkv)
    wanted = results(reference_attention(*qkv, cu), qkv)
    assert max(errors(got, wanted)) <= TOLERANCES[dtype]


def test_lengths_that_kernels_are_told_are_few_and_enough() -> None:
    for length in (96, 1000, 8192, 131072):
        told = [varlen.bucket(longest, length) for longest in range(1, length + 1)]
        assert all(longest <= bound <= length for longest, bound in enumerate(told, 1))
        assert len(set(told)) <= varlen.MOST_BUCKETS
        assert all(bound < 2 * longest for longest, bound in enumerate(told, 1) if longest > length // 16 + 1)


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


def products_of_onednn(compute: Callable[[], object], capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Matrix products that oneDNN computed, a line each with dtypes and shapes."""
    capfd.readouterr()
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        compute()
    return [line for line in capfd.readouterr().out.splitlines() if ",exec," in line and "matmul" in line]


def test_documents_of_new_lengths_make_no_code_on_the_cpu(capfd: pytest.CaptureFixture[str]) -> None:
    """oneDNN builds code for each shape of a product in bf16 and keeps it, so that memory would grow with new documents."""
    if multiplies_bf16("cpu"):
        low = torch.ones(64, 64, dtype=torch.bfloat16)
        assert products_of_onednn(lambda: low @ low, capfd), "oneDNN does not tell what it computes"

    def some_steps() -> None:
        chance = random.Random(0)
        for length in (96, 700, 1500):
            bounds = [[0, *sorted(chance.sample(range(1, length), 5)), length]]
            qkv = inputs(bounds, torch.bfloat16, 4, 2)
            results(attention(*qkv, Documents.of(cu_seqlens(bounds), length)), qkv)

    assert products_of_onednn(some_steps, capfd) == []
