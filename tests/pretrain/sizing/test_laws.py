"""One dial: published points, what was asked for is what comes out, what was set wins, and every layout is valid."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import PlanRun
from pretrain.parallel.layout import Layout
from pretrain.sizing import laws
from pretrain.sizing.derive import Sized, derive
from pretrain.sizing.footprint import ACCELERATORS, USABLE
from pretrain.sizing.shape import flops_per_token, parameters, parse_size, shape

VOCABULARIES = (4_096, 16_384, 32_000, 128_256)


@cache
def composed(overrides: tuple[str, ...]) -> PlanRun:
    return edge.load("plan", PlanRun, overrides)


def dial(
    *overrides: str, vocab_size: int = 128_256, length: int = 8192, world: int = 8, device: str = "h100"
) -> Sized:
    """What follows from a command line."""
    config = composed(overrides)
    return derive(
        size=config.model.size,
        budget=config.budget,
        model=config.model,
        train=config.train,
        optim=config.optim,
        schedule=config.schedule,
        parallel=config.parallel,
        chosen=edge.set_by(overrides),
        vocab_size=vocab_size,
        sequence_length=length,
        world_size=world,
        accelerator=ACCELERATORS[device],
    )


def test_optimal_tokens_are_those_of_the_llama_3_report() -> None:
    # Section 3.2.1: 3.8e25 FLOPs are best spent on 402B parameters and 16.55T tokens.
    assert laws.optimal_tokens(3.8e25) == pytest.approx(16.55e12, rel=0.02)
    assert laws.optimal_parameters(3.8e25) == pytest.approx(402e9, rel=0.05)
    # Chinchilla: 70B parameters and 1.4T tokens for 5.76e23 FLOPs; Llama 3 puts more into tokens.
    assert 1 < laws.optimal_tokens(5.76e23) / 1.4e12 < 1.5


@pytest.mark.parametrize(
    ("name", "compute", "lr", "batch"),
    [
        # LLaMA, table 2; Llama 3, table 3 and section 3.4.1; DeepSeek LLM, table 2, from whose authors the laws are.
        ("LLaMA 7B", 6 * 6.7e9 * 1e12, 3e-4, 4e6),
        ("LLaMA 65B", 6 * 65.2e9 * 1.4e12, 1.5e-4, 4e6),
        ("Llama 3 8B", 6 * 8e9 * 15e12, 3e-4, 16e6),
        ("Llama 3 70B", 6 * 70e9 * 15e12, 1.5e-4, 16e6),
        ("Llama 3 405B", 3.8e25, 8e-5, 16e6),
        ("DeepSeek LLM 7B", 6 * 7e9 * 2e12, 4.2e-4, 9.4e6),
        ("DeepSeek LLM 67B", 6 * 67e9 * 2e12, 3.2e-4, 18.9e6),
    ],
)
def test_rates_and_batches_are_near_the_published_ones(
    name: str, compute: float, lr: float, batch: float
) -> None:
    # The rate within a factor of 2.5 (the largest models of Llama used less), the batch within 4.2 (LLaMA 65B less).
    assert 1 / 1.2 < laws.learning_rate(compute) / lr < 2.5
    assert 1 / 1.2 < laws.batch_tokens(compute) / batch < 4.2


def test_laws_are_monotone_in_compute() -> None:
    budgets = [10.0**e for e in range(15, 27)]
    for law, sign in ((laws.optimal_tokens, 1), (laws.optimal_parameters, 1), (laws.learning_rate, -1)):
        values = [law(c) * sign for c in budgets]
        assert values == sorted(values) and len(set(values)) == len(values)
    batches = [laws.batch_tokens(c) for c in budgets]
    assert batches == sorted(batches) and batches[-1] == laws.LARGEST_BATCH
    assert laws.learning_rate(1e10) == laws.LARGEST_RATE
    warmups = [laws.warmup_steps(n) for n in (1, 30, 1000, 20_000, 238_419, 1_200_000)]
    assert warmups == [1, 3, 100, 2000, 2000, 8000]


@pytest.mark.parametrize("vocab_size", VOCABULARIES)
def test_shapes_of_all_sizes_are_near_what_was_asked_and_grow(vocab_size: int) -> None:
    sizes = [vocab_size * 300 * 1.13**i for i in range(90)]
    totals = []
    for size in sizes:
        model = shape(size, vocab_size)
        totals.append(parameters(model, vocab_size))
        assert totals[-1] == pytest.approx(size, rel=0.05)
        assert model.dim == model.n_heads * (64 if model.dim <= 2048 else 128)
        assert model.n_heads % model.n_kv_heads == 0 and model.n_kv_heads <= 8
        assert model.ffn_dim % 64 == 0 and 2.5 <= model.ffn_dim / model.dim <= 4
        assert 25 <= model.dim / model.n_layers <= 256
    assert totals == sorted(totals)


def test_the_size_of_llama_3_8b_gives_llama_3_8b() -> None:
    published = edge.load("plan", PlanRun, ["model=8b"]).model
    derived = shape(8.03e9, 128_256)
    fields = ("dim", "n_layers", "n_heads", "n_kv_heads", "ffn_dim", "tied", "rope_theta")
    assert [getattr(derived, f) for f in fields] == [getattr(published, f) for f in fields]
    # Deeper and thinner by a little at 405B: 126 layers and 16,384 wide are published.
    largest = shape(405.9e9, 128_256)
    assert largest.dim == 16384 and largest.n_layers == pytest.approx(126, rel=0.07)


@pytest.mark.parametrize(
    ("budget", "vocab_size", "length"),
    [(f"1e{e}", 4_096, 512) for e in range(14, 26)] + [(f"3e{e}", 128_256, 8192) for e in range(18, 26)],
)
def test_budgets_are_spent(budget: str, vocab_size: int, length: int) -> None:
    world = max(1, int(float(budget) / 1e21))
    sized = dial(
        f"budget={budget}", vocab_size=vocab_size, length=length, world=1 << (world - 1).bit_length()
    )
    values = sized.values
    tokens = values["train.steps"] * values["train.global_batch_size"] * length
    spent = tokens * flops_per_token(sized.model, vocab_size, length)
    assert spent == pytest.approx(float(budget), rel=0.05) and sized.compute == pytest.approx(spent)
    assert values["train.steps"] >= 95


@pytest.mark.parametrize("world", [1, 2, 3, 6, 8, 24, 64, 512, 2048])
@pytest.mark.parametrize("size", ["100m", "1b", "8b", "70b"])
def test_every_layout_is_valid_and_fits(size: str, world: int) -> None:
    if size == "70b" and world < 24:
        with pytest.raises(
            ConfigError, match=r"no layout of \d+ ranks fits: .* GB a rank .* use more devices"
        ):
            dial(f"model.size={size}", world=world)
        return
    if size == "8b" and world < 3:
        return
    sized = dial(f"model.size={size}", world=world)
    placed = sized.placed
    again = Layout.check(placed.parallel, placed.train, sized.model, 128_256, world)
    assert again == placed.layout and placed.layout.world_size == world
    assert placed.footprint.memory <= USABLE * 80e9
    batch = sized.values["train.global_batch_size"] * 8192
    assert batch < 4 * max(laws.batch_tokens(sized.compute), world * 8192)


def test_what_was_set_wins_and_the_rest_follows_from_it() -> None:
    free = dial("model.size=1b")
    kept = dial(
        "model.size=1b", "optim.lr=7e-4", "train.global_batch_size=24", "model.n_layers=10", "parallel.tp=2"
    )
    assert kept.model.n_layers == 10 and kept.placed.layout.tp == 2
    assert kept.placed.train.global_batch_size == 24
    for key in ("optim.lr", "train.global_batch_size", "model.n_layers", "parallel.tp"):
        assert key not in kept.values and key in free.values
        (reason,) = [r for r in kept.reasons if r.key == key]
        assert reason.why.startswith("set by ")
    # Ten layers are fewer parameters, so fewer tokens; the batch is smaller, so there are more steps a token.
    assert kept.tokens < free.tokens
    assert kept.values["train.steps"] * 24 * 8192 == pytest.approx(20 * kept.parameters, rel=0.01)


@pytest.mark.parametrize(
    ("overrides", "length"),
    [
        (("model.size=33m", "train.steps=500"), 500),
        (("model=33m", "budget=1e17"), None),
        (("model.size=33m", "experiment=demo"), 180),
        (("model.size=33m", "schedule=wsd"), None),
    ],
)
def test_length_is_from_steps_budget_or_the_law(overrides: tuple[str, ...], length: int | None) -> None:
    if "experiment=demo" in overrides:
        with pytest.raises(
            ConfigError, match=r"`experiment=demo` and `model.size=33m` both choose the model"
        ):
            dial(*overrides, vocab_size=8192, world=1)
        return
    sized = dial(*overrides, vocab_size=8192, world=1)
    steps: Any = sized.values.get("train.steps", length)
    assert length in (None, steps) and sized.steps == steps
    assert sized.values["schedule.warmup_steps"] == max(1, min(2000, steps // 10))
    expected = laws.learning_rate(sized.compute)
    assert sized.values["optim.lr"] == pytest.approx(expected, rel=0.05)


def test_hours_are_flops_of_the_devices() -> None:
    sized = dial("model.size=1b", "budget=24h", world=8)
    assert sized.compute == pytest.approx(24 * 3600 * 8 * 989e12 * 0.4, rel=0.05)
    hours = sized.steps * sized.placed.footprint.seconds / 3600
    assert 24 * 0.7 < hours < 24


def test_muon_keeps_its_rates() -> None:
    sized = dial("model.size=160m", "optim=muon")
    assert not any(key.startswith("optim.lr") for key in sized.values if key not in ("optim.lr",))
    (reason,) = [r for r in sized.reasons if r.key == "optim.lr"]
    assert reason.value == 5e-3 and "muon" in reason.why


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.size=huge",), r"`model.size` is 'huge', which is no number of parameters; write 160m"),
        (("model.size=0",), "no number of parameters"),
        (("model.size=1b", "model=8b"), "`model=8b` and `model.size=1b` both choose the model"),
        (("budget=lots",), "`budget` is 'lots'; write FLOPs .* or hours"),
        (("budget=-1e19",), "`budget` is '-1e"),
        (("budget=1e19", "train.steps=5"), "`budget` and `train.steps` both fix the length"),
        (
            ("model.size=10m",),
            r"the nearest sizes are \d+(\.\d+)?m or \d+(\.\d+)?m, or pack with a smaller vocab",
        ),
        (
            ("model.size=1b", "train.global_batch_size=7", "parallel=fsdp"),
            r"`train.global_batch_size` is 7, .* such as 8",
        ),
        (("budget=1e15",), r"`budget` is best spent on a model of 4\.91m .*nearest sizes are 8"),
        (("model.size=1b", "parallel.tp=3"), r"the world has 8 ranks, which .*tp=3 = 3 does not divide"),
    ],
)
def test_a_dial_that_cannot_be_met_says_what_can(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dial(*overrides)


@pytest.mark.parametrize("text", ["160m", "0.16b", "160e6", "160000k", "1.6e8"])
def test_sizes_are_read(text: str) -> None:
    assert parse_size(text) == 160e6
