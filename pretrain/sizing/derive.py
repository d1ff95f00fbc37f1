"""One dial: the size of a model, or the compute of a run, and all that follows from it, each number with its reason."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configs.edge import ConfigError
from configs.schema.train import ModelConfig, OptimConfig, ParallelConfig, ScheduleConfig, TrainConfig
from pretrain.parallel.layout import shape as check_shape
from pretrain.sizing import laws
from pretrain.sizing.footprint import ACCELERATORS, Accelerator
from pretrain.sizing.layouts import Placed, place
from pretrain.sizing.shape import (
    TOLERANCE,
    body_parameters,
    flops_per_token,
    format_size,
    head_width,
    kv_heads,
    parameters,
    parse_size,
    shape,
)

SHAPE = ("dim", "n_layers", "n_heads", "n_kv_heads", "ffn_dim", "tied", "max_sequence_length")
MFU = 0.4
"""Share of the peak that `budget=24h` reckons with (Llama 3 report, table 4: 38% to 43%)."""


@dataclass(frozen=True)
class Reason:
    """One number, and why."""

    key: str
    """Dotted key, which one would set to override it."""
    value: Any
    why: str
    """Formula and source, or what set it."""


@dataclass(frozen=True)
class Sized:
    """What follows from the dial."""

    values: dict[str, Any]
    """Derived values by dotted key."""
    reasons: tuple[Reason, ...]
    """In the order in which they follow from each other; those of keys that the user set included."""
    model: ModelConfig
    placed: Placed
    parameters: int
    steps: int
    tokens: float
    """Tokens of the run."""
    compute: float
    """FLOPs of the run."""

    def table(self) -> str:
        """The reasoning as text."""
        shown = [(r.key, _plain(r.value), r.why) for r in self.reasons]
        wide = max(len(k) for k, _, _ in shown), max(len(v) for _, v, _ in shown)
        return "\n".join(f"  {k:<{wide[0]}}  {v:>{wide[1]}}  {why}" for k, v, why in shown)


def parse_budget(text: str, world_size: int, accelerator: Accelerator) -> float:
    """FLOPs of a budget: a number, or hours on `world_size` devices such as `24h` at 40% of their peak.

    Raises:
        ConfigError: it is neither.
    """
    hours = re.fullmatch(r"(\d+(?:\.\d+)?)h", text.strip().lower())
    if hours:
        return float(hours[1]) * 3600 * world_size * accelerator.peak * MFU
    try:
        flops = float(text)
    except ValueError:
        flops = 0.0
    if not (1e9 <= flops < 1e30):
        raise ConfigError(
            f"`budget` is {text!r}; write FLOPs between 1e9 and 1e30 such as 1e19, or hours on the run's devices such as 24h"
        )
    return flops


def derive(
    *,
    size: str | None,
    budget: str | None,
    model: ModelConfig,
    train: TrainConfig,
    optim: OptimConfig,
    schedule: ScheduleConfig,
    parallel: ParallelConfig,
    chosen: Mapping[str, str],
    vocab_size: int,
    sequence_length: int,
    world_size: int,
    accelerator: Accelerator = ACCELERATORS["h100"],
) -> Sized:
    """Everything that the size of a model, the compute of a run, or both leave open.

    Args:
        size: parameters (`160m`); None: those of `model` where it was chosen, else what is optimal for the budget.
        budget: compute (`1e19`, `24h`); None: 20 tokens a parameter, or `train.steps` where they are set.
        model, train, optim, schedule, parallel: the configuration as it stands; values of `chosen` keys are kept.
        chosen: dotted keys that were set → the override that set them.
        sequence_length: tokens of a packed sequence.

    Raises:
        ConfigError: the dial contradicts itself or what was set, or cannot be met; names the nearest that can.
    """
    notes = _Notes(chosen)
    if size is not None and "model" in chosen:
        raise ConfigError(
            f"`{chosen['model']}` and `model.size={size}` both choose the model; leave one of them out"
        )
    if budget is not None and _by_hand(chosen, "train.steps"):
        raise ConfigError("`budget` and `train.steps` both fix the length of the run; leave one of them out")
    compute = None if budget is None else parse_budget(budget, world_size, accelerator)
    model = _model(notes, size, compute, model, vocab_size, sequence_length)
    check_shape(model, vocab_size)
    total, per_token = parameters(model, vocab_size), flops_per_token(model, vocab_size, sequence_length)
    notes.add(
        "parameters",
        total,
        f"{format_size(total)} with {vocab_size:,} words, {format_size(body_parameters(model))} outside embedding and head",
    )
    steps_set = "train.steps" in chosen and budget is None
    if compute is None:
        tokens = laws.TOKENS_PER_PARAMETER * total
        if steps_set:
            tokens = _tokens_of_steps(train, per_token, sequence_length, chosen)
            notes.add("tokens", tokens, f"train.steps × batch ({chosen['train.steps']})")
        else:
            notes.add(
                "tokens", tokens, "20 a parameter (Hoffmann et al. 2022, table 3); set budget or train.steps"
            )
        compute = per_token * tokens
        notes.add(
            "compute",
            compute,
            f"tokens × {per_token:.3g} FLOPs a token (6 a parameter, 12 a pair of attention)",
        )
    else:
        tokens = compute / per_token
        notes.add("compute", compute, f"budget={budget}")
        notes.add(
            "tokens",
            tokens,
            f"compute / {per_token:.3g} FLOPs a token (6 a parameter, 12 a pair of attention)",
        )

    batch = _batch(notes, train, compute, tokens, sequence_length, world_size, steps_set)
    optimum = laws.learning_rate(compute)
    if optim.name == "adamw":
        lr = notes.value(
            "optim.lr",
            float(f"{optimum:.2g}"),
            optim.lr,
            "0.3118 · C^-0.125, at most 0.005 (Bi et al. 2024, equation 1)",
        )
        decay = notes.value(
            "optim.weight_decay", 0.1, optim.weight_decay, "LLaMA, section 2.3", file_counts=False
        )
        optim = dataclasses.replace(optim, lr=lr, weight_decay=decay)
    else:
        notes.add("optim.lr", optim.lr, f"of optim={optim.name}: the law is AdamW's")
    placed = None
    for doubled in range(20):
        wanted = dataclasses.replace(
            train, global_batch_size=batch << doubled, sequence_length=sequence_length
        )
        try:
            placed = place(
                model, vocab_size, parallel, wanted, optim, sequence_length, world_size, accelerator, chosen
            )
            break
        except ConfigError as error:
            # More ranks than sequences: the batch grows until every rank has one.
            if (
                "train.global_batch_size" in chosen
                or "no layout" in str(error)
                or (batch << doubled) > 64 * world_size
            ):
                raise
    assert placed is not None
    batch = placed.train.global_batch_size
    why = f"0.292 · C^0.3271 = {laws.batch_tokens(compute):.3g} tokens (Bi et al. 2024, equation 1)"
    if laws.batch_tokens(compute) == laws.LARGEST_BATCH:
        why = "16M tokens (Llama 3 report, section 3.4.1), less than 0.292 · C^0.3271 (Bi et al. 2024)"
    if batch * sequence_length > 2 * laws.batch_tokens(compute):
        why += f"; raised, so that {world_size} ranks have a sequence each"
    notes.value(
        "train.global_batch_size", batch, train.global_batch_size, why + f", × {sequence_length:,} tokens"
    )
    steps = train.steps if steps_set else max(1, round(tokens / (batch * sequence_length)))
    notes.value("train.steps", steps, steps, "tokens / batch", file_counts=steps_set)
    warmup = notes.value(
        "schedule.warmup_steps",
        laws.warmup_steps(steps),
        schedule.warmup_steps,
        "2,000 (LLaMA, section 2.3), at least a 150th (Llama 3 405B), at most a tenth of the steps",
        file_counts=not chosen.get("schedule.warmup_steps", "").startswith("schedule="),
    )
    schedule = dataclasses.replace(schedule, warmup_steps=warmup)
    _place_reasons(notes, placed, accelerator)
    values = {r.key: r.value for r in notes.reasons if "." in r.key and r.key not in notes.kept}
    spent = per_token * steps * batch * sequence_length
    return Sized(
        values,
        tuple(notes.reasons),
        model,
        placed,
        total,
        steps,
        float(steps) * batch * sequence_length,
        spent,
    )


class _Notes:
    """Collects values with their reasons; what the user set wins."""

    def __init__(self, chosen: Mapping[str, str]):
        self.chosen, self.reasons, self.kept = chosen, list[Reason](), set[str]()

    def add(self, key: str, value: Any, why: str) -> None:
        self.reasons.append(Reason(key, value, why))

    def value(self, key: str, derived: Any, current: Any, why: str, file_counts: bool = True) -> Any:
        """The current value where the key was set, else the derived one. `file_counts`: whether an option of a group
        that holds the key counts as setting it."""
        setter = self.chosen.get(key)
        if setter is not None and (file_counts or setter.lstrip("+").startswith(key)):
            self.kept.add(key)
            self.add(key, current, f"set by {setter}")
            return current
        self.add(key, derived, why)
        return derived


def _model(
    notes: _Notes,
    size: str | None,
    compute: float | None,
    model: ModelConfig,
    vocab_size: int,
    sequence_length: int,
) -> ModelConfig:
    if size is None and ("model" in notes.chosen or compute is None):
        notes.add("model.name", model.name, f"set by {notes.chosen.get('model', 'the configuration')}")
        notes.kept.add("model.name")
        return model
    asked = size is not None
    if size is not None:
        wanted = parse_size(size)
        notes.add("model.name", size, f"model.size={size}")
    else:
        assert compute is not None
        wanted = laws.optimal_parameters(compute)
        size = format_size(wanted)
        notes.add(
            "model.name", size, "C / (6 · tokens), tokens = 0.299 · C^0.537 (Llama 3 report, section 3.2.1)"
        )
    # A size that was asked for is met; one that follows from compute may be the nearest there is.
    near = TOLERANCE if asked else 0.5
    try:
        derived = dataclasses.replace(shape(wanted, vocab_size, sequence_length, near), name=size)
    except ConfigError as error:
        if asked:
            raise
        raise ConfigError(f"`budget` is best spent on a model of {size} parameters, but {error}") from error
    why = {
        "dim": "nearest to the size with width / layers rising from 64 (33m) to 128 (Llama 3 8B)",
        "n_layers": f"width / layers = {derived.dim / derived.n_layers:.0f} (loss is flat: Kaplan et al. 2020, figure 5)",
        "n_heads": f"heads of {head_width(derived.dim)} (Llama 3.2 1B: 64 at 2,048; Llama 3: 128 above)",
        "n_kv_heads": "8 as in Llama 3, or the largest power of two that divides and is at most half",
        "ffn_dim": f"{derived.ffn_dim / derived.dim:.2f} × width (Llama 3: 3.5), so that the size comes out",
        "tied": "where two tables would be more than a fifth of the model (Llama 3.2)",
        "max_sequence_length": "8,192 (Llama 3), or the packed dataset's",
    }
    if "model.dim" in notes.chosen:
        # A width that was set brings its heads with it.
        heads = max(1, model.dim // head_width(model.dim))
        derived = dataclasses.replace(derived, n_heads=heads, n_kv_heads=kv_heads(heads))
    values = {f: notes.value(f"model.{f}", getattr(derived, f), getattr(model, f), why[f]) for f in SHAPE}
    # What is neither derived nor set (rope, norm_eps, init) is that of Llama 3, not that of the preset it stands in for.
    return dataclasses.replace(model, name=size, **values)


def _tokens_of_steps(
    train: TrainConfig, per_token: float, sequence_length: int, chosen: Mapping[str, str]
) -> float:
    """Tokens of `train.steps`, whose batch depends on the compute that they make."""
    if "train.global_batch_size" in chosen:
        return float(train.steps * train.global_batch_size * sequence_length)
    # Solves batch = 0.292 · (steps · batch · FLOPs a token)^0.3271.
    batch = (0.2920 * (train.steps * per_token) ** 0.3271) ** (1 / (1 - 0.3271))
    return train.steps * min(batch, float(laws.LARGEST_BATCH))


def _batch(
    notes: _Notes,
    train: TrainConfig,
    compute: float,
    tokens: float,
    sequence_length: int,
    world_size: int,
    steps_set: bool,
) -> int:
    """Sequences of a batch: a power of two times the odd part of the world, so that every layout divides it."""
    if "train.global_batch_size" in notes.chosen:
        return train.global_batch_size
    odd = world_size
    while odd % 2 == 0:
        odd //= 2
    wanted = laws.batch_tokens(compute)
    if not steps_set:
        wanted = min(wanted, tokens / laws.FEWEST_STEPS)
    power = round(math.log2(max(1.0, wanted / sequence_length / odd)))
    return odd << power


def _place_reasons(notes: _Notes, placed: Placed, accelerator: Accelerator) -> None:
    p, t, f = placed.parallel, placed.train, placed.footprint
    memory = f"{f.memory / 1e9:.3g} of {accelerator.memory / 1e9:.3g} GB a rank"
    notes.value(
        "train.micro_batch_size", t.micro_batch_size, t.micro_batch_size, "up to 16,384 tokens, if they fit"
    )
    notes.value(
        "train.activation_checkpointing",
        t.activation_checkpointing,
        t.activation_checkpointing,
        f"the least that fits: {memory}",
    )
    why = f"shortest estimated step of those that fit: {f.seconds:.3g} s, {f.mfu:.0%} of the peak"
    for name in ("tp", "pp", "cp", "reshard_after_forward"):
        notes.value(f"parallel.{name}", getattr(p, name), getattr(p, name), why)
        why = {
            "tp": f"bubble of {f.bubble:.0%}" if p.pp > 1 else "one stage",
            "pp": "sequences beyond 16,384 tokens are split" if p.cp > 1 else "one rank holds a sequence",
            "cp": "under a pipeline weights stay gathered (Llama 3, section 3.3.2)"
            if p.pp > 1
            else "saves memory",
        }.get(name, "")


def _by_hand(chosen: Mapping[str, str], key: str) -> bool:
    return chosen.get(key, "").lstrip("+").startswith(key)


def _plain(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if value < 1e4 else f"{value:.2e}"
