"""One rank of a layout of any size, run on paper: the trainer's own modules over a process group that is only pretended,
on tensors that hold no data. What it counts checks the arithmetic of `pretrain.sizing.footprint`.

It needs a process without a process group; `probe` starts one.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass, field, replace
from typing import Any

from configs.schema.train import ModelConfig, ParallelConfig, TrainConfig
from pretrain.parallel.layout import Layout, stage_layers


@dataclass
class Probed:
    """What one rank of a pipeline stage holds, and what it sends for one micro-batch."""

    stage: int
    parameters: int
    """Parameters of its shard."""
    saved: int = 0
    """Bytes that the backward pass of one micro-batch needs, weights not counted."""
    sent: dict[str, float] = field(default_factory=dict)
    """Bytes sent in one forward and backward pass with gradient reduction, by mesh dimension."""
    calls: dict[str, int] = field(default_factory=dict)
    """Collectives, by operation and mesh dimension."""


def probe(
    model: ModelConfig,
    vocab_size: int,
    parallel: ParallelConfig,
    train: TrainConfig,
    layout: Layout,
    sequence_length: int,
    stage: int,
) -> Probed:
    """Build and run one rank of `stage` in a process of its own.

    The stage has its layers in one piece, whatever the schedule. Context parallelism is probed as a shorter sequence: the
    gathering of keys and values is left to arithmetic.

    Raises:
        RuntimeError: the model cannot be built or run in this layout.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_probe, (model, vocab_size, parallel, train, layout, sequence_length, stage))


def _probe(
    model: ModelConfig,
    vocab_size: int,
    parallel: ParallelConfig,
    train: TrainConfig,
    layout: Layout,
    sequence_length: int,
    stage: int,
) -> Probed:
    import torch
    import torch.distributed as dist
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from pretrain.model.llama import Llama
    from pretrain.model.recompute import kept_by_layer
    from pretrain.parallel.mesh import build_mesh
    from pretrain.parallel.precision import COMPUTE_DTYPES, MASTER_DTYPES
    from pretrain.parallel.shard import shard

    # As in the arithmetic: on GPUs.
    train = replace(train, dtype="bf16") if train.dtype == "auto" else train
    dtype = COMPUTE_DTYPES[train.dtype]
    rank = stage * (layout.world_size // layout.pp)
    dist.init_process_group("fake", rank=rank, world_size=layout.world_size, store=FakeStore())
    mesh = build_mesh(layout, "cpu")
    first, last = stage == 0, stage == layout.pp - 1
    kept = kept_by_layer(model, train.activation_checkpointing, train.activation_budget, dtype.itemsize, True)
    with torch.device("meta"):
        part = Llama(
            model,
            vocab_size,
            stage_layers(model.n_layers, layout.pp, stage),
            first=first,
            last=last,
            chunk_tokens=train.loss_chunk_tokens,
            kept=kept,
        ).to(MASTER_DTYPES[train.dtype])
    shard(part, mesh, replace(train, compile=False), replace(parallel, cpu_offload=False))
    found = Probed(stage, sum(_local(p).numel() for p in part.parameters()))
    rows, tokens = train.micro_batch_size, sequence_length // layout.cp
    sent = _Sent({name: mesh.get_group(name) for name in mesh.mesh_dim_names or ()})
    with FakeTensorMode(allow_non_fake_inputs=True):
        part.to_empty(device="cpu")
        x = (
            torch.zeros(rows, tokens, dtype=torch.int64)
            if first
            else torch.zeros(rows, tokens // layout.tp, model.dim, dtype=dtype, requires_grad=True)
        )
        positions = torch.zeros(rows, tokens, dtype=torch.int64)
        boundaries = torch.zeros(rows, 2, dtype=torch.int32)
        labels = torch.zeros(rows, tokens, dtype=torch.int64) if last else None
        saved = _Saved(part)
        with sent, torch.autograd.graph.saved_tensors_hooks(saved.pack, saved.unpack):
            out = part(x, positions, boundaries, labels)
        found.saved = saved.bytes
        with sent:
            out.backward(torch.ones_like(out))
    found.sent, found.calls = sent.bytes, sent.calls
    dist.destroy_process_group()
    return found


def _local(p: Any) -> Any:
    return p.to_local() if hasattr(p, "to_local") else p


class _Saved:
    """Bytes of tensors that autograd keeps, each storage once and weights not at all."""

    def __init__(self, part: Any):
        self.kept: dict[int, Any] = {}
        """Storages by address; held, so that no address is used twice."""
        self.weights: set[int] = set()
        for module in part.modules():
            if any(True for _ in module.parameters(recurse=False)):
                # After FSDP's own hook, so that the weights are whole.
                module.register_forward_pre_hook(self.note_weights)

    def note_weights(self, module: Any, args: Any) -> None:
        self.weights |= {_local(p).untyped_storage()._cdata for p in module.parameters(recurse=False)}

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for key, storage in self.kept.items() if key not in self.weights)

    def pack(self, x: Any) -> Any:
        storage = _local(x).untyped_storage()
        self.kept.setdefault(storage._cdata, storage)
        return x

    @staticmethod
    def unpack(x: Any) -> Any:
        return x


def _Sent(groups: dict[str, Any]) -> Any:
    """A dispatch mode that counts what collectives send."""
    import torch
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor
    from torch.utils._python_dispatch import TorchDispatchMode

    names = {group.group_name: name for name, group in groups.items()}

    class Mode(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.bytes: dict[str, float] = {}
            self.calls: dict[str, int] = {}

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            # The operation on local tensors comes back here.
            if any(issubclass(t, DTensor) for t in types):
                return NotImplemented
            out = func(*args, **(kwargs or {}))
            if func.namespace in ("c10d", "_c10d_functional"):
                self.count(func._schema.name.split("::")[1], args, out)
            return out

        def count(self, op: str, args: Any, out: Any) -> None:
            if op == "wait_tensor":
                return
            # Functional collectives name their group last, the others hold it.
            held = [a for a in args if isinstance(a, torch.ScriptObject) and "ProcessGroup" in str(a._type())]
            name = dist.ProcessGroup.unbox(held[0]).group_name if held else args[-1]
            n = dist.distributed_c10d._resolve_process_group(name).size()
            dim = names.get(name, "dp_shard")
            tensors = [a for a in args if isinstance(a, torch.Tensor)]
            size = max(t.nbytes for t in [*tensors, *([out] if isinstance(out, torch.Tensor) else [])])
            share = (n - 1) / n * (2 if "allreduce" in op or "all_reduce" in op else 1)
            self.bytes[dim] = self.bytes.get(dim, 0.0) + size * share
            key = f"{op} {dim}"
            self.calls[key] = self.calls.get(key, 0) + 1

    return Mode()
