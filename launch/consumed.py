"""Which training steps consumed given sequences: the data plan, read along what the ledger says was trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import TrainRun
from data_pipeline.packed import PackedDataset


@dataclass(frozen=True)
class Consumed:
    """What a run made of some sequences."""

    steps: tuple[int, ...]
    """Steps that trained on at least one of them, ascending; a step that was trained twice counts once."""
    trained: int
    """Steps that the run trained."""
    notes: tuple[str, ...] = ()
    """What a reader should know: one sentence each."""


def steps(run_dir: Path, packed: PackedDataset, sequences: set[tuple[str, int]]) -> Consumed:
    """Steps of a run that consumed any of these (stream, index).

    The plan is that of the run's configuration over `packed`, with the amendments of its newest checkpoint. Takes time
    linear in the sequences that the run trained on.

    Raises:
        ConfigError: `run_dir` is no run directory, or the run was trained on another dataset.
    """
    from pretrain.data.plan import DataPlan, PlanError
    from pretrain.ledger import read_ledger
    from pretrain.manifest import CheckpointError, newest, open_checkpoint

    if not (run_dir / "config.yaml").is_file():
        raise ConfigError(f"`runs`: {run_dir} is no run directory: it has no config.yaml")
    config = edge.read(run_dir / "config.yaml", TrainRun)
    plan = DataPlan(packed.manifest, config.data.phases, config.seed)
    notes: list[str] = []
    state = None
    for path in newest(run_dir):
        try:
            state = open_checkpoint(path).state
            break
        except CheckpointError:
            continue
    if state is None:
        notes.append("it has no checkpoint, so its dataset cannot be compared with this one by its hash")
    else:
        try:
            followed = edge.build(TrainRun, state["config"]).data.phases
            plan = plan.with_state(state["data"], state["n"], followed)
        except PlanError:
            raise ConfigError(
                f"`runs`: {run_dir} was trained on another dataset than {packed.path}, or with another plan "
                f"({str(state['data']['hash'])[:12]}, here {plan.hash[:12]})"
            ) from None
    found: set[int] = set()
    trained: set[int] = set()
    done: set[tuple[int, int]] = set()
    for event in read_ledger(run_dir):
        if event.get("event") != "step_range":
            continue
        first, last, n, end = (event[k] for k in ("first_step", "last_step", "first_n", "last_n"))
        size = (end - n) // (last - first + 1)
        for step in range(first, last + 1):
            begin = n + (step - first) * size
            trained.add(step)
            if (step, begin) in done:
                continue
            done.add((step, begin))
            if any(plan.locate(i) in sequences for i in range(begin, begin + size)):
                found.add(step)
    if plan.amendments:
        notes.append(
            "the plan was amended on the way: steps that were trained before an amendment, and again after it, are looked "
            "up as after it"
        )
    return Consumed(tuple(sorted(found)), len(trained), tuple(notes))
