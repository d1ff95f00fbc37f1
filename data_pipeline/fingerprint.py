"""Fingerprints: what a stage's output depends on, as one hash. A completed stage whose fingerprint differs is stale."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import xxhash

from configs.fields import ConfigError

ROOM = Path(__file__).parent
HEAD_BYTES = 64 * 1024


def of(*parts: Any) -> str:
    """32 hexadecimal digits of anything JSON can hold; mappings are compared without regard to order."""
    return xxhash.xxh3_128_hexdigest(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS))


def code(paths: Iterable[str]) -> str:
    """Hash of source files of this package; a folder stands for every Python file in it.

    Args:
        paths: relative to `data_pipeline/`, such as `read` or `analysis`.
    """
    state = xxhash.xxh3_128()
    for name in sorted(paths):
        path = ROOM / name
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        if not files or not all(f.is_file() for f in files):
            raise AssertionError(f"fingerprint of source that does not exist: {path}")
        for file in files:
            state.update(f"{file.relative_to(ROOM)}\0".encode())
            state.update(file.read_bytes())
    return state.hexdigest()


def libraries(names: Iterable[str]) -> dict[str, str]:
    """Installed versions: another version of an extractor is another extractor."""
    return {name: importlib.metadata.version(name) for name in names}


def of_input(path: Path) -> str:
    """Hash of an input file's size, modification time and head.

    Reading terabytes twice only to notice that nothing changed is not worth it; the head catches files that were
    replaced with their time stamps preserved.
    """
    status = path.stat()
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return of(status.st_size, status.st_mtime_ns, xxhash.xxh3_128_hexdigest(head))


def of_content(path: Path) -> str:
    """Hash of a whole file; for models and word lists, where a change must never be missed."""
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(2**20):
            state.update(block)
    return state.hexdigest()


def of_paths(paths: Iterable[str], key: str) -> list[str]:
    """Content hashes of files, and of all files below folders, in name order.

    Args:
        key: that names them in the configuration.

    Raises:
        ConfigError: a path does not exist.
    """
    hashes = []
    for name in paths:
        path = Path(name)
        if not path.exists():
            raise ConfigError(f"`{key}`: {path} does not exist; expected a file or folder")
        files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
        hashes += [of(str(f.relative_to(path)), of_content(f)) for f in files]
    return hashes
