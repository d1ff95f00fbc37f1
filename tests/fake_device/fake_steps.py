"""Training steps on the fake CUDA device: cases, and what became of each. `run` starts `main` in a process with guard.so."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.schema.train import (
    DataConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    RunConfig,
    TrainConfig,
    TrainRun,
)

if TYPE_CHECKING:
    from pretrain.parallel.engine import Engine

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LENGTH = 512
STEPS = 3
"""The first may copy tables and compile; the others are watched."""
CASE_SECONDS = 170
OPERATIONS = {
    "_allgather_base_": "all_gather",
    "allgather_": "all_gather",
    "all_gather_into_tensor": "all_gather",
    "gather_tokens": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_tensor": "reduce_scatter",
    "scatter_sum": "reduce_scatter",
    "allreduce_": "all_reduce",
    "send": "send",
    "recv_": "receive",
}
"""Operations of torch and of ours, in the words of `pretrain.sizing.collectives`; another keeps its name."""


@dataclass(frozen=True)
class FakeCase:
    """A layout and its options."""

    name: str
    parallel: ParallelConfig
    train: TrainConfig
    model: ModelConfig
    vocab_size: int
    optim: str = "adamw"
    last: bool = False
    """The last rank instead of the first."""
    steps: int = STEPS
    """The first of several is not watched."""
    evaluates: bool = False
    """Losses of tokens without gradients, as `arriero evaluate` has them, instead of training steps."""


@dataclass
class Found:
    """What became of a case."""

    error: str | None = None
    """The end of the traceback; None: all steps were computed."""
    waits: Counter[str] = field(default_factory=Counter)
    """Where the host waited for the device in the steps that were watched."""
    collectives: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Of one step, by operation and name of the group in torch."""
    declared: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The same by `pretrain.sizing.collectives`."""
    names: dict[str, str] = field(default_factory=dict)
    """Names of the groups in torch, by what they are for."""
    graphs: int = 0
    """Compiled in all steps, of blocks."""
    loss_graphs: int = 0
    """Compiled in all steps, of passes over the logits."""
    scaled: int = 0
    """Products in float8 of one step."""
    groups: int = 0
    """Modules that FSDP gathers at a time."""
    micro_batches: int = 0
    attention: str = ""
    """What computes attention."""


def run(cases: Sequence[FakeCase]) -> list[Found]:
    """Compute the cases, each in a process forked from one that has imported torch."""
    with tempfile.TemporaryDirectory() as folder:
        todo, done = Path(folder, "cases"), Path(folder, "results")
        todo.write_bytes(pickle.dumps(list(cases)))
        path = os.pathsep.join(map(str, (ROOT, HERE)))
        more = {
            "LD_PRELOAD": str(guard()),
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        }
        command = [sys.executable, "-c", "import fake_steps; fake_steps.main()", str(todo), str(done)]
        ended = subprocess.run(command, cwd=ROOT, env=os.environ | more, capture_output=True, text=True)
        if ended.returncode:
            raise AssertionError(
                f"the cases were not computed:\n{ended.stdout[-3000:]}{ended.stderr[-3000:]}"
            )
        return pickle.loads(done.read_bytes())  # type: ignore[no-any-return]


@cache
def guard() -> Path:
    """The library to preload, compiled once a process."""
    path = Path(tempfile.mkdtemp()) / "guard.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(path), str(HERE / "guard.c")], check=True)
    return path


def main() -> None:
    """Fork a process a case, two at a time."""

    import pretrain.parallel.engine
    import pretrain.step  # noqa: F401  (imported once, before the forks)

    cases: list[FakeCase] = pickle.loads(Path(sys.argv[1]).read_bytes())
    results = [Found("was killed") for _ in cases]
    running: dict[int, int] = {}
    files = [Path(f"{sys.argv[2]}-{i}") for i in range(len(cases))]
    left = list(range(len(cases)))
    while left or running:
        while left and len(running) < 2:
            i = left.pop(0)
            pid = os.fork()
            if pid == 0:
                _one(cases[i], files[i])
            running[pid] = i
        pid, _ = os.wait()
        i = running.pop(pid)
        if files[i].exists():
            results[i] = pickle.loads(files[i].read_bytes())
    Path(sys.argv[2]).write_bytes(pickle.dumps(results))


def _one(case: FakeCase, file: Path) -> None:
    import signal

    signal.alarm(CASE_SECONDS)
    found = Found()
    try:
        steps(case, found)
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/pretrain/" in frame.filename]
        lines = "".join(traceback.format_list([*ours[-3:], *frames[-3:]]))
        found.error = f"{lines}{type(error).__name__}: {str(error)[:1500]}"
    file.write_bytes(pickle.dumps(found))
    os._exit(0)


def steps(case: FakeCase, found: Found) -> None:
    """What a run on GPUs does between two log lines."""
    import torch
    from fake_cuda import Watch, fake_cuda, outside
    from torch._dynamo.backends.debugging import aot_eager
    from torch._subclasses.fake_tensor import unset_fake_temporarily
    from torch.distributed.fsdp import FSDPModule
    from torch.nn.attention.flex_attention import flex_attention

    from pretrain.data.batch import Batch
    from pretrain.model import flex, llama
    from pretrain.optim.optimizer import Optimizer
    from pretrain.options import check_compiled, check_precision
    from pretrain.parallel import engine, tied
    from pretrain.parallel.layout import Layout
    from pretrain.parallel.mesh import build_mesh
    from pretrain.sizing.collectives import collectives as declared
    from pretrain.step import train_step

    parallel, train, model = case.parallel, case.train, case.model
    sizes = parallel.pp * parallel.dp_replicate * parallel.dp_shard * parallel.cp * parallel.tp
    optim = OptimConfig(name=case.optim)  # type: ignore[arg-type]
    layout = Layout.check(parallel, train, model, case.vocab_size, sizes)
    check_precision(train, parallel, optim, model)
    check_compiled(train, parallel, "cuda")
    # What torch will take away is an error where we use it.
    warnings.filterwarnings("error", category=FutureWarning, module=r"pretrain\b")
    warnings.filterwarnings("error", message=".*deprecated", module=r"pretrain\b")
    # Traced and taken apart into forward and backward passes as on a GPU; only the code for it is not made.
    compile_block = llama.Block.compile
    llama.Block.compile = lambda self: compile_block(self, backend="aot_eager")  # type: ignore[method-assign]
    compile_head = llama.Head.compile

    def pass_over_logits(graph: Any, inputs: Any) -> Any:
        found.loss_graphs += 1
        return aot_eager(graph, inputs)

    llama.Head.compile = lambda self: compile_head(self, backend=pass_over_logits)  # type: ignore[method-assign]
    flex._compiled = lambda: torch.compile(flex_attention, backend="aot_eager", dynamic=False)  # type: ignore[assignment]
    # Nothing holds values that could be set, and no group has a time limit.
    engine.init_weights = lambda *args: None  # type: ignore[assignment]
    engine.limit_waiting = lambda: None
    tied._ends = outside(tied._ends)
    found.micro_batches = layout.micro_batches

    def batch(seed: int) -> Batch:
        """On the host, and real; other documents in each, the longest of about the same length."""
        with unset_fake_temporarily():
            rows, short = train.micro_batch_size, 1 + seed % 5
            cuts = [0, 20 * short, 20 * short + 150 + seed, LENGTH - 170, *[LENGTH] * short]
            tokens = torch.ones(rows, LENGTH, dtype=torch.int64)
            positions = torch.arange(LENGTH).repeat(rows, 1)
            return Batch(tokens, tokens, positions, torch.tensor([cuts] * rows, dtype=torch.int32))

    with fake_cuda(sizes, sizes - 1 if case.last else 0):
        with unset_fake_temporarily():
            mesh = build_mesh(layout, "cuda")
        device = torch.device("cuda", 0)
        made = engine.Engine(model, case.vocab_size, parallel, train, mesh, device, 0)
        found.attention = made.attention
        modules = [m for part in made.parts for m in part.modules() if isinstance(m, FSDPModule)]
        found.groups = sum(m._get_fsdp_state()._fsdp_param_group is not None for m in modules)
        found.names = groups_of(made, modules)
        calls = declared(model, parallel, train, layout, LENGTH, made.pipeline.rank, optim)
        for (operation, group), n in calls.items():
            # Where a dimension of the mesh has all ranks, its group is that of the world.
            found.declared[operation, found.names[group]] += n
        optimizer = Optimizer(made.named_parameters(), optim, train.dtype)
        config = TrainRun(DataConfig("x"), model, train, RunConfig("x"), parallel, optim)
        if case.evaluates:
            watch = Watch()
            with watch:
                assert made.token_losses(batch(0)).device == device
            found.waits, found.declared = watch.waits, found.collectives
            return
        for number in range(case.steps):
            watch = Watch()
            batches = [batch(number + i) for i in range(layout.micro_batches)]
            with watch if number or case.steps == 1 else contextlib.nullcontext():
                loss, norm = train_step(config, made, optimizer, batches, 9, 1.0)
            found.waits += watch.waits
            found.scaled = watch.scaled
            found.collectives = Counter()
            for (operation, group), n in watch.collectives.items():
                found.collectives[OPERATIONS.get(operation, operation), group] += n
        assert loss.device == norm.device == device
        found.graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"] - found.loss_graphs


def groups_of(made: Engine, modules: Sequence[Any]) -> dict[str, str]:
    """Names in torch of a rank's groups, by what they are for."""
    import torch.distributed as dist

    assert dist.group.WORLD is not None
    groups = {name: made.mesh.get_group(name) for name in ("pp", "cp", "tp")} | {"world": dist.group.WORLD}
    for module in modules:
        state = module._get_fsdp_state()._fsdp_param_group
        if state is not None:
            groups["shard"] = state.mesh_info.shard_process_group
            groups["replicate"] = getattr(state.mesh_info, "replicate_process_group", None)
    if made._tied is not None and made._tied._group is not None:
        groups["ends"] = made._tied._group
    return {name: group.group_name for name, group in groups.items() if group is not None}


def of_layout(name: str, case: FakeCase, **train: object) -> FakeCase:
    """The case with other options of training."""
    return replace(case, name=name, train=replace(case.train, **train))  # type: ignore[arg-type]
