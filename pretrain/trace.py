"""What a Chrome trace of one training step says: shares of forward, backward, optimizer, communication and idling.

Definitions, all as shares of the range `step`:

* *forward*, *backward*, *optimizer*, *data*: the ranges of these names on the training thread; on CUDA the time of the
  kernels that were launched inside them, because there the host only launches.
* *communication*: time in which a collective or a message was on its way and nothing was computed. On CUDA that is NCCL
  kernels not covered by any other kernel; on the CPU gloo's spans (and calls into it) not covered by an operator.
* *idle*: time in which neither happened: waits for data, Python, launches that come too late.
"""

from __future__ import annotations

import gzip
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

PHASES = ("data", "forward", "backward", "optimizer")
TOP = 10
"""Operators in the table."""
COLLECTIVES = ("c10d::", "_c10d_functional::", "gloo:", "nccl:", "communication")

Event = dict[str, Any]
Spans = np.ndarray
"""float64 [N, 2]: begin and end, microseconds."""


@dataclass(frozen=True)
class Summary:
    """Where the time of one step on one rank went."""

    seconds: float
    phases: dict[str, float]
    """Share of the step by phase."""
    communication: float
    """Share of the step with nothing but communication."""
    idle: float
    """Share of the step with neither computation nor communication."""
    top: tuple[tuple[str, int, float], ...]
    """Name, calls and seconds of the operators (kernels on CUDA) that took longest, children not counted."""

    def __str__(self) -> str:
        shares = {**self.phases, "communication": self.communication, "idle": self.idle}
        lines = [f"{self.seconds:.3f} s", *(f"  {name:<14} {share:6.1%}" for name, share in shares.items())]
        lines += [f"  {'longest operators':<58} {'calls':>7} {'ms':>9} {'share':>6}"]
        for name, calls, seconds in self.top:
            lines.append(
                f"  {name[:58]:<58} {calls:>7,} {1000 * seconds:>9.1f} {seconds / self.seconds:>6.1%}"
            )
        return "\n".join(lines)


def read_trace(path: Path) -> list[Event]:
    """Complete events (`ph` X: `name`, `cat`, `ts` and `dur` in microseconds, `tid`) of a trace, gzipped or not."""
    data = path.read_bytes()
    events = orjson.loads(gzip.decompress(data) if path.suffix == ".gz" else data)["traceEvents"]
    return [event for event in events if event.get("ph") == "X"]


def summarise(events: list[Event]) -> Summary:
    """The shares of the one range `step` among the events.

    Raises:
        ValueError: there is no such range.
    """
    step = next(
        (e for e in events if e["name"] == "step" and e.get("cat") in ("user_annotation", "cpu_op")), None
    )
    if step is None:
        raise ValueError("the trace has no range `step`")
    begin, end = step["ts"], step["ts"] + step["dur"]
    ranges = {
        name: _spans(
            e
            for e in events
            if e["name"] == name and e.get("cat") == "user_annotation" and e["tid"] == step["tid"]
        )
        for name in PHASES
    }
    kernels = [e for e in events if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    if kernels:
        launched = {
            e["args"]["correlation"]: e["ts"]
            for e in events
            if e.get("cat") in ("cuda_runtime", "cuda_driver") and "correlation" in e.get("args", {})
        }
        # A kernel may end after the host has left the range that launched it, and the step with it.
        end = max(end, max(e["ts"] + e["dur"] for e in kernels))
        phases = {
            name: _spans(e for e in kernels if _inside(launched.get(e["args"].get("correlation")), spans))
            for name, spans in ranges.items()
        }
        communicating = _spans(e for e in kernels if "nccl" in e["name"].lower())
        computing = _spans(e for e in kernels if "nccl" not in e["name"].lower())
        timed = [(e["name"], e["dur"]) for e in kernels]
    else:
        phases = ranges
        operators = [e for e in events if e.get("cat") == "cpu_op"]
        own = _own_times(operators)
        timed = [(e["name"], time) for e, time, _ in own]
        calls = [e for e in operators if e["name"].startswith(COLLECTIVES)]
        works = [e for e in events if e.get("cat") == "user_annotation" and e["name"].startswith(COLLECTIVES)]
        communicating = _spans([*calls, *works])
        # Operators that call others may wait inside, so only the innermost count; copies of a collective are its own.
        leaves = _spans(e for e, _, is_leaf in own if is_leaf and not e["name"].startswith(COLLECTIVES))
        computing = _minus(leaves, _spans(calls))
    total = end - begin
    clip = lambda spans: np.clip(spans, begin, end)  # noqa: E731
    communicating, computing = clip(communicating), clip(computing)
    busy = _length(np.concatenate([communicating, computing]))
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for name, time in timed:
        sums[name][0] += 1
        sums[name][1] += time / 1e6
    top = sorted(((n, int(c), t) for n, (c, t) in sums.items()), key=lambda row: -row[2])[:TOP]
    return Summary(
        seconds=total / 1e6,
        phases={name: _length(clip(spans)) / total for name, spans in phases.items()},
        communication=(busy - _length(computing)) / total,
        idle=(total - busy) / total,
        top=tuple(top),
    )


def _spans(events: Iterable[Event]) -> Spans:
    return np.array([(e["ts"], e["ts"] + e["dur"]) for e in events], np.float64).reshape(-1, 2)


def _union(spans: Spans) -> Spans:
    """The same time as spans that do not touch, ascending."""
    if not len(spans):
        return spans
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    reach = np.maximum.accumulate(spans[:, 1])
    first = np.flatnonzero(np.concatenate([[True], spans[1:, 0] > reach[:-1]]))
    return np.stack([spans[first, 0], reach[np.append(first[1:] - 1, len(spans) - 1)]], axis=1)


def _length(spans: Spans) -> float:
    """Time that at least one span covers."""
    merged = _union(spans)
    return float((merged[:, 1] - merged[:, 0]).sum())


def _minus(spans: Spans, taken: Spans) -> Spans:
    """The spans of which no part is covered by `taken`."""
    merged = _union(taken)
    if not len(merged) or not len(spans):
        return spans
    before = np.searchsorted(merged[:, 0], spans[:, 0], side="right") - 1
    covered = (before >= 0) & (merged[np.maximum(before, 0), 1] >= spans[:, 1])
    return spans[~covered]


def _inside(time: float | None, spans: Spans) -> bool:
    return time is not None and bool(((spans[:, 0] <= time) & (time < spans[:, 1])).any())


def _own_times(operators: list[Event]) -> list[tuple[Event, float, bool]]:
    """Of each operator: its time less that of the operators which it called, and whether it called none."""
    own = []
    threads: dict[Any, list[Event]] = defaultdict(list)
    for event in operators:
        threads[event.get("pid"), event["tid"]].append(event)
    for thread in threads.values():
        thread.sort(key=lambda e: (e["ts"], -e["dur"]))
        stack: list[list[Any]] = []

        def close(until: float, stack: list[list[Any]] = stack) -> None:
            while stack and until >= stack[-1][0]["ts"] + stack[-1][0]["dur"]:
                done, inner, is_leaf = stack.pop()
                own.append((done, done["dur"] - inner, is_leaf))

        for event in thread:
            close(event["ts"])
            if stack:
                stack[-1][1] += event["dur"]
                stack[-1][2] = False
            stack.append([event, 0.0, True])
        close(float("inf"))
    return own
