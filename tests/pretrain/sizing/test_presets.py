"""Presets: shapes and numbers of parameters as published, every experiment through the real edge."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from configs import edge
from configs.schema.train import ModelConfig, ParallelConfig, TrainRun
from pretrain.data.ramp import Ramp
from pretrain.model.llama import Llama
from pretrain.parallel.layout import Layout
from pretrain.sizing.shape import body_parameters, flops_per_token, parameters

CONFIGS = Path(edge.__file__).parent
# Totals of the published weights, with the published vocabularies.
PUBLISHED = {
    "llama1_7b": (32_000, 6_738_415_616),
    "llama1_13b": (32_000, 13_015_864_320),
    "llama1_33b": (32_000, 32_528_943_616),
    "llama1_65b": (32_000, 65_285_660_672),
    "8b": (128_256, 8_030_261_248),
    "70b": (128_256, 70_553_706_496),
    "405b": (128_256, 405_853_388_800),
    "llama31_8b": (128_256, 8_030_261_248),
    "llama31_70b": (128_256, 70_553_706_496),
    "llama31_405b": (128_256, 405_853_388_800),
    "llama32_1b": (128_256, 1_235_814_400),
    "llama32_3b": (128_256, 3_212_749_824),
    "1b": (128_256, 1_235_814_400),
    "3b": (128_256, 3_212_749_824),
}
# The rest of the ladder: words of the vocabulary that a model of this size can afford, and its name in millions.
LADDER = {
    "1m": (4_096, 1),
    "2m": (4_096, 2),
    "4m": (4_096, 4),
    "10m": (8_192, 10),
    "33m": (8_192, 33),
    "70m": (16_384, 70),
    "160m": (16_384, 160),
    "410m": (16_384, 410),
}


def names(group: str) -> list[str]:
    return sorted(p.stem for p in (CONFIGS / group).glob("*.yaml"))


def preset(name: str) -> ModelConfig:
    return edge.load_group("model", name, ModelConfig)


@pytest.mark.parametrize("name", names("model"))
def test_every_preset_builds_with_the_parameters_that_its_arithmetic_says(name: str) -> None:
    model, vocab_size = preset(name), {**PUBLISHED, **LADDER}.get(name, (4_096, 0))[0]
    with torch.device("meta"):
        llama = Llama(model, vocab_size)
    counts = {name: p.numel() for name, p in llama.named_parameters()}
    total = sum(counts.values())
    assert parameters(model, vocab_size) == total
    assert body_parameters(model) == sum(
        n for name, n in counts.items() if name.startswith(("layers.", "norm."))
    )
    if name in PUBLISHED:
        assert total == PUBLISHED[name][1]
    elif name in LADDER:
        assert total == pytest.approx(LADDER[name][1] * 1e6, rel=0.03)
    else:
        assert name == "debug"


@pytest.mark.parametrize("name", [*LADDER, "1b", "3b"])
def test_the_ladder_keeps_its_proportions(name: str) -> None:
    model = preset(name)
    assert model.dim // model.n_heads == (64 if model.dim <= 2048 else 128)
    assert 60 <= model.dim / model.n_layers <= 130
    assert 2.6 <= model.ffn_dim / model.dim <= 4
    assert 2 <= model.n_heads // model.n_kv_heads <= 5


@pytest.mark.parametrize(
    ("name", "theta", "context", "factor"),
    [
        ("llama1_7b", 1e4, 2048, None),
        ("8b", 5e5, 8192, None),
        ("llama31_8b", 5e5, 131072, 8.0),
        ("llama32_1b", 5e5, 131072, 32.0),
    ],
)
def test_positions_are_those_of_the_published_models(
    name: str, theta: float, context: int, factor: float | None
) -> None:
    model = preset(name)
    assert (model.rope_theta, model.max_sequence_length) == (theta, context)
    assert (model.rope_scaling.factor if model.rope_scaling else None) == factor


@pytest.mark.parametrize("name", names("experiment"))
def test_every_experiment_composes(name: str) -> None:
    config = edge.load("train", TrainRun, ["data.path=d", "run.dir=r", f"experiment={name}"])
    steps, length = config.train.steps, config.model.max_sequence_length
    published = {
        # Learning rate, final share, warm-up, tokens: LLaMA, table 2 and section 2.3; Llama 3, table 3 and section 3.4.
        "llama1_7b": (3e-4, 0.1, 2000, 1.0e12),
        "llama1_13b": (3e-4, 0.1, 2000, 1.0e12),
        "llama1_33b": (1.5e-4, 0.1, 2000, 1.4e12),
        "llama1_65b": (1.5e-4, 0.1, 2000, 1.4e12),
        "llama3_8b": (3e-4, 0.01, 8000, 15e12),
        "llama3_70b": (1.5e-4, 0.01, 8000, 15e12),
        "llama3_405b": (8e-5, 0.01, 8000, None),
        "llama3_405b_anneal": (8e-7, 0.0, 0, 10 * 2**22),
    }
    if name in published:
        lr, final, warmup, tokens = published[name]
        assert (config.optim.lr, config.schedule.min_ratio, config.schedule.warmup_steps) == (
            lr,
            final,
            warmup,
        )
        assert (
            config.optim.betas == (0.9, 0.95)
            and config.optim.weight_decay == 0.1
            and config.optim.clip == 1.0
        )
        ramp = Ramp(config.data.phases, config.train.global_batch_size, length)
        if tokens is not None:
            assert ramp.used(steps) * length == pytest.approx(tokens, rel=1e-3)


def test_the_batch_of_llama_3_405b_grows_as_published() -> None:
    config = edge.load("train", TrainRun, ["data.path=d", "run.dir=r", "experiment=llama3_405b"])
    ramp = Ramp(config.data.phases, config.train.global_batch_size, 8192)
    _, second, third = ramp.stretches
    assert [s.size * 8192 for s in ramp.stretches] == [2**22, 2**23, 2**24]
    assert [s.length for s in ramp.stretches] == [4096, 8192, 8192]
    assert second.n * 8192 == pytest.approx(252e6, rel=0.01) and third.n * 8192 == pytest.approx(
        2.87e12, rel=1e-3
    )
    assert config.train.steps == 1_200_000 and ramp.used(1_100_926) * 8192 == pytest.approx(15.6e12, rel=1e-4)
    # 3.8e25 FLOPs are published for the whole of it.
    flops = flops_per_token(config.model, 128_256, 8192) * 15.6e12
    assert flops == pytest.approx(3.8e25, rel=0.1)


@pytest.mark.parametrize(
    ("name", "world", "length", "per_rank"),
    [("405b_8k", 16384, 8192, 16), ("405b_8k_8192gpus", 8192, 8192, 32), ("405b_131k", 16384, 131072, 16)],
)
def test_layouts_of_table_4_divide_the_model_and_its_batch_of_16m_tokens(
    name: str, world: int, length: int, per_rank: int
) -> None:
    config = edge.load(
        "train",
        TrainRun,
        [
            *(
                "data.path=d",
                "run.dir=r",
                "model=llama31_405b",
                f"parallel={name}",
                f"train.sequence_length={length}",
            ),
            f"train.global_batch_size={2**24 // length}",
        ],
    )
    layout = Layout.check(config.parallel, config.train, config.model, 128_256, world)
    assert layout.micro_batches == per_rank and layout.world_size == world
    assert math.isclose(layout.dp * per_rank * length, 2**24)
    assert edge.load_group("parallel", name, ParallelConfig).tp == 8
