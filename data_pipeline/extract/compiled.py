"""numba without ceremony: compiled once and kept on disk, or in memory where no cache can be written.

numba looks only at the file of a function to tell whether a cached one is stale, not at those of the functions it calls.
So the cache lies in a folder named after the sources of all of them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config as numba_config

config: Any = numba_config
_HERE = Path(__file__).resolve().parent


@cache
def _folder() -> str | None:
    """Folder of the compiled code: beside the sources, else in the user's cache; null where neither can be written."""
    state = hashlib.sha256()
    for source in sorted(_HERE.glob("*.py")):
        if (
            b"data_pipeline.extract.compiled import" in (text := source.read_bytes())
            or source.name == "tags.py"
        ):
            state.update(text)
    name = f"numba-{state.hexdigest()[:12]}"
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "arriero"
    chosen = [Path(config.CACHE_DIR)] if config.CACHE_DIR else []
    for parent in (*chosen, _HERE / "__pycache__", user):
        try:
            (parent / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=parent / name):
                return str(parent / name)
        except OSError:
            continue
    return None


def compiled(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: compile for one signature, from the cache where there is one."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        folder = _folder()
        if folder is None:
            return numba.njit(signature)(function)
        before = config.CACHE_DIR
        config.CACHE_DIR = folder
        try:
            return numba.njit(signature, cache=True)(function)
        finally:
            config.CACHE_DIR = before

    return decorate


part = numba.njit
"""Decorator of functions that only compiled functions call: they are compiled, and cached, with their callers."""
