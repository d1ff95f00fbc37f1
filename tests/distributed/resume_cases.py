"""Training that is saved in one layout and goes on in another: what the test compares."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from parity_cases import CLIP, SCHEDULE, Case, build, gathered, global_batch, micro_batches

from pretrain.checkpoint import Checkpointer, restore
from pretrain.checkpoint.state import random_states, set_random_states
from pretrain.optim.optimizer import Optimizer
from pretrain.optim.schedule import lr_factor
from pretrain.parallel.engine import Engine, weights_hash
from pretrain.resume import weights_and_moments

SAVED, ALL = 2, 5
"""Step after which a run is saved, and steps of the whole run."""


@dataclass(frozen=True)
class Rest:
    """The steps after the checkpoint; hashes of what is there at its beginning and at its end."""

    losses: tuple[float, ...]
    hashes: dict[str, str]


def folder_of(folder: Path, case: Case) -> Path:
    """Run directory of a case."""
    return folder / hashlib.md5(case.name.encode()).hexdigest()


def train(case: Case, engine: Engine, optimizer: Optimizer, steps: range) -> tuple[float, ...]:
    """Losses of these steps."""
    losses = []
    for step in steps:
        whole = global_batch(step)
        loss = engine.forward_backward(micro_batches(case, engine, whole), whole.n_valid)
        engine.clip_grad_norm(CLIP)
        # A hundredth of the rate at which the parity test trains: AdamW makes whole steps of rounding errors, where
        # gradients are next to nothing.
        optimizer.step(0.01 * lr_factor(SCHEDULE, step, ALL))
        optimizer.zero_grad()
        losses.append(float(loss) / float(whole.n_valid))
    return tuple(losses)


def rest(case: Case, engine: Engine, optimizer: Optimizer) -> Rest:
    """The steps after the checkpoint."""
    begin, hashes = _hashes(engine, optimizer), {"restored weights": weights_hash(engine)}
    losses = train(case, engine, optimizer, range(SAVED + 1, ALL + 1))
    end = _hashes(engine, optimizer)
    hashes |= {f"restored {name}": value for name, value in begin.items()} | end
    hashes["random numbers"] = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()
    return Rest(losses, hashes)


def save_all(cases: list[Case], folder: Path) -> list[Rest]:
    """Train each case, save it, and train on."""
    results = []
    for case in cases:
        engine, optimizer = build(case)
        train(case, engine, optimizer, range(1, SAVED + 1))
        torch.manual_seed(dist.get_rank() + 100)
        torch.rand(3)
        checkpointer = Checkpointer(folder_of(folder, case), 0, asynchronous=True, ledger=None)
        own = random_states(dist.get_rank(), torch.device("cpu"))
        checkpointer.start(SAVED, {**weights_and_moments(engine, optimizer), **own}, {"step": SAVED})
        results.append(rest(case, engine, optimizer))
        checkpointer.finish()
        checkpointer.close()
    return results


def resume_all(pairs: list[tuple[Case, Case]], folder: Path) -> list[Rest]:
    """For each (saved, case): restore what was saved into the layout of the case, and train on."""
    results = []
    for saved, case in pairs:
        engine, optimizer = build(case)
        torch.manual_seed(0)
        own = random_states(dist.get_rank(), torch.device("cpu"))
        tensors = weights_and_moments(engine, optimizer)
        # Other values than the checkpoint's, whatever a new model has: what is not read is noticed.
        for tensor in tensors.values():
            tensor.fill_(torch.nan)
        restored = restore(
            folder_of(folder, saved),
            lambda c, tensors=tensors, own=own: {
                **tensors,
                **{n: t for n, t in own.items() if n in c.chunks},
            },
            lambda c: None,
        )
        assert restored is not None and restored.step == restored.state["step"] == SAVED
        set_random_states(own, torch.device("cpu"))
        results.append(rest(case, engine, optimizer))
    return results


def _hashes(engine: Engine, optimizer: Optimizer) -> dict[str, str]:
    return {
        name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for name, tensor in gathered(weights_and_moments(engine, optimizer)).items()
    }
