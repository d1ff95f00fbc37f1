"""Pipeline schedules as data: complete, possible, never in a deadlock, as short and as lean as their papers say."""

from __future__ import annotations

from collections import deque

import pytest

from pretrain.parallel.pipeline_schedules import (
    Action,
    Message,
    Schedule,
    actions,
    describe,
    needs,
    program,
    rank_of,
    stages_of,
    table,
    timeline,
)

KINDS: list[tuple[Schedule, int]] = [
    ("gpipe", 1),
    ("1f1b", 1),
    ("interleaved", 2),
    ("interleaved", 3),
    ("zbv", 2),
    ("dualpipev", 2),
]
SIZES = [(p, m) for p in (2, 3, 4, 7, 8) for m in (1, 2, p, p + 1, 2 * p, 2 * p + 1, 5 * p)]


@pytest.mark.parametrize(("schedule", "virtual"), KINDS)
def test_every_micro_batch_passes_every_stage_once_on_its_rank(schedule: Schedule, virtual: int) -> None:
    for p, m in SIZES:
        ranks = actions(schedule, p, virtual, m)
        seen = [a for one in ranks for a in one]
        assert len(seen) == len(set(seen))
        passes = {(s, i) for s in range(p * virtual) for i in range(m)}
        for halves in ("F", "BI", "BW"):
            done = [(a.stage, a.micro) for a in seen if a.kind in halves]
            assert len(done) == len(passes) and set(done) == passes
        for rank, one in enumerate(ranks):
            assert all(rank_of(schedule, a.stage, p) == rank for a in one)
            assert sorted({a.stage for a in one}) == stages_of(schedule, rank, p, virtual)
            # Micro-batches keep their order, so the last one of a stage is the last to add to its gradients.
            for stage in stages_of(schedule, rank, p, virtual):
                for kinds in ("F", "BI", "BW"):
                    assert [a.micro for a in one if a.stage == stage and a.kind in kinds] == list(range(m))


@pytest.mark.parametrize(("schedule", "virtual"), KINDS)
def test_no_rank_waits_forever_even_where_sending_waits_for_the_receiver(
    schedule: Schedule, virtual: int
) -> None:
    """Carried out with messages that both sides must reach at the same time, in the order of their programs."""
    for p, m in SIZES:
        todo = [deque(program(schedule, p, virtual, m, rank)) for rank in range(p)]
        happened: set[tuple[str, int, int]] = set()
        arrived: list[set[tuple[str, int, int]]] = [set() for _ in range(p)]
        moved = True
        while moved:
            moved = False
            for rank, mine in enumerate(todo):
                if not mine:
                    continue
                event = mine[0]
                if isinstance(event, Action):
                    # All that an action needs was made here or has come in a message.
                    assert all(need in arrived[rank] for need in needs(event, p * virtual)), (event, p, m)
                    for half in "IW" if event.kind == "B" else event.kind:
                        happened.add((half, event.stage, event.micro))
                        arrived[rank].add((half, event.stage, event.micro))
                    mine.popleft()
                    moved = True
                elif rank == event.source and todo[event.target] and todo[event.target][0] == event:
                    kind = "F" if event.made_by.kind == "F" else "I"
                    made = (kind, event.made_by.stage, event.made_by.micro)
                    assert made in happened
                    arrived[event.target].add(made)
                    mine.popleft()
                    todo[event.target].popleft()
                    moved = True
        assert not any(todo), (schedule, p, m)


def test_an_impossible_order_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    good = actions("zbv", 2, 2, 4)
    bad = (good[0][::-1], good[1])
    monkeypatch.setattr("pretrain.parallel.pipeline_schedules.actions", lambda *_: bad)
    with pytest.raises(ValueError, match=r"rank 0 waits forever at W"):
        timeline.__wrapped__("zbv", 2, 2, 4)


@pytest.mark.parametrize("p", [2, 4, 8, 16])
@pytest.mark.parametrize("groups", [2, 3, 8])
def test_times_and_activations_are_those_of_the_papers(p: int, groups: int) -> None:
    """Units: a forward pass of one rank's part is as long as a half of its backward pass."""
    m = groups * p

    def waits(schedule: Schedule, virtual: int) -> float:
        """Time that a rank waits, in passes of its part."""
        return timeline(schedule, p, virtual, m).total / virtual - 3 * m

    def held(schedule: Schedule, virtual: int) -> float:
        """Largest number of micro-batches whose activations a rank holds."""
        return max(timeline(schedule, p, virtual, m).held) / virtual

    # Narayanan et al. 2021, 2.2: (p - 1)(F + B), divided by the number of virtual stages.
    assert waits("gpipe", 1) == waits("1f1b", 1) == 3 * (p - 1)
    assert waits("interleaved", 2) == 3 * (p - 1) / 2
    assert waits("interleaved", 4) == 3 * (p - 1) / 4
    # Only the first micro-batch's way down to the last rank is left (Qi et al. 2023, section 6).
    assert waits("zbv", 2) == (p - 1) / 2
    assert waits("zbv", 2) <= waits("dualpipev", 2) < waits("interleaved", 2)
    assert held("gpipe", 1) == m
    assert held("1f1b", 1) == held("zbv", 2) == p
    assert held("dualpipev", 2) == p + 0.5
    assert held("interleaved", 2) == p + (p - 1) / 2
    shares = [timeline(s, p, v, m).bubble for s, v in (("zbv", 2), ("interleaved", 2), ("1f1b", 1))]
    assert shares == sorted(set(shares))
    assert shares[2] == pytest.approx((p - 1) / (m + p - 1))


def test_v_shaped_schedules_put_the_ends_of_the_model_on_the_first_rank() -> None:
    assert [rank_of("zbv", s, 3) for s in range(6)] == [0, 1, 2, 2, 1, 0]
    assert [rank_of("interleaved", s, 3) for s in range(6)] == [0, 1, 2, 0, 1, 2]
    # The turn of the V costs no message.
    for rank in range(3):
        for event in program("dualpipev", 3, 2, 6, rank):
            assert not isinstance(event, Message) or event.source != event.target


def test_schedules_print() -> None:
    assert " ".join(map(str, actions("1f1b", 2, 1, 3)[0])) == "F0.0 F0.1 B0.0 F0.2 B0.1 B0.2"
    assert describe("interleaved", 4, 2, 8) == (
        "Pipeline: interleaved, 4 stages x 2, 8 micro-batches, bubble 16%"
    )
    assert describe("1f1b", 4, 1, 8) == "Pipeline: 1f1b, 4 stages, 8 micro-batches, bubble 27%"
    lines = table(4, 8).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["gpipe", "1f1b", "interleaved", "dualpipev", "zbv"]
