"""The manifest of a checkpoint, which says what run it is of and what it holds. Imports no torch."""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pretrain.checkpoint_folders import committed

FORMAT = 1
"""Version of `manifest.json`."""


class CheckpointError(OSError):
    """A checkpoint that must not be used: a file is missing, short, or does not hold what was saved."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose manifest verified."""

    path: Path
    state: dict[str, Any]
    chunks: dict[str, list[dict[str, Any]]]
    """Stored chunks by tensor name."""


def newest(run_dir: Path) -> list[Path]:
    """Committed checkpoints of a run, the newest first."""
    return committed(run_dir)


def open_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint's manifest.

    Raises:
        CheckpointError: no `COMMITTED`, or a manifest that is not the one that was committed.
    """
    try:
        sums = orjson.loads((path / "COMMITTED").read_bytes())
        data = (path / "manifest.json").read_bytes()
        metadata = (path / ".metadata").read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{error.filename} is missing: the checkpoint was never committed whole"
        ) from None
    except orjson.JSONDecodeError:
        raise CheckpointError(f"{path / 'COMMITTED'} is damaged: it is not JSON") from None
    for name, content in (("manifest.json", data), (".metadata", metadata)):
        if not isinstance(sums, dict) or zlib.crc32(content) != sums.get(name):
            raise CheckpointError(f"{path / name} is damaged: its CRC-32 is not that in COMMITTED")
    manifest = orjson.loads(data)
    if manifest["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {manifest['format']}; this version reads format {FORMAT}"
        )
    chunks = defaultdict(list)
    for row in manifest["chunks"]:
        chunks[row["name"]].append(row)
    return Checkpoint(path, manifest["state"], dict(chunks))
