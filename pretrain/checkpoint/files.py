"""Names and small files of a checkpoint."""

from __future__ import annotations

from pathlib import Path

FORMAT = 1
"""Version of `manifest.json`."""


class CheckpointError(OSError):
    """A checkpoint that must not be used: a file is missing, short, or does not hold what was saved."""


def step_path(run_dir: Path, step: int) -> Path:
    """Folder of the checkpoint of a step."""
    return run_dir / "checkpoints" / f"step-{step:08d}"


def step_of(path: Path) -> int:
    """Step of a checkpoint's folder."""
    return int(path.name.removeprefix("step-"))


def committed(run_dir: Path) -> list[Path]:
    """Committed checkpoints of a run directory, the newest first; whether they verify is another question."""
    return sorted((p.parent for p in (run_dir / "checkpoints").glob("step-*/COMMITTED")), key=step_of)[::-1]
