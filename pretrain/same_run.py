"""What may differ when a run is continued from a checkpoint. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import TrainRun
from pretrain.data import DataPlan, PlanError
from pretrain.data.plan import check_extension, skipped
from pretrain.manifest import Checkpoint

MAY_CHANGE = (
    "train.steps",
    "train.micro_batch_size",
    "train.compile",
    "train.activation_checkpointing",
    "train.attention",
    "train.activation_budget",
    "train.activation_offload",
    "train.loss_chunk_tokens",
    "train.eval_every",
    "train.eval_sequences",
    "train.gc_every",
    "optim.in_backward",
    "train.dry_run",
    "train.deterministic",
    "data.path",
    "data.verify",
    "data.prefetch",
    "parallel",
    "checkpoint",
    "resilience",
    "tracker",
    "profile",
    "run",
    "device",
    "accelerator",
)
"""Keys that may differ between a checkpoint and the run that continues it: the length of the run, where and how fast
it computes, and how it is watched. `data.path` may move, because the dataset is known by its hashes."""


def check_same_run(checkpoint: Checkpoint, config: TrainRun, plan: DataPlan, tokenizer_hash: str) -> None:
    """Refuse a checkpoint that the run must not continue from.

    Raises:
        ConfigError: another tokenizer, another configuration outside of MAY_CHANGE (names the first key), or another
            data plan.
    """
    state, path = checkpoint.state, checkpoint.path
    if "config" not in state:
        raise ConfigError(
            f"{path} holds weights alone (they were imported, or averaged), so there is no run to go on with; begin one "
            f"in another run.dir with model.init_from={path.parent.parent}"
        )
    if state.get("tokenizer_hash") != tokenizer_hash:
        raise ConfigError(
            f"{path} was trained with another tokenizer (SHA-256 {str(state.get('tokenizer_hash'))[:12]}…) than that "
            f"of data.path={config.data.path} ({tokenizer_hash[:12]}…); use that run's packed dataset, or start a new "
            "run in another run.dir"
        )
    old = config_of(state, path)
    before, now = _flat(edge.to_dict(old)), _flat(edge.to_dict(config))
    # What was consumed of the phases must not change; the plan looks after that.
    before.pop("data.phases", None), now.pop("data.phases", None)
    # Weights and moments are fp32 under both, so only the precision of products changes.
    if {before["train.dtype"], now["train.dtype"]} <= {"auto", "bf16", "fp32"}:
        before.pop("train.dtype"), now.pop("train.dtype")
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and not any(
            key == k or key.startswith(k + ".") for k in MAY_CHANGE
        ):
            raise ConfigError(
                f"`{key}` is {now.get(key)!r}, but {path} was made with {before.get(key)!r}; on resume it cannot "
                f"change (what can: {', '.join(MAY_CHANGE)}). Set it back, or start a new run in another run.dir"
            )
    if old.data.phases != config.data.phases:
        try:
            check_extension(old.data.phases, config.data.phases, state["n"] + skipped(state["data"]))
        except PlanError as error:
            raise ConfigError(
                f"`data.phases` is not what {path} was made with: {error}. Set it back, or start a new run in another "
                "run.dir"
            ) from None
    try:
        plan.with_state(state["data"], state["n"], old.data.phases)
    except PlanError:
        raise ConfigError(
            f"the data plan over data.path={config.data.path} is not the one that {path} was trained with: the packed "
            "dataset has other streams, sizes or mixture weights; use the same dataset, or start a new run in another "
            "run.dir (model.init_from continues from its weights)"
        ) from None


def config_of(state: dict[str, Any], path: Path) -> TrainRun:
    """The configuration that a checkpoint was made with; keys that are younger than it have their defaults."""
    try:
        return edge.build(TrainRun, state["config"])
    except ConfigError as error:
        raise ConfigError(f"{path} was made by another version of arriero: {error}") from None


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat = {}
    for key, inner in value.items():
        flat.update(_flat(inner, f"{prefix}.{key}" if prefix else str(key)))
    return flat
