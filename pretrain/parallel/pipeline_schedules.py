"""Pipeline schedules as data: which rank does what to which micro-batch, in which order. Pure functions.

The model is cut into virtual stages, `virtual` of them on each rank. An action is a forward pass (F), a backward pass (B),
or one of its halves, the gradients of inputs (I) and of weights (W), of one micro-batch in one virtual stage.

- gpipe (Huang et al. 2019): all forward passes, then all backward passes.
- 1f1b (Narayanan et al. 2019): one backward pass after each forward pass, as soon as there is one to do.
- interleaved (Narayanan et al. 2021, section 2.2): 1f1b with two or more virtual stages a rank.
- zbv (Qi et al. 2023, section 6): two virtual stages a rank; at the end weight gradients fill the time in which there
  would be nothing to do.
- dualpipev (DeepSeek-V3 report 2024, section 3.2.1, cut in half): two virtual stages a rank; forward passes of one
  are paired with backward passes of the other.

With one virtual stage, or interleaved, stage s is on rank s mod p. Under zbv and dualpipev the stages run down the ranks
and up again, a V: the first and the last stage are on rank 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Literal, NamedTuple

Kind = Literal["F", "B", "I", "W"]
Schedule = Literal["1f1b", "gpipe", "interleaved", "zbv", "dualpipev"]

V_SHAPED = ("zbv", "dualpipev")
"""Schedules that put the first and the last stage on rank 0."""
SPLIT = ("zbv", "dualpipev")
"""Schedules that compute gradients of weights apart from those of inputs."""
COSTS: dict[Kind, float] = {"F": 1.0, "B": 2.0, "I": 1.0, "W": 1.0}
"""Time of an action where every matrix product takes as long: a backward pass has two for each of the forward pass."""


class Action(NamedTuple):
    """One action of a rank."""

    kind: Kind
    stage: int
    """Virtual stage, counted along the model."""
    micro: int
    """Micro-batch."""

    def __str__(self) -> str:
        return f"{self.kind}{self.stage}.{self.micro}"


class Message(NamedTuple):
    """A hidden state, or the gradient of one, that goes from one rank to another."""

    source: int
    """Rank that computed it."""
    target: int
    """Rank that needs it."""
    made_by: Action
    """F: the input of the next stage; B or I: the gradient of the output of the stage before."""


@dataclass(frozen=True)
class Timeline:
    """A schedule carried out, with the costs of `COSTS`; messages take no time."""

    starts: tuple[tuple[float, ...], ...]
    """Start of each action of each rank."""
    total: float
    """Time from the first action to the end of the last."""
    bubble: float
    """Share of the ranks' time in which they wait, 0 to 1."""
    held: tuple[int, ...]
    """Largest number of forward passes of each rank whose activations are alive at a time."""


def rank_of(schedule: Schedule, stage: int, ranks: int) -> int:
    """Rank that holds a virtual stage."""
    return 2 * ranks - 1 - stage if schedule in V_SHAPED and stage >= ranks else stage % ranks


def stages_of(schedule: Schedule, rank: int, ranks: int, virtual: int) -> list[int]:
    """Virtual stages of a rank, in order of depth."""
    return [s for s in range(ranks * virtual) if rank_of(schedule, s, ranks) == rank]


@cache
def actions(
    schedule: Schedule, ranks: int, virtual: int, micro_batches: int
) -> tuple[tuple[Action, ...], ...]:
    """Actions of each rank, in order.

    Any number of micro-batches works: where a schedule is made for more of them, or for a multiple, it is made for that and
    what belongs to micro-batches that are not there is left out, which leaves the order of the others possible.
    """
    if schedule == "zbv":
        full, order = max(micro_batches, 2 * ranks - 1), _zbv
    elif schedule == "dualpipev":
        full, order = max(micro_batches, 2 * ranks), _dualpipev
    else:
        full, order = -(-micro_batches // ranks) * ranks, _one_forward_one_backward
    every = (order(schedule, rank, ranks, virtual, full) for rank in range(ranks))
    return tuple(tuple(a for a in one if a.micro < micro_batches) for one in every)


def _one_forward_one_backward(
    schedule: Schedule, rank: int, ranks: int, virtual: int, n: int
) -> list[Action]:
    """GPipe, 1F1B, and 1F1B with several stages a rank, which takes micro-batches in groups of as many as there are
    ranks: a group passes a rank's first stage, then its second, and backwards the other way round."""
    total, group = n * virtual, ranks * virtual

    def place(i: int) -> tuple[int, int]:
        return i % group // ranks, i // group * ranks + i % ranks

    forward = [Action("F", v * ranks + rank, m) for v, m in map(place, range(total))]
    backward = [Action("B", (virtual - 1 - v) * ranks + rank, m) for v, m in map(place, range(total))]
    if schedule == "gpipe":
        return forward + backward
    ahead = ranks - rank - 1 if virtual == 1 else (ranks - rank - 1) * 2 + (virtual - 1) * ranks
    ahead = min(ahead, total)
    pairs = zip(forward[ahead:], backward, strict=False)
    return [*forward[:ahead], *chain.from_iterable(pairs), *backward[total - ahead :]]


class _Rank:
    """Actions of a rank under a V-shaped schedule: `down` is its first stage, `up` its second."""

    def __init__(self, rank: int, ranks: int):
        self.down, self.up = rank, 2 * ranks - 1 - rank
        self.done: list[Action] = []
        self.waiting: list[tuple[int, int]] = []
        """Stage and micro-batch of input gradients whose weight gradients are to come."""
        self._next: dict[tuple[str, int], int] = {}

    def count(self, kind: str, stage: int) -> int:
        """Passes of a stage so far: F forward, B backward."""
        return self._next.get((kind, stage), 0)

    def forward(self, stage: int) -> None:
        self.done.append(Action("F", stage, self._take("F", stage)))

    def backward(self, stage: int) -> None:
        self.done.append(Action("B", stage, self._take("B", stage)))

    def input_gradient(self, stage: int) -> None:
        micro = self._take("B", stage)
        self.done.append(Action("I", stage, micro))
        self.waiting.append((stage, micro))

    def weight_gradient(self) -> None:
        self.done.append(Action("W", *self.waiting.pop(0)))

    def both_gradients(self, stage: int) -> None:
        """The two halves one after the other: the stage before need not wait for the second."""
        self.input_gradient(stage)
        self.done.append(Action("W", *self.waiting.pop()))

    def _take(self, kind: str, stage: int) -> int:
        micro = self.count(kind, stage)
        self._next[kind, stage] = micro + 1
        return micro


def _zbv(schedule: Schedule, rank: int, ranks: int, virtual: int, n: int) -> list[Action]:
    r = _Rank(rank, ranks)
    for _ in range(2 * (ranks - rank) - 1):
        r.forward(r.down)
    for _ in range(rank):
        r.forward(r.up)
        r.forward(r.down)
    for _ in range(ranks - rank):
        r.forward(r.up)
        r.both_gradients(r.up)
    while r.count("F", r.up) < n:
        if r.count("F", r.down) < n:
            r.forward(r.down)
        r.both_gradients(r.down)
        r.forward(r.up)
        r.both_gradients(r.up)
    # No forward pass is left to fill the time while gradients travel: weight gradients do.
    for _ in range(rank):
        r.input_gradient(r.down)
        r.input_gradient(r.up)
    for _ in range(ranks - rank):
        r.input_gradient(r.down)
        r.weight_gradient()
    while r.waiting:
        r.weight_gradient()
    return r.done


def _dualpipev(schedule: Schedule, rank: int, ranks: int, virtual: int, n: int) -> list[Action]:
    r, behind = _Rank(rank, ranks), ranks - rank - 1
    for _ in range(2 * behind):
        r.forward(r.down)
    for _ in range(rank + 1):
        r.forward(r.down)
        r.forward(r.up)
    for _ in range(behind):
        r.both_gradients(r.up)
        r.forward(r.up)
    for _ in range(n - 2 * ranks + rank + 1):
        r.forward(r.down)
        r.backward(r.up)
        r.forward(r.up)
        r.backward(r.down)
    for _ in range(behind):
        r.backward(r.up)
        r.forward(r.up)
        r.backward(r.down)
    # The last gradients on the way up: weights wait from the middle on.
    turns = [r.up, r.down] * (rank + 1)
    for i, stage in enumerate(turns):
        (r.backward if i < rank + 1 else r.input_gradient)(stage)
    for _ in range(behind):
        if r.waiting:
            r.weight_gradient()
        r.input_gradient(r.down)
    while r.waiting:
        r.weight_gradient()
    return r.done


def needs(action: Action, stages: int) -> list[tuple[str, int, int]]:
    """What must have happened before an action: (F, I or W, stage, micro-batch); a B is an I and a W."""
    kind, s, m = action
    if kind == "F":
        return [("F", s - 1, m)] if s else []
    if kind == "W":
        return [("I", s, m)]
    return [("F", s, m), *([("I", s + 1, m)] if s < stages - 1 else [])]


@cache
def timeline(schedule: Schedule, ranks: int, virtual: int, micro_batches: int) -> Timeline:
    """The schedule carried out.

    Raises:
        ValueError: it cannot be: some rank would wait forever.
    """
    todo = actions(schedule, ranks, virtual, micro_batches)
    starts, ends = _simulate(todo, ranks * virtual)
    total = max(ends)
    work = sum(COSTS[a.kind] for one in todo for a in one)
    return Timeline(starts, total, 1 - work / (total * ranks), tuple(map(_held, todo)))


def _simulate(
    todo: tuple[tuple[Action, ...], ...], stages: int
) -> tuple[tuple[tuple[float, ...], ...], list[float]]:
    """Start of each action of each rank, and when each rank is done."""
    happened: dict[tuple[str, int, int], float] = {}
    starts: list[list[float]] = [[] for _ in todo]
    clocks = [0.0] * len(todo)
    moved = True
    while moved:
        moved = False
        for rank, mine in enumerate(todo):
            while len(starts[rank]) < len(mine):
                action = mine[len(starts[rank])]
                before = [happened.get(event) for event in needs(action, stages)]
                if None in before:
                    break
                start = max([clocks[rank], *(t for t in before if t is not None)])
                starts[rank].append(start)
                clocks[rank] = end = start + COSTS[action.kind]
                for half in "IW" if action.kind == "B" else action.kind:
                    happened[half, action.stage, action.micro] = end
                moved = True
    for rank, mine in enumerate(todo):
        if len(starts[rank]) < len(mine):
            raise ValueError(f"rank {rank} waits forever at {mine[len(starts[rank])]}")
    return tuple(map(tuple, starts)), clocks


def _held(mine: tuple[Action, ...]) -> int:
    alive = most = 0
    for action in mine:
        alive += {"F": 1, "I": 0, "W": -1, "B": -1}[action.kind]
        most = max(most, alive)
    return most


@cache
def program(
    schedule: Schedule, ranks: int, virtual: int, micro_batches: int, rank: int
) -> tuple[Action | Message, ...]:
    """What a rank does, in order: its actions, and the messages that it sends or receives.

    Actions and messages of all ranks are put into one order, in which each follows what it needs, and every rank follows
    its part of that order. So no two ranks can wait for each other, even where sending waits for the receiver: of
    what has not happened, whatever comes first in that order can happen. Messages between two ranks are in the same
    order on both.
    """
    last = ranks * virtual - 1
    todo = actions(schedule, ranks, virtual, micro_batches)
    starts = timeline(schedule, ranks, virtual, micro_batches).starts
    events: list[tuple[float, int, int, Action | Message]] = []
    for r, mine in enumerate(todo):
        for i, (action, start) in enumerate(zip(mine, starts[r], strict=True)):
            if r == rank:
                events.append((start, 1, i, action))
            forward = action.kind == "F"
            if action.kind == "W" or action.stage == (last if forward else 0):
                continue
            target = rank_of(schedule, action.stage + (1 if forward else -1), ranks)
            if target != r and rank in (r, target):
                # At its end, before what starts then.
                events.append((start + COSTS[action.kind], 0, r, Message(r, target, action)))
    return tuple(event[-1] for event in sorted(events, key=lambda e: e[:3]))


def describe(schedule: Schedule, ranks: int, virtual: int, micro_batches: int) -> str:
    """A line about a schedule, for the start of a run."""
    share = timeline(schedule, ranks, virtual, micro_batches).bubble
    size = f"{ranks} stages" + (f" x {virtual}" if virtual > 1 else "")
    return f"Pipeline: {schedule}, {size}, {micro_batches} micro-batches, bubble {share:.0%}"


def table(ranks: int, micro_batches: int, virtual: int = 2) -> str:
    """Bubble and memory of every schedule: shares of the time, and the activations of one micro-batch in a p-th of the
    model that the fullest rank holds at a time."""
    lines = [f"{'schedule':<16}{'bubble':>8}{'activations':>13}"]
    for schedule, v in (("gpipe", 1), ("1f1b", 1), ("interleaved", virtual), ("dualpipev", 2), ("zbv", 2)):
        run = timeline(schedule, ranks, v, micro_batches)  # type: ignore[arg-type]
        name = schedule + (f" x {v}" if schedule == "interleaved" else "")
        lines.append(f"{name:<16}{run.bubble:>8.1%}{max(run.held) / v:>13.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    from configs.output import end_with_reader

    sys.exit(end_with_reader(lambda: print(table(*map(int, sys.argv[1:])))))
