"""Expansion: the text of a paper as TeX's mouth would hand it on, macros of the author replaced by what they stand for.

One pass from the first line of the main file to `\\end{document}`. A stack of frames holds what is still to be read: the
main file, below what it includes, below what a macro was replaced by; so an argument may begin in a macro and stand behind
it (`\\newcommand{\\a}{\\b} … \\a{x}`), definitions hold from where they stand, and nothing recurses in Python. What is
not a macro of the author is copied.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from data_pipeline.extract.latex import define
from data_pipeline.extract.latex.macros import (
    MAX_GROUP,
    WORD,
    WORD_AT,
    Macro,
    Parameter,
    bracket_end,
    group_end,
    skip,
)
from data_pipeline.extract.latex.source import VERBATIM, Bundle, without_comments

MAX_DEPTH = 300
"""Macros within macros: a macro that goes deeper calls itself."""
MAX_INCLUDED = 20
"""Files within files."""
GROWTH = 20
"""Times its own size that a paper may grow by."""
SLACK = 2**22
"""Characters that a paper may grow by whatever its size."""
_ENDS_WORD = re.compile(r"\\[A-Za-z@]+$")
_ENVIRONMENT = re.compile(r"\s*\{\s*([^{}\n]*?)\s*\}")
_VERBATIM = re.compile(VERBATIM)
_BARE_NAME = re.compile(r"[ \t]*([^\s{}\\%#]+)[ ]?")
_BLANKS = re.compile(r"[ \t]*")
_CONDITIONALS = re.compile(r"\\(if[A-Za-z@]*|else|fi)(?![A-Za-z@])")
_NOT_CONDITIONALS = re.compile(
    r"iff|ifthenelse|ifstrequal|ifdef(?:empty|void|string|macro)?|ifundef|ifblank|notblank|ifbool|iftoggle|ifnumcomp|ifempty|ifx?thenelse"
    r"|ifnextchar|ifstar|ifundefined|IfFileExists|ifnum(?:equal|greater|less)|ifpackageloaded|if@[A-Za-z]*"
)
_EQUAL = re.compile(r"\s*\\equal\s*\{([^{}\\]*)\}\s*\{([^{}\\]*)\}\s*")
_EMPTY = re.compile(
    r"\s*(\\relax|\\@?empty|\\\\|[&!?@*|])\s*(?:\\detokenize\s*\{(?P<text>[^{}]*)\}|(?P<plain>.{0,2000}?))\s*\1",
    re.DOTALL,
)
_NO_SPACE = frozenset(".,;:!?'/)-]}~{_^&")
_ONE_ARGUMENT = """mathbf mathcal mathrm mathbb mathfrak mathsf mathit mathscr mathtt boldsymbol bm textbf textit textrm
    textsc textsf texttt emph text mbox sqrt overline underline widehat widetilde operatorname overrightarrow"""
ARGUMENTS = dict.fromkeys(re.findall(r"\w+", _ONE_ARGUMENT), 1) | dict.fromkeys(
    ("frac", "dfrac", "tfrac", "cfrac", "binom"), 2
)
"""Commands whose argument may be a macro without braces, with their numbers of arguments."""


class Bomb(Exception):
    """A paper grows beyond bounds."""


class Frame:
    """Text that is still to be read."""

    __slots__ = ("depth", "file", "pattern", "pos", "restores", "text")

    def __init__(self, text: str, depth: int, pattern: re.Pattern[str], file: str | None = None) -> None:
        self.text, self.depth, self.pattern, self.file = text, depth, pattern, file
        self.pos = 0
        self.restores: list[tuple[int, str, Entry | None]] = []
        """(position, name, meaning) of definitions that end with their group, nearest last."""


Command = Callable[[re.Match[str]], None]
Entry = Macro | Command


class Expander:
    """Expands one paper."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._folder = posixpath.dirname(bundle.main)
        self._limit = GROWTH * sum(map(len, bundle.files.values())) + SLACK
        self._work_limit = 2 * self._limit + 2**24
        self._made = self._work = 0
        self._blank_taken = False
        self._out: list[str] = []
        self._clean: dict[str, str] = {}
        self._loaded: set[str] = set()
        self.frames: list[Frame] = []
        self.names: dict[str, Entry] = {}
        """Meaning of each name that means something here; others are copied."""
        self.in_document = False
        self.global_next = False
        self.missing = 0
        """Files that were to be included and are not in the archive."""
        self.cycles = 0
        """Files that would have included themselves."""
        self.unexpanded: set[str] = set()
        """Macros that were called and cannot be replaced by text."""
        commands: dict[str, Command] = {
            "begin": self._begin,
            "end": self._end,
            "bye": self._stop,
            "verb": self._verb,
            "lstinline": self._verb,
            "url": self._address,
            "nolinkurl": self._address,
            "input": self._input,
            "include": self._input,
            "subfile": self._input,
            "import": self._import,
            "subimport": self._import,
            "endinput": self._endinput,
            "usepackage": self._package,
            "RequirePackage": self._package,
            "makeatletter": self._at_letter,
            "makeatother": self._at_letter,
            "xspace": self._xspace,
            "iffalse": self._conditional,
            "iftrue": self._conditional,
            "if": self._if_empty,
            "ifx": self._if_empty,
            "ifmmode": self._if_mathematics,
            "@ifnextchar": self._if_next,
            "@ifstar": self._if_next,
            "mathchoice": self._choice,
            "ifthenelse": self._if_then_else,
        }
        self.names.update(commands)
        self.names.update(dict.fromkeys(ARGUMENTS, self._argument))
        self.names.update(define.commands(self))
        self.names.update({m.name: m for m in define.KERNEL})
        self.own = frozenset(self.names) - set(ARGUMENTS)
        """Names that are handled here, which a paper cannot give another meaning."""

    def run(self) -> str:
        """Text of the document: from behind `\\begin{document}`, where there is one, to its end.

        Raises:
            Bomb: it would grow beyond bounds.
        """
        self.frames = [Frame(self._file(self._bundle.main), 0, WORD, self._bundle.main)]
        self._loop(0)
        return "".join(self._out)

    def _loop(self, floor: int) -> None:
        """Read until the stack is as low as `floor`."""
        frames, names = self.frames, self.names
        while len(frames) > floor:
            frame = frames[-1]
            text, start = frame.text, frame.pos
            end = frame.restores[-1][0] if frame.restores else len(text)
            entry: Entry | None = None
            for found in frame.pattern.finditer(text, start, end):
                entry = names.get(found[1])
                if entry is not None:
                    break
            else:
                self._out.append(text[start:end])
                frame.pos = end
                if frame.restores:
                    self._restore(frame)
                elif frames[-1] is frame:
                    frames.pop()
                continue
            if found.start() > start:
                self._out.append(text[start : found.start()])
            frame.pos = found.end()
            if isinstance(entry, Macro):
                self._call(entry, found)
            else:
                entry(found)
            while frame.restores and frame.restores[-1][0] <= frame.pos:
                self._restore(frame)

    # What definitions and commands use.

    def emit(self, text: str) -> None:
        """Copy text."""
        self._out.append(text)

    def push(self, text: str, depth: int, pattern: re.Pattern[str]) -> None:
        """Read this text next.

        Raises:
            Bomb: the paper has grown beyond bounds.
        """
        self._made += len(text)
        if self._made > self._limit:
            raise Bomb(f"its macros make more than {self._limit:,} characters: they grow without bound")
        if text:
            self.frames.append(Frame(text, depth, pattern))

    def spend(self, characters: int) -> None:
        """Count characters that were looked through for the end of something.

        Raises:
            Bomb: it takes too long.
        """
        self._work += characters
        if self._work > self._work_limit:
            raise Bomb("its braces do not match: to find the ends of its arguments takes too long")

    def group_end(self, text: str, start: int) -> int | None:
        """`macros.group_end`, counted."""
        end = group_end(text, start)
        self.spend((end if end is not None else min(len(text), start + MAX_GROUP)) - start)
        return end

    def bracket_end(self, text: str, start: int) -> int | None:
        """`macros.bracket_end`, counted."""
        end = bracket_end(text, start)
        self.spend((end if end is not None else min(len(text), start + MAX_GROUP)) - start)
        return end

    @property
    def top(self) -> Frame:
        """The frame that is being read."""
        return self.frames[-1]

    def set_name(self, name: str, entry: Entry | None, everywhere: bool = False) -> None:
        """Give a name a meaning, until the end of the group where the definition stands (TeXbook, chapter 10)."""
        if name in self.own:
            return
        frame = self.frames[-1]
        if self.in_document and not everywhere and frame.file is not None:
            end = define.enclosing_end(frame.text, frame.pos)
            self.spend(
                (end if end is not None else min(len(frame.text), frame.pos + define.REACH)) - frame.pos
            )
            if end is not None:
                place = (end, name, self.names.get(name))
                frame.restores.append(place)
                # A definition of the same group that came before holds what is to come back.
                frame.restores.sort(key=lambda r: -r[0])
        if entry is None:
            self.names.pop(name, None)
        else:
            self.names[name] = entry

    def _restore(self, frame: Frame) -> None:
        _, name, entry = frame.restores.pop()
        if entry is None:
            self.names.pop(name, None)
        else:
            self.names[name] = entry

    def expanded(self, text: str) -> str:
        """Text with its macros expanded now, as `\\edef` does."""
        out, self._out = self._out, []
        floor = len(self.frames)
        # A file of its own: arguments are not looked for behind it.
        self.frames.append(Frame(text, self.top.depth + 1, self.top.pattern, ""))
        self._loop(floor)
        made, self._out = "".join(self._out), out
        return made

    def blank_before(self, start: int) -> bool:
        """Whether only blanks stand before this position in its line of the frame."""
        text = self.top.text
        return not text[text.rfind("\n", 0, start) + 1 : start].strip()

    # Macros.

    def _call(self, macro: Macro, found: re.Match[str]) -> None:
        frame = self.frames[-1]
        depth = frame.depth + 1
        if macro.frozen:
            self._join(str(macro.body[0]) if macro.body else "")
            return
        if macro.program:
            self.unexpanded.add(macro.name)
            self._out.append(found[0])
            return
        if depth > MAX_DEPTH:
            self.unexpanded.add(macro.name)
            self.names.pop(macro.name, None)
            self._out.append(found[0])
            return
        body, raw = macro.body, [found[0]]
        if macro.star is not None and frame.text.startswith("*", frame.pos):
            frame.pos += 1
            body = macro.star
        arguments = self._arguments(macro, raw)
        if arguments is None:
            self.unexpanded.add(macro.name)
            self._out.append("".join(raw))
            return
        text = "".join([part if isinstance(part, str) else "" for part in body]) if not arguments else ""
        if arguments:
            text = _substituted(body, arguments)
        if not macro.parameters and found[0][-1].isalpha():
            self._after_name(text)
        inherited = frame.pattern is WORD_AT and any("@" in argument for argument in arguments)
        pattern = WORD_AT if macro.at or inherited else WORD
        following = self._next_character()
        if following.isalpha() and _ENDS_WORD.search(text[-60:]):
            text += " "
        if text[:1].isalpha():
            self._space_behind_word()
        self.push(text, depth, pattern)

    def _arguments(self, macro: Macro, raw: list[str]) -> list[str] | None:
        """Arguments of a call; None, and in `raw` what was taken, where the text does not give them."""
        if macro.prefix:
            frame = self._to_argument() or self.frames[-1]
            at = skip(frame.text, frame.pos)
            if not frame.text.startswith(macro.prefix, at):
                return None
            raw.append(macro.prefix)
            frame.pos = at + len(macro.prefix)
        elif macro.parameters and macro.parameters[0].delimiter is not None:
            frame = self.frames[-1]
            frame.pos = skip(frame.text, frame.pos)
        arguments = []
        for parameter in macro.parameters:
            argument = self._argument_of(parameter, raw)
            if argument is None:
                return None
            arguments.append(argument)
        return arguments

    def _argument_of(self, parameter: Parameter, raw: list[str]) -> str | None:
        if parameter.delimiter is not None:
            return self._delimited(parameter.delimiter, raw)
        frame = self._to_argument()
        if frame is None:
            return parameter.default
        text, at = frame.text, skip(frame.text, frame.pos)
        if parameter.default is not None:
            if text.startswith("[", at) and (end := self.bracket_end(text, at)) is not None:
                frame.pos = end
                raw.append(text[at:end])
                inner = text[at + 1 : end - 1]
                whole = inner.startswith("{") and self.group_end(inner, 0) == len(inner)
                return inner[1:-1] if whole else inner
            return parameter.default
        if text[at] == "{":
            closed = self.group_end(text, at)
            if closed is None:
                if len(text) - at > MAX_GROUP and frame.file is None:
                    raise Bomb("an argument of its macros grows without bound")
                return None
            frame.pos = closed
            raw.append(text[at:closed])
            return text[at + 1 : closed - 1]
        if text[at] == "}":
            return None
        if text[at] == "\n":
            # An empty line is the token \par, and this the argument.
            frame.pos = at + 1
            raw.append("\n\n")
            return "\n\n"
        word = frame.pattern.match(text, at)
        frame.pos = word.end() if word else at + 1
        raw.append(text[at : frame.pos])
        return text[at : frame.pos]

    def _to_argument(self) -> Frame | None:
        """The frame in which the next argument begins: what a macro was replaced by may end before it."""
        while True:
            frame = self.frames[-1]
            if skip(frame.text, frame.pos) < len(frame.text):
                return frame
            if len(self.frames) == 1 or frame.file is not None:
                return None
            self.frames.pop()

    def _delimited(self, delimiter: re.Pattern[str], raw: list[str]) -> str | None:
        frame = self.frames[-1]
        depth = 0
        for found in delimiter.finditer(frame.text, frame.pos, frame.pos + 2**16):
            if found["end"] is not None:
                if depth:
                    continue
                argument = frame.text[frame.pos : found.start()]
                raw.append(frame.text[frame.pos : found.end()])
                frame.pos = found.end()
                whole = argument.startswith("{") and self.group_end(argument, 0) == len(argument)
                return argument[1:-1] if whole else argument
            depth += (found[0] == "{") - (found[0] == "}")
            if depth < 0:
                break
        self.spend(min(len(frame.text) - frame.pos, 2**16))
        return None

    def _after_name(self, body: str) -> None:
        """Blanks behind a name belong to it (TeXbook, chapter 3), and `{}` that guards them has done its work."""
        frame = self.frames[-1]
        text, at = frame.text, frame.pos
        if text.startswith("{}", at) and text[at + 2 : at + 3] not in ("_", "^"):
            if not _ENDS_WORD.search(body[-60:]) or body.endswith(("\\fi", "\\xspace")):
                frame.pos = at + 2
            return
        end = skip(text, at)
        self._blank_taken = end > at
        if "\n" in text[at:end] and (text[end : end + 1] in ("", "\n") or _ends_environment(body)):
            end = _blanks(text, at)
        frame.pos = end

    def _next_character(self) -> str:
        for frame in reversed(self.frames):
            if frame.pos < len(frame.text):
                return frame.text[frame.pos]
        return ""

    def _space_behind_word(self) -> None:
        """A blank where letters would run into the name before them."""
        for piece in reversed(self._out):
            if piece:
                if _ENDS_WORD.search(piece[-60:]):
                    self._out.append(" ")
                return

    def _join(self, text: str) -> None:
        if text[:1].isalpha():
            self._space_behind_word()
        self._out.append(text)
        if self._next_character().isalpha() and _ENDS_WORD.search(text):
            self._out.append(" ")

    # Commands.

    def _argument(self, found: re.Match[str]) -> None:
        """`\\mathbf\\x` is `\\mathbf{…}` whatever the macro stands for."""
        self._out.append(found[0])
        frame = self.frames[-1]
        text, at = frame.text, frame.pos
        made, changed = [], False
        for _ in range(ARGUMENTS[found[1]]):
            start = skip(text, at)
            if text.startswith("{", start):
                end = self.group_end(text, start)
                if end is None:
                    return
                made.append(text[start:end])
            elif (word := frame.pattern.match(text, start)) is not None:
                end = word.end()
                entry = self.names.get(word[1])
                known = isinstance(entry, Macro) and not entry.parameters
                made.append(f"{{{word[0]}}}" if known else word[0])
                changed |= known
            else:
                end = start + 1
                made.append(text[start:end])
            at = end
        if changed:
            frame.pos = at
            self.push("".join(made), frame.depth, frame.pattern)

    def _begin(self, found: re.Match[str]) -> None:
        frame = self.frames[-1]
        environment = _ENVIRONMENT.match(frame.text, frame.pos)
        self._out.append(found[0])
        if environment is None:
            return
        name = environment[1]
        if name == "document" and not self.in_document:
            self.in_document = True
            self._out.clear()
            self.unexpanded.clear()
            frame.pos = environment.end()
        elif _VERBATIM.fullmatch(name):
            closing = f"\\end{{{name}}}"
            end = frame.text.find(closing, environment.end())
            end = environment.end() if end < 0 else end + len(closing)
            if name.startswith("filecontents"):
                self._out.pop()  # a file for other programs
            else:
                self._out.append(frame.text[frame.pos : end])
            frame.pos = end

    def _end(self, found: re.Match[str]) -> None:
        frame = self.frames[-1]
        environment = _ENVIRONMENT.match(frame.text, frame.pos)
        if environment is not None and environment[1] == "document":
            self._subfile_or_end()
        elif environment is None and not self.in_document and frame.file is not None:
            self._stop(found)  # plain TeX
        else:
            self._out.append(found[0])

    def _subfile_or_end(self) -> None:
        """A part that is a document by itself (`subfiles`) ends here; the main file ends everything."""
        files = [i for i, frame in enumerate(self.frames) if frame.file is not None]
        if len(files) > 1 and _starts_document(self.frames[files[-1]].text):
            del self.frames[files[-1] :]
        else:
            self.frames.clear()

    def _stop(self, found: re.Match[str]) -> None:
        self.frames.clear()

    def _verb(self, found: re.Match[str]) -> None:
        frame = self.frames[-1]
        text, at = frame.text, frame.pos
        if text.startswith("*", at):
            at += 1
        if text.startswith("[", at) and found[1] == "lstinline":
            at = self.bracket_end(text, at) or at
        mark = text[at : at + 1]
        if not mark or mark.isspace() or mark.isalpha():
            end = frame.pos
        elif mark == "{" and found[1] == "lstinline":
            end = self.group_end(text, at) or frame.pos
        else:
            closing = text.find(mark, at + 1, at + 2000)
            end = frame.pos if closing < 0 else closing + 1
        self._out.append(found[0] + text[frame.pos : end])
        frame.pos = end

    def _address(self, found: re.Match[str]) -> None:
        frame = self.frames[-1]
        at = skip(frame.text, frame.pos)
        end = self.group_end(frame.text, at) if frame.text.startswith("{", at) else None
        self._out.append(found[0] + frame.text[frame.pos : end or frame.pos])
        frame.pos = end or frame.pos

    def _group(self) -> str | None:
        """The contents of the group that follows, taken."""
        frame = self.frames[-1]
        at = skip(frame.text, frame.pos)
        if not frame.text.startswith("{", at) or (end := self.group_end(frame.text, at)) is None:
            return None
        frame.pos = end
        return frame.text[at + 1 : end - 1]

    def _input(self, found: re.Match[str]) -> None:
        frame = self.frames[-1]
        name = self._group()
        if name is None:
            bare = _BARE_NAME.match(frame.text, frame.pos)
            if bare is None:
                self._out.append(found[0])
                return
            name, frame.pos = bare[1], bare.end()
        self._include(name, (self._folder, self._here()))

    def _import(self, found: re.Match[str]) -> None:
        folder, name = self._group(), self._group()
        if folder is None or name is None:
            self._out.append(found[0])
            return
        base = self._folder if found[1] == "import" else self._here()
        self._include(name, (posixpath.join(base, folder),))

    def _here(self) -> str:
        """Folder of the file that is being read."""
        return posixpath.dirname(next((f.file for f in reversed(self.frames) if f.file is not None), ""))

    def _include(self, name: str, folders: tuple[str, ...]) -> None:
        if "\\" in name:
            name = self.expanded(name)
        file = self._bundle.resolve(name, folders)
        if file is None:
            self.missing += 1
            return
        active = [frame.file for frame in self.frames if frame.file is not None]
        if file in active or len(active) > MAX_INCLUDED:
            self.cycles += 1
            return
        text = self._file(file)
        self._made += len(text)
        if self._made > self._limit:
            raise Bomb(f"its files include more than {self._limit:,} characters: they grow without bound")
        self.frames.append(Frame(text, self.top.depth, self.top.pattern, file))

    def _file(self, name: str) -> str:
        if name not in self._clean:
            text = without_comments(self._bundle.files[name])
            self._clean[name] = text.removesuffix("\n") if name != self._bundle.main else text
        return self._clean[name]

    def _endinput(self, found: re.Match[str]) -> None:
        while self.frames[-1].file is None:
            self.frames.pop()
        self.frames[-1].pos = len(self.frames[-1].text)

    def _package(self, found: re.Match[str]) -> None:
        """Definitions of a package that comes with the paper; nothing of it is text."""
        frame = self.frames[-1]
        at = skip(frame.text, frame.pos)
        end = self.bracket_end(frame.text, at) if frame.text.startswith("[", at) else None
        frame.pos = end or frame.pos
        names = self._group()
        if self.in_document or names is None:
            self._out.append(found[0])
            return
        for name in names.split(","):
            file = self._bundle.resolve(name, (self._folder,), (".sty",))
            if file is None or file in self._loaded:
                continue
            self._loaded.add(file)
            out, self._out = self._out, []
            floor = len(self.frames)
            self.frames.append(Frame(self._file(file), self.top.depth, WORD_AT, file))
            self._loop(floor)
            self._out = out

    def _at_letter(self, found: re.Match[str]) -> None:
        pattern = WORD_AT if found[1] == "makeatletter" else WORD
        for frame in reversed(self.frames):
            frame.pattern = pattern
            if frame.file is not None:
                break

    def _xspace(self, found: re.Match[str]) -> None:
        """A blank, unless what follows stands close (package xspace)."""
        following = self._next_character()
        frame = self.frames[-1]
        while frame.pos == len(frame.text) and len(self.frames) > 1 and frame.file is None:
            self.frames.pop()
            frame = self.frames[-1]
        if following == "$" and not self._blank_taken:
            return  # the end of a formula, more likely than the start of one
        if following and not following.isspace() and following not in _NO_SPACE:
            rest = frame.text[frame.pos : frame.pos + 2]
            if rest not in ("\\ ", "\\/", "\\,", "\\\\", "\\f"):
                self._out.append(" ")

    # Conditionals.

    def branches(self, start: int) -> tuple[int, int, int, int] | None:
        """Of the conditional whose branches begin at `start`: end of the first, begin and end of the second, end of all."""
        text = self.top.text
        depth, middle = 0, None
        for found in _CONDITIONALS.finditer(text, start, start + 2**18):
            word = found[1]
            if word == "fi":
                if not depth:
                    self.spend(found.end() - start)
                    first, second = middle or (found.start(), found.start())
                    return first, second, found.start(), found.end()
                depth -= 1
            elif word == "else":
                if not depth:
                    middle = (found.start(), found.end())
            elif not _NOT_CONDITIONALS.fullmatch(word) and not isinstance(self.names.get(word), Macro):
                depth += 1
        self.spend(min(len(text) - start, 2**18))
        return None

    def choose(self, found: re.Match[str], truth: bool) -> None:
        """Read one branch of a conditional and skip the other."""
        frame = self.frames[-1]
        parts = self.branches(frame.pos)
        if parts is None:
            self._out.append(found[0])
            return
        first, second, last, end = parts
        text = frame.text[frame.pos : first] if truth else frame.text[second:last]
        frame.pos = _blanks(frame.text, end)
        self.push(text[_blanks(text, 0) :], frame.depth, frame.pattern)

    def _conditional(self, found: re.Match[str]) -> None:
        self.choose(found, found[1] == "iftrue")

    def _if_empty(self, found: re.Match[str]) -> None:
        """`\\if\\relax\\detokenize{#1}\\relax`, `\\ifx&#1&` and the like in a macro ask whether an argument is empty; others
        stay."""
        frame = self.frames[-1]
        test = _EMPTY.match(frame.text, frame.pos) if frame.file is None else None
        if test is None:
            self._out.append(found[0])
            return
        frame.pos = test.end()
        self.choose(found, not (test["plain"] or test["text"] or "").strip())

    def _if_next(self, found: re.Match[str]) -> None:
        """`\\@ifnextchar x{…}{…}` and `\\@ifstar{…}{…}` look at what follows the macro."""
        raw = [found[0]]
        star = found[1] == "@ifstar"
        wanted = "*" if star else self._argument_of(Parameter(), raw)
        yes = self._argument_of(Parameter(), raw)
        no = self._argument_of(Parameter(), raw)
        if wanted is None or yes is None or no is None:
            self._out.append("".join(raw))
            return
        depth, pattern = self.frames[-1].depth, self.frames[-1].pattern
        frame = self._to_argument()
        follows = False
        if frame is not None:
            at = skip(frame.text, frame.pos)
            word = frame.pattern.match(frame.text, at)
            follows = (word[0] if word else frame.text[at]) == ("{" if wanted == "\\bgroup" else wanted)
            if follows and star:
                frame.pos = at + 1
        self.push(yes if follows else no, depth, pattern)

    def _choice(self, found: re.Match[str]) -> None:
        """Of the four styles of `\\mathchoice` that of formulas in a line."""
        raw = [found[0]]
        styles = [self._argument_of(Parameter(), raw) for _ in range(4)]
        if styles[1] is None or styles[3] is None:
            self._out.append("".join(raw))
            return
        self.push(styles[1], self.frames[-1].depth, self.frames[-1].pattern)

    def _if_mathematics(self, found: re.Match[str]) -> None:
        """`\\ifmmode x\\else$x$\\fi` is `\\ensuremath{x}`; others stay."""
        frame = self.frames[-1]
        parts = self.branches(frame.pos)
        if parts is not None:
            first, second, last, end = parts
            inner, other = frame.text[frame.pos : first].strip(), frame.text[second:last].strip()
            if other in (f"${inner}$", f"\\({inner}\\)"):
                frame.pos = end
                self.push(f"\\ensuremath{{{inner}}}", frame.depth, frame.pattern)
                return
        self._out.append(found[0])

    def _if_then_else(self, found: re.Match[str]) -> None:
        """`\\ifthenelse{\\equal{a}{b}}{…}{…}` of plain texts; others stay."""
        frame = self.frames[-1]
        start = frame.pos
        test = self._group()
        equal = _EQUAL.fullmatch(test) if test is not None else None
        yes, no = (self._group(), self._group()) if equal else (None, None)
        if equal is None or yes is None or no is None:
            frame.pos = start
            self._out.append(found[0])
            return
        self.push(yes if equal[1].strip() == equal[2].strip() else no, frame.depth, frame.pattern)


def _substituted(body: tuple[str | int, ...], arguments: list[str]) -> str:
    """The body with its arguments, tokens kept apart."""
    made = ""
    for part in body:
        piece = arguments[part] if isinstance(part, int) else part
        if piece[:1].isalpha() and _ENDS_WORD.search(made[-60:]):
            made += " "
        made += piece
    return made


def _ends_environment(body: str) -> bool:
    return re.search(r"\\(?:begin|end)\s*\{[^{}]*\}\s*$", body[-80:]) is not None


def _starts_document(text: str) -> bool:
    return re.search(r"\\documentclass(?![A-Za-z])", text[:20_000]) is not None


def _blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    assert found is not None
    return found.end()
