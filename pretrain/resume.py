"""Before the first step: the checks that need no weights, and the state that the run begins with."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from configs.edge import ConfigError
from configs.schema.train import TrainRun
from data_pipeline.packed import PackedDataset, PackedError
from pretrain.advice import Facts, identity, tokenizer_of
from pretrain.checkpoint import (
    Checkpoint,
    CheckpointError,
    newest,
    open_checkpoint,
    restore,
)
from pretrain.checkpoint.restore import HasWeights
from pretrain.checkpoint.state import Progress, check_same_run, config_of, random_states, set_random_states
from pretrain.checkpoint_folders import remove_surplus, remove_uncommitted, step_path
from pretrain.data import DataPlan, PlanError, Ramp
from pretrain.data.ramp import Stretch
from pretrain.distributed import Process, agreed, device_type, on_rank0
from pretrain.init_from import start_from
from pretrain.ledger import Ledger
from pretrain.metrics.records import Records
from pretrain.model.attention import choose as choose_attention
from pretrain.model.recompute import check as check_recompute
from pretrain.optim.optimizer import Optimizer, check_in_backward
from pretrain.optim.optimizer import check as check_optim
from pretrain.optim.schedule import check as check_schedule
from pretrain.parallel.compiled import check as check_compiled
from pretrain.parallel.engine import Engine
from pretrain.parallel.layout import Layout, shape
from pretrain.parallel.mesh import build_mesh
from pretrain.parallel.precision import COMPUTE_DTYPES
from pretrain.parallel.precision import check as check_precision
from pretrain.profiler import check as check_profile
from pretrain.resilience import Heartbeat


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
    width, dtype = model.dim // model.n_heads, COMPUTE_DTYPES[train.dtype]
    choose_attention(train.attention, device_type(config.device), dtype, width)
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


@dataclass(frozen=True)
class Begun:
    """What a run begins with."""

    engine: Engine
    optimizer: Optimizer
    plan: DataPlan
    """With the amendments of the checkpoint."""
    progress: Progress


def build(config: TrainRun, process: Process, vocab_size: int, mesh: DeviceMesh) -> tuple[Engine, Optimizer]:
    """The model with its initial weights, and its optimizer; collective."""
    engine = Engine(
        config.model, vocab_size, config.parallel, config.train, mesh, process.device, config.seed
    )
    optimizer = Optimizer(engine.named_parameters(), config.optim, config.train.dtype, config.seed)
    if config.optim.in_backward:
        engine.use_gradients(optimizer.update)
    return engine, optimizer


def begin(
    config: TrainRun,
    process: Process,
    checked: Checked,
    records: Records,
    heartbeat: Heartbeat,
) -> Begun:
    """The model and its optimizer, new or as the newest checkpoint that verifies has them; collective.

    Raises:
        ConfigError: a checkpoint that this run must not continue from.
    """
    mesh, plan = build_mesh(checked.layout, process.device.type), checked.plan
    engine, optimizer = build(config, process, checked.packed.vocab_size, mesh)
    heartbeat.beat(0, "restoring")
    run_dir = Path(config.run.dir)
    for problem in on_rank0(lambda: remove_uncommitted(run_dir)):
        records.console.warn(problem)
    try:
        progress, plan, passed_over = resume(config, process, engine, optimizer, checked, records.ledger)
        for reason in passed_over:
            records.console.warn(f"a checkpoint was passed over: {reason}")
    except CheckpointError as error:
        # Nothing is left to walk back to, and parts of a broken checkpoint have been read: begin anew.
        records.console.warn(f"{error}; the run begins again at step 1")
        records.event("restored", 0, n=0, passed_over=[str(error)])
        engine, optimizer = build(config, process, checked.packed.vocab_size, mesh)
        progress = Progress()
        start_from(config, engine)
    # Older checkpoints make room only now, when it is known which one verified.
    used = step_path(run_dir, progress.step)
    for problem in on_rank0(lambda: remove_surplus(run_dir, config.checkpoint.keep, spare=used)):
        records.console.warn(problem)
    return Begun(engine, optimizer, plan, progress)


def resume(
    config: TrainRun,
    process: Process,
    engine: HasWeights,
    optimizer: Optimizer,
    checked: Checked,
    ledger: Ledger | None,
) -> tuple[Progress, DataPlan, tuple[str, ...]]:
    """Continue from the newest checkpoint that verifies, or begin at step 0; collective.

    Returns:
        How far the run is, the plan with the checkpoint's amendments, and why newer checkpoints were not used.

    Raises:
        ConfigError: a checkpoint that this run must not continue from.
        CheckpointError: there are checkpoints, but none verifies; the weights are then spoilt.
    """
    run_dir, packed, plan = Path(config.run.dir), checked.packed, checked.plan
    own = random_states(process.rank, process.device)

    def tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
        # On another number of ranks, new ranks keep the generators that they start with.
        states = {name: state for name, state in own.items() if name in checkpoint.chunks}
        return {**weights_and_moments(engine, optimizer), **states}

    restored = restore(
        run_dir,
        tensors,
        lambda checkpoint: check_same_run(checkpoint, config, plan, packed.tokenizer_hash),
    )
    if restored is None:
        start_from(config, engine)
        return Progress(), plan, ()
    state = restored.state
    try:
        _check_position(restored.path, state, config, checked)
    except ConfigError as error:
        raise agreed(error) from None
    set_random_states(own, process.device)
    if ledger is not None:
        passed_over = list(restored.passed_over)
        ledger.event(
            "restored",
            restored.step,
            path=restored.path.name,
            n=state["n"],
            seconds=restored.seconds,
            passed_over=passed_over,
        )
    progress = Progress(state["step"], state["n"], state["skipped_in_a_row"])
    followed = config_of(state, restored.path).data.phases
    if followed != config.data.phases and ledger is not None:
        ledger.event("amended", restored.step, n=state["n"], phases=[asdict(p) for p in config.data.phases])
    return progress, plan.with_state(state["data"], state["n"], followed), restored.passed_over


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
        _check_position(path, checkpoint.state, config, checked)
        old = config_of(checkpoint.state, path)
        return replace(
            facts,
            steps_done=checkpoint.state["step"],
            schedule_before=old.schedule,
            steps_before=old.train.steps,
        )
    return facts


def _check_position(path: Path, state: dict[str, Any], config: TrainRun, checked: Checked) -> None:
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


def weights_and_moments(engine: HasWeights, optimizer: Optimizer) -> dict[str, Tensor]:
    """The tensors of a run that every layout has, by checkpoint name."""
    return {
        **{f"model.{name}": tensor for name, tensor in engine.state_dict().items()},
        **{f"optim.{name}": tensor for name, tensor in optimizer.state_dict().items()},
    }


def forget_heartbeats(run_dir: Path) -> None:
    """Remove the heartbeats of an earlier start, whose ranks may have been others."""
    shutil.rmtree(run_dir / "heartbeats", ignore_errors=True)
    (run_dir / "heartbeats").mkdir(parents=True, exist_ok=True)
