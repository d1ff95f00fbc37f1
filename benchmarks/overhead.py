"""What a step costs beside its arithmetic: python benchmarks/overhead.py [--help]

1. The real loop (`pretrain.train`, one process, packed documents) with a clock around its parts: everything but forward,
   backward and optimizer is overhead. Clipping reads every gradient; it is counted as overhead and shown apart.
2. The engine of one rank against the bare model in a loop of ten lines, taking turns; and against the same model wrapped
   by FSDP2 over a mesh of one, which the engine leaves out.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from soak import make_packed
from step import SHAPES, Step, batch, document_lengths, ratio, seconds
from torch import nn

from configs import edge
from configs.schema.train import OptimConfig, ParallelConfig, TrainConfig, TrainRun
from pretrain import train as loop
from pretrain.data.batch import Batch
from pretrain.garbage import GarbageCollection
from pretrain.model.init import init_weights
from pretrain.model.llama import Llama
from pretrain.optim.optimizer import Optimizer
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import single_mesh
from pretrain.parallel.shard import fully_sharded
from pretrain.trainer import Trainer

PARTS: tuple[tuple[str, type, str], ...] = (
    ("forward and backward", Engine, "forward_backward"),
    ("optimizer", Optimizer, "step"),
    ("clipping", Engine, "clip_grad_norm"),
    ("reading, agreement, heartbeat", Trainer, "begin_step"),
    ("metrics", Trainer, "end_step"),
    ("garbage", GarbageCollection, "at"),
)
ARITHMETIC = ("forward and backward", "optimizer")
WARM = 3
"""Steps that are not counted."""


@contextmanager
def clocks() -> Iterator[dict[str, list[tuple[float, float]]]]:
    """While it is open, every call of a part is noted: when it began and ended, seconds."""
    noted: dict[str, list[tuple[float, float]]] = defaultdict(list)
    own = [(owner, name, getattr(owner, name)) for _, owner, name in PARTS]

    def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **kwargs)
            noted[part].append((began, time.perf_counter()))
            return result

        return call

    for part, owner, name in PARTS:
        setattr(owner, name, clocked(part, getattr(owner, name)))
    try:
        yield noted
    finally:
        for owner, name, function in own:
            setattr(owner, name, function)


def real_loop(options: argparse.Namespace, folder: Path) -> None:
    """Train, and print each part's share of a step."""
    _, vocab_size = SHAPES[options.model]
    packed = make_packed(folder / "packed", 64, options.length, vocab_size)
    steps = WARM + options.rounds + 1
    overrides = [
        f"model={options.model}",
        f"data.path={packed}",
        f"run.dir={folder / 'run'}",
        "tracker=none",
        "device=cpu",
        f"train.steps={steps}",
        f"train.global_batch_size={options.rows}",
        f"train.micro_batch_size={options.rows}",
        "train.eval_sequences=1",
        f"train.compile={str(options.compile).lower()}",
        "run.progress=false",
    ]
    with clocks() as noted:
        status = loop.run(edge.load("train", TrainRun, overrides))
    if status:
        sys.exit(status)
    # A step lasts from one beginning to the next.
    begins = [began for began, _ in noted["reading, agreement, heartbeat"]]
    whole = [b - a for a, b in zip(begins[WARM:], begins[WARM + 1 :], strict=False)]
    spent = {
        part: [end - began for began, end in noted[part][WARM : WARM + len(whole)]] for part, _, _ in PARTS
    }
    total = sum(whole)
    overhead = 1 - sum(sum(spent[part]) for part in ARITHMETIC) / total
    print(f"\nreal loop, {len(whole)} steps of {statistics.median(whole):.3f} s (median)")
    for part, times in spent.items():
        print(f"  {part:32}{1000 * statistics.median(times):9.2f} ms{sum(times) / total:8.2%}")
    clipping = sum(spent["clipping"]) / total
    print(
        f"  outside forward, backward and optimizer {overhead:.2%}, without clipping {overhead - clipping:.2%}"
    )


def bare(model: nn.Module, data: Batch) -> Step:
    """A step of a plain loop around a model."""
    optimizer = Optimizer(model.named_parameters(), OptimConfig(lr=1e-4), "bf16")
    n_valid = data.n_valid

    def step() -> None:
        loss = model(data.tokens, data.positions, data.cu_seqlens, data.labels) / n_valid
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(1.0)
        optimizer.zero_grad()

    return step


def wrappers(options: argparse.Namespace) -> None:
    """Print what engine and wrappers of one rank cost."""
    config, vocab_size = SHAPES[options.model]
    chance, cpu, parallel = random.Random(0), torch.device("cpu"), ParallelConfig()
    documents = [document_lengths(options.length, 400, chance) for _ in range(options.rows)]
    data = batch(options.rows, options.length, vocab_size, documents)
    train = TrainConfig(1, options.rows, options.rows, dtype="bf16", compile=options.compile)
    engine = Engine(config, vocab_size, parallel, train, None, cpu, 0)
    optimizer = Optimizer(engine.named_parameters(), OptimConfig(lr=1e-4), "bf16")

    def ours() -> None:
        engine.forward_backward([data], data.n_valid)
        engine.clip_grad_norm(1.0)
        optimizer.step(1.0)
        optimizer.zero_grad()

    def model(wrapped: bool) -> Llama:
        with torch.device("meta"):
            made = Llama(config, vocab_size)
        made.compute_dtype = torch.bfloat16
        if options.compile:
            for block in made.layers.values():
                block.compile()
        if wrapped:
            fully_sharded(made, single_mesh("cpu"), "bf16", parallel)
        made.to_empty(device=cpu)
        init_weights([made], 0)
        return made

    sides = {"bare": bare(model(False), data), "engine": ours, "FSDP2 of one": bare(model(True), data)}
    times = seconds(sides, options.rounds)
    print(
        f"\n{options.model} bf16, {options.rows} × {options.length} tokens, packed; median of {options.rounds}"
    )
    for name, values in times.items():
        print(f"  {name:16}{statistics.median(values):8.3f} s{ratio(times, name, 'bare') - 1:+9.2%}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=SHAPES, default="33m")
    parser.add_argument("--rows", type=int, default=2, help="sequences of a step")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a sequence")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="compile blocks on every side")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        real_loop(options, Path(folder))
    wrappers(options)
    sys.stdout.flush()
    # gloo's threads sometimes abort an ordinary exit.
    os._exit(0)


if __name__ == "__main__":
    main()
