"""Traces of chosen steps: files that open, named ranges inside them, and shares of time that add up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toyrun import overrides, train

from pretrain import train as trainer
from pretrain.rundir import read_metrics
from pretrain.trace import read_trace, summarise


def event(name: str, cat: str, begin: float, end: float, tid: int = 1, **args: Any) -> dict[str, Any]:
    """A complete event of a Chrome trace, times in microseconds."""
    return {"ph": "X", "name": name, "cat": cat, "ts": begin, "dur": end - begin, "tid": tid, "args": args}


def launch(name: str, at: float, begin: float, end: float, number: int) -> list[dict[str, Any]]:
    """A kernel and the call that launched it, from a thread of its own as autograd's are."""
    return [
        event("cudaLaunchKernel", "cuda_runtime", at, at + 1, tid=2, correlation=number),
        event(name, "kernel", begin, end, tid=7, correlation=number),
    ]


def test_traces_of_two_ranks_hold_the_ranges_of_a_step(toy_packed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    more = (
        "train.steps=4",
        "profile.steps=[3]",
        "profile.every=2",
        "profile.memory=true",
        "profile.ranks=[]",
    )
    code, output = train(overrides(toy_packed, run_dir, *more, "train.eval_sequences=1"), nproc=2)
    assert code == 0, output
    folder = run_dir / "profiles" / "step-3"
    assert sorted(p.name for p in (run_dir / "profiles").iterdir()) == ["step-3"]
    assert sorted(p.name for p in folder.iterdir()) == [
        "memory-rank-0.txt",
        "memory-rank-1.txt",
        "rank-0.json.gz",
        "rank-1.json.gz",
        "summary-rank-1.txt",
        "summary.txt",
    ]
    for rank in range(2):
        events = read_trace(folder / f"rank-{rank}.json.gz")
        (step,) = [e for e in events if e["name"] == "step" and e["cat"] == "user_annotation"]
        counts = {"data": 1, "forward": 2, "backward": 2, "optimizer": 1}  # two micro-batches a rank
        for name, count in counts.items():
            found = [e for e in events if e["name"] == name and e["cat"] == "user_annotation"]
            assert len(found) == count, name
            assert all(
                step["ts"] <= e["ts"] and e["ts"] + e["dur"] <= step["ts"] + step["dur"] for e in found
            )
        summary = summarise(events)
        assert 0 < summary.communication < 1 and summary.communication + summary.idle < 1
        assert sum(summary.phases.values()) < 1 and min(summary.phases.values()) > 0
        # Which operators are the slowest depends on the machine.
        assert summary.top and any(e["name"] == "aten::mm" for e in events)
        assert "aten::" in (folder / f"memory-rank-{rank}.txt").read_text()
    assert "communication" in (folder / "summary.txt").read_text() and "Step 3, rank 0" in output
    # Measured at multiples of `every` and at traced steps.
    rows = read_metrics(run_dir)
    assert [row["comm_share"] is not None for row in rows] == [False, True, True, True]
    assert all(0 < row["comm_share"] < 1 for row in rows[1:])


def test_only_communication_that_nothing_covers_counts_on_cuda() -> None:
    events = [
        event("step", "user_annotation", 0, 100),
        event("forward", "user_annotation", 0, 30),
        event("backward", "user_annotation", 30, 60),
        *launch("gemm", 5, 10, 40, 1),
        *launch("ncclDevKernel_AllGather", 6, 30, 50, 2),
        *launch("gemm", 35, 60, 90, 3),
        *launch("ncclDevKernel_ReduceScatter", 36, 95, 120, 4),
    ]
    summary = summarise(events)
    # The device ends 20 µs after the host. NCCL alone: 40 to 50 and 95 to 120; nothing at all: 0 to 10, 50 to 60, 90 to 95.
    assert summary.seconds == pytest.approx(120e-6)
    assert summary.communication == pytest.approx(35 / 120) and summary.idle == pytest.approx(25 / 120)
    # Kernels belong to the range that launched them, whichever thread did.
    assert summary.phases["forward"] == pytest.approx(40 / 120)
    assert summary.phases["backward"] == pytest.approx(55 / 120)
    assert summary.top[0] == ("gemm", 2, pytest.approx(60e-6))


def test_waiting_inside_an_operator_of_the_cpu_is_no_computation() -> None:
    events = [
        event("step", "user_annotation", 0, 100),
        event("SomeBackward", "cpu_op", 0, 80),
        event("aten::mm", "cpu_op", 0, 20),
        event("gloo:all_gather", "user_annotation", 10, 60, tid=3),
        event("c10d::_allgather_base_", "cpu_op", 30, 40),
        event("aten::copy_", "cpu_op", 31, 39),
        event("aten::add", "cpu_op", 60, 80),
    ]
    summary = summarise(events)
    assert summary.communication == pytest.approx(0.40) and summary.idle == pytest.approx(0.20)
    assert {n: s for n, _, s in summary.top}["SomeBackward"] == pytest.approx(30e-6)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("profile.steps=[0]", "`profile.steps[0]` must be an integer of at least 1"),
        ("profile.ranks=[1]", "`profile.ranks` holds 1, but the 1 ranks are 0 to 0"),
        ("profile.every=-1", "`profile.every` must be an integer of at least 0"),
    ],
)
def test_profiles_that_cannot_be_are_refused(
    toy_packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    assert trainer.main(overrides(toy_packed, tmp_path / "run", override, "train.steps=2")) == 2
    assert message in capsys.readouterr().err
