"""What a person types, in Hydra's grammar: keys are checked against the schema, text and paths are quoted.

Hydra reads `key=value` with a grammar in which `ö`, `=`, `,`, `~` and parentheses mean something or nothing. Where a key
holds text, its value is what was typed.
"""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Sequence
from typing import Annotated, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from configs.build import dataclass_of, groups_of, hints, kind_of, nearest_key
from configs.fields import ConfigError, Location, Verbatim

QUOTES = "'\""


@functools.cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def parse(override: str) -> Override | None:
    """An override in Hydra's grammar; null where it does not fit it."""
    try:
        return _parser().parse_override(override)
    except (HydraException, ValueError):
        return None


def prepare(words: Sequence[str], schema: type, sweep: bool = False) -> list[str]:
    """Overrides as Hydra understands them.

    Args:
        sweep: commas part the values of a sweep, in text too (`--multirun`).

    Raises:
        ConfigError: no override, or an unknown key.
    """
    return [_prepared(word, schema, sweep) for word in words]


def key_of(word: str) -> str:
    """Key or group of an override as it was typed, without its package."""
    return word.lstrip("+~").partition("=")[0].split("@")[0]


def _prepared(word: str, schema: type, sweep: bool) -> str:
    mark = re.match(r"\+\+|\+|~|", word)[0]  # type: ignore[index]
    name, equals, value = word[len(mark) :].partition("=")
    key = name.split("@")[0]
    if (not equals and mark != "~") or not key:
        raise ConfigError(f"`{word}` is not understood; write key=value")
    if key.split(".")[0] == "hydra" or "/" in key:
        return word
    groups = groups_of(schema)
    if key in groups or "@" in name:
        if parse(word) is None:
            return f"{mark}{name}={quote(value)}"
        return word
    kind = kind_of(schema, key)
    if kind is None and (equals or mark == "~"):
        inner = "null" if mark == "~" else value
        if (named := _through_names(key, inner, schema)) is not None:
            parts = inner.split(",") if sweep and inner[:1] not in (*QUOTES, "[", "{") else [inner]
            values = [_within(named[1], part) for part in parts]
            return f"{mark.replace('~', '') or '++'}{named[0]}=" + ",".join(
                _value(named[0], v, kind_of(schema, named[0]), schema, False) for v in values
            )
    if kind is None:
        raise ConfigError(f"unknown key `{key}`{nearest_key(key, schema, sorted(groups))}")
    if not equals:
        return word
    mark = mark or "++"
    return f"{mark}{encoded(name)}={_value(key, value, kind, schema, sweep)}"


def _through_names(key: str, value: str, schema: type) -> tuple[str, list[str]] | None:
    """A key that goes through a mapping by a name with dots, such as `filter.rules.gopher.short.min`.

    Returns:
        (key of the mapping, the name and what follows it); null where the key has no such part.
    """
    parts, kind = key.split("."), typing.cast(Any, schema)
    for i, part in enumerate(parts):
        if (owner := dataclass_of(kind)) is not None:
            kind = hints(owner).get(part)
        elif typing.get_origin(_bare(kind)) is dict:
            return ".".join(parts[:i]), _names(_entry(kind), parts[i:], value)
        else:
            return None
    return None


def _names(kind: Any, parts: list[str], value: str) -> list[str]:
    """A name of a mapping whose values have this type, and the keys that follow it."""
    if typing.get_origin(_bare(kind)) is dict and len(parts) > 1:
        return [parts[0], *_names(_entry(kind), parts[1:], value)]
    owner = dataclass_of(kind)
    for i in range(1, len(parts)) if owner is not None else ():
        if kind_of(owner, ".".join(parts[i:])) is not None:
            return [".".join(parts[:i]), *parts[i:]]
    if owner is not None and len(parts) > 1 and value != "null" and not value.startswith("{"):
        return [
            ".".join(parts[:-1]),
            parts[-1],
        ]  # a key that is not one, which is then refused with the nearest
    return [".".join(parts)]


def _within(names: Sequence[str], value: str) -> str:
    """A value in mappings, one in the other."""
    inner = quote(value) if parse(f"k={value}") is None or not value or _sweeps(value) else value
    for name in reversed(names):
        inner = f"{{'{name}':{inner}}}"
    return inner


def _sweeps(value: str) -> bool:
    parsed = parse(f"k={value}")
    return parsed is not None and parsed.is_sweep_override()


def _value(key: str, value: str, kind: Any, schema: type, sweep: bool) -> str:
    if not value.strip() and _marked(kind, Location):
        raise ConfigError(f"`{key}` is empty; name a folder or a file")
    if value == "null" and _may_be_null(kind):
        return value
    if sweep and (parsed := parse(f"k={value}")) is not None and parsed.is_sweep_override():
        return value
    if sweep and _is_text(kind) and "," in value:
        return ",".join(_text(part, kind, schema) for part in value.split(","))
    listed = typing.get_origin(_bare(kind)) is tuple and not value.startswith("[")
    if _is_text(kind) or (listed and _is_text(_entry(kind))):
        return _text(value, _entry(kind) if listed else kind, schema)
    if value[:1] in ("[", "{"):
        made = _Brackets(value, schema).read(kind)
        if made == value and parse(f"k={value}") is None:
            raise ConfigError(
                f"`{key}={value}` cannot be read: brackets or quotes do not match, or an entry has no `name:`; text that "
                "holds a comma or a bracket needs quotes, {input:'a,b'}"
            )
        return made
    parsed = parse(f"k={value}")
    if parsed is None or parsed.is_sweep_override() or (value and not value.strip()):
        return quote(value)  # its type is then refused, in words
    return value


def quote(text: str) -> str:
    """Text as a quoted string of Hydra's grammar, which unescapes quotes and the backslashes before them, and no more."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"


def encoded(key: str) -> str:
    """A key with what Hydra's grammar has no place for in a key, such as `ö`, as the number of the character."""
    return re.sub(r"[^\w.@:/$%+*-]|[^\x00-\x7f]", lambda m: f"__u{ord(m[0]):x}__", key)


def decoded(data: Any) -> Any:
    """Plain data with the keys as they were before `encoded`."""
    if isinstance(data, dict):
        return {
            re.sub(r"__u([0-9a-f]+)__", lambda m: chr(int(m[1], 16)), str(k)): decoded(v)
            for k, v in data.items()
        }
    return [decoded(v) for v in data] if isinstance(data, list) else data


def _text(text: str, kind: Any, schema: type) -> str:
    quoted = len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]
    if quoted and parse(f"k={text}") is not None:
        return text
    keys = set(hints(schema))

    def escaped(match: re.Match[str]) -> str:
        # `${key}` is Hydra's, but in text for people it is text, and `${HOME}` in a path is the environment's.
        is_key = match[2] is None or match[2] in keys
        return (
            match[0]
            if is_key and not _marked(kind, Verbatim)
            else match[1] * 2 + "\\" + match[0][len(match[1]) :]
        )

    return quote(re.sub(r"(\\*)\$\{(?:([A-Za-z_]\w*)\})?", escaped, text))


def _bare(kind: Any) -> Any:
    """A type without null, bounds and other things that stand beside it."""
    if typing.get_origin(kind) is Annotated:
        return _bare(typing.get_args(kind)[0])
    rest = [k for k in typing.get_args(kind) if k is not type(None)]
    return _bare(rest[0]) if _may_be_null(kind) and len(rest) == 1 else kind


def _may_be_null(kind: Any) -> bool:
    return type(None) in typing.get_args(kind)


def _is_text(kind: Any) -> bool:
    return _bare(kind) is str


def _marked(kind: Any, marker: type) -> bool:
    """Whether a marker stands beside a type."""
    options = [kind, *typing.get_args(kind)]
    return any(
        isinstance(m, marker)
        for k in options
        if typing.get_origin(k) is Annotated
        for m in typing.get_args(k)[1:]
    )


def _entry(kind: Any) -> Any:
    """Type of the entries of a list or of the values of a mapping."""
    bare = _bare(kind)
    args = typing.get_args(bare)
    return {tuple: args[0], dict: args[-1]}.get(typing.get_origin(bare)) if args else None


class _Brackets:
    """Lists and mappings as people type them, `[{name:köln,input:~/a b.gz}]`, with the text in them quoted."""

    def __init__(self, text: str, schema: type):
        self._text, self._at, self._schema = text, 0, schema

    def read(self, kind: Any) -> str:
        """The whole value; unchanged where its brackets do not match, so that Hydra says what is wrong."""
        try:
            made = self._any(kind, "")
        except IndexError:
            return self._text
        return made if self._at == len(self._text) else self._text

    def _any(self, kind: Any, ends: str) -> str:
        self._blanks()
        if self._text[self._at] == "[":
            entries = self._entries("]", lambda: self._any(_entry(kind), ",]"))
            return f"[{','.join(entries)}]"
        if self._text[self._at] == "{":
            entries = self._entries("}", lambda: self._pair(kind))
            return f"{{{','.join(entries)}}}"
        return self._scalar(kind, ends)

    def _entries(self, end: str, entry: typing.Callable[[], str]) -> list[str]:
        self._at += 1
        entries: list[str] = []
        while True:
            self._blanks()
            if self._text[self._at] == end:
                self._at += 1
                return entries
            entries.append(entry())
            self._blanks()
            if self._text[self._at] == ",":
                self._at += 1

    def _pair(self, kind: Any) -> str:
        key = self._raw(":").strip()
        self._at += 1
        owner = dataclass_of(kind)
        inner = hints(owner).get(key.strip(QUOTES)) if owner is not None else _entry(kind)
        return f"{encoded(key.strip(QUOTES))}:{self._any(inner, ',}')}"

    def _scalar(self, kind: Any, ends: str) -> str:
        raw = self._raw(ends).strip()
        if kind is not None and _is_text(kind):
            return raw if raw == "null" and _may_be_null(kind) else _text(raw, kind, self._schema)
        parsed = parse(f"k={raw}")
        return quote(raw) if parsed is None or parsed.is_sweep_override() else raw

    def _raw(self, ends: str) -> str:
        """Up to one of `ends` that no quotes, parentheses or ${} enclose."""
        begin, depth, quoted = self._at, 0, ""
        while self._at < len(self._text):
            c = self._text[self._at]
            if quoted:
                self._at += c == "\\"
                quoted = "" if c == quoted else quoted
            elif c in "'\"" and not self._text[begin : self._at].strip():
                quoted = c
            elif c == "(" or self._text.startswith("${", self._at):
                depth += 1
                self._at += c == "$"
            elif depth and c in ")}":
                depth -= 1
            elif not depth and c in ends:
                return self._text[begin : self._at]
            self._at += 1
        if not ends:
            return self._text[begin:]
        raise IndexError

    def _blanks(self) -> None:
        while self._text[self._at].isspace():
            self._at += 1
