"""Plain data → frozen dataclasses, strictly: types, bounds, paths; with errors that name the key and what it may be."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import itertools
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from configs.fields import LARGEST, Bounds, ConfigError, Day, Location, Name, is_day

T = TypeVar("T")


def build(cls: type[T], data: Any, where: str = "", default: Any = None, complete: bool = True) -> T:
    """A frozen dataclass from plain data.

    Args:
        where: dotted key of the part that is built.
        default: what the part is by default, where its owner says; values equal to it are not checked again.
        complete: false: only check the values that are there, and return nothing of use.

    Raises:
        ConfigError: unknown and missing keys, wrong types, values out of bounds.
    """
    if not isinstance(data, dict):
        names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        listed = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        raise ConfigError(
            f"`{where}` must be a mapping of {listed}, but it is {data!r}; one value is {where}.{names[0]}=…"
        )
    kinds = hints(typing.cast(type, cls))
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {}
    for key, value in data.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in fields:
            raise ConfigError(f"unknown key `{path}`{_nearest_field(str(key), cls, where)}")
        usual = default_of(fields[key]) if default is None else getattr(default, key)
        if is_part(kinds[key]) and isinstance(value, dict):
            values[key] = build(dataclass_of(kinds[key]), value, path, _part_default(usual), complete)
        elif usual is not dataclasses.MISSING and value == usual and type(value) is type(usual):
            values[key] = usual
        else:
            values[key] = _convert(kinds[key], value, path)
    for name, f in fields.items():
        if name not in values and default_of(f) is dataclasses.MISSING and complete:
            key = f"{where}.{name}" if where else name
            raise ConfigError(f"`{key}` is required: {field_docs(cls).get(name, '')}")
    return cls(**values) if complete else typing.cast(T, values)


def _part_default(usual: Any) -> Any:
    return usual if dataclasses.is_dataclass(usual) else None


def _convert(kind: Any, value: Any, where: str, declared: Any = None) -> Any:
    """`declared`: the whole type, named in errors, where `kind` is the part of it that is being converted."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _checked(args[1:], _convert(args[0], value, where, declared or kind), kind, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return build(kind, value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        rest = [a for a in args if a is not type(None)]
        parts = [a for a in rest if dataclasses.is_dataclass(a)]
        if parts and isinstance(value, dict):  # a name, or all that the name would stand for
            return _convert(parts[0], value, where)
        return _convert(rest[0], value, where, declared or kind)
    if origin is Literal:
        return _choice(args, value, where)
    if origin is tuple and isinstance(value, str) and _is_text(args[0]):
        value = [value]  # one name needs no brackets
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
        if len(kinds) != len(value):
            raise ConfigError(f"`{where}` must have {len(kinds)} entries, but it is {list(value)!r}")
        return tuple(
            _convert(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is dict and isinstance(value, dict):
        return {str(k): _entry(str(k), v, args[1], where, list(value)) for k, v in value.items()}
    if not isinstance(value, bool) and isinstance(value, (int, float)):
        if kind is float and abs(value) <= sys.float_info.max:
            return float(value)
        if kind is int and abs(value) <= LARGEST and int(value) == value:
            return int(value)  # 1e6 is a whole number
        if kind is str:
            return str(value)
    if (kind is str and isinstance(value, str)) or (kind is bool and isinstance(value, bool)):
        return value
    finite = kind in (int, float) and isinstance(value, (int, float)) and not abs(value) <= LARGEST
    said = (
        {int: "an integer of 64 bits", float: "a finite number"}[kind]
        if finite
        else describe(declared or kind)
    )
    raise ConfigError(f"`{where}` must be {said}, but it is {value!r}")


def _entry(name: str, value: Any, kind: Any, where: str, names: Sequence[str]) -> Any:
    """An entry of a mapping of names. One that lacks what it requires may be meant for another of its `names`."""
    try:
        return _convert(kind, value, f"{where}.{name}")
    except ConfigError as error:
        if " is required: " not in str(error):
            raise
        near = nearest(name, [other for other in names if other != name])
        raise ConfigError(f"{str(error).rstrip('.')}{near}") from None


def _choice(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value in options and type(value) in {type(o) for o in options}:
        return value
    near = difflib.get_close_matches(str(value), [str(o) for o in options], n=1, cutoff=0.5)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    raise ConfigError(f"`{where}` must be {describe(Literal[options])}, but it is {value!r}{hint}")


def _checked(markers: tuple[Any, ...], value: Any, kind: Any, where: str) -> Any:
    for marker in markers:
        if isinstance(marker, Bounds):
            size = value if isinstance(value, (int, float)) else len(value)
            if not marker.admit(size):
                raise ConfigError(f"`{where}` must be {describe(kind)}, but it is {_plain(value)!r}")
        elif isinstance(marker, Name) and not value.strip():
            raise ConfigError(f"`{where}` is empty; it must be {describe(kind)}")
        elif isinstance(marker, Day) and not is_day(value):
            raise ConfigError(f"`{where}` must be {describe(kind)}, but it is {value!r}")
        elif isinstance(marker, Location):
            try:
                value = marker.resolve(value)
            except ValueError as error:
                raise ConfigError(f"`{where}` {error}") from None
    return value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def describe(kind: Any) -> str:
    """A type as words: `an integer of at least 1 (steps)`."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        said = describe(args[0])
        for marker in args[1:]:
            if isinstance(marker, Bounds):
                bounds = str(marker)
                said += (f" of {bounds}" if bounds.startswith("at ") else f" {bounds}") if bounds else ""
                said += f" ({marker.unit})" if marker.unit else ""
            elif isinstance(marker, Day):
                said = "a date, ISO 8601, such as 2024-05-31"
            elif isinstance(marker, Location):
                said = "a path"
        return said
    if origin is Literal:
        return "one of " + ", ".join(repr(v) for v in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if a is type(None) else describe(a) for a in args)
    if origin is tuple:
        return "a list"
    if origin is dict:
        return "a mapping"
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _is_text(kind: Any) -> bool:
    return kind is str or (typing.get_origin(kind) is Annotated and typing.get_args(kind)[0] is str)


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Types of a dataclass's fields, with what stands beside them (`Annotated`)."""
    named = typing.get_type_hints(cls, include_extras=True)
    return {f.name: named[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Default of a field; `dataclasses.MISSING` where it is required."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def dataclass_of(kind: Any) -> Any:
    """The dataclass that a field of this type holds, also where it may be null; null for other types."""
    options = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    rest = [k for k in options if k is not type(None)]
    return rest[0] if len(rest) == 1 and dataclasses.is_dataclass(rest[0]) else None


def is_part(kind: Any) -> bool:
    """Whether a field of this type is a part with keys of its own."""
    return dataclass_of(kind) is not None


def known_keys(cls: type, prefix: str = "") -> list[str]:
    """Every dotted key of a configuration, parts included, in the order of the schema."""
    keys = []
    for name, kind in hints(cls).items():
        keys.append(prefix + name)
        if is_part(kind):
            keys += known_keys(dataclass_of(kind), f"{prefix}{name}.")
    return keys


def kind_of(cls: type, key: str) -> Any:
    """Type of a dotted key, through mappings too; null where there is no such key."""
    kind: Any = cls
    for part in key.split("."):
        owner = dataclass_of(kind)
        if owner is not None:
            kind = hints(owner).get(part)
            if kind is None:
                return None
            continue
        kind = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
        if typing.get_origin(kind) is dict or (typing.get_origin(kind) is tuple and part.isdigit()):
            kind = typing.get_args(kind)[-1 if typing.get_origin(kind) is dict else 0]
        else:
            return None
    return kind


def groups_of(cls: type) -> dict[str, str | None]:
    """Hydra groups of a schema and the option that each has by default: its sections, and files of their own (`GROUPS`)."""
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    sections = {f.name: f.metadata["option"] for f in fields if "option" in f.metadata}
    return sections | getattr(cls, "GROUPS", {})


def defaults(cls: type, instance: Any = None) -> dict[str, Any]:
    """The defaults of a schema as plain data, `???` where a value is required; `instance`: what stands in for it."""
    values: dict[str, Any] = {}
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        usual = default_of(f) if instance is None else getattr(instance, f.name)
        part = dataclass_of(hints(cls)[f.name])
        if part is not None and usual is not None:
            values[f.name] = defaults(part, _part_default(usual))
        else:
            values[f.name] = "???" if usual is dataclasses.MISSING else to_dict(usual)
    return values


@functools.cache
def _documents(module: str) -> dict[str, dict[str, str]]:
    """Documentation of the fields of each class in a module: the string literal under each."""
    source = Path(typing.cast(str, sys.modules[module].__file__)).read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = {}
    for cls in ast.parse(source).body:
        if isinstance(cls, ast.ClassDef):
            found[cls.name] = dict(_documented(cls.body))
    return found


def _documented(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for node, after in itertools.pairwise(body):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            yield node.target.id, " ".join(str(after.value.value).split())


def field_docs(cls: type) -> dict[str, str]:
    """Documentation of a dataclass's fields: the string literal under each, bases included."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            docs |= _documents(base.__module__).get(base.__name__, {})
    return docs


def nearest(name: str, valid: Sequence[str]) -> str:
    """The end of an error about an unknown name: the one that was probably meant, or nothing."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else ""


def nearest_key(key: str, cls: type, extra: Sequence[str] = ()) -> str:
    """The end of an error about an unknown key: the one that was probably meant, with its group.

    Tried in order: its last name is that of a key (`lr`: `optim.lr`) or part of one (`batch_size`), the whole key or its
    last name is nearly one, what a key is said to be holds its words (`learning_rate`: `optim.lr`).
    """
    valid = [*known_keys(cls), *extra]
    tails = {k: k.rsplit(".", 1)[-1] for k in valid}
    tail = key.rsplit(".", 1)[-1]
    words = set(tail.lower().split("_"))
    near = difflib.get_close_matches(tail, list(tails.values()), n=1, cutoff=0.75)
    found = (
        _in_group([k for k in valid if tails[k] == tail], key)
        or difflib.get_close_matches(key, valid, n=1, cutoff=0.8)
        or _in_group([k for k in valid if words <= set(tails[k].split("_"))], key)
        or _in_group([k for k in valid if near and tails[k] == near[0]], key)
        or _in_group(_said_to_be(tail, cls), key)
        or difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    )
    return f"; did you mean `{found[0]}`?" if found else "; --help lists every key"


def _in_group(keys: list[str], key: str) -> list[str]:
    """Of several keys, first the one whose group is most like that of `key`, then in the given order."""
    group = key.rpartition(".")[0]
    if not group:
        return keys
    return sorted(keys, key=lambda k: -difflib.SequenceMatcher(None, group, k.rpartition(".")[0]).ratio())


def _said_to_be(name: str, cls: type) -> list[str]:
    """Keys whose documentation holds the words of a name, those first that begin with them."""
    phrase = name.replace("_", " ").lower()
    held = {key: text.lower().find(phrase) for key, text in _texts(cls).items()} if len(phrase) > 3 else {}
    return sorted((key for key, place in held.items() if place >= 0), key=lambda key: held[key])


def _texts(cls: type, prefix: str = "") -> dict[str, str]:
    texts: dict[str, str] = {}
    docs = field_docs(cls)
    for name, kind in hints(cls).items():
        if is_part(kind):
            texts |= _texts(dataclass_of(kind), f"{prefix}{name}.")
        else:
            texts[prefix + name] = docs.get(name, "")
    return texts


def _nearest_field(name: str, cls: type, where: str) -> str:
    near = nearest(name, list(hints(cls)))
    if near and where:
        return near.replace("`", f"`{where}.", 1)
    return near or nearest_key(name, cls)


def to_dict(config: Any) -> Any:
    """A dataclass as plain data that YAML and JSON can hold."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    return plain(config)
