"""Folders of checkpoints in a run directory: their names, which are committed, and their removal. Imports no torch.

A user may keep other files in `checkpoints/` (`step-00000004-hf`, `step-00000002.bak`): only a folder that is named exactly
`step-00000050` and holds what a checkpoint consists of is ours. Nothing else is read, counted or removed.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

_NAME = re.compile(r"step-(\d{8,})")
# Files of a checkpoint; the temporary files of atomic writes have a dot in front or a suffix behind.
_FILE = re.compile(r"__\d+_\d+\.distcp|\.*(manifest\.json|metadata|COMMITTED)(\..*)?")
_REMOVING = ".removing"


def step_path(run_dir: Path, step: int) -> Path:
    """Folder of the checkpoint of a step."""
    return run_dir / "checkpoints" / f"step-{step:08d}"


def parse_step(name: str) -> int | None:
    """Step of a name of exactly the form that `step_path` gives; None for any other name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match and f"{int(match[1]):08d}" == match[1] else None


def step_of(path: Path) -> int:
    """Step of a checkpoint's folder; ValueError for a folder of another name."""
    step = parse_step(path.name)
    if step is None:
        raise ValueError(f"{path} is not named like a checkpoint, step- and at least eight digits")
    return step


def committed(run_dir: Path) -> list[Path]:
    """Committed checkpoints of a run directory, the newest first; whether they verify is another question."""
    return sorted((p for p in _named(run_dir) if (p / "COMMITTED").is_file()), key=step_of, reverse=True)


def uncommitted(run_dir: Path) -> list[Path]:
    """Checkpoints that a killed run left half written or half removed."""
    whole = set(committed(run_dir))
    partial = [p for p in _named(run_dir) if p not in whole and not p.is_symlink() and _is_ours(p)]
    removing = (run_dir / "checkpoints").glob(f".step-*{_REMOVING}")
    return [
        *sorted(partial),
        *sorted(p for p in removing if parse_step(p.name[1 : -len(_REMOVING)]) is not None),
    ]


def make_empty(path: Path) -> None:
    """Make the folder of a new checkpoint; one of the same step that was not used on restore is replaced.

    Raises:
        OSError: it cannot be made, or a folder of this name holds files that are not a checkpoint's.
    """
    if path.is_symlink() or path.exists():
        if path.is_dir() and not path.is_symlink() and not _is_ours(path):
            raise OSError(f"{path} holds files that are not a checkpoint's; move this folder elsewhere")
        remove(path)
    path.mkdir(parents=True)


def remove(path: Path) -> None:
    """Remove a checkpoint: it stops being one by an atomic rename, before any of its files is deleted.

    Of a checkpoint that was moved and linked back only the link is removed.

    Raises:
        OSError: it could not be renamed, and is whole; or its files could not be deleted, and it no longer counts.
    """
    if path.is_symlink():
        path.unlink()
        return
    hidden = path
    if not path.name.endswith(_REMOVING):
        hidden = path.with_name(f".{path.name}{_REMOVING}")
        if hidden.exists():
            shutil.rmtree(hidden)
        path.rename(hidden)
    shutil.rmtree(hidden)


def discard(path: Path) -> None:
    """Remove what was written of a checkpoint that failed, as far as possible; a folder with other files stays."""
    if path.is_dir() and not path.is_symlink() and _is_ours(path):
        shutil.rmtree(path, ignore_errors=True)


def remove_surplus(run_dir: Path, keep: int, spare: Path | None = None) -> list[str]:
    """Remove all but the `keep` newest committed checkpoints.

    Args:
        keep: number of checkpoints that stay; 0: all.
        spare: one that stays in any case.

    Returns:
        Why some could not be removed: retention never ends a run.
    """
    surplus = committed(run_dir)[keep:] if keep else []
    return _remove_all([p for p in surplus if p != spare and (p / "manifest.json").is_file()])


def remove_uncommitted(run_dir: Path) -> list[str]:
    """Remove what a killed run left; returns why some could not be removed."""
    return _remove_all(uncommitted(run_dir))


def _remove_all(paths: list[Path]) -> list[str]:
    problems = []
    for path in paths:
        try:
            remove(path)
        except OSError as error:
            problems.append(
                f"{path} could not be removed ({error.strerror or error}); remove it by hand to free its space"
            )
    return problems


def _is_ours(path: Path) -> bool:
    return all(_FILE.fullmatch(p.name) for p in path.iterdir())


def _named(run_dir: Path) -> list[Path]:
    folder = run_dir / "checkpoints"
    entries = folder.iterdir() if folder.is_dir() else ()
    return [p for p in entries if parse_step(p.name) is not None and p.is_dir()]
