"""The state that a run begins with: new, or that of the newest checkpoint that verifies."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from configs.edge import ConfigError
from configs.schema.train import TrainRun
from pretrain.checkpoint import Checkpoint, CheckpointError, restore
from pretrain.checkpoint.restore import HasWeights
from pretrain.checkpoint.state import Progress, random_states, set_random_states
from pretrain.checkpoint_folders import remove_surplus, remove_uncommitted, step_path
from pretrain.checks import Checked, check_position
from pretrain.data import DataPlan
from pretrain.distributed import Process, agreed, on_rank0
from pretrain.init_from import start_from
from pretrain.ledger import Ledger
from pretrain.metrics.records import Records
from pretrain.optim.optimizer import Optimizer
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import build_mesh
from pretrain.resilience import Heartbeat
from pretrain.same_run import check_same_run, config_of


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
        check_position(restored.path, state, config, checked)
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
