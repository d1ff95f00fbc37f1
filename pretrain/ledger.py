"""The ledger: everything that happened to a run, one JSON object a line, append-only.

Each event is one `os.write` to a file opened with O_APPEND, so that the trainer and the supervisor can write
to the same ledger and a process that is killed leaves at most one torn line, which readers skip.

Events (`event`, `time` in Unix seconds, `step`, then fields of their own):

| event | fields |
|---|---|
| `started` | `world_size`, `host`, `pid`, `total_steps` |
| `restored` | `step` of the checkpoint, `seconds`, `passed_over`: checkpoints that did not verify, with the reason |
| `amended` | `n`, `phases`: from sequence n on, the data plan follows other phases |
| `step_range` | `first_step`, `last_step` (inclusive), `seconds`, `first_n`, `last_n`: sequences [first_n, last_n) |
| `saved` | `path`, `bytes`, `stall_seconds` (training waited), `seconds` (until committed) |
| `evaluated` | `loss`: nats per token by source, `seconds` |
| `skipped` | `reason`, `loss`, `grad_norm`, `in_a_row`: a step whose update was not applied |
| `preempted` | `signal`: the run checkpointed and left with exit status 75 |
| `failed` | `error`, `exit_code`: the trainer stopped on an error (2: configuration, 1: anything else) |
| `stopped` | `reason`: the trainer stopped itself |
| `finished` | `seconds` of this process |
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from data_pipeline.packed.files import disk_full_message, is_disk_full


class Ledger:
    """Appends events to `path`; the file and its folder are made when missing."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        end_torn_line(self._fd)

    def event(self, name: str, step: int, **fields: object) -> None:
        """Append one event at `step`.

        Raises:
            OSError: the event could not be written whole (a full disk).
        """
        line = orjson.dumps(
            {"event": name, "time": time.time(), "step": step, **fields},
            option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY,
        )
        write_whole(self._fd, line, self.path)

    @property
    def position(self) -> int:
        """Bytes in the ledger."""
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def end_torn_line(fd: int) -> None:
    """Finish the torn last line of an append-only file, so that the next record starts on a line of its own."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        os.write(fd, b"\n")


def write_whole(fd: int, line: bytes, path: Path) -> None:
    """Write one line in one call; a short write (a full disk) is an error, never a silent half line."""
    try:
        written = os.write(fd, line)
    except OSError as error:
        reason = disk_full_message(path, len(line)) if is_disk_full(error) else f"{path}: {error.strerror}"
        raise OSError(f"{reason}; nothing more can be written down, so the run stops") from error
    if written != len(line):
        raise OSError(disk_full_message(path, len(line) - written))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSONL file in order; lines that are no JSON object (torn by a kill) are left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if isinstance(value, dict):
                yield value


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Events of a ledger, or of a run directory's, in the order in which they were written."""
    return list(read_lines(path / "ledger.jsonl" if path.is_dir() else path))
