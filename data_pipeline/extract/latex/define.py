"""Definitions: `\\newcommand` and its kin, `\\def`, `\\let`, operators, paired delimiters, conditionals of the author."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from data_pipeline.extract.latex.macros import (
    Macro,
    Parameter,
    delimited,
    make,
    parts,
    skip,
)

if TYPE_CHECKING:
    from data_pipeline.extract.latex.expand import Expander

PROTECTED = frozenset(
    re.findall(
        r"\w+",
        """part chapter section subsection subsubsection paragraph subparagraph title author date thanks maketitle abstract
        documentclass documentstyle label ref eqref pageref cite citep citet citealt citealp caption item footnote
        includegraphics bibliography bibliographystyle bibitem appendix par newpage clearpage centering left right
        tableofcontents href hline cline multicolumn""",
    )
)
"""Commands that keep their names where a paper gives them another look: the structure of the text."""
KERNEL = (
    make("@firstofone", (Parameter(),), "#1"),
    make("@firstoftwo", (Parameter(), Parameter()), "#1"),
    make("@secondoftwo", (Parameter(), Parameter()), "#2"),
    make("@gobble", (Parameter(),), ""),
    make("@empty", (), ""),
)
"""Macros of LaTeX's kernel with which authors write their own."""
_NAME = re.compile(r"\\([A-Za-z@]+|[^\sA-Za-z{}])")
_COUNT = re.compile(r"\[\s*(\d)\s*\]")
_PREFIXES = re.compile(
    r"\s*\\(?:def|gdef|edef|xdef|let|long|global|outer|protected|newcommand|renewcommand|futurelet)(?![A-Za-z])"
)
_GROUPS = re.compile(r"\\(?:(begin|end)(?=\s*\{)|(begingroup|bgroup)|(endgroup|egroup)|[\s\S])|([{}])")
REACH = 2**16
"""Characters behind a definition in which the end of its group is looked for."""
_PARAMETERS = re.compile(r"[^{}]{0,500}")


def commands(expander: Expander) -> dict[str, Callable[[re.Match[str]], None]]:
    """What each defining command does."""
    definitions = _Definitions(expander)
    return {
        "newcommand": definitions.newcommand,
        "renewcommand": definitions.newcommand,
        "providecommand": definitions.newcommand,
        "DeclareRobustCommand": definitions.newcommand,
        "newrobustcmd": definitions.newcommand,
        "NewDocumentCommand": definitions.document_command,
        "RenewDocumentCommand": definitions.document_command,
        "ProvideDocumentCommand": definitions.document_command,
        "DeclareDocumentCommand": definitions.document_command,
        "def": definitions.plain,
        "gdef": definitions.plain,
        "edef": definitions.plain,
        "xdef": definitions.plain,
        "let": definitions.let,
        "DeclareMathOperator": definitions.operator,
        "DeclarePairedDelimiter": definitions.paired,
        "newif": definitions.newif,
        "newenvironment": definitions.environment,
        "renewenvironment": definitions.environment,
        "long": definitions.prefix,
        "global": definitions.prefix,
        "outer": definitions.prefix,
        "protected": definitions.prefix,
    }


def enclosing_end(text: str, at: int) -> int | None:
    """Position of what closes the group around `at`: `}`, `\\end{…}`, `\\endgroup`; None where none is near."""
    depth = 0
    for found in _GROUPS.finditer(text, at, at + REACH):
        if found[1] == "begin" or found[2] or found[4] == "{":
            depth += 1
        elif found[1] == "end" or found[3] or found[4] == "}":
            depth -= 1
            if depth < 0:
                document = re.match(r"\\end\s*\{document\}", text[found.start() : found.start() + 40])
                return None if document else found.start()
    return None


class _Definitions:
    def __init__(self, expander: Expander) -> None:
        self._expander = expander

    def _name(self, text: str, at: int) -> tuple[str, int] | None:
        """Name that is defined, with or without braces, and the position behind it."""
        at = skip(text, at)
        braced = text.startswith("{", at)
        if braced:
            at = skip(text, at + 1)
        found = _NAME.match(text, at)
        if found is None:
            return None
        at = found.end()
        if braced:
            at = skip(text, at)
            if not text.startswith("}", at):
                return None
            at += 1
        return found[1], at

    def _body(self, text: str, at: int) -> tuple[str, int] | None:
        """Contents of a group, or one token."""
        at = skip(text, at)
        if text.startswith("{", at):
            end = self._expander.group_end(text, at)
            return None if end is None else (text[at + 1 : end - 1], end)
        found = _NAME.match(text, at)
        if found is not None:
            return found[0], found.end()
        return (text[at], at + 1) if at < len(text) and text[at] not in "}\n" else None

    def _finish(self, found: re.Match[str], end: int) -> None:
        """Go on behind a definition, with the end of its line where nothing else stands there."""
        expander = self._expander
        frame = expander.top
        frame.pos = end
        line = re.compile(r"[ \t]*\n").match(frame.text, end)
        if line is not None and expander.blank_before(found.start()):
            frame.pos = line.end()

    def _keep(self, macro: Macro, everywhere: bool = False) -> None:
        if macro.name not in PROTECTED:
            self._expander.set_name(macro.name, macro, everywhere or self._expander.global_next)
        self._expander.global_next = False

    def newcommand(self, found: re.Match[str]) -> None:
        """`\\newcommand*{\\name}[count][default]{body}`."""
        expander = self._expander
        text = expander.top.text
        at = skip(text, expander.top.pos)
        at += text.startswith("*", at)
        named = self._name(text, at)
        if named is None:
            expander.emit(found[0])
            return
        name, at = named
        count, default = 0, None
        number = _COUNT.match(text, skip(text, at))
        if number is not None:
            count, at = int(number[1]), number.end()
            start = skip(text, at)
            if text.startswith("[", start) and (end := self._expander.bracket_end(text, start)) is not None:
                default, at = text[start + 1 : end - 1], end
        body = self._body(text, at)
        if body is None:
            expander.emit(found[0])
            return
        parameters = tuple(Parameter(default if i == 0 else None) for i in range(count))
        self._finish(found, body[1])
        if found[1] != "providecommand" or name not in expander.names:
            self._keep(make(name, parameters, body[0]))

    def document_command(self, found: re.Match[str]) -> None:
        """`\\NewDocumentCommand{\\name}{specification}{body}` with the specifications `m`, `o`, `O{…}`, and `s` unused."""
        expander = self._expander
        text = expander.top.text
        named = self._name(text, expander.top.pos)
        specification = self._body(text, named[1]) if named else None
        body = self._body(text, specification[1]) if specification else None
        if named is None or specification is None or body is None:
            expander.emit(found[0])
            return
        self._finish(found, body[1])
        kinds = re.findall(r"O\s*\{([^{}]*)\}|([a-zA-Z+!])", specification[0])
        parameters = []
        for default, kind in kinds:
            if kind in ("+", "!"):
                continue
            if kind not in ("", "m", "o"):
                return  # what it reads is not known: its calls stay
            parameters.append(Parameter(None if kind == "m" else default))
        self._keep(make(named[0], tuple(parameters), body[0]))

    def plain(self, found: re.Match[str]) -> None:
        """`\\def\\name#1.#2{body}`."""
        expander = self._expander
        text = expander.top.text
        word = _NAME.match(text, skip(text, expander.top.pos))
        between = _PARAMETERS.match(text, word.end()) if word else None
        if word is None or between is None or not text.startswith("{", between.end()):
            expander.emit(found[0])
            return
        end = self._expander.group_end(text, between.end())
        if end is None:
            expander.emit(found[0])
            return
        body = text[between.end() + 1 : end - 1]
        self._finish(found, end)
        pattern = delimited(between[0])
        if pattern is None:
            return
        if found[1] in ("edef", "xdef") and not pattern[1]:
            body = expander.expanded(body)
        self._keep(make(word[1], pattern[1], body, pattern[0]), found[1] in ("gdef", "xdef"))

    def let(self, found: re.Match[str]) -> None:
        """`\\let\\name=\\other`."""
        expander = self._expander
        text = expander.top.text
        word = _NAME.match(text, skip(text, expander.top.pos))
        if word is None:
            expander.emit(found[0])
            return
        at = skip(text, word.end())
        if text.startswith("=", at):
            at = skip(text, at + 1)
        other = _NAME.match(text, at)
        self._finish(found, other.end() if other else at + 1)
        if other is None:
            if at < len(text) and text[at] not in "{}\n":
                self._keep(make(word[1], (), text[at]))
            return
        entry = expander.names.get(other[1])
        if isinstance(entry, Macro):
            if entry.name != word[1]:
                self._keep(entry)
                if word[1] not in PROTECTED:
                    expander.set_name(word[1], entry)
        elif word[1].startswith("if") or other[1] == "relax":
            expander.set_name(word[1], None)
        else:
            self._keep(make(word[1], (), other[0], frozen=True))

    def operator(self, found: re.Match[str]) -> None:
        """`\\DeclareMathOperator{\\name}{text}` (amsopn)."""
        expander = self._expander
        text = expander.top.text
        star = text.startswith("*", expander.top.pos)
        named = self._name(text, expander.top.pos + star)
        body = self._body(text, named[1]) if named else None
        if named is None or body is None:
            expander.emit(found[0])
            return
        self._finish(found, body[1])
        self._keep(make(named[0], (), f"\\operatorname{'*' if star else ''}{{{body[0]}}}"))

    def paired(self, found: re.Match[str]) -> None:
        """`\\DeclarePairedDelimiter{\\name}{left}{right}` (mathtools)."""
        expander = self._expander
        text = expander.top.text
        named = self._name(text, expander.top.pos)
        left = self._body(text, named[1]) if named else None
        right = self._body(text, left[1]) if left else None
        if named is None or left is None or right is None:
            expander.emit(found[0])
            return
        self._finish(found, right[1])
        macro = make(named[0], (Parameter(""), Parameter()), f"#1{left[0]} #2 #1{right[0]}")
        star = parts(f"\\left{left[0]} #2 \\right{right[0]}", 2)
        self._keep(Macro(macro.name, macro.parameters, macro.body, star=star))

    def newif(self, found: re.Match[str]) -> None:
        """`\\newif\\ifname` makes `\\ifname`, `\\nametrue` and `\\namefalse`."""
        expander = self._expander
        text = expander.top.text
        word = _NAME.match(text, skip(text, expander.top.pos))
        if word is None or not word[1].startswith("if"):
            expander.emit(found[0])
            return
        self._finish(found, word.end())
        test, name = word[1], word[1][2:]
        truth = {"is": False}

        def choose(call: re.Match[str]) -> None:
            expander.choose(call, truth["is"])

        def switch(call: re.Match[str]) -> None:
            truth["is"] = call[1].endswith("true")
            self._finish(call, call.end() if expander.top.text is call.string else expander.top.pos)

        expander.set_name(test, choose, True)
        expander.set_name(name + "true", switch, True)
        expander.set_name(name + "false", switch, True)

    def environment(self, found: re.Match[str]) -> None:
        """`\\newenvironment{name}[count][default]{begin}{end}`: the environment keeps its name, its definition goes."""
        expander = self._expander
        text = expander.top.text
        at = skip(text, expander.top.pos)
        at += text.startswith("*", at)
        name = self._body(text, at)
        if name is None:
            expander.emit(found[0])
            return
        at = name[1]
        for _ in range(2):
            start = skip(text, at)
            if text.startswith("[", start):
                at = self._expander.bracket_end(text, start) or at
        begin = self._body(text, at)
        end = self._body(text, begin[1]) if begin else None
        if end is None:
            expander.emit(found[0])
            return
        self._finish(found, end[1])

    def prefix(self, found: re.Match[str]) -> None:
        """`\\long`, `\\global`, … before a definition."""
        expander = self._expander
        if _PREFIXES.match(expander.top.text, expander.top.pos) is None:
            expander.emit(found[0])
            return
        expander.top.pos = skip(expander.top.text, expander.top.pos)
        expander.global_next |= found[1] == "global"
