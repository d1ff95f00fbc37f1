"""Where the YAML files of named options are, and what they say: read without Hydra, for help, messages and reasons."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from configs.fields import ConfigError

OURS = Path(__file__).resolve().parent
# Folders of `--config-dir`, for the time of one command: set by `searching`, because a recipe that a source names is
# looked up long after the command line was read.
_given: tuple[Path, ...] = ()


@contextlib.contextmanager
def searching(folders: Sequence[str]) -> Iterator[None]:
    """Search these folders before all others.

    Raises:
        ConfigError: one of them is no folder.
    """
    global _given
    for folder in folders:
        if not Path(folder).expanduser().is_dir():
            raise ConfigError(
                f"`--config-dir {folder}` is not a folder; it must hold folders such as `recipe`"
            )
    before, _given = _given, tuple(Path(f).expanduser().resolve() for f in folders)
    try:
        yield
    finally:
        _given = before


def folders() -> list[Path]:
    """Folders that are searched, in order: `--config-dir`, `./configs` of the working folder, ours."""
    here = Path("configs").resolve()
    local = [here] if here.is_dir() and here != OURS else []
    return [*_given, *local, OURS]


def find(group: str, option: str) -> Path | None:
    """File of an option: the first in the folders that are searched."""
    paths = (folder / group / f"{option}.yaml" for folder in folders())
    return next((path for path in paths if path.is_file()), None)


def names(group: str) -> list[str]:
    """Options of a group in all the folders."""
    found = {
        str(path.relative_to(folder / group).with_suffix(""))
        for folder in folders()
        for path in (folder / group).rglob("*.yaml")
    }
    return sorted(found)


@functools.lru_cache(maxsize=256)
def _parsed(path: Path, changed: float) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None


def _header(path: Path) -> str | None:
    """What `# @package …` says, as Hydra reads it: no other line may stand before it."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.match(r"\s*#\s*@package\s", line):
            return line.split()[-1]
        if line.strip():
            return None
    return None


def late_header(path: Path) -> str | None:
    """A line `# @package …` that Hydra does not read, because another stands before it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = next((line for line in lines if re.match(r"\s*#\s*@package\s", line)), None)
    return found if _header(path) is None else None


def settings(group: str, option: str, package: str | None = None) -> dict[str, Any]:
    """What an option sets, as nested data from the root of the configuration; empty where there is no such option.

    Options that the file names in its `defaults` come first, as they do in Hydra.
    """
    path = find(group, option)
    if path is None:
        return {}
    data = _parsed(path, path.stat().st_mtime)
    if not isinstance(data, dict):
        return {}
    header = _header(path)
    at = "" if header == "_global_" else (package or header or group.replace("/", "."))
    merged: dict[str, Any] = {}
    own = _at(at, {k: v for k, v in data.items() if k != "defaults"})
    for entry in data.get("defaults", []):
        if entry == "_self_":
            merged, own = merge(merged, own), {}
        elif isinstance(entry, str):
            merged = merge(merged, settings(group, entry, at or None))
        else:
            merged = merge(merged, _of_entry(entry, group, at))
    return merge(merged, own)


def _of_entry(entry: Mapping[str, Any], group: str, at: str) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key, chosen in entry.items():
        name, _, place = key.removeprefix("override").removeprefix("optional").strip().partition("@")
        inner = name.lstrip("/") if name.startswith("/") else f"{group}/{name}"
        package = ".".join(p for p in (at, place) if p) if place else None
        if isinstance(chosen, str):
            merged = merge(merged, settings(inner, chosen, package))
    return merged


def _at(package: str, data: dict[str, Any]) -> dict[str, Any]:
    for part in reversed(package.split(".") if package else []):
        data = {part: data}
    return data


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested data with the values of `over` in the place of those of `base`."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys of nested data, those of mappings too."""
    for key, value in data.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
