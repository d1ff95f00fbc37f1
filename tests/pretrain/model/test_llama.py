"""The model equals the reference implementation, packed documents equal lonely ones, and its loss torch's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from configs.schema.train import ModelConfig, RopeScalingConfig
from pretrain.hf import hf_name, to_hf_config
from pretrain.model.decode import Cache, decode
from pretrain.model.init import init_weights
from pretrain.model.llama import Llama, rope_table, rotate
from pretrain.model.loss import linear_cross_entropy, reference_loss
from pretrain.model.recompute import Recompute, kept_by_layer

MODEL = ModelConfig("tiny", dim=64, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=96, init_std=0.1)
VOCAB, LENGTH = 128, 48
BOUNDS = [[0, 1, 30, 48], [0, 48], [0, 10, 20, 48]]


def packed() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, labels, positions, cu_seqlens."""
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, VOCAB, (len(BOUNDS), LENGTH), generator=g)
    labels, positions = torch.full_like(tokens, -100), torch.zeros_like(tokens)
    for row, b in enumerate(BOUNDS):
        for start, end in itertools.pairwise(b):
            labels[row, start : end - 1] = tokens[row, start + 1 : end]
            positions[row, start:end] = torch.arange(end - start)
    width = max(map(len, BOUNDS))
    cu = torch.tensor([b + [LENGTH] * (width - len(b)) for b in BOUNDS], dtype=torch.int32)
    return tokens, labels, positions, cu


def model(config: ModelConfig, dtype: torch.dtype = torch.float64, **options: int) -> Llama:
    made = Llama(config, VOCAB, **options).to(dtype)
    init_weights([made], 0)
    return made


def grads(m: Llama) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in m.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tied", [False, True])
def test_packed_documents_equal_each_document_alone(tied: bool) -> None:
    m = model(replace(MODEL, tied=tied))
    tokens, labels, positions, cu = packed()
    logits = m(tokens, positions, cu)
    m(tokens, positions, cu, labels).backward()
    together = grads(m)
    m.zero_grad()
    for row, b in enumerate(BOUNDS):
        for start, end in itertools.pairwise(b):
            n = end - start
            one = tokens[row : row + 1, start:end]
            own = torch.arange(n)[None], torch.tensor([[0, n]], dtype=torch.int32)
            torch.testing.assert_close(m(one, *own), logits[row : row + 1, start:end], rtol=1e-9, atol=1e-9)
            m(one, *own, labels[row : row + 1, start:end]).backward()
    alone = grads(m)
    assert together.keys() == alone.keys() == dict(m.named_parameters()).keys()
    for name in alone:
        assert (together[name] - alone[name]).norm() <= 1e-9 * alone[name].norm(), name


SCALED = replace(MODEL, rope_scaling=RopeScalingConfig(8.0, 1.0, 4.0, 32), max_sequence_length=256)


def exact_norm(norm: torch.nn.Module, x: Tensor) -> Tensor:
    """transformers' RMSNorm without its cast to fp32, which would hide everything below 1e-7 in fp64."""
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    return norm.weight * (x * scale)  # type: ignore[operator]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize(
    "config", [MODEL, replace(MODEL, tied=True), SCALED], ids=["untied", "tied", "scaled"]
)
def test_logits_equal_transformers(
    config: ModelConfig, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    if dtype == torch.float64:
        monkeypatch.setattr("transformers.models.llama.modeling_llama.LlamaRMSNorm.forward", exact_norm)
    m = model(config, dtype)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**to_hf_config(config, VOCAB, 0, [1], "fp32"))
    ).to(dtype)
    missing, unexpected = theirs.load_state_dict(
        {hf_name(name): value for name, value in m.state_dict().items()}, strict=False
    )
    assert not unexpected and missing == (["lm_head.weight"] if config.tied else [])
    tokens = torch.randint(0, VOCAB, (2, 200), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(200).expand(2, -1)
    cu = torch.tensor([[0, 200]] * 2, dtype=torch.int32)
    with torch.no_grad():
        ours, reference = m(tokens, positions, cu), theirs(tokens).logits
    assert float((ours - reference).abs().max()) < bound


@pytest.mark.parametrize("chunk_tokens", [0, 1, 7, 48, 1000])
@pytest.mark.parametrize("tied", [False, True])
def test_chunked_loss_and_its_gradients_equal_torchs(chunk_tokens: int, tied: bool) -> None:
    m = model(replace(MODEL, tied=tied), chunk_tokens=chunk_tokens)
    tokens, labels, positions, cu = packed()
    loss = m(tokens, positions, cu, labels)
    (loss / 3).backward()
    ours = grads(m)
    m.zero_grad()
    reference = reference_loss(m(tokens, positions, cu), labels)
    (reference / 3).backward()
    torch.testing.assert_close(loss, reference, rtol=1e-12, atol=0)
    for name, expected in grads(m).items():
        assert (ours[name] - expected).norm() <= 1e-12 * expected.norm(), name
    each = m(tokens, positions, cu, labels, per_token=True)
    assert not each.requires_grad and bool((each[labels == -100] == 0).all())
    torch.testing.assert_close(each.sum(), reference, rtol=1e-12, atol=0)


def test_loss_in_bf16_over_a_large_vocabulary_is_computed_in_fp32() -> None:
    m = Llama(replace(MODEL, init_std=0.3), 20_000, chunk_tokens=64).to(torch.bfloat16)
    init_weights([m], 0)
    tokens, labels, positions, cu = packed()
    exact = Llama(replace(MODEL, init_std=0.3), 20_000).double()
    exact.load_state_dict(m.state_dict())
    ours, expected = (x(tokens, positions, cu, labels).item() for x in (m, exact))
    assert abs(ours / expected - 1) < 2e-3


@pytest.mark.parametrize(
    ("recompute", "budget"), [("full", 0), ("selective", 0), ("budget", 0.3), ("budget", 0.7)]
)
def test_recomputation_changes_no_gradient(recompute: Recompute, budget: float) -> None:
    tokens, labels, positions, cu = packed()
    results = []
    kinds: tuple[Recompute, ...] = ("none", recompute)
    for kind in kinds:
        m = Llama(MODEL, VOCAB, kept=kept_by_layer(MODEL, kind, budget)).double()
        init_weights([m], 0)
        m(tokens, positions, cu, labels).backward()
        results.append(grads(m))
    for name, expected in results[0].items():
        assert torch.equal(results[1][name], expected), name


def test_selective_recomputation_keeps_products() -> None:
    """Matrix products run once in the forward pass and never again before their gradients."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        products = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            self.products += func._overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm)
            return func(*args, **(kwargs or {}))

    tokens, labels, positions, cu = packed()
    counts = {}
    kinds: tuple[Recompute, ...] = ("none", "selective", "full")
    for kind in kinds:
        m = Llama(MODEL, VOCAB, kept=kept_by_layer(MODEL, kind)).float()
        init_weights([m], 0)
        with Count() as count:
            m(tokens, positions, cu, labels).backward()
        counts[kind] = count.products
    assert counts["none"] == counts["selective"] < counts["full"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_z_loss_is_in_the_gradients_and_not_in_the_value(dtype: torch.dtype) -> None:
    weight_of_z, g = 0.3 if dtype == torch.float64 else 1e-2, torch.Generator().manual_seed(0)
    x = torch.randn(2, 24, 16, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(50, 16, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
    labels = torch.randint(0, 50, (2, 24), generator=g)
    labels[0, 3:9] = -100

    def gradients(z_loss: float) -> list[Tensor]:
        loss = linear_cross_entropy(x, weight, labels, 7, z_loss)
        torch.testing.assert_close(
            loss, reference_loss(x.double() @ weight.double().mT, labels), rtol=1e-2, atol=0
        )
        return [t.double() for t in torch.autograd.grad(loss / 3, (x, weight))]

    exact = [t.detach().double().requires_grad_() for t in (x, weight)]
    logits = exact[0] @ exact[1].mT
    z = logits.logsumexp(-1)[labels >= 0].square().sum()
    expected = torch.autograd.grad((reference_loss(logits, labels) + weight_of_z * z) / 3, exact)
    bound = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    for got, one in zip(gradients(weight_of_z), expected, strict=True):
        assert (got - one).norm() <= bound * one.norm()
    if dtype == torch.bfloat16:
        # So small that 1 + 2 z logsumexp is 1 in bf16, and there nevertheless.
        with_z, without = gradients(1e-4)[1], gradients(0.0)[1]
        z_alone = torch.autograd.grad(
            1e-4 * (exact[0] @ exact[1].mT).logsumexp(-1)[labels >= 0].square().sum() / 3, exact
        )
        assert (with_z - without).flatten().dot(z_alone[1].flatten()) >= 0.5 * z_alone[1].norm().square()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_padding_of_the_vocabulary_changes_nothing(tied: bool, dtype: torch.dtype) -> None:
    plain, padded = (model(replace(MODEL, tied=tied, vocab_multiple=m), dtype) for m in (1, 100))
    tokens, labels, positions, cu = packed()
    assert padded.tok_embeddings is not None and len(padded.tok_embeddings.weight) == 200
    with torch.no_grad():
        # Rows that are no tokens, and would win every softmax.
        for name, parameter in padded.named_parameters():
            if name in ("output.weight", "tok_embeddings.weight"):
                parameter[VOCAB:] = 100 * parameter[0]
    close = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(plain(tokens, positions, cu), padded(tokens, positions, cu), **close)
    for per_token in (True, False):
        losses = [m(tokens, positions, cu, labels, per_token) for m in (plain, padded)]
        torch.testing.assert_close(*losses, **close)
    losses[0].backward(), losses[1].backward()
    expected = grads(plain)
    for name, grad in grads(padded).items():
        whole = expected[name]
        torch.testing.assert_close(grad[: len(whole)], whole, **close)
        assert not grad[len(whole) :].any(), "padding learns nothing"


def test_rotation_is_computed_in_fp32_and_rounded_once() -> None:
    x = torch.randn(1, 64, 2, 16, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    positions = torch.arange(1000, 1064)[None]
    exact = rotate(x.float(), rope_table(MODEL, positions, torch.float32))
    rounded = rotate(x, rope_table(MODEL, positions, torch.bfloat16))
    assert rounded.dtype == torch.bfloat16 and torch.equal(rounded, exact.to(torch.bfloat16))


class RecordedAttention(TorchFunctionMode):
    """Queries and keys of each attention that is computed within it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            self.calls.append((args[0], args[1]))
        return func(*args, **(kwargs or {}))


def test_decoding_in_bf16_rotates_in_fp32_as_training_does() -> None:
    m = model(MODEL, torch.bfloat16)
    tokens = torch.randint(0, VOCAB, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    cache = Cache.empty(m, 1, 1000 + LENGTH)
    cache.lengths.fill_(1000)
    with RecordedAttention() as recorded:
        decode(m, tokens, cache)
    assert m.tok_embeddings is not None
    block, embedded = m.layers["0"], m.tok_embeddings(tokens)
    rope = rope_table(MODEL, torch.arange(1000, 1000 + LENGTH)[None], torch.float32)
    x_bsd = block.attention_norm(embedded)
    queries, keys = recorded.calls[0]
    for rotated, projection in ((queries, block.attention.wq), (keys[:, :, 1000:], block.attention.wk)):
        exact = rotate(projection(x_bsd).unflatten(-1, (-1, block.attention.head_dim)).float(), rope)
        assert torch.equal(rotated.transpose(1, 2), exact.to(torch.bfloat16))
