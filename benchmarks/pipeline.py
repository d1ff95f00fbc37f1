"""Time of a step under each pipeline schedule, beside what its arithmetic says: python benchmarks/pipeline.py [--help]

Ranks are processes of this machine, one thread each; there must be as many free cores. Schedules take turns, and the median
counts. `torch` is 1F1B of `torch.distributed.pipelining` over the same stages and batches, in the same run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from configs.schema.train import ModelConfig, ParallelConfig, TrainConfig
from pretrain.data.batch import Batch
from pretrain.model.llama import Llama
from pretrain.parallel.engine import Engine
from pretrain.parallel.layout import Layout
from pretrain.parallel.mesh import build_mesh
from pretrain.parallel.pipeline_schedules import timeline

SCHEDULES = (("1f1b", 1), ("gpipe", 1), ("interleaved", 2), ("dualpipev", 2), ("zbv", 2))
VOCAB = 1024
"""Small: the head belongs to one stage, and arithmetic takes stages to be equal."""
DEVICE = torch.device("cpu")


class Stage(nn.Module):
    """A part of the model, as torch's pipelines call it."""

    def __init__(self, part: Llama):
        super().__init__()
        self.part = part

    def forward(self, x: Tensor, positions: Tensor, cu_seqlens: Tensor) -> Tensor:
        out: Tensor = self.part(x, positions, cu_seqlens)
        return out


def torch_step(engine: Engine, micro_batches: list[Batch]) -> Callable[[], object]:
    """1F1B by torch over the parts of an engine; its loss is plain cross-entropy of whole logits."""
    rank, ranks = engine.pipeline.rank, engine.pipeline.ranks
    stage = PipelineStage(Stage(engine.parts[0]), rank, ranks, DEVICE, group=engine.pipeline.group)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")

    schedule = Schedule1F1B(stage, len(micro_batches), loss_fn=loss, scale_grads=False)
    tokens, labels, positions, cu_seqlens = (
        torch.cat([getattr(b, name) for b in micro_batches])
        for name in ("tokens", "labels", "positions", "cu_seqlens")
    )

    def step() -> None:
        inputs = (tokens,) if rank == 0 else ()
        target = labels if rank == ranks - 1 else None
        schedule.step(*inputs, target=target, positions=positions, cu_seqlens=cu_seqlens)

    return step


def rank_main(rank: int, args: argparse.Namespace, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=args.stages, timeout=timedelta(minutes=5))
    model = ModelConfig("bench", args.dim, args.layers, args.dim // 64, args.dim // 64, 3 * args.dim)
    train = TrainConfig(1, args.micro_batches, 1, dtype=args.dtype)
    batches = [one_batch(args.tokens) for _ in range(args.micro_batches)]
    n_valid = torch.tensor(args.tokens * args.micro_batches)
    steps: dict[str, Callable[[], object]] = {}
    engines: dict[str, Engine] = {}
    for schedule, virtual in SCHEDULES:
        parallel = ParallelConfig(
            pp=args.stages,
            pp_schedule=schedule,  # type: ignore[arg-type]
            pp_virtual=virtual,
            reshard_after_forward=False,
        )
        mesh = build_mesh(Layout.check(parallel, train, model, VOCAB, args.stages), "cpu")
        engine = engines[schedule] = Engine(model, VOCAB, parallel, train, mesh, DEVICE, seed=0)
        steps[schedule] = lambda e=engine: e.forward_backward(batches, n_valid)  # type: ignore[misc]
    steps["torch"] = torch_step(engines["1f1b"], batches)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(args.rounds + 1):
        for name, step in steps.items():
            for engine in engines.values():
                engine.zero_grad()
            dist.barrier()
            began = time.perf_counter()
            step()
            dist.barrier()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    if rank == 0:
        report(args, {name: statistics.median(times) for name, times in seconds.items()})
    dist.barrier()
    os._exit(0)


def one_batch(tokens: int) -> Batch:
    """A sequence of one document."""
    x = torch.randint(0, VOCAB, (1, tokens + 1))
    cu_seqlens = torch.tensor([[0, tokens]], dtype=torch.int32)
    return Batch(x[:, :-1].contiguous(), x[:, 1:].contiguous(), torch.arange(tokens)[None], cu_seqlens)


def report(args: argparse.Namespace, medians: dict[str, float]) -> None:
    base = timeline("1f1b", args.stages, 1, args.micro_batches).total
    print(f"{'schedule':<14}{'s a step':>10}{'speed, 1f1b = 1':>18}{'by arithmetic':>15}{'bubble':>9}")
    for schedule, virtual in (*SCHEDULES, ("torch", 1)):
        line = timeline(
            "1f1b" if schedule == "torch" else schedule,  # type: ignore[arg-type]
            args.stages,
            virtual,
            args.micro_batches,
        )
        speed, expected = medians["1f1b"] / medians[schedule], base / (line.total / virtual)
        print(f"{schedule:<14}{medians[schedule]:>10.3f}{speed:>18.2f}{expected:>15.2f}{line.bubble:>9.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stages", type=int, default=2, help="ranks")
    parser.add_argument("--micro-batches", type=int, default=4)
    parser.add_argument("--dim", type=int, default=512, help="width of the model")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512, help="of a micro-batch, which is one sequence")
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    mp.spawn(rank_main, (args, 29500 + os.getpid() % 1000), nprocs=args.stages)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
