from __future__ import annotations

import pytest

from launch.goodput import duration, goodput, table
from launch.supervisor import Outcome, classify, restarts_without_progress


def ledger(*rows: tuple) -> list[dict]:
    return [{"event": name, "time": float(at), "step": 0, **fields} for name, at, fields in rows]


KILLED_ONCE = ledger(
    ("launched", 0, {}),
    ("started", 8, {}),
    ("step_range", 20, {"first_step": 1, "last_step": 10, "seconds": 10.0}),
    ("saved", 21, {"stall_seconds": 1.0}),
    ("step_range", 26, {"first_step": 11, "last_step": 15, "seconds": 5.0}),
    ("failed", 30, {}),
    ("restarting", 30, {}),
    ("launched", 31, {}),
    ("started", 38, {}),
    ("restored", 39, {}),
    ("step_range", 50, {"first_step": 11, "last_step": 20, "seconds": 10.0}),
    ("saved", 51, {"stall_seconds": 1.0}),
    ("evaluated", 53, {}),
    ("finished", 53, {}),
)


def test_every_second_of_a_run_that_was_killed_once_has_one_cause() -> None:
    g = goodput(KILLED_ONCE)
    assert g["wall"] == 53
    assert g["productive"] == 20  # steps 1 to 10, and 11 to 20 as they were computed last
    assert g["recomputed"] == 5 and g["recomputed_steps"] == 5
    assert g["startup"] == 10 + 9
    assert g["downtime"] == 5  # 26 to 31
    assert g["checkpoint"] == 2
    assert g["other"] == 2  # the evaluation
    assert g["goodput"] == pytest.approx(20 / 53)
    assert g["steps"] == 20 and g["restarts"] == 1


def test_a_range_that_was_computed_again_in_part_counts_in_part() -> None:
    events = ledger(
        ("started", 0, {}),
        ("step_range", 10, {"first_step": 1, "last_step": 10, "seconds": 10.0}),
        ("started", 10, {}),
        ("step_range", 16, {"first_step": 5, "last_step": 10, "seconds": 6.0}),
    )
    g = goodput(events)
    assert g["recomputed"] == pytest.approx(6) and g["productive"] == pytest.approx(10)
    assert g["restarts"] == 1


def test_an_attempt_that_never_trained_is_startup() -> None:
    g = goodput(ledger(("launched", 0, {}), ("failed", 6, {}), ("launched", 7, {}), ("failed", 9, {})))
    assert g["startup"] == 8 and g["downtime"] == 1 and g["goodput"] == 0


def test_a_ledger_with_nothing_in_it() -> None:
    assert goodput([])["goodput"] == 0
    assert "goodput" in table([])


def test_the_table_names_the_losses() -> None:
    text = table(KILLED_ONCE)
    assert "37.7%" in text and "recomputed" in text and "restarts                       1" in text


def test_durations_are_readable() -> None:
    assert [duration(s) for s in (5, 245, 10920)] == ["5.0 s", "4 min 05 s", "3 h 02 min"]


def failure(rank: int, code: int) -> dict:
    return {"rank": rank, "exit_code": code, "host": "a"}


@pytest.mark.parametrize(
    ("returncode", "failures", "kind", "rank"),
    [
        (0, [], "finished", None),
        (1, [failure(0, 1), failure(3, -9)], "killed", 3),  # rank 0 only lost its peer
        (1, [failure(0, -15), failure(1, 1)], "crashed", 1),  # SIGTERM is torchrun's clean-up
        (1, [failure(0, 1), failure(1, 2)], "configuration", 1),
        (1, [failure(0, 75), failure(1, 75)], "preempted", 0),
        (1, [failure(0, 75), failure(1, 1)], "crashed", 1),
        (1, [failure(0, 69), failure(5, 1), failure(6, 69)], "crashed", 5),  # the others lost it
        (1, [failure(0, -6), failure(2, 1)], "crashed", 2),  # NCCL's watchdog aborts those that wait
        (1, [failure(0, -6), failure(1, -11)], "killed", 1),
        (1, [failure(3, -6), failure(4, 69)], "killed", 3),
        (-9, [], "killed", None),
        (75, [], "preempted", None),
        (1, [], "crashed", None),
    ],
)
def test_exits_are_classified_by_their_cause(
    returncode: int, failures: list[dict], kind: str, rank: int | None
) -> None:
    outcome = classify(returncode, failures)
    assert (outcome.kind, outcome.rank) == (kind, rank)


def test_an_outcome_reads_as_a_sentence() -> None:
    assert str(classify(1, [failure(3, -9)])) == "rank 3 on a was killed by SIGKILL"
    assert str(classify(1, [failure(3, 69)])) == "rank 3 on a lost another rank"
    assert str(Outcome("crashed", 1)) == "the launcher exited with status 1"


def test_the_budget_of_a_requeued_job_counts_from_the_newest_checkpoint() -> None:
    def launched(step: int, again: bool) -> dict:
        return {"event": "launched", "time": 0.0, "step": step, "again": again}

    events = [launched(0, False), launched(0, True), launched(50, True), launched(50, True)]
    assert restarts_without_progress(events, 50) == 2
    assert restarts_without_progress(events, 100) == 0
    # A person who launches again starts with a whole budget.
    assert restarts_without_progress([*events, launched(50, False)], 50) == 1
