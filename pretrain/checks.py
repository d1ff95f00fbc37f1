"""Everything that can be checked about a run before a weight exists. Imports no torch: `arriero launch` makes the same
checks before it starts anything."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.edge import ConfigError
from configs.schema.train import TrainRun
from data_pipeline.packed import PackedDataset, PackedError
from pretrain.advice import Facts, identity, tokenizer_of
from pretrain.data import DataPlan, PlanError, Ramp
from pretrain.data.ramp import Stretch
from pretrain.manifest import CheckpointError, newest, open_checkpoint
from pretrain.optim.schedule import check as check_schedule
from pretrain.options import (
    COMPUTE_DTYPES,
    check_compiled,
    check_in_backward,
    check_optim,
    check_precision,
    check_profile,
    check_recompute,
    choose_attention,
    device_type,
)
from pretrain.parallel.layout import Layout, shape
from pretrain.same_run import check_same_run, config_of


@dataclass(frozen=True)
class Checked:
    """What a run is made of before a weight exists."""

    packed: PackedDataset
    plan: DataPlan
    ramp: Ramp
    layout: Layout

    def table(self, steps: int) -> str:
        """What the first `steps` steps consume, as text."""
        sequences = self.ramp.used(steps)
        return (
            f"Plan: {sequences:,} sequences of {self.packed.sequence_length} tokens\n{self.ramp.table(steps)}\n\n"
            f"{self.plan.table(sequences)}"
        )


def check(config: TrainRun, world_size: int) -> Checked:
    """Everything that can be known to be wrong before a weight exists.

    Raises:
        ConfigError: what is wrong, where, and what to do; also where the packed dataset is what is wrong.
    """
    try:
        return _check(config, world_size)
    except (PackedError, PlanError) as error:
        # Another start cannot help, so these count as configuration here; in the loop they do not.
        raise ConfigError(f"`data`: {error}") from error


def _check(config: TrainRun, world_size: int) -> Checked:
    train, model = config.train, config.model
    check_schedule(config.schedule, train.steps)
    check_optim(config.optim)
    # Ranks come with their dtype decided; where there are none yet, devices are taken to be those that auto is bf16 on.
    train = replace(train, dtype="bf16") if train.dtype == "auto" else train
    shape(model, vocab_size=1)
    width = model.dim // model.n_heads
    choose_attention(train.attention, device_type(config.device), COMPUTE_DTYPES[train.dtype], width)
    check_recompute(train)
    check_precision(train, config.parallel, config.optim, model)
    check_profile(config.profile, world_size)
    check_compiled(train, config.parallel, device_type(config.device))
    for key, value in (
        ("checkpoint.every", config.checkpoint.every),
        ("run.log_every", config.run.log_every),
    ):
        if value < 1:
            raise ConfigError(f"`{key}` must be at least 1, but it is {value}")
    if train.gc_every < 0:
        raise ConfigError(f"`train.gc_every` must not be negative, but it is {train.gc_every}")
    packed = PackedDataset(config.data.path, verify=config.data.verify)
    length = packed.sequence_length
    if train.sequence_length not in (None, length):
        raise ConfigError(
            f"`train.sequence_length` is {train.sequence_length}, but {config.data.path} is packed in sequences of "
            f"{length}; leave the key out, or pack again with pack.sequence_length={train.sequence_length}"
        )
    if length > model.max_sequence_length:
        raise ConfigError(
            f"{config.data.path} is packed in sequences of {length} tokens, but `model.max_sequence_length` is "
            f"{model.max_sequence_length}; raise it, or pack shorter sequences"
        )
    tokenizer = packed.tokenizer_path / "tokenizer.json"
    if not tokenizer.is_file() or hashlib.sha256(tokenizer.read_bytes()).hexdigest() != packed.tokenizer_hash:
        raise ConfigError(
            f"{tokenizer} is missing or not the tokenizer that the tokens were made with (SHA-256 "
            f"{packed.tokenizer_hash[:12]}…); put that one back, or pack again"
        )
    ramp = Ramp(config.data.phases, train.global_batch_size, length)
    layouts = [_layout(config, stretch, packed.vocab_size, world_size) for stretch in ramp.stretches]
    check_in_backward(config, max(layout.micro_batches for layout in layouts))
    plan = DataPlan(packed.manifest, config.data.phases, config.seed)
    plan.check(ramp.used(train.steps))
    return Checked(packed, plan, ramp, layouts[0])


def _layout(config: TrainRun, stretch: Stretch, vocab_size: int, world_size: int) -> Layout:
    """The layout of the steps of one stretch; its errors name the key that the phase is configured by."""
    train = replace(config.train, global_batch_size=stretch.size, sequence_length=stretch.length)
    try:
        return Layout.check(config.parallel, train, config.model, vocab_size, world_size)
    except ConfigError as error:
        text, phase = str(error), config.data.phases[stretch.phases[0]]
        for key in ("global_batch_size", "sequence_length"):
            if getattr(phase, key) is not None:
                text = text.replace(f"train.{key}", f"data.phases[{stretch.phases[0]}].{key}")
        raise ConfigError(text) from None


def before(config: TrainRun, run_dir: Path, checked: Checked) -> Facts:
    """What the warnings look at: what the run would consume, and what it would continue from. Reads no weights.

    Raises:
        ConfigError: a checkpoint that this run must not continue from.
    """
    used, streams = checked.ramp.used(config.train.steps), checked.packed.manifest.of_split("train")
    held: dict[str, int] = {}
    for info in streams.values():
        held[info.source] = held.get(info.source, 0) + info.sequences
    facts = Facts({source: n for source, n in held.items() if n}, checked.plan.consumed(used), used)
    if config.model.init_from is not None:
        own = identity(checked.packed.tokenizer_path / "tokenizer.json")
        given = tokenizer_of(Path(config.model.init_from))
        facts = replace(facts, data_tokenizer=own, model_tokenizer=given)
    for path in newest(run_dir):
        if not config.checkpoint.resume:
            raise ConfigError(
                f"checkpoint.resume=false, but {run_dir} has checkpoints; give this run another run.dir, or resume"
            )
        try:
            checkpoint = open_checkpoint(path)
        except CheckpointError:
            continue  # the ranks pass it over, and say why
        check_same_run(checkpoint, config, checked.plan, checked.packed.tokenizer_hash)
        check_position(path, checkpoint.state, config, checked)
        old = config_of(checkpoint.state, path)
        return replace(
            facts,
            steps_done=checkpoint.state["step"],
            schedule_before=old.schedule,
            steps_before=old.train.steps,
        )
    return facts


def check_position(path: Path, state: dict[str, Any], config: TrainRun, checked: Checked) -> None:
    """Raise ConfigError where a checkpoint lies past the end of the run, or on another way through the data."""
    if state["step"] > config.train.steps:
        raise ConfigError(
            f"{path} is at step {state['step']}, past `train.steps` = {config.train.steps}; raise it"
        )
    if state["n"] != checked.ramp.used(state["step"]):
        raise ConfigError(
            f"{path} is at step {state['step']} and sequence {state['n']:,}, but this configuration's "
            f"first {state['step']} steps consume {checked.ramp.used(state['step']):,}; batch sizes cannot change "
            "on resume"
        )
