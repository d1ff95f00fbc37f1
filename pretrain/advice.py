"""Warnings before training: what can be run and is probably not meant. Pure, shown by train, launch and dry runs alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from configs.schema.train import ScheduleConfig, TrainRun
from pretrain.optim.schedule import lr_factor

EPOCHS = 4.0
"""Passes over the data up to which repeated tokens are nearly as good as new ones (Muennighoff et al. 2023, "Scaling
Data-Constrained Language Models", section 6)."""
JUMP = 1.05
"""Rise of the learning rate from one step to the next, where a run is made longer, from which it is worth a warning."""


@dataclass(frozen=True)
class Facts:
    """What the warnings look at beside the configuration."""

    sequences: Mapping[str, int]
    """Packed sequences that each source holds."""
    consumed: Mapping[str, int]
    """Packed sequences that the run takes from each source."""
    used: int
    """Packed sequences that the run takes in all."""
    steps_done: int = 0
    """Step of the checkpoint that the run continues from."""
    schedule_before: ScheduleConfig | None = None
    """Schedule of that checkpoint; None: the run begins."""
    steps_before: int = 0
    """`train.steps` of that checkpoint."""
    native_bf16: bool = True
    """Whether the devices multiply in bf16 natively; the ranks, which measure it and say the factor, leave it True."""
    data_tokenizer: str = ""
    """`identity` of the packed dataset's tokenizer; not needed without a `model_tokenizer`."""
    model_tokenizer: str | None = None
    """`identity` of the tokenizer that came with `model.init_from`; None: no such model, or it holds none."""


def warnings(config: TrainRun, facts: Facts) -> list[str]:
    """One sentence for each thing that is probably not meant, with the keys to change."""
    return [
        *_schedule(config, facts),
        *_data(config, facts),
        *_checkpoints(config, facts),
        *_tokenizer(config, facts),
        *_precision(config, facts),
        *_profile(config),
    ]


def block(found: list[str]) -> str:
    """Warnings as one block of text; empty without any."""
    if not found:
        return ""
    title = "1 warning" if len(found) == 1 else f"{len(found)} warnings"
    return "\n".join([f"{title} before training:", *(f"  ! {text}" for text in found)])


def tokenizer_of(source: Path) -> str | None:
    """Identity of the tokenizer that lies with a run, one of its checkpoints, or a Hugging Face model; None: none."""
    home = source.parent.parent if source.name.startswith("step-") else source
    for folder in (home / "tokenizer", source):
        if (folder / "tokenizer.json").is_file():
            return identity(folder / "tokenizer.json")
    return None


def identity(path: Path) -> str:
    """SHA-256 of what a `tokenizer.json` makes of text: tokens with their ids, merges and added tokens.

    Not of the file, which other versions of the libraries write in another way.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    model = data.get("model", {})
    vocab = model.get("vocab", {})
    merges = [m if isinstance(m, str) else " ".join(m) for m in model.get("merges") or []]
    added = [(token["id"], token["content"]) for token in data.get("added_tokens") or []]
    tokens = sorted(vocab.items()) if isinstance(vocab, dict) else vocab
    return hashlib.sha256(json.dumps([tokens, merges, added]).encode()).hexdigest()


def _schedule(config: TrainRun, facts: Facts) -> list[str]:
    schedule, steps, peak, found = config.schedule, config.train.steps, config.optim.lr, list[str]()
    warmup = schedule.warmup_steps
    if warmup and warmup >= steps:
        found.append(
            f"warm-up takes all of the run: `schedule.warmup_steps` is {warmup:,} and `train.steps` {steps:,}, so the "
            f"learning rate rises to {peak * min(1.0, steps / warmup):.3g} and never falls; a tenth is usual "
            f"(schedule.warmup_steps={max(1, steps // 10)})"
        )
    step = facts.steps_done
    if facts.schedule_before is not None and facts.steps_before != steps and 0 < step < steps:
        then = lr_factor(facts.schedule_before, step, facts.steps_before)
        now = lr_factor(schedule, step + 1, steps)
        if now > JUMP * then:
            found.append(
                f"`train.steps` was {facts.steps_before:,} and is {steps:,}: the {schedule.name} schedule stretches, so the "
                f"learning rate jumps from {peak * then:.3g} at step {step:,} to {peak * now:.3g} at step {step + 1:,}, and "
                "part of what its decay gained is lost. Runs that may grow: schedule=wsd or schedule.anneal_steps, "
                "continued from a checkpoint before the decay; or another run with model.init_from and a lower optim.lr"
            )
    return found


def _profile(config: TrainRun) -> list[str]:
    late = [step for step in config.profile.steps if step > config.train.steps]
    if not late:
        return []
    return [
        f"`profile.steps` names {', '.join(map(str, late))}, and the run ends at step {config.train.steps:,}: no trace of "
        "these will be written; name earlier steps"
    ]


def _data(config: TrainRun, facts: Facts) -> list[str]:
    found = []
    for source, taken in facts.consumed.items():
        held = facts.sequences[source]
        if taken > EPOCHS * held:
            found.append(
                f"source {source} is repeated {taken / held:.1f} times: it holds {held:,} sequences and the run takes "
                f"{taken:,}; beyond {EPOCHS:g} epochs repetition teaches little. Pack more data, train fewer steps "
                f"(train.steps), or bound it (data.phases[…].max_epochs.{source}={EPOCHS:g})"
            )
    phases = config.data.phases
    starts = accumulate((phase.sequences or 0 for phase in phases[:-1]), initial=0)
    for i, start in enumerate(starts):
        if i and start >= facts.used:
            found.append(
                f"data.phases[{i}] never starts: it begins after {start:,} sequences, and {config.train.steps:,} steps take "
                f"{facts.used:,}; train longer, or shorten the phases before it"
            )
    return found


def _checkpoints(config: TrainRun, facts: Facts) -> list[str]:
    every, keep, steps, schedule = (
        config.checkpoint.every, config.checkpoint.keep, config.train.steps, config.schedule,
    )  # fmt: skip
    found = []
    if every >= steps > 1 and not facts.steps_done:
        found.append(
            f"no checkpoint is written before the end: `checkpoint.every` is {every:,}, and the run ends at step {steps:,}; "
            f"a run that fails on the way begins again at step 1 (checkpoint.every={max(1, steps // 5)})"
        )
    decay = schedule.anneal_steps
    if not decay and schedule.name == "wsd":
        decay = min(round(schedule.decay_share * steps), steps - schedule.warmup_steps)
    written = sum(1 for step in {*range(every, steps + 1, every), steps} if step > steps - decay)
    if decay > 0 and keep and written > keep:
        found.append(
            f"{written} checkpoints are written while the learning rate is annealed (the last {decay:,} steps), but "
            f"`checkpoint.keep` is {keep}: `arriero average` will have {'that one' if keep == 1 else f'those {keep}'} "
            "alone; keep them all with checkpoint.keep=0"
        )
    return found


def _tokenizer(config: TrainRun, facts: Facts) -> list[str]:
    if facts.model_tokenizer is None or facts.model_tokenizer == facts.data_tokenizer:
        return []
    return [
        f"the data was made with another tokenizer than the model: {config.data.path} with {facts.data_tokenizer[:12]}…, "
        f"model.init_from={config.model.init_from} with {facts.model_tokenizer[:12]}… (SHA-256); equal ids then mean other "
        "text. Pack the data again with the model's tokenizer (tokenizer.path)"
    ]


def _precision(config: TrainRun, facts: Facts) -> list[str]:
    if facts.native_bf16 or not config.train.dtype.startswith("bf16"):
        return []
    return [
        f"train.dtype={config.train.dtype}, but this processor does not multiply bf16 natively, which is then slower than "
        "fp32; set train.dtype=fp32, or leave the key out"
    ]
