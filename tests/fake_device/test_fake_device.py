"""What runs on GPUs runs to its end on a CUDA device that is not there, in every layout: nothing waits for the device, one
graph serves all blocks and batches, and a step has the collectives that `arriero plan` declares."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_steps import HERE, ROOT, FakeCase, Found, guard, of_layout, run

from configs.edge import ConfigError
from configs.schema.train import ModelConfig, OptimConfig, ParallelConfig, TrainConfig
from pretrain.options import check_precision

sys.path.append(str(Path(__file__).parents[1] / "distributed"))
from parity_cases import GLOBAL, ODD, Case
from parity_layouts import CORE, FULLY, SELECTIVELY
from parity_layouts import case as layout

pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="the guard is compiled by cc"),
    pytest.mark.timeout(900),
]


def fake(case: Case, last: bool = False, **train: object) -> FakeCase:
    """A layout of the parity matrix as it runs on GPUs: bf16, heads that flash attention takes."""
    model = case.model_config if case.model == ODD else replace(case.model_config, dim=256, ffn_dim=512)
    options = {"micro_batch_size": 1, "dtype": "bf16", "compile": False, **dict(case.train), **train}
    where = "last rank" if last else "rank 0"
    name = f"{case.name}, {where}" + "".join(f", {k}={v}" for k, v in train.items())
    return FakeCase(
        name,
        case.parallel,
        TrainConfig(1, GLOBAL, **options),  # type: ignore[arg-type]
        model,
        case.vocab_size,
        case.optim,
        last,
    )


def complaints(case: FakeCase, found: Found) -> list[str]:
    """What is not as it should be."""
    if found.error is not None:
        return [f"{case.name}: {found.error}"]
    lines = []
    # For fp64 and heads of these widths there is no kernel but our own.
    width = case.model.dim // case.model.n_heads
    if found.attention == "blocked" and (width < 16 or case.train.dtype == "fp64"):
        found.waits -= Counter({op: n for op, n in found.waits.items() if "blocked_attention" in op})
    if found.waits and not case.parallel.cpu_offload:
        lines.append(f"{case.name}: the host waits: {dict(found.waits)}")
    if found.collectives != found.declared:
        both = {
            call: (found.collectives[call], found.declared[call])
            for call in found.collectives | found.declared
            if found.collectives[call] != found.declared[call]
        }
        lines.append(f"{case.name}: collectives of a step, and as planned: {both}; groups are {found.names}")
    if found.graphs > (case.train.compile or found.attention == "flex"):
        lines.append(f"{case.name}: {found.graphs} graphs")
    return lines


def check(cases: list[FakeCase]) -> list[Found]:
    found = run(cases)
    lines = [line for case, one in zip(cases, found, strict=True) for line in complaints(case, one)]
    assert not lines, "\n".join(lines)
    return found


EAGER = [c for c in CORE if not c.varlen]
COMPILED = [
    layout(shard=2),
    layout(tp=2, train=SELECTIVELY),
    layout(cp=2, train=FULLY),
    layout(pp=2, schedule="interleaved"),
    layout(replicate=2, shard=2),
    layout(shard=2, cp=2, tp=2),
]


def test_every_layout_runs_and_nothing_waits_for_the_device() -> None:
    check([fake(c) for c in EAGER] + [fake(c, last=True) for c in EAGER if c.parallel.pp > 1])


RECOMPUTE: dict[str, dict[str, Any]] = {
    "none": {},
    "selective": SELECTIVELY,
    "full, offloaded": FULLY | {"activation_offload": True},
}
DTYPES: dict[str, dict[str, Any]] = {
    "bf16": {},
    "bf16_pure": {"dtype": "bf16_pure"},
    "float8": {"float8": True, "float8_least": 0},
}


@pytest.mark.full
@pytest.mark.parametrize("recompute", RECOMPUTE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_runs_with_every_dtype_and_recomputation(dtype: str, recompute: str) -> None:
    if dtype == "float8":
        pytest.importorskip("torchao")
    cases = [replace(fake(c, **DTYPES[dtype], **RECOMPUTE[recompute]), steps=1) for c in EAGER]
    taken = [c for c in cases if takes_precision(c)]
    assert len(taken) > len(cases) / 2
    check(taken)


def takes_precision(case: FakeCase) -> bool:
    """Whether a user may ask for it."""
    try:
        check_precision(case.train, case.parallel, OptimConfig(name=case.optim), case.model)  # type: ignore[arg-type]
    except ConfigError:
        return False
    return True


def test_compiled_layouts_run_and_one_graph_serves_all_documents() -> None:
    found = check([fake(c, compile=True) for c in COMPILED])
    assert all(one.graphs == 1 for one in found)
    # One pass that reads the logits, one that writes their gradient; rank 0 of a pipeline has none.
    assert [one.loss_graphs for one in found] == [2 * (c.parallel.pp == 1) for c in COMPILED]


@pytest.mark.parametrize(("name", "passes"), [("logsumexp", 1), ("gradient", 2)])
def test_the_loss_passes_three_times_over_its_logits(name: str, passes: int) -> None:
    """One kernel reads them, one reads and writes them, as Inductor plans it for a GPU; beside them a few numbers a row."""
    environment = os.environ | {
        "LD_PRELOAD": str(guard()),
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE))),
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "traffic.py"), name], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if "is not known" in done.stdout:
        pytest.skip(done.stdout.strip())
    assert done.stdout.strip() == f"1 kernels, {passes}.00 passes"


def test_collectives_are_counted_with_everything_that_changes_them() -> None:
    """Blocks that are computed again, chunks of the loss, several micro-batches of weights that stay whole."""
    case, budget = (
        layout(shard=2, cp=2, tp=2),
        {"activation_checkpointing": "budget", "activation_budget": 0.5},
    )
    check(
        [
            fake(case, loss_chunk_tokens=100, activation_checkpointing="selective"),
            fake(case, **budget),
            fake(case, compile=True, **budget),
            fake(layout(replicate=2, shard=2, tp=2, whole=True, optim="muon")),
        ]
    )


def test_options_of_gpus_run() -> None:
    shard = fake(layout(shard=2))
    check(
        [
            of_layout("bf16_pure", shard, dtype="bf16_pure"),
            of_layout("offload", shard, activation_checkpointing="full", activation_offload=True),
            of_layout(
                "offload, compiled",
                shard,
                activation_checkpointing="full",
                activation_offload=True,
                compile=True,
            ),
            of_layout("flex", shard, attention="flex"),
        ]
    )


def test_single_precision_does_not_wait_for_the_device() -> None:
    """Flash attention is for half precision; what takes its place must not ask the device for documents in each layer."""
    shard, context = fake(layout(shard=2), dtype="fp32"), fake(layout(cp=2, tp=2), dtype="fp32")
    found = check(
        [
            shard,
            context,
            of_layout("fp32, compiled", shard, compile=True),
            of_layout("fp32, compiled, recomputed", context, compile=True, **FULLY),
            replace(shard, name="evaluate in fp32", evaluates=True),
            replace(context, name="evaluate in fp32, context parallelism", evaluates=True),
            replace(fake(layout(shard=2)), name="evaluate in bf16", evaluates=True),
        ]
    )
    assert [one.attention for one in found] == 6 * ["flex"] + ["varlen"]


def test_with_parameters_in_the_host_s_memory_a_step_waits_for_its_verdict_alone() -> None:
    """One copy for the gradient norm's share, its factor and whether the step is skipped, in each of two steps. FSDP itself
    waits for gradients that it adds to those of an earlier micro-batch."""
    case = fake(layout(shard=2))
    (found,) = check([replace(case, name="cpu_offload", parallel=replace(case.parallel, cpu_offload=True))])
    ours = {where: n for where, n in found.waits.items() if "autograd.backward" not in where}
    assert sorted(ours.values()) == [2, 2, 2] and any("skip.detach()" in where for where in ours), ours


@pytest.mark.parametrize("whole", [False, True])
def test_gradients_are_summed_over_replicas_once_a_step(whole: bool) -> None:
    parallel = ParallelConfig(dp_replicate=4, dp_shard=2, reshard_after_forward=not whole)
    train = TrainConfig(1, 32, micro_batch_size=1, dtype="bf16", compile=False)
    model = ModelConfig("tiny", dim=256, n_layers=3, n_heads=8, n_kv_heads=4, ffn_dim=512)
    (found,) = check([FakeCase("replicated", parallel, train, model, 96)])
    # Three blocks, embedding, head, and the norm.
    assert found.micro_batches == 4 and found.groups == 6
    assert found.collectives["all_reduce", found.names["replicate"]] == found.groups
    scatters = found.collectives["reduce_scatter", found.names["shard"]]
    assert scatters == found.groups * (1 if whole else found.micro_batches)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.full)])
def test_float8_adds_no_collective(compiled: bool) -> None:
    """Under tensor parallelism no scale is agreed on; and layers that are too small stay in bf16."""
    pytest.importorskip("torchao")
    case = fake(layout(shard=2, tp=2), compile=compiled)
    half, all_layers, large_ones = check(
        [
            case,
            of_layout("float8", case, float8=True, float8_least=0),
            of_layout("float8, large layers", case, float8=True, float8_least=86),
        ]
    )
    assert half.collectives == all_layers.collectives == large_ones.collectives
    assert half.scaled == 0 and all_layers.scaled == 3 * 7 * case.model.n_layers * half.micro_batches
    # Of 256 × 512 weights on two ranks, w1, w2 and w3 are worth it: 128; keys, of 256 × 32 to 64, are not.
    assert 0 < large_ones.scaled < all_layers.scaled


def test_the_device_says_so_where_it_does_not_know_torch(tmp_path: Path) -> None:
    import fake_cuda

    # Without the preloaded library torch answers for itself.
    with pytest.raises(fake_cuda.UnknownTorch, match="does not know torch"):
        fake_cuda.lend_guard()
