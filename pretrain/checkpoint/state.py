"""The state of a run beside its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from configs import edge
from configs.schema.train import TrainRun
from pretrain.data import DataPlan


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    """Steps done."""
    n: int = 0
    """Sequences of the plan used."""
    skipped_in_a_row: int = 0
    """Steps at the end whose update was skipped."""


def run_state(
    config: TrainRun,
    plan: DataPlan,
    progress: Progress,
    tokenizer_hash: str,
    sequence_length: int,
    ledger_position: int,
) -> dict[str, Any]:
    """The JSON part of a checkpoint.

    Args:
        sequence_length: tokens of a packed sequence; the longest row of the phases is stored.
    """
    lengths = [phase.sequence_length or sequence_length for phase in config.data.phases]
    return {
        "step": progress.step,
        "n": progress.n,
        "skipped_in_a_row": progress.skipped_in_a_row,
        "data": plan.state(),
        "tokenizer_hash": tokenizer_hash,
        "sequence_length": max(lengths),
        "ledger_position": ledger_position,
        "config": edge.to_dict(config),
    }


def random_states(rank: int, device: torch.device) -> dict[str, Tensor]:
    """Copies of this rank's generator states, uint8, by checkpoint name."""
    states = {f"rng.{rank}.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states[f"rng.{rank}.cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Set this rank's generators to the states of a checkpoint."""
    for name, state in states.items():
        if name.endswith(".cuda"):
            torch.cuda.set_rng_state(state, device)
        else:
            torch.set_rng_state(state)
