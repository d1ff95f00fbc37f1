"""Ledger, lock, heartbeats and logs of a run directory."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from toyrun import PATIENCE

from configs.edge import ConfigError
from pretrain.ledger import Ledger, read_ledger
from pretrain.resilience import Heartbeat, StopRequest
from pretrain.rundir import JsonlLog, RunDirBusy, RunLock, dataset_of, read_evaluations, read_metrics


def test_ledger_keeps_order_and_skips_a_torn_line(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.jsonl").event("started", 0, world_size=2)
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"event":"saved","st')
    before = time.time()
    Ledger(tmp_path / "ledger.jsonl").event("restored", 7)
    events = read_ledger(tmp_path)
    assert [(e["event"], e["step"]) for e in events] == [("started", 0), ("restored", 7)]
    assert events[0]["world_size"] == 2 and before <= events[1]["time"] <= time.time()


WRITE_EVENTS = """
import sys
from pathlib import Path
from pretrain.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for i in range(300):
    ledger.event("step_range", i, who=sys.argv[2], filling="x" * 500)
"""


def test_ledger_of_several_processes_mixes_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    processes = [subprocess.Popen([sys.executable, "-c", WRITE_EVENTS, str(path), who]) for who in "ab"]
    assert [p.wait() for p in processes] == [0, 0]
    events = read_ledger(path)
    assert len(path.read_bytes().splitlines()) == len(events) == 600
    for who in "ab":
        assert [e["step"] for e in events if e["who"] == who] == list(range(300))


def test_last_row_of_a_step_wins(tmp_path: Path) -> None:
    log = JsonlLog(tmp_path / "metrics.jsonl")
    log.write([{"step": s, "loss": float(s)} for s in (1, 2, 3)])
    JsonlLog(tmp_path / "metrics.jsonl").write([{"step": 2, "loss": 20.0}, {"step": 3, "loss": float("nan")}])
    assert [(r["step"], r["loss"]) for r in read_metrics(tmp_path)] == [(1, 1.0), (2, 20.0), (3, None)]
    evaluations = JsonlLog(tmp_path / "eval.jsonl")
    evaluations.write(
        [{"step": 2, "source": "web", "split": "heldout", "bits_per_byte": b} for b in (1.5, 1.4)]
    )
    assert [r["bits_per_byte"] for r in read_evaluations(tmp_path)] == [1.4]
    assert read_metrics(tmp_path / "nowhere") == []


HOLD_LOCK = """
import sys
from pathlib import Path
from pretrain.rundir import RunLock
RunLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""
NEVER = 1e7
"""Seconds between renewals of a lock: a test that waited until its owner is silent for so long would not end."""


def test_lock_belongs_to_one_living_process(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(RunDirBusy, match=f"in use by process {holder.pid} on {socket.gethostname()}"):
            RunLock(path).acquire()
    finally:
        holder.kill()
        holder.wait()
    # A lock of a dead process of this host is taken at once.
    lock = RunLock(path, renew_every=NEVER)
    lock.acquire()
    lock.release()
    again = RunLock(path)
    again.acquire()
    again.release()


def owner(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0, **fields}))


def test_a_run_directory_that_cannot_be_made_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in (
        (Path("/proc/run"), "`proc` file system"),
        (tmp_path / "file/run", "file is a file"),
    ):
        with pytest.raises(ConfigError, match=rf"{path} cannot be made or written: .*{reason}"):
            RunLock(path / "lock").acquire()


def test_lock_of_another_host_is_taken_when_it_falls_silent(tmp_path: Path) -> None:
    path, began = tmp_path / "lock", time.monotonic()
    owner(path)
    lock = RunLock(path, renew_every=0.3)
    lock.acquire()
    assert time.monotonic() - began > 2 * 0.3, "its owner was not given the time to renew it"
    lock.release()
    # One that has been silent for long enough is not waited for.
    owner(path)
    os.utime(path, (time.time() - 4 * NEVER,) * 2)
    lock = RunLock(path, renew_every=NEVER)
    lock.acquire()
    lock.release()


def test_lock_of_another_host_that_is_renewed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    owner(path, pid=42)
    # Renewed by its owner while we look: in the future, as that host's clock may be.
    toucher = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os, time\nwhile True: os.utime({str(path)!r}); time.sleep(0.1)",
        ]
    )
    try:
        with pytest.raises(RunDirBusy, match="process 42 on elsewhere"):
            RunLock(path, renew_every=NEVER).acquire()
    finally:
        toucher.kill()
        toucher.wait()


def test_lock_without_flock_is_known_by_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    parent = psutil.Process(os.getppid())
    owner(path, host=socket.gethostname(), pid=parent.pid, started=parent.create_time() - 1)
    lock = RunLock(path, renew_every=NEVER)
    lock.acquire()
    with path.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.release()


def test_heartbeat_is_written_when_the_phase_changes_or_time_has_passed(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path, 3, every=NEVER)
    path = tmp_path / "heartbeats" / "rank-3.json"
    heartbeat.beat(1, "training")
    heartbeat.beat(2, "training")
    assert json.loads(path.read_text())["step"] == 1
    heartbeat.beat(2, "saving")
    beat = json.loads(path.read_text())
    assert beat["step"] == 2 and beat["phase"] == "saving" and beat["pid"] == os.getpid()
    often = Heartbeat(tmp_path, 3, every=0.05)
    often.beat(3, "saving")
    while json.loads(path.read_text())["step"] == 3:
        often.beat(4, "saving")
    assert json.loads(path.read_text())["step"] == 4


def test_signals_ask_to_stop() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        stop = StopRequest()
        assert not stop
        signal.raise_signal(signal.SIGUSR1)
        assert stop and stop.signal_name == "SIGUSR1"
        stop = StopRequest()
        signal.raise_signal(signal.SIGINT)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


STACKS = """
import sys, time
from pathlib import Path
from pretrain.resilience import dump_stacks_on_signal
dump_stacks_on_signal(Path(sys.argv[1]), 2)
def a_place_to_hang():
    print("ready", flush=True)
    while True:
        time.sleep(1)
a_place_to_hang()
"""


def test_stacks_are_dumped_on_sigusr2(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STACKS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR2)
        path, deadline = tmp_path / "logs" / "stacks-rank-2.txt", time.monotonic() + PATIENCE
        while "a_place_to_hang" not in path.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert "a_place_to_hang" in path.read_text()
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_dataset_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "data" / "packed"
    packed.mkdir(parents=True)
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert dataset_of(tmp_path / "runs/a", "runs/a", "data/packed") == packed
    assert dataset_of(Path("../runs/a"), "runs/a", "data/packed").resolve() == packed
    # Where the run was moved, or the dataset is gone, the recorded path is what an error should name.
    assert dataset_of(tmp_path / "moved", "runs/a", "data/packed") == Path("data/packed")
    assert dataset_of(tmp_path / "runs/a", "runs/a", "data/gone") == Path("data/gone")
    assert dataset_of(tmp_path / "runs/a", "runs/a", str(packed)) == packed
