"""Learning-rate schedules: a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import replace

from configs.edge import ConfigError
from configs.schema.train import ScheduleConfig


def check(schedule: ScheduleConfig, steps: int) -> None:
    """Raise ConfigError where the schedule does not fit into `steps`."""
    if not 0 <= schedule.min_ratio <= 1:
        raise ConfigError(f"`schedule.min_ratio` must lie in [0, 1], but it is {schedule.min_ratio}")
    if not 0 < schedule.decay_share <= 1:
        raise ConfigError(f"`schedule.decay_share` must lie in (0, 1], but it is {schedule.decay_share}")
    if schedule.warmup_steps < 0:
        raise ConfigError(f"`schedule.warmup_steps` must not be negative, but it is {schedule.warmup_steps}")
    if steps < 1:
        raise ConfigError(f"`train.steps` must be at least 1, but it is {steps}")
    if schedule.anneal_steps < 0:
        raise ConfigError(f"`schedule.anneal_steps` must not be negative, but it is {schedule.anneal_steps}")
    if schedule.anneal_steps and schedule.warmup_steps + schedule.anneal_steps > steps:
        raise ConfigError(
            f"`schedule.warmup_steps` and `schedule.anneal_steps` are {schedule.warmup_steps} and {schedule.anneal_steps}, "
            f"more than `train.steps` = {steps} together; lower one of them, or train longer"
        )


def lr_factor(schedule: ScheduleConfig, step: int, steps: int) -> float:
    """Share of the peak learning rate at `step` (from 1) of `steps`.

    Linear warm-up from 0 over `warmup_steps` (its last step has the peak), then cosine (Loshchilov & Hutter 2017,
    equation 5), linear or no decay, which reaches `min_ratio` at the last step; `wsd` (Hu et al. 2024, MiniCPM, section 4)
    decays linearly over the last `decay_share` of the steps. A run shorter than its warm-up never leaves it. Where
    there are `anneal_steps`, all of this spans the steps before them, and they fall linearly to zero from its end, as the
    Llama 3 report's section 3.4.3 does over the last tokens.
    """
    if schedule.anneal_steps:
        before = steps - schedule.anneal_steps
        rest = replace(schedule, anneal_steps=0)
        left = min(1.0, (steps - step) / schedule.anneal_steps)
        return left * (lr_factor(rest, min(step, before), before) if before else 1.0)
    if step <= schedule.warmup_steps:
        return step / schedule.warmup_steps
    if schedule.name == "constant":
        return 1.0
    begin = schedule.warmup_steps
    if schedule.name == "wsd":
        begin = max(begin, steps - round(schedule.decay_share * steps))
    progress = min(1.0, max(0, step - begin) / max(1, steps - begin))
    decay = 0.5 * (1 + math.cos(math.pi * progress)) if schedule.name == "cosine" else 1 - progress
    return schedule.min_ratio + (1 - schedule.min_ratio) * decay
