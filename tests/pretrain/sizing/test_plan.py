"""Planning without a cluster: table 4 of the Llama 3 report by arithmetic, and the arithmetic against the model itself."""

from __future__ import annotations

import dataclasses
import re

import pytest

from configs import edge
from configs.schema.train import PlanRun
from launch import cli, plan
from pretrain.parallel.layout import Layout, stage_layers
from pretrain.parallel.pipeline_schedules import timeline
from pretrain.sizing.footprint import (
    ACCELERATORS,
    USABLE,
    Footprint,
    activation_bytes,
    footprint,
    stage_parameters,
)
from pretrain.sizing.probe import probe

H100 = ACCELERATORS["h100"]


def planned(world: int, length: int, *overrides: str) -> tuple[PlanRun, Layout, Footprint]:
    config = edge.load("plan", PlanRun, [*overrides, f"train.sequence_length={length}"])
    layout = Layout.check(config.parallel, config.train, config.model, 128_256, world)
    return (
        config,
        layout,
        footprint(config.model, 128_256, config.parallel, config.train, layout, length, H100),
    )


@pytest.mark.parametrize(
    ("name", "world", "length", "tflops"),
    [("405b_8k_8192gpus", 8192, 8192, 430), ("405b_8k", 16384, 8192, 400), ("405b_131k", 16384, 131072, 380)],
)
def test_the_layouts_of_llama_3_run_at_the_published_speed(
    name: str, world: int, length: int, tflops: int
) -> None:
    # One constant, the kernels' efficiency, is fitted to the second row; bubble and communication make the others.
    _, layout, taken = planned(
        world,
        length,
        *("model=llama31_405b", f"parallel={name}", f"train.global_batch_size={2**24 // length}"),
        *("parallel.pp_schedule=interleaved", "parallel.pp_virtual=7"),
    )
    assert taken.flops / taken.seconds / 1e12 == pytest.approx(tflops, rel=0.07)
    # Section 3.3.2 gives idle over working time, (PP - 1) / (V · M); the bubble is idle over all time.
    assert taken.bubble / (1 - taken.bubble) == pytest.approx(15 / (7 * layout.micro_batches))


@pytest.mark.parametrize(("schedule", "virtual"), [("1f1b", 1), ("interleaved", 2), ("zbv", 2)])
@pytest.mark.parametrize("micro_batches", [8, 64])
def test_the_plan_and_the_schedule_give_one_bubble(
    schedule: str, virtual: int, micro_batches: int, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *("model=8b", "cluster.nproc=8", "accelerator=h100", "probe=false", "parallel.pp=4"),
        *(f"parallel.pp_schedule={schedule}", f"train.global_batch_size={2 * micro_batches}"),
        *("parallel.reshard_after_forward=false", "train.sequence_length=2048"),
        *(["parallel.pp_virtual=2"] if schedule == "interleaved" else []),
    ]
    config, layout, taken = planned(8, 2048, *arguments)
    assert layout.micro_batches == micro_batches
    # Carried out with all of its micro-batches, and not with the few that the plan extrapolates from.
    exact = timeline(schedule, 4, virtual, micro_batches).bubble  # type: ignore[arg-type]
    assert taken.bubble == pytest.approx(exact)
    assert plan.main(arguments) in (0, 1)
    shown = capsys.readouterr().out
    assert f"pipeline bubble {exact:.1%} of the time" in shown
    # The fullest rank has the first stage, the first of either half, or the two in the middle, which need no message.
    hops = {"1f1b": 1, "interleaved": 3, "zbv": 2}[schedule] * micro_batches
    assert f"{hops} receive, {hops} send" in shown
    assert layout.describe_pipeline(config.parallel).endswith(f"bubble {exact:.0%}")


def test_405b_at_16384_ranks_fits_into_80_gb_where_blocks_are_computed_again() -> None:
    arguments = ("model=405b", "parallel=405b_8k", "train.global_batch_size=2048")
    _, _, whole = planned(16384, 8192, *arguments)
    _, _, again = planned(16384, 8192, *arguments, "train.activation_checkpointing=full")
    assert again.memory < 0.5 * USABLE * H100.memory < whole.memory
    # Optimizer and master weights are spread over 128 × 16 × 8 ranks; gradients wait whole for the last micro-batch.
    assert again.parameters == pytest.approx(4 * 405.85e9 / 16384, rel=0.1)
    assert again.optimizer == 2 * again.parameters
    assert again.sent_tp > whole.sent_tp and again.seconds > whole.seconds


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zbv"])
def test_more_micro_batches_wait_less(schedule: str) -> None:
    bubbles, memory = [], []
    for batch in (8, 16, 64):
        _, _, taken = planned(
            8,
            2048,
            "model=8b",
            "parallel.pp=4",
            f"parallel.pp_schedule={schedule}",
            f"train.global_batch_size={batch}",
            "parallel.reshard_after_forward=false",
        )
        bubbles.append(taken.bubble)
        memory.append(taken.activations)
    assert bubbles == sorted(bubbles, reverse=True)
    # GPipe holds every micro-batch, the others as many as there are stages.
    assert (memory[-1] > 3 * memory[0]) == (schedule == "gpipe")


TIED = ("model=1b", "parallel.pp=2", "parallel.tp=2", "train.global_batch_size=8")
AGAIN = ("parallel.reshard_after_forward=false", "train.activation_checkpointing=full")


@pytest.mark.parametrize(
    ("world", "stage", "overrides"),
    [
        pytest.param(
            16384,
            1,
            ("model=405b", "parallel=405b_8k", "train.global_batch_size=2048"),
            id="405b, 16,384 ranks",
        ),
        pytest.param(16, 1, (*TIED, *AGAIN), id="tied, last stage", marks=pytest.mark.full),
    ],
)
def test_a_stage_built_and_run_without_data_counts_what_the_arithmetic_says(
    world: int, stage: int, overrides: tuple[str, ...]
) -> None:
    config, layout, taken = planned(world, 8192, *overrides)
    model, train = config.model, config.train
    found = probe(model, 128_256, config.parallel, train, layout, 8192, stage)
    layers = len(stage_layers(model.n_layers, layout.pp, stage))
    last = stage == layout.pp - 1
    whole = stage_parameters(model, 128_256, layers, stage == 0, last, layout.tp)
    shards = layout.dp_shard * layout.cp
    assert found.parameters == pytest.approx(whole / shards, rel=1e-6)
    element = 2
    kept = layers * activation_bytes(model, 8192, layout.tp, train.activation_checkpointing, element)
    if train.activation_checkpointing == "none":
        # The CPU's RMSNorm keeps its input and its result in fp32 besides; CUDA's does not.
        kept += layers * 2 * 3 * 8192 * model.dim / layout.tp * element
        assert found.saved == pytest.approx(kept, rel=0.005)
    else:
        # Besides the inputs of blocks, the norm and the head keep what the loss needs.
        assert kept <= found.saved
    own = whole * (2 + 4) * (shards - 1) / shards
    assert found.sent["dp_shard"] == pytest.approx(own, rel=0.01)
    per_block = taken.sent_tp / layout.micro_batches / -(-model.n_layers // layout.pp)
    extra = found.sent["tp"] - layers * per_block
    assert abs(extra) < (0.002 * found.sent["tp"] if not last else 3 * per_block)


def test_the_verb_says_what_does_not_fit_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "model=70b",
        "cluster.nproc=8",
        "accelerator=h100",
        "train.global_batch_size=8",
        "probe=false",
    ]
    assert plan.main(arguments) == 1
    captured = capsys.readouterr()
    assert "GB a rank do not fit" in captured.err and "raise parallel.tp" in captured.err
    assert "70.6b parameters (70,553,706,496)" in captured.out
    assert cli.main(["plan", *arguments, "parallel.tp=16"]) == 2
    assert plan.main(["budget=1e22", "cluster.nproc=32", "accelerator=h200", "probe=false"]) == 0
    assert "0.299 · C^0.537" in capsys.readouterr().out


def test_replicas_add_up_shards_of_gradients() -> None:
    _, _, one = planned(16, 8192, "model=8b", "train.global_batch_size=16")
    _, _, two = planned(16, 8192, "model=8b", "train.global_batch_size=16", "parallel.dp_replicate=2")
    assert one.sent_replicate == 0 < two.sent_replicate and two.parameters == 2 * one.parameters
    assert dataclasses.asdict(one)["sent_pp"] == 0


def test_the_memory_of_a_tiny_model_is_told_in_megabytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["model=debug", "model.dim=32", "cluster.nproc=1", "probe=false"]) == 0
    told = dict(re.findall(r"^  (\w+) +([\d.]+ \w+)$", capsys.readouterr().out, re.M))
    for part in ("parameters", "gradients", "optimizer", "activations"):
        size, unit = told[part].split()
        assert unit == "MB" and float(size) > 0
