"""The supervisor: keeps one run going until it is done, and says in the ledger what happened.

It alone owns restarts. Every attempt is one torchrun (or one `srun` of torchruns) with no restarts of its own; when
it ends, the exit is classified, and the next attempt resumes from the newest checkpoint that verifies. The number of
attempts without a newly committed checkpoint is bounded by `resilience.max_restarts`, also across Slurm requeues.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import LaunchRun
from data_pipeline.packed.files import write_atomically
from launch import agent, goodput
from launch.cli import EXIT_BAD_NODE, EXIT_CONFIG, EXIT_ERROR, EXIT_LOST_PEER, EXIT_PREEMPTED
from launch.processes import adopt_orphans
from pretrain.checkpoint_folders import committed, step_of
from pretrain.ending import ending
from pretrain.ledger import Ledger, read_ledger
from pretrain.rundir import RunLock, begin_anew

POLL = 0.1  # seconds between looks at the attempt
GRACE = 6.0  # seconds more than the workers of its node that other nodes get when a worker has failed
STARTUP = 120.0  # seconds that a rank gets at least before its first heartbeat: imports, rendezvous
SETTLE = 5.0  # seconds from a stack dump to the kill
BACKOFF = 2.0  # seconds before the second restart in a row without progress; doubles, up to BACKOFF_MAX
BACKOFF_MAX = 60.0
SECTION = "--- "  # how the log of a rank says that a process begins
ERROR = "error: "  # how a line begins that is meant for the user

Kind = Literal["finished", "preempted", "configuration", "killed", "crashed", "hung", "bad node"]


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, and which rank ended it."""

    kind: Kind
    exit_code: int | None = None
    """Exit status of the rank that failed first, or of the launcher."""
    signal: str | None = None
    """Name of the signal that killed it."""
    rank: int | None = None
    """Global rank; None: the launcher itself, or not one rank alone."""
    host: str | None = None
    """Its host."""
    bad_nodes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Hosts that are not fit for training, and what is wrong with each."""

    def __str__(self) -> str:
        if self.bad_nodes:
            return "; ".join(f"{host}: {', '.join(problems)}" for host, problems in self.bad_nodes.items())
        who = "the launcher" if self.rank is None else f"rank {self.rank}"
        if self.host is not None:
            who += f" on {self.host}"
        how = {
            "finished": "finished",
            "preempted": "stopped after a checkpoint",
            "configuration": "refused the configuration",
            "killed": f"was killed by {self.signal}",
            "crashed": "lost another rank"
            if self.exit_code == EXIT_LOST_PEER
            else f"exited with status {self.exit_code}",
            "hung": "hung",
            "bad node": "is not fit for training",
        }[self.kind]
        return f"{who} {how}"


@dataclass(frozen=True)
class Place:
    """Where attempts run: on this machine, or in this Slurm job."""

    command: Callable[[Path], list[str]]
    """Command of an attempt, given the folder for the exits of its workers."""
    environment: Mapping[str, str]
    """Environment of the command."""
    kill: Callable[[subprocess.Popen[bytes]], None]
    """End an attempt at once, on all nodes."""
    grace: float = agent.GRACE
    """Seconds that the workers of a node get after one of them has failed."""
    requeue: Callable[[Collection[str]], None] | None = None
    """Put the job back into the queue, without these hosts; None: go no further."""


def classify(returncode: int, failures: Sequence[Mapping[str, Any]]) -> Outcome:
    """What an exit means, from torchrun's own status and the failed workers of all nodes.

    Several ranks fail within moments of each other when one of them dies: a rank that refused the configuration or
    was killed by a signal is the cause, the exceptions of its peers are the echo; so are ranks that say that they lost
    another one, and those that NCCL's watchdog aborted. SIGTERM is torchrun's own clean-up.
    """

    bad = {f["host"]: f["problems"] for f in failures if f["exit_code"] == EXIT_BAD_NODE}
    if bad:
        return Outcome("bad node", EXIT_BAD_NODE, host=min(bad), bad_nodes=bad)

    def cause(failure: Mapping[str, Any]) -> int:
        code = failure["exit_code"]
        if code == EXIT_CONFIG:
            return 0
        echoes = (-signal.SIGABRT, EXIT_LOST_PEER, EXIT_PREEMPTED, -signal.SIGTERM)
        if code in echoes:
            return 3 + echoes.index(code)
        return 1 if code < 0 else 2

    if failures:
        first = min(failures, key=lambda f: (cause(f), f["rank"]))
        code, rank, host = first["exit_code"], first["rank"], first.get("host")
        if code < 0:
            return Outcome("killed", code, _signal_name(-code), rank, host)
        kind: Kind = {EXIT_CONFIG: "configuration", EXIT_PREEMPTED: "preempted"}.get(code, "crashed")  # type: ignore[assignment]
        return Outcome(kind, code, None, rank, host)
    if returncode == 0:
        return Outcome("finished", 0)
    if returncode == EXIT_PREEMPTED:  # stopped before there were workers
        return Outcome("preempted", returncode)
    if returncode < 0:
        return Outcome("killed", returncode, _signal_name(-returncode))
    return Outcome("crashed", returncode)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def newest_committed(run_dir: Path) -> int:
    """Step of the newest committed checkpoint; 0: none."""
    return max(map(step_of, committed(run_dir)), default=0)


def restarts_without_progress(events: Sequence[Mapping[str, Any]], committed: int) -> int:
    """Attempts of this job so far that began with `committed` as the newest checkpoint (for a requeued job)."""
    count = 0
    for event in reversed(events):
        if event["event"] != "launched":
            continue
        if event["step"] < committed:
            break
        count += 1
        if not event.get("again", False):
            break
    return count


def finished_already(config: LaunchRun, run_dir: Path) -> bool:
    """Whether the last launch of this run had this configuration and brought it to its end."""
    events = [e for e in read_ledger(run_dir) if e["event"] in ("launched", "finished")]
    if not events or events[-1]["event"] != "finished":
        return False
    if not events[-1]["step"] == config.train.steps == newest_committed(run_dir):
        return False
    try:
        return edge.read(run_dir / "launch.yaml", LaunchRun) == config
    except ConfigError:
        return False  # written by another version: the trainer checks what has changed


class Supervisor:
    """One supervised run. `run()` returns the exit status of the whole."""

    def __init__(self, config: LaunchRun, run_dir: Path, place: Place, requeued: bool = False):
        self.config, self.run_dir, self.place, self.requeued = config, run_dir, place, requeued
        self._ledger: Ledger | None = None
        self.stop: signal.Signals | None = None
        self.again = False

    def run(self) -> int:
        """Attempt after attempt, until the run is finished, stopped, refused, or out of restarts."""
        lock = RunLock(self.run_dir / "supervisor.lock")
        lock.acquire()
        if finished_already(self.config, self.run_dir):
            say(f"{self.run_dir} is finished at step {self.config.train.steps}; there is nothing to do")
            lock.release()
            print(goodput.table(read_ledger(self.run_dir)), flush=True)
            return 0
        write_atomically(self.run_dir / "launch.yaml", edge.to_yaml(self.config))  # what the ranks read
        if not self.requeued and (aside := begin_anew(self.run_dir)) is not None:
            say(f"no checkpoint is left of an earlier run; its records are now in {aside}")
        adopt_orphans()
        before = {n: signal.signal(n, self._on_signal) for n in STOPS}
        try:
            return self._run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            lock.release()
            events = read_ledger(self.run_dir)
            print(goodput.table(events), flush=True)
            if events and events[-1]["event"] == "finished":
                print(ending(self.run_dir), flush=True)

    @property
    def ledger(self) -> Ledger:
        """The run's ledger; opened once records of an earlier run are out of the way."""
        if self._ledger is None:
            self._ledger = Ledger(self.run_dir / "ledger.jsonl")
        return self._ledger

    def _run(self) -> int:
        best = newest_committed(self.run_dir)
        used = restarts_without_progress(read_ledger(self.run_dir), best) if self.requeued else 0
        limit = self.config.resilience.max_restarts
        if used > limit:
            return self._give_up(best, limit, Outcome("killed"))
        attempt = 0
        while True:
            attempt += 1
            self.ledger.event(
                "launched",
                step=best,
                attempt=attempt,
                nodes=self.config.cluster.nodes,
                nproc=self.config.cluster.nproc,
                again=self.requeued or attempt > 1,
            )
            outcome = self._attempt(attempt)
            step = self._step()
            if outcome.kind == "finished":
                return 0
            if self.stop is not None:
                return self._stopped(step, outcome)
            if outcome.kind != "preempted":
                self.ledger.event(
                    "failed",
                    step=step,
                    kind=outcome.kind,
                    exit_code=outcome.exit_code,
                    signal=outcome.signal,
                    rank=outcome.rank,
                    host=outcome.host,
                )
            say(f"{outcome} at step {step}")
            if (error := self._error(outcome)) is not None:
                print(error, file=sys.stderr, flush=True)
            if outcome.kind == "configuration":
                return EXIT_CONFIG
            if outcome.bad_nodes:
                return self._without(outcome.bad_nodes)
            newest = newest_committed(self.run_dir)
            if newest > best:
                best, used = newest, 0
            used += 1
            if used > limit:
                return self._give_up(step, limit, outcome)
            wait = 0.0 if used == 1 else min(BACKOFF_MAX, BACKOFF * 2 ** (used - 2))
            self.ledger.event("restarting", step=best, restart=used, limit=limit, wait=wait)
            say(
                f"restart {used} of at most {limit} without new progress, from step {best}"
                + (f", in {wait:.0f} s" if wait else "")
            )
            if self._interrupted_while_waiting(wait):
                return self._stopped(step, outcome)

    def _attempt(self, number: int) -> Outcome:
        """Start one attempt and watch it until it ends."""
        started = time.time()
        logs = self.run_dir / "logs"
        exits = logs / "exits" / f"{started:.3f}-{number}"
        logs.mkdir(parents=True, exist_ok=True)
        for beat in self.run_dir.glob("heartbeats/rank-*.json"):
            beat.unlink()  # those of an attempt that is over would be taken for signs of life
        # Errors are told by the supervisor, once; and that a process began is of no interest to a person.
        follow = Tail(logs / "rank-0.log", hidden=(ERROR, SECTION))
        with (logs / "launcher.log").open("ab") as log:
            process = subprocess.Popen(
                self.place.command(exits),
                env=dict(self.place.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal goes to the whole process group: the ranks must hear of it from us alone.
                start_new_session=True,
            )
        forwarded, failed_at, look_at = False, None, 0.0
        try:
            while process.poll() is None:
                follow.show()
                if failed_at is None and any(f["exit_code"] != EXIT_PREEMPTED for f in read_exits(exits)):
                    failed_at = time.time()
                if failed_at is not None and time.time() - failed_at > self.place.grace + GRACE:
                    break  # ranks on other nodes may wait in a collective for one that is gone
                if self.again:
                    say("stopping at once")
                    break
                if self.stop is not None and not forwarded:
                    forwarded = True
                    say(f"{self.stop.name}: waiting for a checkpoint (again: stop at once)")
                    process.send_signal(signal.SIGUSR1)
                if time.monotonic() >= look_at:
                    before = time.monotonic()
                    if (silent := self._silent(started)) is not None:
                        return self._hung(process, *silent)
                    # Files of thousands of ranks take a shared file system seconds; it has others to serve.
                    look_at = time.monotonic() + 20 * (time.monotonic() - before)
                time.sleep(POLL)
        finally:
            self.place.kill(process)
            follow.show()
        return classify(process.returncode, read_exits(exits))

    def _silent(self, started: float) -> tuple[int, float] | None:
        """The rank whose heartbeat is older than the limit, and its age in seconds."""
        now, limit = time.time(), self.config.resilience.hang_timeout
        beats = read_heartbeats(self.run_dir)
        overdue = {}
        for rank in range(self.config.cluster.nodes * self.config.cluster.nproc):
            age = now - (beats[rank]["time"] if rank in beats else started)
            if age > (limit if rank in beats else max(limit, STARTUP)):
                overdue[rank] = age
        return max(overdue.items(), key=lambda item: item[1], default=None)

    def _hung(self, process: subprocess.Popen[bytes], rank: int, age: float) -> Outcome:
        """Ask all ranks for their stacks, give them a moment to write, and let the caller kill them."""
        beat = read_heartbeats(self.run_dir).get(rank, {})
        self.ledger.event(
            "hung", step=self._step(), rank=rank, host=beat.get("host"), seconds=age, phase=beat.get("phase")
        )
        say(
            f"rank {rank} gave no sign of life for {age:.0f} s; stacks go to {self.run_dir / 'logs'}/stacks-rank-*.txt"
        )
        process.send_signal(signal.SIGUSR2)
        end = time.time() + min(SETTLE, self.config.resilience.hang_timeout)
        while process.poll() is None and time.time() < end:
            time.sleep(POLL)
        return Outcome("hung", rank=rank, host=beat.get("host"))

    def _stopped(self, step: int, outcome: Outcome) -> int:
        assert self.stop is not None
        if self.stop == signal.SIGUSR1 and self.place.requeue is not None:
            if outcome.kind != "preempted":
                say(
                    f"{outcome} instead of checkpointing; the newest checkpoint is step {newest_committed(self.run_dir)}"
                )
            self.ledger.event(
                "restarting", step=newest_committed(self.run_dir), reason="requeued before the time limit"
            )
            self.place.requeue(())
            return EXIT_PREEMPTED
        self.ledger.event("stopped", step=step, signal=self.stop.name)
        say(f"stopped; the same command goes on from step {newest_committed(self.run_dir)}")
        return EXIT_PREEMPTED if self.stop == signal.SIGUSR1 else 128 + self.stop

    def _without(self, bad: Mapping[str, Sequence[str]]) -> int:
        """Go on elsewhere than on nodes with bad GPUs, where that is possible."""
        step = newest_committed(self.run_dir)
        if self.place.requeue is not None:
            hosts = ", ".join(bad)
            say(f"requeued without {hosts}")
            self.ledger.event("restarting", step=step, reason=f"requeued without {hosts}: bad GPUs")
            self.place.requeue(bad)
            return EXIT_PREEMPTED
        self.ledger.event("stopped", step=step, reason="bad GPUs")
        print(
            f"error: {Outcome('bad node', bad_nodes=bad)}; see `nvidia-smi -q` and `dmesg`, reset or replace them, then run "
            "the same command again (cluster.gpu_health=false: without a look at them)",
            file=sys.stderr,
            flush=True,
        )
        return EXIT_ERROR

    def _give_up(self, step: int, limit: int, outcome: Outcome) -> int:
        self.ledger.event("stopped", step=step, reason=f"{limit} restarts without a new checkpoint")
        if self._error(outcome) is None:
            print(self._last_words(outcome), file=sys.stderr)
        print(
            f"error: {self.run_dir}: gave up after {limit} restarts without a new checkpoint; see "
            f"{self.run_dir}/logs, then run the same command again (resilience.max_restarts={limit})",
            file=sys.stderr,
            flush=True,
        )
        return EXIT_ERROR

    def _error(self, outcome: Outcome) -> str | None:
        """The last `error:` line of the rank that failed, or else of any: one that all share is told by one alone."""
        for log in [self._log(outcome), *sorted((self.run_dir / "logs").glob("rank-*.log"))]:
            if errors := [line for line in _last_section(log) if line.startswith(ERROR)]:
                return errors[-1]
        return None

    def _last_words(self, outcome: Outcome) -> str:
        """The last lines of the log of the rank that failed."""
        log = self._log(outcome)
        return "\n".join([f"the end of {log}:", *_last_section(log)[-20:]])

    def _log(self, outcome: Outcome) -> Path:
        name = "launcher.log" if outcome.rank is None else f"rank-{outcome.rank}.log"
        return self.run_dir / "logs" / name

    def _step(self) -> int:
        """The step that the ranks have reached, as far as they said; at least the newest checkpoint's."""
        steps = [b.get("step", 0) for b in read_heartbeats(self.run_dir).values()]
        return max([newest_committed(self.run_dir), *steps])

    def _interrupted_while_waiting(self, seconds: float) -> bool:
        end = time.time() + seconds
        while time.time() < end and self.stop is None:
            time.sleep(POLL)
        return self.stop is not None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.again = self.again or (self.stop is not None and number != signal.SIGUSR1)
        self.stop = self.stop or signal.Signals(number)


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Tail:
    """Shows what is appended to a file from now on, but for lines that begin with one of `hidden`."""

    def __init__(self, path: Path, hidden: tuple[str, ...] = ()):
        self.path, self.hidden = path, hidden
        self.offset = path.stat().st_size if path.exists() else 0

    def show(self) -> None:
        """Write the new complete lines to stdout."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.offset += len(whole)
        lines = whole.decode(errors="replace").splitlines(keepends=True)
        sys.stdout.write("".join(line for line in lines if not line.startswith(self.hidden)))
        sys.stdout.flush()


def _last_section(log: Path) -> list[str]:
    """Lines of a rank's log since its process began."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[max((i for i, line in enumerate(lines) if line.startswith(SECTION)), default=0) :]


def say(text: str) -> None:
    """One line of the supervisor on the console."""
    print(f"[{time.strftime('%T')}] supervisor: {text}", flush=True)


def read_exits(folder: Path) -> list[dict[str, Any]]:
    """Failed workers of an attempt, from all nodes that reported."""
    return [
        f for path in sorted(folder.glob("node-*.json")) for f in json.loads(path.read_text())["failures"]
    ]


def read_heartbeats(run_dir: Path) -> dict[int, dict[str, Any]]:
    """The last heartbeat of each rank."""
    return {
        int(path.stem.removeprefix("rank-")): json.loads(path.read_text())
        for path in run_dir.glob("heartbeats/rank-*.json")
    }
