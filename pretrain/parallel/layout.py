"""Layouts: which rank has which part of the model and of the batch. Pure checks, before any process talks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from configs.edge import ConfigError
from configs.schema.train import ModelConfig, ParallelConfig, TrainConfig
from pretrain.hf import padded_vocab_size
from pretrain.parallel.pipeline_schedules import SPLIT, V_SHAPED, describe


@dataclass(frozen=True)
class Layout:
    """A checked layout of `world_size` ranks; sizes of the mesh, outermost first."""

    pp: int
    dp_replicate: int
    dp_shard: int
    cp: int
    tp: int
    micro_batches: int
    """Micro-batches of one step on each rank."""

    @property
    def dp(self) -> int:
        """Ranks that read different sequences."""
        return self.dp_replicate * self.dp_shard

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.pp * self.dp * self.cp * self.tp

    def describe_pipeline(self, parallel: ParallelConfig) -> str:
        """A line about the schedule: stages, micro-batches, and the share of the time in which ranks wait."""
        return describe(parallel.pp_schedule, self.pp, virtual_stages(parallel), self.micro_batches)

    @staticmethod
    def check(
        parallel: ParallelConfig, train: TrainConfig, model: ModelConfig, vocab_size: int, world_size: int
    ) -> Layout:
        """The layout that a configuration describes.

        Raises:
            ConfigError: it does not fit the world size, the model or the batch; the message names what to change.
        """
        shape(model, vocab_size)
        for name in ("pp", "dp_replicate", "cp", "tp"):
            if getattr(parallel, name) < 1:
                raise ConfigError(
                    f"`parallel.{name}` must be at least 1, but it is {getattr(parallel, name)}"
                )
        dp_shard = _dp_shard(parallel, world_size)
        _divides("tp", parallel.tp, "model.n_heads", model.n_heads)
        _divides("tp", parallel.tp, "model.n_kv_heads", model.n_kv_heads)
        _divides("tp", parallel.tp, "model.ffn_dim", model.ffn_dim)
        rows = padded_vocab_size(model, vocab_size)
        if rows % parallel.tp:
            raise ConfigError(
                f"`parallel.tp` is {parallel.tp} and must divide the rows of the embedding, which are {rows} for "
                f"{vocab_size} tokens; set model.vocab_multiple={parallel.tp}, which adds rows of padding"
            )
        if train.sequence_length is not None:
            whole = sequence_unit(parallel.cp, parallel.tp)
            if train.sequence_length % whole:
                raise ConfigError(
                    f"`train.sequence_length` is {train.sequence_length}, but parallel.cp={parallel.cp} and "
                    f"parallel.tp={parallel.tp} need a multiple of {whole}"
                )
        micro_batches = _micro_batches(train, parallel.dp_replicate * dp_shard)
        if parallel.pp > 1:
            _pipeline(parallel, train, model, micro_batches, parallel.dp_replicate * dp_shard)
        elif parallel.pp_virtual != 1:
            raise ConfigError(
                f"`parallel.pp_virtual` is {parallel.pp_virtual}, but parallel.pp=1 is no pipeline; set "
                "parallel.pp_virtual=1, or parallel.pp to at least 2"
            )
        return Layout(parallel.pp, parallel.dp_replicate, dp_shard, parallel.cp, parallel.tp, micro_batches)


def sequence_unit(cp: int, tp: int) -> int:
    """Sequences must be a multiple of this: equal shares for tensor-parallel ranks, and for each context-parallel
    rank at least two chunks, so that their loads can be balanced."""
    return math.lcm(cp * tp, 2 * cp if cp > 1 else 1)


def shape(model: ModelConfig, vocab_size: int) -> None:
    """Raise ConfigError where a model's sizes do not fit each other."""
    for name in ("dim", "n_layers", "n_heads", "n_kv_heads", "ffn_dim"):
        if getattr(model, name) < 1:
            raise ConfigError(f"`model.{name}` must be at least 1, but it is {getattr(model, name)}")
    if vocab_size < 1:
        raise ConfigError(f"the vocabulary size must be at least 1, but it is {vocab_size}")
    if model.dim % model.n_heads or model.dim // model.n_heads % 2:
        raise ConfigError(
            f"`model.dim` must be an even multiple of `model.n_heads` (rotary embedding turns pairs), "
            f"but {model.dim} / {model.n_heads} = {model.dim / model.n_heads:g}"
        )
    if model.n_heads % model.n_kv_heads:
        raise ConfigError(
            f"`model.n_kv_heads` must divide `model.n_heads`, but {model.n_heads} / {model.n_kv_heads} "
            f"= {model.n_heads / model.n_kv_heads:g}"
        )


def stage_layers(n_layers: int, stages: int, stage: int) -> range:
    """Blocks of a pipeline stage. What does not divide goes to the first stages but one: the ends of the pipeline
    hold the embedding and the head besides."""
    order = [*range(1, stages - 1), *([stages - 1, 0] if stages > 1 else [0])]
    extra = set(order[: n_layers % stages])
    counts = [n_layers // stages + (s in extra) for s in range(stages)]
    start = sum(counts[:stage])
    return range(start, start + counts[stage])


def virtual_stages(parallel: ParallelConfig) -> int:
    """Virtual pipeline stages on each rank, 1 without a pipeline."""
    return 2 if parallel.pp > 1 and parallel.pp_schedule in V_SHAPED else parallel.pp_virtual


def _pipeline(
    parallel: ParallelConfig, train: TrainConfig, model: ModelConfig, micro_batches: int, dp: int
) -> None:
    """Raise ConfigError where a pipeline's schedule cannot run."""
    schedule, virtual = parallel.pp_schedule, parallel.pp_virtual
    if schedule == "interleaved" and virtual < 2:
        raise ConfigError(
            f"parallel.pp_schedule=interleaved needs at least 2 virtual stages a rank, but `parallel.pp_virtual` is "
            f"{virtual}; set parallel.pp_virtual=2, or parallel.pp_schedule=1f1b"
        )
    if schedule in V_SHAPED and virtual not in (1, 2):
        raise ConfigError(
            f"parallel.pp_schedule={schedule} has 2 virtual stages a rank, but `parallel.pp_virtual` is {virtual}; "
            "leave the key out, or set parallel.pp_schedule=interleaved"
        )
    if schedule in ("1f1b", "gpipe") and virtual != 1:
        raise ConfigError(
            f"`parallel.pp_virtual` is {virtual}, but parallel.pp_schedule={schedule} has one stage a rank; set "
            "parallel.pp_virtual=1, or parallel.pp_schedule=interleaved"
        )
    if schedule in SPLIT and parallel.reshard_after_forward:
        raise ConfigError(
            f"parallel.pp_schedule={schedule} computes gradients of weights after those of inputs, with parameters that "
            "stay whole over the step; set parallel.reshard_after_forward=false, or parallel.pp_schedule=interleaved"
        )
    if schedule in SPLIT and train.compile:
        raise ConfigError(
            f"parallel.pp_schedule={schedule} computes gradients of weights after those of inputs, which a compiled "
            "block cannot; set train.compile=false, or parallel.pp_schedule=interleaved"
        )
    stages = parallel.pp * virtual_stages(parallel)
    if stages > model.n_layers:
        each = stages // parallel.pp
        what = f"`parallel.pp` is {parallel.pp}" + (f" with {each} virtual stages a rank" if each > 1 else "")
        raise ConfigError(
            f"{what}, but the model has only {model.n_layers} layers; set parallel.pp to at most "
            f"{model.n_layers // each}"
            + (
                ", or use fewer virtual stages (parallel.pp_schedule, parallel.pp_virtual)"
                if each > 1
                else ""
            )
        )
    least = 2 * parallel.pp if schedule == "dualpipev" else parallel.pp
    if micro_batches < least:
        many = "twice as many" if least > parallel.pp else "at least as many"
        raise ConfigError(
            f"{parallel.pp} pipeline stages need {many} micro-batches in a step"
            + (f" under {schedule}" if least > parallel.pp else "")
            + f", but train.global_batch_size={train.global_batch_size} over {dp} data-parallel ranks in micro-batches "
            f"of {train.micro_batch_size} gives {micro_batches}; raise train.global_batch_size, or lower "
            "train.micro_batch_size or parallel.pp"
        )


def _dp_shard(parallel: ParallelConfig, world_size: int) -> int:
    others = parallel.pp * parallel.dp_replicate * parallel.cp * parallel.tp
    product = f"pp={parallel.pp} × dp_replicate={parallel.dp_replicate} × cp={parallel.cp} × tp={parallel.tp}"
    if parallel.dp_shard == -1:
        if world_size % others:
            raise ConfigError(
                f"the world has {world_size} ranks, which {product} = {others} does not divide; change parallel.pp "
                "or parallel.tp, or the number of processes"
            )
        return world_size // others
    if parallel.dp_shard < 1:
        raise ConfigError(
            f"`parallel.dp_shard` must be at least 1, or -1 for what is left, but it is {parallel.dp_shard}"
        )
    if parallel.dp_shard * others != world_size:
        raise ConfigError(
            f"the world has {world_size} ranks, but {product} × dp_shard={parallel.dp_shard} makes "
            f"{parallel.dp_shard * others}; set parallel.dp_shard=-1 to take what is left, or change the number "
            "of processes"
        )
    return parallel.dp_shard


def _micro_batches(train: TrainConfig, dp: int) -> int:
    for name in ("global_batch_size", "micro_batch_size"):
        if getattr(train, name) < 1:
            raise ConfigError(f"`train.{name}` must be at least 1, but it is {getattr(train, name)}")
    unit = train.micro_batch_size * dp
    if train.global_batch_size % unit:
        below, above = train.global_batch_size // unit * unit, -(-train.global_batch_size // unit) * unit
        near = f"{above}" if below == 0 else f"{below} or {above}"
        raise ConfigError(
            f"`train.global_batch_size` is {train.global_batch_size}, which does not divide into micro-batches of "
            f"{train.micro_batch_size} on {dp} data-parallel ranks; use a multiple of {unit}, such as {near}, or "
            "change train.micro_batch_size"
        )
    return train.global_batch_size // unit


def _divides(name: str, size: int, what: str, total: int) -> None:
    if total % size:
        valid = ", ".join(str(n) for n in range(1, size) if total % n == 0)
        raise ConfigError(
            f"`parallel.{name}` is {size}, which does not divide {what} ({total}); smaller sizes that do: {valid}"
        )
