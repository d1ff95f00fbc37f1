"""Small files of a checkpoint."""

from __future__ import annotations

FORMAT = 1
"""Version of `manifest.json`."""


class CheckpointError(OSError):
    """A checkpoint that must not be used: a file is missing, short, or does not hold what was saved."""
