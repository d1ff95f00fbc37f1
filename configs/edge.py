"""The edge between Hydra and the code: command line → Hydra → frozen dataclass, with errors a person can act on.

Everything behind `main` sees dataclasses only. Composition is Hydra's; the checks are ours, because Hydra's
own messages name neither the nearest key nor the expected type.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import os
import re
import sys
import time
import types
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


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says which key, why, and the nearest valid one."""


def _nearest(name: str, valid: Sequence[str]) -> str:
    tail = name.rsplit(".", 1)[-1]
    close = (
        difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
        or [
            key
            for key in valid
            if key.rsplit(".", 1)[-1]
            in difflib.get_close_matches(tail, [v.rsplit(".", 1)[-1] for v in valid], n=1, cutoff=0.6)
        ][:1]
    )
    return f"; did you mean `{close[0]}`?" if close else f"; valid keys: {', '.join(sorted(valid))}"


def _describe(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(v) for v in typing.get_args(kind))
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if a is type(None) else _describe(a) for a in typing.get_args(kind))
    if origin is tuple:
        return "a list"
    if origin is dict:
        return "a mapping"
    return {int: "an integer", float: "a number", str: "a string", bool: "true or false"}.get(
        kind, getattr(kind, "__name__", str(kind))
    )


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return build(kind, value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        rest = [a for a in args if a is not type(None)]
        if len(rest) == 1:
            return _convert(rest[0], value, where)
    if origin is typing.Literal and value in args:
        return value
    if origin is tuple and args == (str, Ellipsis) and isinstance(value, str):
        value = [value]  # one name needs no brackets
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
        if len(kinds) != len(value):
            raise ConfigError(f"`{where}` must have {len(kinds)} entries, but it is {list(value)!r}")
        return tuple(
            _convert(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is dict and isinstance(value, dict):
        return {str(k): _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    if kind is bool and isinstance(value, bool):
        return value
    raise ConfigError(f"`{where}` must be {_describe(kind)}, but it is {value!r}")


def build(cls: type[T], data: Any, where: str = "") -> T:
    """A frozen dataclass from plain data, strictly: unknown keys, missing keys and wrong types raise ConfigError."""
    if not isinstance(data, dict):
        raise ConfigError(f"`{where}` must be a mapping of {cls.__name__}, but it is {data!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {}
    for key, value in data.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in fields:
            raise ConfigError(f"unknown key `{path}`{_nearest(str(key), list(fields))}")
        values[key] = _convert(hints[key], value, path)
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(
                f"`{where + '.' if where else ''}{name}` is required: {field_docs(cls).get(name, '')}"
            )
    return cls(**values)


def field_docs(cls: type) -> dict[str, str]:
    """Documentation of a dataclass's fields: the string literal under each, bases included."""
    import ast
    import inspect
    import textwrap

    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]).body
        for node, after in itertools.pairwise(body):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                docs[typing.cast(ast.Name, node.target).id] = str(after.value.value)
    return docs


def known_keys(cls: type, prefix: str = "") -> list[str]:
    """Every dotted key of a configuration."""
    keys = []
    for name, kind in typing.get_type_hints(cls).items():
        keys.append(prefix + name)
        inner = [kind, *typing.get_args(kind)]
        for k in inner:
            if (
                dataclasses.is_dataclass(k)
                and isinstance(k, type)
                and typing.get_origin(kind) not in (tuple, dict)
            ):
                keys += known_keys(k, f"{prefix}{name}.")
    return keys


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
    hints = typing.get_type_hints(schema)
    nodes = {
        n for n, k in hints.items() if any(dataclasses.is_dataclass(x) for x in (k, *typing.get_args(k)))
    }
    choices = {g for g in groups() if g in nodes or g not in hints}
    resolved = []
    for text in overrides:
        if text.startswith("-"):
            raise ConfigError(f"unknown flag `{text}`{_nearest(text, ['--help', *HYDRA_FLAGS])}")
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
            raise ConfigError(f"unknown key `{key}`{_nearest(key, sorted(valid | (choices & nodes)))}")
    return resolved


def _is_mapping(schema: type, key: str) -> bool:
    kind: Any = schema
    for part in key.split("."):
        options = [kind, *typing.get_args(kind)]
        owner = next((k for k in options if dataclasses.is_dataclass(k) and isinstance(k, type)), None)
        if owner is None or part not in (hints := typing.get_type_hints(owner)):
            return False
        kind = hints[part]
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
        near = _nearest(option.group(2), names)
        return f"`{option.group(1)}={option.group(2)}` is unknown{near} (options: {', '.join(names)})"
    key_match = re.search(r"Key '([^']+)' is not in struct|Could not override '([^']+)'", text)
    if key_match and schema is not None:
        key = key_match.group(2) or key_match.group(1)
        return f"unknown key `{key}`{_nearest(key, known_keys(schema))}"
    return " ".join(text.split())


def load(config: str, schema: type[T], overrides: Sequence[str] = (), derive: Derive | None = None) -> T:
    """Compose `configs/<config>.yaml` with overrides, let `derive` fill in what follows, and build its dataclass."""
    data = compose(config, overrides, schema)
    return build(schema, data if derive is None else derive(data, set_by(overrides)))


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


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain data that YAML and JSON can hold."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    return plain(config)


def save(config: Any, path: Path) -> None:
    """Write a resolved config as YAML, atomically."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True))
    temporary.replace(path)


def read(path: Path, schema: type[T]) -> T:
    """Read a config that `save` wrote."""
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
        if derive is not None:
            data = derive(data, set_by([o.lstrip("+") for o in HydraConfig.get().overrides.task]))
        codes.append(function(build(schema, data)) or 0)

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
        for name, kind in typing.get_type_hints(cls).items():
            inner = next(
                (
                    k
                    for k in (kind, *typing.get_args(kind))
                    if dataclasses.is_dataclass(k) and isinstance(k, type)
                ),
                None,
            )
            value = values.get(name) if isinstance(values, dict) else None
            if inner is not None and typing.get_origin(kind) not in (tuple, dict):
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
