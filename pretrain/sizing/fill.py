"""The dial at the edge: plain numbers in the place of `model.size` and `budget`, before a configuration is built."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from configs import edge, slurm
from configs.edge import ConfigError
from configs.schema.train import (
    ClusterConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    ScheduleConfig,
    TrainConfig,
)
from data_pipeline.packed import PackedDataset, PackedError
from pretrain.options import device_type
from pretrain.sizing.derive import Sized, derive
from pretrain.sizing.footprint import ACCELERATORS, Accelerator

# What a run keeps when it goes on, on however many ranks; layout and micro-batches fit the ranks that there are.
KEPT = ("model.", "optim.", "schedule.", "train.steps", "train.global_batch_size")

OPEN = (
    "train.global_batch_size",
    "train.micro_batch_size",
    "train.activation_checkpointing",
    "parallel.tp",
    "parallel.pp",
    "parallel.cp",
    "parallel.reshard_after_forward",
)
"""What `fill_open` fills in."""


def fill(
    data: dict[str, Any],
    chosen: Mapping[str, str],
    world_size: int,
    accelerator: Callable[[], str],
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Composed configuration with everything derived that the dial leaves open; unchanged where no dial is set.

    A run directory that was begun with the same dial gives its numbers again, so that a run goes on with what it began
    with, also on another number of ranks or with a later version of the laws.

    Args:
        data: composed plain data of a `TrainRun`, or of a schema with its keys.
        chosen: what was set, from `edge.set_by`.
        accelerator: gives the name of the device that `auto` stands for.
        say: gets the reasoning as text.

    Raises:
        ConfigError: as `derive`.
    """
    if data["model"].get("size") is None and data.get("budget") is None:
        return data
    begun = _recorded(data)
    filled = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    if begun is not None:
        chosen = dict(chosen)
        for key, value in begun.items():
            if key not in chosen:
                section, name = key.split(".", 1)
                filled[section][name] = value
                chosen[key] = f"{data['run']['dir']}, which was begun with it"
    sized = size(filled, chosen, world_size, accelerator(), begun is not None)
    for key, value in sized.values.items():
        section, name = key.split(".", 1)
        filled[section][name] = value
    if say is not None:
        say(f"Derived, with what one would set to override it:\n{sized.table()}\n")
    return filled


def in_process(data: dict[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    """`fill` for a rank of a running process group; rank 0 shows the reasoning."""
    first = int(os.environ.get("RANK", 0)) == 0
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    return fill(data, chosen, world_size, this_accelerator, _show if first else None)


def for_cluster(data: dict[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    """`fill` for the processes of `cluster`, which are not there yet; shows the reasoning."""
    return fill(data, chosen, *cluster_of(data), say=_show)


def cluster_of(data: dict[str, Any]) -> tuple[int, Callable[[], str]]:
    """Ranks of `cluster`, and what `accelerator=auto` stands for there: the H100 where Slurm gives GPUs of no known name."""
    cluster = edge.build(ClusterConfig, data["cluster"], "cluster")
    if cluster.kind == "slurm":
        name = "h100" if slurm.gpus_per_node(cluster, data.get("device", "auto")) else "cpu"
        return cluster.nodes * cluster.nproc, lambda: name
    return cluster.nodes * cluster.nproc, this_accelerator


def fill_open(
    data: dict[str, Any],
    chosen: Mapping[str, str],
    world_size: int,
    accelerator: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Batch, micro-batch, recomputation and layout of a run on `world_size` ranks, where they were not set.

    For runs without a dial, whose defaults are those of one small machine. A batch follows from `train.steps`; one that the
    run directory was begun with stays.

    Raises:
        ConfigError: nothing fits; names the nearest that does.
    """
    own = ("train.steps", "optim.lr", "optim.weight_decay", "schedule.warmup_steps")
    fixed = {**chosen, "model": "the configuration", **{key: key for key in own}}
    filled = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    begun = (_recorded(data) or {}).get("train.global_batch_size")
    if begun is not None and "train.global_batch_size" not in chosen:
        filled["train"]["global_batch_size"] = begun
        fixed["train.global_batch_size"] = "the run directory"
    if not any(key not in fixed for key in OPEN):
        return filled
    sized = size(filled, fixed, world_size, accelerator)
    rows = []
    for reason in sized.reasons:
        if reason.key in OPEN and reason.key in sized.values:
            section, name = reason.key.split(".", 1)
            filled[section][name] = reason.value
            rows.append(
                f"  {reason.key}={reason.value}  {reason.why}".replace("=True ", "=true ").replace(
                    "=False ", "=false "
                )
            )
    if rows:
        lines = "\n".join(rows)
        ranks = "1 rank" if world_size == 1 else f"{world_size} ranks"
        say(f"Filled in for {ranks}, with what one would set to override it:\n{lines}\n")
    return filled


def _show(text: str) -> None:
    print(text, flush=True)


def size(
    data: dict[str, Any],
    chosen: Mapping[str, str],
    world_size: int,
    accelerator: str,
    begun: bool = False,
) -> Sized:
    """What follows from the dial of a composed configuration. Arguments as in `fill`."""
    vocab_size, length = dataset(data)
    return derive(
        # What was begun has its model and length; its layout alone is derived.
        size=None if begun else _text(data["model"].get("size")),
        budget=None if begun else _text(data.get("budget")),
        model=edge.build(ModelConfig, data["model"], "model"),
        train=on_paper(edge.build(TrainConfig, data["train"], "train"), data, accelerator),
        optim=edge.build(OptimConfig, data["optim"], "optim"),
        schedule=edge.build(ScheduleConfig, data["schedule"], "schedule"),
        parallel=edge.build(ParallelConfig, data["parallel"], "parallel"),
        chosen=chosen,
        vocab_size=vocab_size,
        sequence_length=length,
        world_size=world_size,
        accelerator=accelerator_of(data, accelerator),
    )


def dataset(data: dict[str, Any]) -> tuple[int, int]:
    """Vocabulary size and tokens of a sequence: of the packed dataset, or of the plan's own keys where none is given."""
    path = data["data"]["path"]
    if not path and "vocab_size" in data:
        return data["vocab_size"], data["train"].get("sequence_length") or min(
            8192, data["model"].get("max_sequence_length", 8192)
        )
    try:
        packed = PackedDataset(path)
    except (PackedError, OSError) as error:
        raise ConfigError(f"`data`: {error}") from error
    return packed.vocab_size, packed.sequence_length


def accelerator_of(data: dict[str, Any], here: str) -> Accelerator:
    """The device that a configuration is reckoned for; `here`: what `auto` stands for."""
    name = data.get("accelerator", "auto")
    return ACCELERATORS[here if name == "auto" else name]


def on_paper(train: TrainConfig, data: dict[str, Any], here: str) -> TrainConfig:
    """`train` with `dtype=auto` decided for the arithmetic, where no rank measures it: bf16 on GPUs; fp32 on
    processors, in which all of them multiply natively (measuring needs torch, and a plan does without).

    Args:
        here: what `accelerator=auto` stands for.
    """
    if train.dtype != "auto":
        return train
    name = data.get("accelerator", "auto")
    native = (here if name == "auto" else name) != "cpu"
    return dataclasses.replace(train, dtype="bf16" if native or train.float8 else "fp32")


def this_accelerator() -> str:
    """Name of this machine's device in the table: the one that its GPU's name holds, or else has as much memory."""
    if device_type("auto") == "cpu":
        return "cpu"
    import torch

    name, memory = torch.cuda.get_device_name().lower(), torch.cuda.get_device_properties(0).total_memory
    gpus = [key for key in ACCELERATORS if key != "cpu"]
    known = [key for key in gpus if key in name]
    return known[0] if known else min(gpus, key=lambda key: abs(ACCELERATORS[key].memory - memory))


def _recorded(data: dict[str, Any]) -> dict[str, Any] | None:
    """Numbers of the run directory, where it was begun with the same dial."""
    run_dir = data["run"].get("dir")
    path = Path(run_dir) / "config.yaml" if run_dir else None
    if path is None or not path.is_file():
        return None
    before = yaml.safe_load(path.read_text()) or {}
    same = (_text((before.get("model") or {}).get("size")), _text(before.get("budget"))) == (
        _text(data["model"].get("size")),
        _text(data.get("budget")),
    )
    if not same:
        return None
    flat = {f"{s}.{k}": v for s, inner in before.items() if isinstance(inner, dict) for k, v in inner.items()}
    fields = {"model": ModelConfig, "optim": OptimConfig, "schedule": ScheduleConfig, "train": TrainConfig}
    known = {f"{s}.{f.name}" for s, cls in fields.items() for f in dataclasses.fields(cls)}
    return {
        key: value
        for key, value in flat.items()
        if key.startswith(KEPT) and key in known and key not in ("model.size", "model.init_from")
    }


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
