"""The `--help` of a verb: every key with its default, its unit, what it may be, and what it means."""

from __future__ import annotations

import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from configs import options
from configs.build import dataclass_of, defaults, field_docs, groups_of, hints
from configs.fields import Bounds, Day, Location

WIDTH = 120


def help_text(config: str, schema: type, doc: str) -> str:
    """What a verb does, its groups with their options, and its keys.

    The defaults are those that composition gives (tests/configs/test_help.py), read without Hydra, which takes longer.
    """
    groups = groups_of(schema)
    lines = [doc.strip(), ""]
    if groups:
        lines += [
            "Groups, group=option; own options are files GROUP/OPTION.yaml in ./configs or --config-dir DIR:",
            *(line for group, chosen in groups.items() for line in _group(group, chosen)),
            "  Every other section below is a group for own options too.",
            "",
        ]
    lines += [
        "Keys, key=value [what it may be] meaning; `--cfg job` prints the configuration that overrides make:",
        *_keys(schema, values(schema), ""),
        "",
        f"Hydra's own: --cfg job, --multirun, --info, --hydra-help, ~key; its primary configuration is arriero_{config}.",
    ]
    return "\n".join(lines)


def values(schema: type) -> dict[str, Any]:
    """The defaults of a verb: those of its dataclass, and what the options set that are chosen by default."""
    found = defaults(schema)
    for group, option in groups_of(schema).items():
        if option is not None:
            found = options.merge(found, options.settings(group, option))
    return found


def _group(group: str, chosen: str | None) -> Iterator[str]:
    names = options.names(group)
    if names:
        usual = f"  [default: {chosen}]" if chosen else ""
        yield from _wrapped(f"  {group:<12}{', '.join(names)}{usual}", " " * 14)


def _keys(cls: type, given: Any, prefix: str) -> Iterator[str]:
    docs = field_docs(cls)
    plain = {n: k for n, k in hints(cls).items() if dataclass_of(k) is None}
    for name, kind in plain.items():
        value = given.get(name, "???") if isinstance(given, dict) else "???"
        yield from _key(f"{prefix}{name}", kind, value, docs.get(name, ""))
    for name, kind in hints(cls).items():
        part = dataclass_of(kind)
        if part is None:
            continue
        inner = given.get(name) if isinstance(given, dict) else None
        absent = " [null by default]" if inner is None and type(None) in typing.get_args(kind) else ""
        yield from _wrapped(f"\n  {prefix}{name}:{absent} {docs.get(name, '')}", " " * 6)
        yield from _keys(part, inner if inner is not None else defaults(part), f"{prefix}{name}.")


def _key(key: str, kind: Any, value: Any, doc: str) -> Iterator[str]:
    shown = "=…" if value == "???" else f"={_shown(value)}"
    required = "required; " if value == "???" else ""
    yield from _wrapped(f"    {key}{shown}  [{required}{may_be(kind)}]  {doc}", " " * 8)
    entry = _entry(kind)
    if entry is not None:
        place = "[]" if typing.get_origin(_bare(kind)) is tuple else ".NAME"
        docs, usual = field_docs(entry), defaults(entry)
        for name, inner in hints(entry).items():
            if _entry(inner) is None and dataclass_of(inner) is None:
                yield from _key(f"  {key}{place}.{name}", inner, usual[name], docs.get(name, ""))


def may_be(kind: Any) -> str:
    """What a key takes, in few words."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        said = may_be(args[0])
        for marker in args[1:]:
            if isinstance(marker, Bounds) and typing.get_origin(args[0]) is tuple:
                said = f"{marker} {marker.unit}"
            elif isinstance(marker, Bounds):
                said = ", ".join(p for p in (marker.unit or said, str(marker)) if p)
            elif isinstance(marker, Day):
                said = "date, ISO 8601"
            elif isinstance(marker, Location):
                said = "path"
        return said
    if origin is Literal:
        return " | ".join(str(a) for a in args)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(["null" if a is type(None) else may_be(a) for a in args])
    if origin is tuple:
        entry = may_be(args[0])
        entry = f"({entry})" if "|" in entry or "," in entry else entry
        return f"list of {entry}" if args[1:] == (Ellipsis,) else f"{len(args)} × {entry}"
    if origin is dict:
        return f"name: {may_be(args[1])}"
    if dataclass_of(kind) is not None:
        return "mapping"
    return {int: "integer", float: "number", str: "text", bool: "true | false", Any: "any value"}.get(
        kind, str(kind)
    )


def _bare(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind


def _entry(kind: Any) -> Any:
    """Dataclass of the entries of a list or mapping; null for other types."""
    bare = _bare(kind)
    if typing.get_origin(bare) in (tuple, dict):
        return dataclass_of(typing.get_args(bare)[-1 if typing.get_origin(bare) is dict else 0])
    return None


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{}" if not value else f"{{{len(value)} entries}}"
    if isinstance(value, list):
        return f"[{','.join(_shown(v) if not isinstance(v, dict) else '{}' for v in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _wrapped(text: str, indent: str) -> list[str]:
    lead = text[: len(text) - len(text.lstrip("\n"))]
    body = text.lstrip("\n")
    return [lead + "\n".join(textwrap.wrap(body, WIDTH, subsequent_indent=indent, break_on_hyphens=False))]
