"""The edge between Hydra and the code: command line → Hydra → frozen dataclass, with errors a person can act on.

Everything behind `main` sees dataclasses only. Composition is Hydra's; the checks are ours, because Hydra's
own messages name neither the nearest key nor the expected type.
"""

from __future__ import annotations

import os
import re
import sys
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from configs.build import (
    build,
    dataclass_of,
    field_docs,
    hints,
    is_part,
    kind_of,
    known_keys,
    nearest,
    nearest_key,
    to_dict,
)
from configs.fields import ConfigError

__all__ = [
    "ConfigError",
    "build",
    "compose",
    "field_docs",
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

# Values of these keys are what a person wrote (text, addresses, globs): they are quoted for Hydra's grammar.
# Paths may hold ${key}, so that the runs of a sweep get folders of their own; in text it is text.
PATHS = frozenset({"input", "output", "data.path", "run.dir"})
FREE_TEXT = PATHS | {"prompt", "prompts", "text", "url", "id"}
HYDRA_FLAGS = (
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--multirun",
    "-m",
    "--hydra-help",
    "--resolve",
    "--package",
    "-p",
)


def _is_quoted(override: str, value: str) -> bool:
    if len(value) < 2 or value[0] not in "'\"" or value[-1] != value[0]:
        return False
    try:
        return OverridesParser.create().parse_override(override) is not None
    except HydraException:
        return False


def _quote(override: str) -> str:
    key, sep, value = override.partition("=")
    if not sep or key.lstrip("+~") not in FREE_TEXT or _is_quoted(override, value):
        return override
    # Hydra unescapes quotes and the backslashes before them, and nothing else; OmegaConf then reads ${…}.
    if key.lstrip("+~") not in PATHS:
        value = value.replace("${", "\\${")
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"{key}='{escaped}'"


def groups() -> list[str]:
    """Names of the configuration groups (folders of `configs/`)."""
    root = Path(__file__).parent
    return sorted(p.name for p in root.iterdir() if p.is_dir() and any(p.glob("*.yaml")))


def compose(config: str, overrides: Sequence[str] = (), schema: type | None = None) -> dict[str, Any]:
    """Compose a primary config with Hydra into plain data.

    Raises:
        ConfigError: an override that is not understood, an unknown key or group option, a missing value.
    """
    quoted = [_quote(o) for o in overrides]
    if schema is not None:
        quoted = _resolve_overrides(quoted, schema)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(config_module="configs", version_base="1.3"):
            composed = hydra_compose(config, overrides=quoted)
            return typing.cast(
                dict[str, Any], OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
            )
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_readable(error, quoted, schema)) from error


def _resolve_overrides(overrides: Sequence[str], schema: type) -> list[str]:
    """Check every override's key against the schema, and let it set keys that the YAML leaves to the dataclass."""
    valid = set(known_keys(schema))
    kinds = hints(schema)
    nodes = {n for n, k in kinds.items() if is_part(k)}
    choices = {g for g in groups() if g in nodes or g not in kinds}
    resolved = []
    for text in overrides:
        if text.startswith("-"):
            raise ConfigError(f"unknown flag `{text}`{nearest(text, ['--help', *HYDRA_FLAGS])}")
        try:
            parsed = OverridesParser.create().parse_override(text)
        except HydraException as error:
            raise ConfigError(
                f"`{text}` is not understood; write key=value, and quote values that hold commas: key='a, b'"
            ) from error
        key = (parsed.key_or_group or "").split("@")[0]
        if key.startswith("hydra") or "/" in key or key in choices:
            resolved.append(text)
        elif key in valid or any(key.startswith(v + ".") and _is_mapping(schema, v) for v in valid):
            resolved.append(text if text[0] in "+~" else "++" + text)
        else:
            raise ConfigError(f"unknown key `{key}`{nearest_key(key, schema, sorted(choices & nodes))}")
    return resolved


def _is_mapping(schema: type, key: str) -> bool:
    kind = kind_of(schema, key)
    return typing.get_origin(kind) is dict


def _readable(error: Exception, overrides: Sequence[str], schema: type | None) -> str:
    text = str(error).strip()
    if isinstance(error, MissingMandatoryValue):
        key = getattr(error, "full_key", None) or text.rsplit(" ", 1)[-1]
        return f"`{key}` is required: write {key}=…"
    option = re.search(r"(?:In|Could not find) '?(?:[^']*': Could not find )?'?([a-z_]+)/([^'\s]+)'", text)
    if option:
        folder = Path(__file__).parent / option.group(1)
        names = sorted(p.stem for p in folder.glob("*.yaml"))
        near = nearest(option.group(2), names)
        return f"`{option.group(1)}={option.group(2)}` is unknown{near} (options: {', '.join(names)})"
    key_match = re.search(r"Key '([^']+)' is not in struct|Could not override '([^']+)'", text)
    if key_match and schema is not None:
        key = key_match.group(2) or key_match.group(1)
        return f"unknown key `{key}`{nearest_key(key, schema)}"
    return " ".join(text.split())


def load(config: str, schema: type[T], overrides: Sequence[str] = (), derive: Derive | None = None) -> T:
    """Compose `configs/<config>.yaml` with overrides, let `derive` fill in what follows, and build its dataclass."""
    checked = build(schema, compose(config, overrides, schema))
    # Every value is checked before anything is derived from it.
    return checked if derive is None else build(schema, derive(to_dict(checked), set_by(overrides)))


def set_by(overrides: Sequence[str]) -> dict[str, str]:
    """What overrides set: dotted key → override, for keys themselves and for those of a chosen option's file.

    An option of a group counts as having set its group's name too, so that `model=8b` stands under `model`.
    """
    keys: dict[str, str] = {}
    single: dict[str, str] = {}  # these win, wherever they stand
    for text in overrides:
        parsed = OverridesParser.create().parse_override(_quote(text))
        name = (parsed.key_or_group or "").split("@")[0]
        if name in groups() and isinstance(option := parsed.value(), str):
            _set_by_option(name, option, text, keys)
        else:
            single[name] = text
    return keys | single


def _set_by_option(group: str, option: str, override: str, keys: dict[str, str]) -> None:
    path = Path(__file__).parent / group / f"{option}.yaml"
    data = yaml.safe_load(path.read_text()) if path.is_file() else None
    for default in (data or {}).pop("defaults", []):
        for inner, chosen in default.items() if isinstance(default, dict) else ():
            _set_by_option(inner.removeprefix("override").strip().lstrip("/"), chosen, override, keys)
    prefix = "" if group == "experiment" else group

    def walk(value: Any, where: str) -> None:
        if where:
            keys[where] = override
        for key, inner in value.items() if isinstance(value, dict) else ():
            walk(inner, f"{where}.{key}" if where else str(key))

    walk(data or {}, prefix)


def load_group(group: str, option: str, schema: type[T]) -> T:
    """One option of a group as a dataclass, such as `load_group("recipe", "web", RecipeConfig)`."""
    data = compose(f"{group}/{option}")
    return build(schema, data.get(group, data), group)


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


def main(
    config: str,
    schema: type[T],
    function: Callable[[T], int | None],
    doc: str,
    argv: Sequence[str] | None = None,
    derive: Derive | None = None,
) -> int:
    """Run a verb: `function` gets the resolved dataclass; a ConfigError becomes one line and exit status 2.

    `--help` prints `doc` and every key with its documentation and default; Hydra's own flags (`--cfg job`,
    `--multirun`, `--info`) are handed to Hydra.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--help" in arguments or "-h" in arguments:
        print(help_text(config, schema, doc))
        return 0
    if any(a.split("=")[0] in HYDRA_FLAGS for a in arguments):
        return _hydra_main(config, schema, function, arguments, derive)
    try:
        resolved = load(config, schema, arguments, derive)
    except ConfigError as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            # Under torchrun the first rank of the node finds the same: it tells, leaves, and this process is ended. One
            # that is still here then has an error of its own.
            time.sleep(10)
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    return function(resolved) or 0


def _hydra_main(
    config: str,
    schema: type[T],
    function: Callable[[T], int | None],
    arguments: list[str],
    derive: Derive | None,
) -> int:
    import hydra
    from hydra.core.hydra_config import HydraConfig

    codes = []

    def task(cfg: DictConfig) -> None:
        data = typing.cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
        built = build(schema, data)
        if derive is not None:
            chosen = set_by([o.lstrip("+") for o in HydraConfig.get().overrides.task])
            built = build(schema, derive(to_dict(built), chosen))
        codes.append(function(built) or 0)

    saved, overrides = sys.argv, []
    # Hydra then raises what goes wrong, instead of printing it and leaving.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        flags = [a for a in arguments if a.startswith("-") or "=" not in a]
        overrides = _resolve_overrides([_quote(a) for a in arguments if a not in flags], schema)
        sys.argv = [sys.argv[0], *flags, *overrides]
        hydra.main(version_base="1.3", config_path="pkg://configs", config_name=config)(task)()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {_readable(error, overrides, schema)}", file=sys.stderr)
        return 2
    finally:
        sys.argv = saved
    return max(codes, default=0)


def help_text(config: str, schema: type, doc: str) -> str:
    """The `--help` of a verb: what it does, examples, and every key with its default and meaning."""
    data = _defaults(config)
    lines = [
        doc.strip(),
        "",
        "Configuration groups: " + ", ".join(groups()),
        "",
        "Keys (key=value overrides, Hydra syntax):",
    ]

    def walk(cls: type, values: Any, prefix: str) -> None:
        docs = field_docs(cls)
        for name, kind in hints(cls).items():
            inner = dataclass_of(kind)
            value = values.get(name) if isinstance(values, dict) else None
            if inner is not None:
                lines.append(f"\n  {prefix}{name}: {docs.get(name, '')}")
                walk(inner, value if value is not None else {}, f"{prefix}{name}.")
            else:
                shown = (
                    "" if isinstance(value, (dict, list)) else f" [{'required' if value == '???' else value}]"
                )
                lines.append(f"    {prefix}{name}{shown}  {docs.get(name, '')}")

    walk(schema, data, "")
    return "\n".join(lines)


def _defaults(config: str) -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_module(config_module="configs", version_base="1.3"):
        return OmegaConf.to_container(hydra_compose(config), resolve=False)
