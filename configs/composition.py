"""Hydra's part: the schemas in its ConfigStore, the folders it searches, composition, and its own commands.

The primary configuration of a verb is `arriero_VERB`. It is made from the verb's dataclass, which is the only place of each
default and says which option of a group is chosen by default. YAML files hold what an option changes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from configs import options
from configs.build import defaults, groups_of, known_keys, nearest, nearest_key
from configs.fields import ConfigError
from configs.overrides import decoded, key_of, parse, prepare

PREFIX = "arriero_"


class Folders(SearchPathPlugin):
    """Puts the folders of `options.folders` before the package's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in options.folders()[:-1]:
            search_path.prepend("arriero", f"file://{folder}", SearchPathQuery(provider="main"))


def register(config: str, schema: type) -> str:
    """Store the schema of a verb as its primary configuration; returns that one's name."""
    Plugins.instance().register(Folders)
    chosen = [{group: option} for group, option in groups_of(schema).items()]
    node = {"defaults": ["_self_", *chosen], **defaults(schema)}
    # What Hydra would write beside a run is in the run's own directory already.
    node["hydra"] = {"output_subdir": None}
    name = PREFIX + config
    ConfigStore.instance().store(name=name, node=node, provider="arriero")
    return name


def compose(config: str, overrides: Sequence[str] = (), schema: type | None = None) -> DictConfig:
    """Compose a verb's configuration; without a schema, a file `group/option` alone.

    Raises:
        ConfigError: an override that is not understood, an unknown key or option.
    """
    prepared = list(overrides) if schema is None else prepare(overrides, schema)
    with _readable(prepared, schema):
        name = config if schema is None else register(config, schema)
        Plugins.instance().register(Folders)
        GlobalHydra.instance().clear()
        with initialize_config_module(config_module="configs", version_base="1.3"):
            return hydra_compose(name, overrides=prepared)


def plain(config: DictConfig, complete: bool = True) -> dict[str, Any]:
    """A composed configuration as plain data, with every `${…}` replaced.

    Raises:
        ConfigError: a required value is missing, unless `complete` is false; a `${…}` that means nothing.
    """
    with _readable([], None):
        return decoded(OmegaConf.to_container(config, resolve=True, throw_on_missing=complete))


def command(
    config: str,
    schema: type,
    flags: Sequence[str],
    overrides: Sequence[str],
    task: Callable[[dict[str, Any], Sequence[str]], None],
) -> bool:
    """One of Hydra's own commands (`--multirun`, `--cfg`, `--info`, `--hydra-help`, `--shell-completion`, …).

    Args:
        task: gets the plain data of each job of a sweep, and its overrides.

    Returns:
        False where the configuration of a job could not be used; the others ran.

    Raises:
        ConfigError: as `compose`.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig

    sweep = any(f in flags for f in ("--multirun", "-m"))
    completing = any(f in flags for f in ("--shell-completion", "-sc"))
    prepared = list(overrides) if completing else prepare(overrides, schema, sweep)
    if sweep:
        _check_folders(schema, prepared)
    failed: list[Exception] = []

    def job(cfg: DictConfig) -> None:
        try:
            task(plain(cfg), HydraConfig.get().overrides.task)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            failed.append(error)

    saved, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise what goes wrong, instead of printing it and leaving
    try:
        with _scratch(prepared, sweep) as more, _readable(prepared, schema), _any_help():
            sys.argv = [saved[0], *flags, *prepared, *more]
            name = register(config, schema)
            hydra.main(version_base="1.3", config_path="pkg://configs", config_name=name)(job)()
    finally:
        sys.argv = saved
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
    return not failed


@contextlib.contextmanager
def _any_help() -> Iterator[None]:
    """Let argparse take help that is no string: Hydra 1.3 gives it some, which Python 3.14 refuses."""
    checked = getattr(argparse.ArgumentParser, "_check_help", None)
    if checked is None:
        yield
        return
    argparse.ArgumentParser._check_help = lambda self, action: None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        argparse.ArgumentParser._check_help = checked  # type: ignore[attr-defined]


@contextlib.contextmanager
def _scratch(overrides: Sequence[str], sweep: bool) -> Iterator[list[str]]:
    """Overrides that keep what Hydra writes for a sweep (`multirun.yaml`, logs) out of the working folder."""
    if not sweep:
        yield []
        return
    named = {key_of(o) for o in overrides}
    with tempfile.TemporaryDirectory(prefix="arriero-sweep-") as folder:
        ours = {"hydra.sweep.dir": folder, "hydra/job_logging": "none"}
        yield [f"{key}={value}" for key, value in ours.items() if key not in named]


def _check_folders(schema: type, overrides: Sequence[str]) -> None:
    """Refuse a sweep whose jobs would all write into one folder."""
    known = known_keys(schema)
    for key in ("run.dir", "output"):
        override = next((o for o in reversed(overrides) if key_of(o) == key), None)
        if key not in known or override is None or "${" in override:
            continue
        parsed = parse(override)
        if parsed is None or not parsed.is_sweep_override():
            raise ConfigError(
                f"every job of this sweep would write to `{override.lstrip('+')}`; let it hold a key that is swept, such as "
                f"'{key}=runs/${{hydra:job.num}}'"
            )


@contextlib.contextmanager
def _readable(overrides: Sequence[str], schema: type | None) -> Iterator[None]:
    """Turn Hydra's and OmegaConf's errors into one line that a person can act on."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explained(error, overrides, schema)) from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_invalid(error)) from error
    except UnicodeDecodeError as error:
        files = (path for folder in options.folders() for path in sorted(folder.rglob("*.yaml")))
        wrong = next((path for path in files if not _is_utf8(path)), "a file of an option")
        raise ConfigError(f"{wrong} is not UTF-8; save it in that encoding ({error.reason})") from error
    except RecursionError as error:
        named = [
            f"{key_of(o)}={o.partition('=')[2]}"
            for o in overrides
            if schema and key_of(o) in groups_of(schema)
        ]
        raise ConfigError(
            f"the `defaults` of an option lead back to it; look at the files of {', '.join(named) or 'the options'}"
        ) from error


def _is_utf8(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _invalid(error: yaml.MarkedYAMLError) -> str:
    """What is wrong with a YAML file, and where."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f"a file of an option is not valid YAML: {error.problem}"
    line = (
        Path(mark.name).read_text(encoding="utf-8").splitlines()[error.context_mark.line : mark.line + 1]
        if (error.context_mark and Path(mark.name).is_file())
        else []
    )
    hint = "; between braces or brackets, `${…}` needs quotes" if any("${" in text for text in line) else ""
    return f"{mark.name}, line {mark.line + 1}, is not valid YAML: {error.problem}{hint}"


def _explained(error: Exception, overrides: Sequence[str], schema: type | None) -> str:
    text = str(error).strip()
    if isinstance(error, MissingMandatoryValue):
        key = getattr(error, "full_key", None) or text.rsplit(" ", 1)[-1]
        return f"`{key}` is required: write {key}=…"
    replaced = re.search(r"In '([^']+)': Could not override '([^']+)'", text)
    if replaced:
        groups = list(groups_of(schema)) if schema is not None else []
        return (
            f"the `defaults` of `{replaced[1]}` override the group `{replaced[2]}`, which is not there"
            f"{nearest(replaced[2], groups)}"
        )
    option = re.search(r"(?:In|Could not find) '?(?:[^']*': Could not find )?'?([a-z_]+)/([^'\s]+)'", text)
    if option:
        group, name = option.groups()
        names = options.names(group)
        listed = f" (options: {', '.join(names)})" if names else "; there are no options of this group"
        return f"`{group}={name}` is unknown{nearest(name, names)}{listed}"
    missing = re.search(r"Could not (?:override|delete(?: from config)?)\.? ?'?([\w.]+)'", text)
    if missing and schema is not None and missing[1] in known_keys(schema):
        return f"`~{missing[1]}` has nothing to delete: `{missing[1]}` is null already"
    if missing and schema is not None:
        return f"unknown key `{missing[1]}`{nearest_key(missing[1], schema, list(groups_of(schema)))}"
    interpolation = re.search(r"Interpolation key '([^']+)' not found", text)
    if interpolation:
        near = nearest_key(interpolation[1], schema) if schema is not None else ""
        return f"`${{{interpolation[1]}}}` names no key{near}"
    return " ".join(text.split())
