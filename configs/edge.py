"""The edge: command line → Hydra → frozen dataclass, with errors a person can act on.

Everything behind `main` sees dataclasses only. Composition is Hydra's (`configs.composition`); the checks are ours
(`configs.build`), because Hydra's own messages name neither the nearest key nor the bounds. Hydra is imported when something
is composed, so that help and errors of others do not wait for it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from configs import folders, options, own_path  # noqa: F401  (own_path: refuses another package `configs`)
from configs.build import build, field_docs, groups_of, known_keys, nearest, to_dict
from configs.fields import ConfigError
from configs.manual import help_text
from configs.output import accept_all_text, end_with_reader

__all__ = [
    "ConfigError",
    "build",
    "compose",
    "field_docs",
    "gather",
    "help_text",
    "known_keys",
    "load",
    "load_group",
    "main",
    "read",
    "to_yaml",
    "set_by",
    "to_dict",
]

T = TypeVar("T")
# Fills in composed values that follow from others, given what was set: dotted key → the override that set it.
Derive = Callable[[dict[str, Any], Mapping[str, str]], dict[str, Any]]

# Hydra's flags: whether a value follows.
FLAGS = {
    "--cfg": True,
    "-c": True,
    "--package": True,
    "-p": True,
    "--config-path": True,
    "-cp": True,
    "--config-name": True,
    "-cn": True,
    "--config-dir": True,
    "-cd": True,
    "--info": True,
    "-i": True,
    "--resolve": False,
    "--run": False,
    "-r": False,
    "--multirun": False,
    "-m": False,
    "--hydra-help": False,
    "--shell-completion": False,
    "-sc": False,
}
_FOLDERS = ("--config-dir", "-cd")
FIRST_LINE = "` must be the first line)"
_SHOWN = ("job", "hydra", "all")
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def compose(config: str, overrides: Sequence[str] = (), schema: type | None = None) -> dict[str, Any]:
    """Compose a verb's configuration with Hydra into plain data; without a schema, a file `group/option` alone.

    Raises:
        ConfigError: an override that is not understood, an unknown key or group option, a missing value.
    """
    from configs import composition

    return composition.plain(composition.compose(config, overrides, schema))


# What `check` composed, for the `load` that follows.
_composed: list[tuple[str, list[str], dict[str, Any]]] = []


def load(config: str, schema: type[T], overrides: Sequence[str] = (), derive: Derive | None = None) -> T:
    """A verb's configuration as its dataclass: composed, checked, and with what `derive` fills in."""
    name, words, data = _composed.pop() if _composed else ("", [], {})
    if (name, words) != (config, list(overrides)):
        data = compose(config, overrides, schema)
    return _built(schema, data, overrides, derive)


def check(config: str, schema: type, argv: Sequence[str]) -> None:
    """Check the command line of a verb that is going to run, before its packages are imported.

    Raises:
        ConfigError: as `load`.
    """
    flags, words = split(argv)
    if all(flag in _FOLDERS for flag, _ in flags):
        with _searching(flags):
            data = compose(config, words, schema)
            _built(schema, data, words, None)
        _composed[:] = [(config, words, data)]


def _built(schema: type[T], data: Any, overrides: Sequence[str], derive: Derive | None) -> T:
    try:
        checked = build(schema, data)
    except ConfigError as error:
        raise ConfigError(_with_origin(str(error), schema, overrides)) from None
    # Every value is checked before anything is derived from it.
    return checked if derive is None else build(schema, derive(to_dict(checked), set_by(overrides, schema)))


def _with_origin(message: str, schema: type, overrides: Sequence[str]) -> str:
    """An error with the file that is to be changed."""
    origin = _origin(message, schema, overrides)
    # No other key was meant where a file lacks its header.
    return (message.partition(";")[0] if origin.endswith(FIRST_LINE) else message) + origin


def _origin(message: str, schema: type, overrides: Sequence[str]) -> str:
    """Which file of an option holds the key that an error is about."""
    key = re.search(r"`([^`]+)`", message)
    if key is None:
        return ""
    chosen = {g: o for g, o in groups_of(schema).items() if o is not None}
    single = set()
    for text in overrides:
        name, _, value = text.lstrip("+~").partition("=")
        single.add(name)
        if name.split("@")[0] in groups_of(schema):
            chosen[name.split("@")[0]] = value
    for group, option in chosen.items():
        path = options.find(group, option)
        if path is not None and key[1] == group and message.startswith("unknown key"):
            # Without the line, the keys of the file stand under the name of its group.
            late = (options.late_header(path) or "# @package _global_").strip()
            return f" ({path}: `{late}{FIRST_LINE}"
        if (
            path is not None
            and key[1] not in single
            and key[1] in options.flat(options.settings(group, option))
        ):
            return f" (from {path})"
    return ""


def set_by(overrides: Sequence[str], schema: type | None = None) -> dict[str, str]:
    """What overrides set: dotted key → override, for keys themselves and for those of a chosen option's file.

    An option of a group counts as having set its group's name too, so that `model=8b` stands under `model`.
    """
    keys: dict[str, str] = {}
    single: dict[str, str] = {}  # these win, wherever they stand
    for text in overrides:
        name, _, option = text.lstrip("+~").partition("=")
        name = name.split("@")[0]
        is_group = name in groups_of(schema) if schema is not None else options.names(name) != []
        if is_group and not text.startswith("~") and re.fullmatch(r"[\w./-]+", option):
            keys |= dict.fromkeys(options.flat(options.settings(name, option)), text)
            keys[name] = text
        else:
            single[name] = text
    return keys | single


def load_group(group: str, option: str, schema: type[T]) -> T:
    """One option of a group as a dataclass, such as `load_group("recipe", "web", RecipeConfig)`.

    Raises:
        ConfigError: there is no such option, or its file does not fit the schema.
    """
    path = options.find(group, option)
    if path is None:
        names = options.names(group)
        raise ConfigError(
            f"{group} `{option}` is unknown{nearest(option, names)} (options: {', '.join(names)})"
        )
    data = compose(f"{group}/{option}")
    try:
        return build(schema, data.get(group, data), group)
    except ConfigError as error:
        raise ConfigError(f"{error} (from {path})") from None


def to_yaml(config: Any) -> str:
    """A resolved config as the YAML text that `read` takes."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def read(path: Path, schema: type[T]) -> T:
    """Read a config that was written by `to_yaml`."""
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; expected the resolved config of a run") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    return build(schema, data)


def require_linux() -> None:
    """Raise ConfigError on any other system: workers, supervisor and checkpoints use what only Linux has."""
    if not sys.platform.startswith("linux"):
        raise ConfigError(
            f"arriero runs on Linux only, and this system is `{sys.platform}`; use a Linux machine, virtual machine or "
            "container (WSL on Windows)"
        )


def main(
    config: str,
    schema: type[T],
    function: Callable[[T], int | None],
    doc: str,
    argv: Sequence[str] | None = None,
    derive: Derive | None = None,
) -> int:
    """Run a verb: `function` gets the resolved dataclass; a ConfigError becomes one line and exit status 2.

    `--help` prints `doc` and every key with its documentation and default; `--config-dir DIR` is searched before
    `./configs`, and that before ours; Hydra's own flags (`--cfg job`, `--multirun`, `--info`, …) are handed to Hydra.
    A reader of the output that has gone (`| head`) ends the verb without a word, with status 141.
    """
    accept_all_text()
    arguments = list(sys.argv[1:] if argv is None else argv)
    return end_with_reader(lambda: _run(config, schema, function, doc, arguments, derive))


def _run(
    config: str,
    schema: type[T],
    function: Callable[[T], int | None],
    doc: str,
    arguments: list[str],
    derive: Derive | None,
) -> int:
    try:
        folders.require_working_folder()
        if "--help" in arguments or "-h" in arguments:
            print(help_text(config, schema, doc))
            return 0
        require_linux()
        flags, words = split(arguments)
        with _searching(flags):
            others = [(f, v) for f, v in flags if f not in (*_FOLDERS, "--run", "-r")]
            if others:
                return _hydras_own(
                    config, schema, function, [w for f in others for w in f if w], words, derive
                )
            resolved = load(config, schema, words, derive)
    except ConfigError as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            # Under torchrun the first rank of the node finds the same: it tells, leaves, and this process is ended. One
            # that is still here then has an error of its own.
            time.sleep(10)
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    return function(resolved) or 0


def _searching(flags: Sequence[tuple[str, str]]) -> contextlib.AbstractContextManager[None]:
    return options.searching([value for flag, value in flags if flag in _FOLDERS])


def split(arguments: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Flags with their values, and overrides.

    Raises:
        ConfigError: a flag that neither we nor Hydra know, or one without its value.
    """
    flags, words, left = list[tuple[str, str]](), list[str](), list(arguments)[::-1]
    while left:
        argument = left.pop()
        flag, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            words.append(argument)
        elif flag not in FLAGS:
            raise ConfigError(f"unknown flag `{flag}`{nearest(flag, ['--help', *FLAGS])}")
        elif not FLAGS[flag] or equals:
            flags.append((flag, value))
        elif flag in ("--info", "-i"):
            flags.append((flag, left.pop() if left and left[-1] in _INFO else "all"))
        elif left:
            flags.append((flag, left.pop()))
        else:
            raise ConfigError(f"`{flag}` needs a value")
        if flags and flags[-1][0] in ("--cfg", "-c") and flags[-1][1] not in _SHOWN:
            raise ConfigError(
                f"`{flags[-1][0]} {flags[-1][1]}` is unknown{nearest(flags[-1][1], _SHOWN)} (job, hydra, all)"
            )
    return flags, words


def gather(key: str, arguments: Sequence[str]) -> list[str]:
    """A command line whose words that are no overrides stand in the list `key`, quoted for Hydra.

    An existing folder is such a word even where its name holds `=`, as those of sweeps do. Does nothing the second time.

    Raises:
        ConfigError: as `split`.
    """
    flags, words = split(arguments)
    # Path.is_dir raises for what is longer than a file name may be.
    plain = [w for w in words if "=" not in w or os.path.isdir(w)]  # noqa: PTH112
    quoted = ",".join("'" + w.replace("\\", "\\\\").replace("'", "\\'") + "'" for w in plain)
    overrides = [w for w in words if w not in plain]
    return [*(w for flag in flags for w in flag if w), *([f"{key}=[{quoted}]"] if plain else []), *overrides]


def shows_only(arguments: Sequence[str]) -> bool:
    """Whether a command line asks Hydra to show something, and runs nothing."""
    shown = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")
    return any(a.partition("=")[0] in shown for a in arguments)


def _hydras_own(
    config: str,
    schema: type[T],
    function: Callable[[T], int | None],
    flags: list[str],
    words: list[str],
    derive: Derive | None,
) -> int:
    from configs import composition

    codes = []

    def task(data: dict[str, Any], overrides: Sequence[str]) -> None:
        codes.append(function(_built(schema, data, [o.lstrip("+") for o in overrides], derive)) or 0)

    if "--cfg" in flags or "-c" in flags:
        _check(config, schema, words)
    usable = composition.command(config, schema, flags, words, task)
    return max(codes, default=0) if usable else 2


def _check(config: str, schema: type, words: Sequence[str]) -> None:
    """Check what is shown by `--cfg`, of which required values may still be missing."""
    from configs import composition

    def given(value: Any) -> Any:
        return {k: given(v) for k, v in value.items() if v != "???"} if isinstance(value, dict) else value

    data = given(composition.plain(composition.compose(config, words, schema), complete=False))
    try:
        build(schema, data, complete=False)
    except ConfigError as error:
        raise ConfigError(_with_origin(str(error), schema, words)) from None
