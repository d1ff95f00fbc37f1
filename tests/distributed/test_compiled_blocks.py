"""Compiled blocks: the same gradients in every layout, one graph for all blocks and batches, refusals that help."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import compiled_cases
import pytest
import ranks
import torch
from parity_cases import Case, outcomes
from parity_layouts import FULLY, SELECTIVELY
from parity_layouts import case as layout

from configs.edge import ConfigError
from configs.schema.train import ParallelConfig, TrainConfig
from pretrain.options import check_compiled, compiles

ROOT = Path(__file__).parents[2]
COMPILED = {"compile": True}
TRAIN = TrainConfig(steps=1, global_batch_size=1, micro_batch_size=1, dtype="bf16")
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs g++ or clang++"
)


def compare(cases: list[Case], world_size: int) -> None:
    expected = ranks.run(outcomes, 1, [c.alone for c in cases])
    got = ranks.run(outcomes, world_size, cases, timeout=1700)
    for c, mine, theirs in zip(cases, got, expected, strict=True):
        assert mine.initial == theirs.initial, c.name
        assert mine.losses == pytest.approx(theirs.losses, rel=1e-9), c.name
        assert mine.grads.keys() == theirs.grads.keys()
        for kind in ("grads", "weights"):
            for name, tensor in getattr(theirs, kind).items():
                distance = float((getattr(mine, kind)[name] - tensor).norm() / tensor.norm())
                assert distance <= 1e-9, f"{c.name}: {kind} of {name} by {distance:.1e}"


@needs_compiler
def test_compiled_tensor_parallel_blocks_compute_what_one_process_computes() -> None:
    compare([replace(layout(tp=2, train=COMPILED | SELECTIVELY), dtype="fp64")], 2)


@pytest.mark.full
@needs_compiler
@pytest.mark.parametrize("world_size", [2, 4])
def test_compiled_layouts_compute_what_one_process_computes(world_size: int) -> None:
    cases = [
        layout(train=COMPILED | recompute, **sizes)
        for sizes in (
            {"shard": 2},
            {"tp": 2},
            {"cp": 2},
            {"pp": 2},
            {"shard": 2, "tp": 2},
            {"cp": 2, "tp": 2},
        )
        for recompute in ({}, FULLY, SELECTIVELY)
    ]
    compare([replace(c, dtype="fp64") for c in cases if c.world_size == world_size], world_size)


ODD_WIDTHS = """
import copy, torch
from configs.schema.train import ModelConfig
from pretrain.model.llama import Llama

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
eager = Llama(ModelConfig("odd", dim=42, n_layers=1, n_heads=7, n_kv_heads=7, ffn_dim=51), 97)
for p in eager.parameters():
    torch.nn.init.normal_(p, std=0.3)
compiled = copy.deepcopy(eager)
for block in compiled.layers.values():
    block.compile()
tokens, places = torch.randint(0, 97, (3, 30)), torch.arange(30).repeat(3, 1)
bounds = torch.tensor([[0, 7, 30, 30]] * 3, dtype=torch.int32)
for model in (eager, compiled):
    model(tokens, places, bounds, tokens).backward()
print(max(float((p.grad - q.grad).norm() / p.grad.norm()) for p, q in zip(eager.parameters(), compiled.parameters())))
"""


@pytest.mark.full
@needs_compiler
def test_compiled_blocks_of_odd_widths_are_exact_in_fp64_on_processors_with_avx2() -> None:
    """There Inductor of torch 2.13 made wrong code for a logsumexp; blocks have sums over their width, but none of those."""
    masked = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", ODD_WIDTHS], env=os.environ | masked, cwd=ROOT, capture_output=True, text=True
    )
    assert float(done.stdout) < 1e-12, done.stderr


@needs_compiler
def test_one_graph_serves_all_blocks_steps_and_documents() -> None:
    graphs, breaks = ranks.run(compiled_cases.graphs, 1)
    # One with gradients, one without; the passes over the logits are compiled on GPUs alone.
    assert graphs == 2 and not breaks


def test_what_cannot_be_compiled_is_refused() -> None:
    assert not compiles(TRAIN, ParallelConfig(), "cpu") and compiles(TRAIN, ParallelConfig(), "cuda")
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(ConfigError, match=r"install g\+\+, or set train.compile=false"),
    ):
        check_compiled(replace(TRAIN, compile=True), ParallelConfig(), "cpu")
    overlapped = ParallelConfig(tp=2, async_tp=True)
    two_rows = replace(TRAIN, micro_batch_size=2)
    check_compiled(two_rows, overlapped, "cuda")
    for train, parallel, device, message in (
        (replace(TRAIN, compile=True), overlapped, "cpu", "false on the CPU"),
        (TRAIN, replace(overlapped, tp=1), "cuda", "parallel.tp above 1"),
        (replace(TRAIN, compile=False), overlapped, "cuda", "set train.compile=true"),
        (TRAIN, overlapped, "cuda", "train.micro_batch_size to 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_compiled(train, parallel, device)
