"""FLOPs, peaks and rows of metrics."""

from __future__ import annotations

import math

import pytest
import torch

from configs import edge
from configs.schema.train import ModelConfig, TrainRun
from pretrain.metrics.flops import attention_pairs, matmul_parameters, peak_flops, step_flops
from pretrain.metrics.meter import Meter, StepNumbers
from pretrain.model.llama import Llama


@pytest.mark.parametrize("tied", [True, False])
def test_matmul_parameters_are_those_of_the_model(tied: bool) -> None:
    model = ModelConfig("test", dim=32, n_layers=3, n_heads=4, n_kv_heads=2, ffn_dim=48, tied=tied)
    llama = Llama(model, 100)
    matrices = {name: p.numel() for name, p in llama.named_parameters() if p.ndim == 2}
    # An embedding is looked up, not multiplied with; a tied one is, as the output head.
    if not tied:
        del matrices["tok_embeddings.weight"]
    assert matmul_parameters(model, 100) == sum(matrices.values())


def test_pairs_stay_inside_documents() -> None:
    boundaries = torch.tensor([[0, 3, 8, 8], [0, 8, 8, 8]], dtype=torch.int32)
    assert attention_pairs(boundaries) == (6 + 15) + 36


def test_flops_of_llama_3_8b_are_those_of_the_report() -> None:
    model = edge.load_group("model", "8b", ModelConfig)
    # 8.03e9 parameters less an embedding of 0.53e9, 6 FLOPs each and token; attention over 8,192 tokens adds 7%.
    tokens = 8192
    flops = step_flops(model, 128_256, tokens, tokens * (tokens + 1) // 2) / tokens
    assert flops == pytest.approx(6 * 7.5e9 + 12 * 32 * 4096 * 4096, rel=0.01)


def test_peak_of_the_cpu_is_measured() -> None:
    assert 1e9 < peak_flops(torch.device("cpu"), "fp32") < 1e14


def test_rows_have_all_keys_and_their_meaning() -> None:
    meter = Meter(torch.device("cpu"), peak=1e9, tokens_per_step=256)
    meter.add(StepNumbers(3, torch.tensor(400.0), 200, torch.tensor(0.5), 1e-3, 1e8, 0.01, 0.5))
    (row,) = meter.flush()
    assert row["step"] == 3 and row["loss"] == 2.0 and row["tokens"] == 200
    assert row["perplexity"] == pytest.approx(math.exp(2.0))
    assert row["tokens_per_second"] == 512 and row["mfu"] == pytest.approx(0.2)
    assert row["memory"] > 10 * 2**20 and row["data_wait"] == 0.01 and row["step_time"] == 0.5
    assert meter.flush() == []


@pytest.mark.parametrize(
    ("name", "vocab_size", "billions"),
    [
        ("llama1_7b", 32_000, 6.74),
        ("llama1_13b", 32_000, 13.0),
        ("llama1_33b", 32_000, 32.5),
        ("llama1_65b", 32_000, 65.2),
        ("8b", 128_256, 8.03),
        ("70b", 128_256, 70.6),
        ("405b", 128_256, 405.9),
    ],
)
def test_presets_have_the_published_numbers_of_parameters(
    name: str, vocab_size: int, billions: float
) -> None:
    with torch.device("meta"):
        model = Llama(edge.load_group("model", name, ModelConfig), vocab_size)
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, rel=0.004)


def test_the_llama_1_runs_consume_the_published_tokens() -> None:
    for name, trillions in (("llama1_7b", 1.0), ("llama1_65b", 1.4)):
        config = edge.load("train", TrainRun, ["data.path=d", "run.dir=r", f"experiment={name}"])
        tokens = config.train.steps * config.train.global_batch_size * config.model.max_sequence_length
        assert tokens / 1e12 == pytest.approx(trillions, rel=1e-4) and config.model.name == name
