"""The run directory: who owns it, its configuration, and its logs of numbers. Imports no torch."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import psutil

from configs import edge, folders
from configs.schema.train import TrainRun
from data_pipeline.packed import PackedDataset
from data_pipeline.packed.files import atomic_folder, remove_leftovers, write_atomically
from pretrain.checkpoint_folders import committed
from pretrain.ledger import end_torn_line, read_lines, write_whole

METRICS_FORMAT = 2
"""Version of `metrics.jsonl`. 2: names of fields carry their units."""
OLD_NAMES = frozenset(("memory", "data_wait", "step_time", "tflops", "batch_size", "time"))
"""Names of format 1 that this version does not write."""


class RunDirBusy(OSError):
    """Another living process owns the run directory."""


class RunLock:
    """Ownership of a run directory by one process, for as long as it lives.

    The lock is an `flock` on `run_dir/lock`, which the kernel drops with the process that held it. Some
    shared file systems do not carry `flock` to other hosts, so the file also names its owner (host, process,
    its start) and the owner touches it every `renew_every` seconds. A lock of this host belongs to nobody when
    its process is gone; a lock of another host does when it was not touched for `3 × renew_every` seconds.
    """

    def __init__(self, path: Path, renew_every: float = 5.0):
        self.path = path
        self.renew_every = renew_every
        self._fd: int | None = None
        self._closing = threading.Event()

    def acquire(self) -> None:
        """Take the lock, waiting for a silent owner on another host to go stale.

        Raises:
            ConfigError: the run directory cannot be made or written.
            RunDirBusy: a living process holds it; the message names the process and the host.
        """
        if reason := folders.refusal(self.path.parent):
            raise edge.ConfigError(
                f"the run directory {self.path.parent} cannot be made or written: {reason}; choose another run.dir"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _read_owner(fd)
            os.close(fd)
            raise RunDirBusy(_busy(self.path, owner)) from None
        owner = _read_owner(fd)
        if _may_live(owner):
            seen, deadline = os.fstat(fd).st_mtime, time.time() + 3 * self.renew_every
            while time.time() < min(deadline, seen + 3 * self.renew_every):
                time.sleep(0.1)
                if os.fstat(fd).st_mtime != seen:
                    os.close(fd)
                    raise RunDirBusy(_busy(self.path, owner))
        process = psutil.Process()
        os.ftruncate(fd, 0)
        record = {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}
        os.pwrite(fd, orjson.dumps(record), 0)
        self._fd = fd
        threading.Thread(target=self._renew, name="run-lock", daemon=True).start()

    def release(self) -> None:
        """Give the lock back; the file stays, empty, because removing it would race with the next owner."""
        if self._fd is not None:
            self._closing.set()
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def _renew(self) -> None:
        while not self._closing.wait(self.renew_every):
            os.utime(self.path)


def _read_owner(fd: int) -> dict[str, Any]:
    try:
        return orjson.loads(os.pread(fd, 4096, 0))
    except orjson.JSONDecodeError:
        return {}


def _may_live(owner: dict[str, Any]) -> bool:
    """Whether the owner on record may still run although it holds no `flock` that we can see."""
    if not owner or owner.get("host") != socket.gethostname():
        return bool(owner)
    try:
        return psutil.Process(owner["pid"]).create_time() == owner["started"] and owner["pid"] != os.getpid()
    except psutil.NoSuchProcess:
        return False


def _busy(path: Path, owner: dict[str, Any]) -> str:
    who = f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}"
    return f"{path.parent} is in use by {who}; stop it first, or give this run another run.dir"


class JsonlLog:
    """An append-only JSONL file of numbers (metrics, evaluations), one write a call."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        end_torn_line(self._fd)

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append rows; numbers that are not finite become null, as JSON has no name for them."""
        if rows:
            write_whole(self._fd, b"".join(orjson.dumps(row) + b"\n" for row in rows), self.path)


def check_metrics(run_dir: Path) -> None:
    """Raise ConfigError where the metrics of a run directory were written with the names of an earlier version."""
    first = next((row for row in read_lines(run_dir / "metrics.jsonl") if "step" in row), None)
    if first is not None and not is_current(first):
        raise edge.ConfigError(
            f"{run_dir / 'metrics.jsonl'} was written by an earlier version of arriero, whose names of fields carried no "
            f"units ({', '.join(sorted(set(first) & OLD_NAMES))}; this version has format {METRICS_FORMAT}). Give this run "
            "another run.dir, and model.init_from=DIR to begin with the weights of the old one"
        )


def is_current(row: Mapping[str, Any]) -> bool:
    """Whether a row of metrics.jsonl has the names of this version."""
    return not OLD_NAMES & set(row)


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Metrics by step, ascending; after a rewind the last row of a step wins.

    Rows of steps above the last one that was restored and not run again stay out of nothing: they describe
    work that was really done, until the run reaches them again and replaces them.
    """
    rows = {row["step"]: row for row in read_lines(run_dir / "metrics.jsonl") if "step" in row}
    return [rows[step] for step in sorted(rows)]


def read_evaluations(run_dir: Path) -> list[dict[str, Any]]:
    """Held-out losses, one row a (step, source, split), ascending by step; the last row written wins."""
    rows = {
        (row["step"], row["source"], row.get("split")): row
        for row in read_lines(run_dir / "eval.jsonl")
        if "step" in row and "source" in row
    }
    return sorted(rows.values(), key=lambda row: row["step"])


RECORDS = (
    "ledger.jsonl",
    "metrics.jsonl",
    "eval.jsonl",
    "heldout_documents.jsonl",
    "samples.jsonl",
    "report.html",
    "tensorboard",
    "tracker_ids.json",
)
"""What a run writes down about itself."""


def begin_anew(run_dir: Path) -> Path | None:
    """Move the records of an earlier run aside, where none of its checkpoints is left and a run begins at step 1 again.

    Its rows would otherwise be taken for those of the new run. Call it before any of the files is open.

    Returns:
        The folder that holds them now; None: nothing to move.
    """
    if committed(run_dir) or not read_metrics(run_dir):
        return None
    number = 1
    while (aside := run_dir / f"earlier-{number}").exists():
        number += 1
    aside.mkdir()
    for path in (run_dir / name for name in RECORDS):
        if path.exists():
            path.replace(aside / path.name)
    return aside


def prepare(run_dir: Path, config: TrainRun, packed: PackedDataset) -> None:
    """Write `config.yaml`, make the folders, and copy the tokenizer of the packed dataset."""
    for name in ("checkpoints", "logs", "heartbeats"):
        (run_dir / name).mkdir(parents=True, exist_ok=True)
    for folder in (run_dir, run_dir / "heartbeats"):
        remove_leftovers(folder)
    write_atomically(run_dir / "config.yaml", edge.to_yaml(config), durable=True)
    source, target = packed.tokenizer_path, run_dir / "tokenizer"
    if target.is_dir() and _same(source / "tokenizer.json", target / "tokenizer.json"):
        return
    with atomic_folder(target, durable=True, replace=True) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)


def dataset_of(run_dir: Path, recorded_run_dir: str, recorded_path: str) -> Path:
    """The packed dataset that a run's configuration names, seen from any folder.

    Paths in a configuration are as they were typed, relative to where the run was started. That folder is known from
    where the run directory lies, as long as it still ends in the recorded one.
    """
    path, tail = Path(recorded_path), Path(recorded_run_dir)
    here = run_dir.absolute()
    if path.is_absolute() or path.exists() or here.parts[-len(tail.parts) :] != tail.parts:
        return path
    started_in = Path(*here.parts[: -len(tail.parts)])
    return started_in / path if (started_in / path).exists() else path


def _same(a: Path, b: Path) -> bool:
    return b.is_file() and a.read_bytes() == b.read_bytes()
