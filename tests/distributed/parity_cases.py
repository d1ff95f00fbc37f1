"""A tiny training run in any layout: what one process and many are compared by."""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
import varlen_cpu
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from configs.schema.train import ModelConfig, OptimConfig, ParallelConfig, ScheduleConfig, TrainConfig
from pretrain.checkpoint.chunks import local_chunks
from pretrain.data.batch import Batch
from pretrain.optim.optimizer import Optimizer
from pretrain.optim.schedule import lr_factor
from pretrain.parallel.engine import Engine
from pretrain.parallel.layout import Layout
from pretrain.parallel.mesh import build_mesh

VOCAB, LENGTH, GLOBAL, STEPS = 96, 32, 8, 5
MODEL = ModelConfig("tiny", dim=32, n_layers=4, n_heads=8, n_kv_heads=4, ffn_dim=48, init_std=0.1)
TRAIN = TrainConfig(steps=1, global_batch_size=GLOBAL, micro_batch_size=1, dtype="fp32", loss_chunk_tokens=24)
# The gradient norms of these batches are above and below it.
CLIP = 1.4
OPTIM = OptimConfig(lr=0.01, weight_decay=0.1, clip=CLIP)
SCHEDULE = ScheduleConfig("cosine", warmup_steps=2, min_ratio=0.1)
# Options of a model in which no size divides by 2, 4 or 8: every shard is uneven, and so are the stages.
ODD = (("dim", 42), ("n_layers", 5), ("n_heads", 7), ("n_kv_heads", 7), ("ffn_dim", 51), ("vocab_size", 97))


@dataclass(frozen=True)
class Case:
    """One layout of one model."""

    parallel: ParallelConfig
    tied: bool = False
    dtype: str = "fp32"
    train: tuple[tuple[str, Any], ...] = ()
    """Options of training."""
    model: tuple[tuple[str, Any], ...] = ()
    """Options of the model, and `vocab_size`."""
    optim: str = "adamw"
    varlen: bool = False
    """Attention by the operator of GPUs, with the tests' own kernels for the CPU."""

    @property
    def name(self) -> str:
        return f"{self.layout} {self.dtype} {self.options}"

    @property
    def layout(self) -> str:
        """Sizes of the mesh and schedule."""
        p = self.parallel
        sizes = [
            f"{name.removeprefix('dp_')}{getattr(p, name)}"
            for name in ("pp", "dp_replicate", "dp_shard", "cp", "tp")
            if getattr(p, name) > 1
        ]
        if p.pp > 1:
            sizes.append(p.pp_schedule + (f"×{p.pp_virtual}" if p.pp_virtual > 1 else ""))
        return " ".join(sizes) or "one"

    @property
    def options(self) -> str:
        """All that is not the layout."""
        odd = ["odd sizes"] if self.model == ODD else [f"{k}={v}" for k, v in self.model]
        train = [f"{k}={v}" for k, v in self.train if k != "micro_batch_size"]
        train.append(f"{self.micro_batches} micro-batches")
        whole = ["kept whole"] * (not self.parallel.reshard_after_forward)
        muon = [self.optim] * (self.optim != "adamw")
        varlen = ["varlen"] * self.varlen
        return ", ".join(["tied" if self.tied else "untied", *odd, *train, *whole, *muon, *varlen])

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a step on each rank."""
        size = int(dict(self.train).get("micro_batch_size", TRAIN.micro_batch_size))
        return GLOBAL // (size * self.parallel.dp_replicate * max(self.parallel.dp_shard, 1))

    @property
    def world_size(self) -> int:
        """Ranks; `dp_shard` is given in every case."""
        p = self.parallel
        return p.pp * p.dp_replicate * max(p.dp_shard, 1) * p.cp * p.tp

    @property
    def alone(self) -> Case:
        """The same training in one process, with all rows in one micro-batch."""
        train = (("micro_batch_size", GLOBAL),)
        return replace(self, parallel=ParallelConfig(), train=train, varlen=False)

    @property
    def model_config(self) -> ModelConfig:
        """The model."""
        options = {k: v for k, v in self.model if k != "vocab_size"}
        return replace(MODEL, tied=self.tied, **options)

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return int(dict(self.model).get("vocab_size", VOCAB))

    @property
    def steps(self) -> int:
        """Rounding in fp32 makes other updates of weights whose gradient is next to nothing: only fp64 goes on."""
        return STEPS if self.dtype == "fp64" else 1


@dataclass(frozen=True)
class Outcome:
    """What training gave: everything whole, by the unsplit model's names."""

    initial: dict[str, str]
    """Hashes of the initial weights."""
    losses: tuple[float, ...]
    """Of each step."""
    norms: tuple[float, ...]
    """Gradient norm of each step."""
    grads: dict[str, Tensor]
    """Of the first step."""
    token_losses: tuple[Tensor, ...]
    """With the weights of the first step, and with those of the last but one."""
    weights: dict[str, Tensor]
    """After the last step; none where there is only one."""


def global_batch(step: int) -> Batch:
    """Packed documents with very unequal numbers of valid labels: rows of one long document, of documents of one token, of
    almost nothing but padding; from the second step on as random draws have it."""
    g = torch.Generator().manual_seed(step)
    tokens = torch.randint(0, VOCAB, (GLOBAL, LENGTH), generator=g)
    bounds = [
        [0, 32],
        [0, 5, 32],
        [0, 1, 2, 3, 17, 32],
        [0, 31, 32],
        [0, 32],
        [0, 16, 32],
        list(range(33)),
        [0, 20, 32],
    ]
    if step > 1:
        cuts = torch.randint(0, 12, (GLOBAL,), generator=g).tolist()
        bounds = [sorted({0, LENGTH, *torch.randint(1, LENGTH, (n,), generator=g).tolist()}) for n in cuts]
    width = max(len(b) for b in bounds)
    labels, positions = torch.full_like(tokens, -100), torch.zeros_like(tokens)
    for row, b in enumerate(bounds):
        for start, end in itertools.pairwise(b):
            labels[row, start : end - 1] = tokens[row, start + 1 : end]
            positions[row, start:end] = torch.arange(end - start)
    labels[4, 2:] = -100
    labels[5] = -100
    if step == 3:
        # Ranks that have the second half of the batch have nothing to learn.
        labels[4:] = -100
    cu = torch.tensor([b + [LENGTH] * (width - len(b)) for b in bounds], dtype=torch.int32)
    return Batch(tokens, labels, positions, cu)


def rows(batch: Batch, part: slice) -> Batch:
    """Some rows of a batch."""
    return Batch(batch.tokens[part], batch.labels[part], batch.positions[part], batch.cu_seqlens[part])


@cache
def mesh_of(sizes: tuple[int, ...]) -> DeviceMesh:
    """One mesh of these sizes for all cases: every process group keeps threads that wake a hundred times a second."""
    return build_mesh(Layout(*sizes, micro_batches=1), "cpu")


def build(case: Case) -> tuple[Engine, Optimizer]:
    """The engine and the optimizer of a case in this process group."""
    model, vocab_size = case.model_config, case.vocab_size
    train = replace(TRAIN, dtype=case.dtype, **dict(case.train))  # type: ignore[arg-type]
    layout = Layout.check(case.parallel, train, model, vocab_size, dist.get_world_size())
    mesh = mesh_of((layout.pp, layout.dp_replicate, layout.dp_shard, layout.cp, layout.tp))
    engine = Engine(model, vocab_size, case.parallel, train, mesh, torch.device("cpu"), seed=7)
    if case.varlen:
        varlen_cpu.register()
        engine.attention = "varlen"
    optim = replace(OPTIM, name=case.optim)  # type: ignore[arg-type]
    return engine, Optimizer(engine.named_parameters(), optim, case.dtype)


def micro_batches(case: Case, engine: Engine, whole: Batch) -> list[Batch]:
    """This rank's part of a global batch."""
    size = dict(case.train).get("micro_batch_size", TRAIN.micro_batch_size)
    share = GLOBAL // engine.dp_size
    mine = rows(whole, slice(engine.dp_rank * share, (engine.dp_rank + 1) * share))
    return [rows(mine, slice(i, i + size)) for i in range(0, share, size)]


def outcome(case: Case) -> Outcome:
    """Training of a case, with evaluations on the way; whole results on rank 0."""
    engine, optimizer = build(case)
    initial = {
        name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for name, tensor in gathered(engine.state_dict()).items()
    }
    losses, norms, token_losses, grads = [], [], [], {}
    for step in range(1, case.steps + 1):
        whole = global_batch(step)
        loss = engine.forward_backward(micro_batches(case, engine, whole), whole.n_valid)
        if step == 1:
            grads = gathered({name: p.grad for name, p in engine.named_parameters()})  # type: ignore[misc]
        norm = engine.clip_grad_norm(CLIP)
        if step in (1, case.steps - 1):
            # Between backward pass and update: it must leave the gradients alone, and keep nothing of these weights.
            token_losses.append(engine.token_losses(whole))
        optimizer.step(lr_factor(SCHEDULE, step, STEPS))
        optimizer.zero_grad()
        losses.append(float(loss) / float(whole.n_valid))
        norms.append(float(norm))
    weights = gathered(engine.state_dict()) if case.steps > 1 else {}
    return Outcome(initial, tuple(losses), tuple(norms), grads, tuple(token_losses), weights)


def gathered(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on rank 0 from the parts that ranks hold; ranks that hold the same part must agree to the last bit."""
    parts = [(chunk, local.contiguous()) for chunk, local in local_chunks(tensors)]
    every: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(parts, every)
    seen: dict[tuple[str, tuple[int, ...]], Tensor] = {}
    whole: dict[str, Tensor] = {}
    for chunk, local in itertools.chain.from_iterable(every or []):
        first = seen.setdefault((chunk.name, chunk.offsets), local)
        assert torch.equal(first, local), f"ranks differ in {chunk.name}"
        into = whole.setdefault(chunk.name, torch.full(chunk.shape, math.nan, dtype=local.dtype))
        into[tuple(slice(o, o + n) for o, n in zip(chunk.offsets, chunk.sizes, strict=True))] = local
    return whole


def outcomes(cases: list[Case]) -> list[Outcome]:
    """All cases, one after the other, in one process group."""
    return [outcome(case) for case in cases]
