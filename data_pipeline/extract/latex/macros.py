"""Macros: what a definition says, and the parts of TeX's syntax that it is read with."""

from __future__ import annotations

import re
from dataclasses import dataclass

WORD = re.compile(r"\\([A-Za-z]+|[\s\S])")
"""A control sequence."""
WORD_AT = re.compile(r"\\([A-Za-z@]+|[\s\S])")
"""A control sequence where `@` is a letter: in packages, and behind `\\makeatletter`."""
SPACES = re.compile(r"[ \t]*(?:\n[ \t]*)?")
"""What TeX skips before an argument: blanks and the end of one line; an empty line ends a paragraph."""
_BRACES = re.compile(r"\\[\s\S]|[{}]")
_BRACKETS = re.compile(r"\\[\s\S]|[{}\]]")
_PARAMETER = re.compile(r"#(#|\d)")
_INTERNAL = re.compile(r"\\[A-Za-z]*@[A-Za-z]")
_PROGRAM = re.compile(
    r"\\(?:csname|catcode|expandafter|futurelet|afterassignment|lowercase|uppercase|romannumeral|setbox|write|immediate|read"
    r"|openin|openout|loop|repeat|advance|noexpand|aftergroup|numexpr|dimexpr|newcount|newdimen|ifcase|ifnum|ifdim|halign"
    r"|@t?for|@while[a-z]*|@temp[a-z]*|@startsection|@dottedtocline|@name(?:def|use)|@if(?!nextchar|star)[a-z]+|@xp|@nx"
    r"|@addto[a-z]*|@setfontsize|@dblarg|@sanitize|@sect|@ssect|@xsect)(?![A-Za-z@])"
)
MAX_GROUP = 2**20
"""Characters of an argument or a definition at the most."""


def group_end(text: str, start: int) -> int | None:
    """Position behind the `}` that closes the `{` at `start`; None where it is not closed."""
    depth = 0
    for found in _BRACES.finditer(text, start, start + MAX_GROUP):
        brace = found[0]
        if brace == "{":
            depth += 1
        elif brace == "}":
            depth -= 1
            if not depth:
                return found.end()
    return None


def bracket_end(text: str, start: int) -> int | None:
    """Position behind the `]` that closes the `[` at `start`, outside of braces; None where it is not closed."""
    depth = 0
    for found in _BRACKETS.finditer(text, start, start + MAX_GROUP):
        mark = found[0]
        if mark == "{":
            depth += 1
        elif mark == "}":
            depth -= 1
            if depth < 0:
                return None
        elif mark == "]" and not depth:
            return found.end()
    return None


def skip(text: str, at: int) -> int:
    """Position behind blanks and at most one end of line."""
    found = SPACES.match(text, at)
    assert found is not None
    return found.end()


@dataclass(frozen=True)
class Parameter:
    """How an argument is read."""

    default: str | None = None
    """What an optional argument is where it is not given; null: mandatory."""
    delimiter: re.Pattern[str] | None = None
    """What ends a delimited argument (TeXbook, chapter 20); a brace, backslash pair or the delimiter matches."""
    literal: str = ""
    """The delimiter."""


@dataclass(frozen=True)
class Macro:
    """A macro of the author."""

    name: str
    parameters: tuple[Parameter, ...]
    body: tuple[str | int, ...]
    """Text, and numbers of parameters from 0."""
    prefix: str = ""
    """What must follow the name before the first argument."""
    frozen: bool = False
    """The body is a command of LaTeX itself by another name (`\\let`): not to be expanded further."""
    star: tuple[str | int, ...] | None = None
    """Body of the starred form, where there is one."""
    at: bool = False
    """Whether `@` is a letter in the body."""
    program: bool = False
    """The body computes: substitution cannot do what it says."""


def make(
    name: str, parameters: tuple[Parameter, ...], body: str, prefix: str = "", frozen: bool = False
) -> Macro:
    """A macro from the text of its body."""
    return Macro(
        name,
        parameters,
        parts(body, len(parameters)),
        prefix,
        frozen,
        at="@" in body and _INTERNAL.search(body) is not None,
        program=_PROGRAM.search(body) is not None,
    )


def parts(body: str, count: int) -> tuple[str | int, ...]:
    """Text and numbers of parameters, from 0; `##` is a `#`."""
    if "#" not in body:
        return (body,)
    found: list[str | int] = []
    at = 0
    for mark in _PARAMETER.finditer(body):
        found.append(body[at : mark.start()])
        at = mark.end()
        if mark[1] == "#":
            found.append("#")
        elif 1 <= int(mark[1]) <= count:
            found.append(int(mark[1]) - 1)
        else:
            found.append(mark[0])
    found.append(body[at:])
    return tuple(p for p in found if p != "")


def delimited(text: str) -> tuple[str, tuple[Parameter, ...]] | None:
    """What must follow the name, and the parameters, of the parameter text of `\\def`; None where it is none."""
    pieces = re.split(r"#(\d)", text)
    prefix, found = pieces[0], []
    for i in range(1, len(pieces), 2):
        if int(pieces[i]) != i // 2 + 1:
            return None
        literal = pieces[i + 1]
        if literal.endswith("#"):
            return None  # `#{`
        if not literal:
            found.append(Parameter())
            continue
        ends = "(?![A-Za-z])" if re.search(r"\\[A-Za-z]+$", literal) else ""
        shown = r"\s+" if literal.isspace() else re.escape(literal)
        found.append(Parameter(None, re.compile(rf"(?P<end>{shown}{ends})|\\[\s\S]|[{{}}]"), literal))
    return prefix.lstrip(), tuple(found)
