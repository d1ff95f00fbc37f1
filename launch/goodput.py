"""Goodput from the ledger alone: time spent on steps that count in the final model ÷ wall time, by cause of loss.

The definition is that of Llama 3's "effective training time" (Llama 3 report, section 3.3.4): useful training time
over elapsed time. A step counts once, where it was computed last: after a restart, steps newer than the restored
checkpoint are computed again, and their first computation is lost.

Events used (`event time step …`, Unix seconds): `step_range` (first_step, last_step, seconds) for training,
`started`, `launched`, `failed hung preempted stopped finished` for the borders of an attempt, `saved`
(stall_seconds: how long training waited for the checkpoint).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WORKS = ("step_range", "saved", "evaluated", "preempted", "finished")  # a rank was at work until then
ENDS = ("failed", "hung", "preempted", "stopped", "finished")


def goodput(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Where the wall time of a run went.

    Args:
        events: the ledger's events (`pretrain.ledger.read_ledger`).

    Returns:
        `goodput` (share of wall time, 0 to 1), `wall` and its parts in seconds: `productive` (steps that count),
        `checkpoint` (waiting for saves), `startup` (process start to the first step of an attempt), `recomputed`
        (steps computed again later), `downtime` (from an attempt's last recorded step to the next start, or to its
        end), `other` (evaluation and the rest); and counts: `steps` (newest step that counts), `restarts`,
        `recomputed_steps`.
    """
    if not events:
        return _result(0.0, {}, steps=0, restarts=0, recomputed_steps=0)
    ordered = sorted(events, key=lambda e: e["time"])
    wall = ordered[-1]["time"] - ordered[0]["time"]
    parts = {"productive": 0.0, "checkpoint": 0.0, "startup": 0.0, "recomputed": 0.0, "downtime": 0.0}

    counted_from = _first_steps_that_stay(ordered)
    lost_steps = 0
    for event, limit in zip(ordered, counted_from, strict=True):
        if event["event"] != "step_range":
            continue
        first, last, seconds = event["first_step"], event["last_step"], float(event["seconds"])
        n = last - first + 1
        again = min(n, max(0, last - max(first, limit) + 1)) if limit is not None else 0
        lost_steps += again
        parts["recomputed"] += seconds * again / n
        parts["productive"] += seconds * (n - again) / n
    # A save's stall lies between steps, not inside a step's seconds.
    parts["checkpoint"] = sum(float(e.get("stall_seconds", 0.0)) for e in ordered if e["event"] == "saved")

    launches = 0
    for attempt in _attempts(ordered):
        launches += 1
        parts["startup"] += attempt["startup"]
        parts["downtime"] += attempt["downtime"]
    steps = max((e["last_step"] for e in ordered if e["event"] == "step_range"), default=0)
    return _result(wall, parts, steps=steps, restarts=max(0, launches - 1), recomputed_steps=lost_steps)


def _first_steps_that_stay(ordered: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """For each event, the first step at or after which later attempts computed steps again (None: no later one)."""
    limits: list[int | None] = [None] * len(ordered)
    lowest: int | None = None
    for i in range(len(ordered) - 1, -1, -1):
        limits[i] = lowest
        event = ordered[i]
        if event["event"] == "step_range":
            lowest = event["first_step"] if lowest is None else min(lowest, event["first_step"])
    return limits


def _attempts(ordered: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, float]]:
    """Startup and downtime seconds of each attempt (from its `launched`, or `started` without a supervisor)."""
    starts = [
        i
        for i, e in enumerate(ordered)
        if e["event"] == "launched" or (e["event"] == "started" and not _after_launch(ordered, i))
    ]
    for begin, end in zip(starts, [*starts[1:], len(ordered)], strict=True):
        own = ordered[begin:end]
        border = ordered[end]["time"] if end < len(ordered) else own[-1]["time"]
        ranges = [e for e in own if e["event"] == "step_range"]
        ended = next((e["time"] for e in own if e["event"] in ENDS), border)
        if not ranges:
            yield {"startup": ended - own[0]["time"], "downtime": border - ended}
            continue
        first_step = ranges[0]["time"] - float(ranges[0]["seconds"])
        last_work = max(e["time"] for e in own if e["event"] in WORKS)
        yield {
            "startup": max(0.0, first_step - own[0]["time"]),
            "downtime": border - last_work,
        }


def _after_launch(ordered: Sequence[Mapping[str, Any]], i: int) -> bool:
    """Whether a `started` belongs to a `launched` before it (no other attempt's border lies between)."""
    for event in reversed(ordered[:i]):
        if event["event"] == "launched":
            return True
        if event["event"] == "started" or event["event"] in ENDS:
            return False
    return False


def _result(
    wall: float, parts: Mapping[str, float], *, steps: int, restarts: int, recomputed_steps: int
) -> dict[str, float]:
    names = ("productive", "checkpoint", "startup", "recomputed", "downtime")
    seconds = {name: float(parts.get(name, 0.0)) for name in names}
    return {
        "goodput": seconds["productive"] / wall if wall > 0 else 0.0,
        "wall": wall,
        **seconds,
        "other": max(0.0, wall - sum(seconds.values())),
        "steps": steps,
        "restarts": restarts,
        "recomputed_steps": recomputed_steps,
    }


def table(events: Sequence[Mapping[str, Any]]) -> str:
    """The short table at the end of a launch."""
    g = goodput(events)
    rows = [
        ("steps", f"{g['steps']:.0f}"),
        ("restarts", f"{g['restarts']:.0f}"),
        ("wall time", duration(g["wall"])),
        ("goodput", f"{100 * g['goodput']:.1f}%"),
    ]
    rows += [
        (f"  {name}", f"{duration(g[name])} ({100 * g[name] / g['wall']:.0f}%)")
        for name in ("startup", "recomputed", "downtime", "checkpoint", "other")
        if g["wall"] > 0 and g[name] >= 0.005 * g["wall"]
    ]
    return "\n".join(f"{name:<14}{value:>18}" for name, value in rows)


def duration(seconds: float) -> str:
    """Seconds as a person reads them: `12.3 s`, `4 min 05 s`, `3 h 02 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"
