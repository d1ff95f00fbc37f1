"""The files of a paper: which one is the main one, what a name stands for, comments."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

VERBATIM = (
    r"verbatim\*?|Verbatim\*?|BVerbatim\*?|LVerbatim\*?|SaveVerbatim|verbatimtab|lstlisting|minted|alltt"
    r"|filecontents\*?"
)
"""Environments in which `%` and `\\` stand for themselves."""
_STOPS = re.compile(
    rf"""\\(?:
      verb\*?(?P<delimiter>[^A-Za-z*\s]).{{0,2000}}?(?P=delimiter)
    | (?:lstinline|mintinline)(?:\[[^\]\n]{{0,500}}\])?(?:\{{[a-z]+\}})?(?P<mark>[^A-Za-z*\s{{]).{{0,2000}}?(?P=mark)
    | (?:url|path|nolinkurl|href|hyperref|lstinline)\s*
      \{{[^{{}}\n]{{0,2000}}(?:\{{[^{{}}\n]{{0,500}}\}}[^{{}}\n]{{0,500}}){{0,8}}\}}
    | begin\s*\{{(?P<environment>{VERBATIM}|comment)\}}
    | [\s\S]
    )|%""",
    re.VERBOSE,
)
_ENDS_WORD = re.compile(r"\\[A-Za-z@]+$")
_LEADING = re.compile(r"[ \t]*")
_CLASS = re.compile(r"\\document(?:class|style)(?![A-Za-z])\s*(?:\[[^\]]*\])?\s*\{\s*([^{}]*?)\s*\}")
_DOCUMENT = re.compile(r"\\begin\s*\{\s*document\s*\}")
_INCLUDES = re.compile(
    r"\\(?:input|include|subfile|(?:sub)?import\s*\{([^{}]*)\})(?![A-Za-z])\s*\{?\s*([^\s{}\\%]+)"
)
_SECTION = re.compile(
    r"\\(?:chapter|section|begin\s*\{(?:abstract|thebibliography)\}|bibliography)(?![A-Za-z])"
)
_PLAIN_TEX = re.compile(
    r"\\(?:bye|magnification|input\s+(?:amstex|harvmac|phyzzx|jytex|tcilatex)|end\s*$)(?![A-Za-z])", re.M
)
_SIDE_PAPERS = re.compile(
    r"supp|rebuttal|letter|response|reply|cover|poster|slides|diff|template|sample|appendix|errata|old|backup|ver\d",
    re.I,
)
_SIDE_CLASSES = re.compile(r"standalone|beamer|letter|slides|poster|minimal", re.I)
MAIN_NAMES = ("ms", "main", "paper", "article", "manuscript", "root", "arxiv")
"""Names that a main file usually has; the first counts most."""


@dataclass(frozen=True)
class Bundle:
    """Files of a paper as text."""

    main: str
    """Name of the file that TeX is run on."""
    files: dict[str, str]
    """Text by name: relative, with `/`, without `.` and `..`."""

    def to_bytes(self) -> bytes:
        """The same bytes for the same files."""
        return orjson.dumps({"main": self.main, "files": self.files}, option=orjson.OPT_SORT_KEYS)

    def resolve(
        self, name: str, folders: Iterable[str], suffixes: tuple[str, ...] = (".tex", "")
    ) -> str | None:
        """The file that `\\input{name}` means in one of the folders; None where the archive has none."""
        name = name.strip().strip('"').strip()
        for folder in folders:
            path = posixpath.normpath(posixpath.join(folder, name))
            if path.startswith(("/", "..")):
                continue
            for suffix in suffixes:
                if path + suffix in self.files:
                    return path + suffix
        return None


def safe_name(name: str) -> str | None:
    """Name of an archive's member, normalised; None where it leads out of the archive."""
    path = posixpath.normpath(name.replace("\\", "/"))
    return None if path.startswith(("/", "..")) or path == "." or "\0" in path else path


def find_main(files: dict[str, str], wanted: str | None = None) -> str | None:
    """Name of the file that TeX is run on, of several the likeliest; None where none is a document.

    Args:
        files: text by name.
        wanted: what the author declares in `00README`.
    """
    if wanted is not None and wanted in files:
        return wanted
    bare = {name: without_comments(text) for name, text in files.items() if _is_tex(name)}
    documents = {name: found[1] for name, text in bare.items() if (found := _CLASS.search(text)) is not None}
    targets = {name: _targets(name, text, bare) for name, text in bare.items()}
    # A file without a class may be a frame around the main file: what it includes is no part of a document for that.
    parts = {target for name in documents or bare for target in targets[name] if target != name}

    def rank(name: str) -> tuple[object, ...]:
        stem = posixpath.splitext(posixpath.basename(name))[0].lower()
        texts = [bare[name], *(bare[target] for target in targets[name])]
        return (
            _SIDE_CLASSES.search(documents[name]) is None,
            any(map(_DOCUMENT.search, texts)),
            name not in parts,
            _SIDE_PAPERS.search(name) is None,
            -name.count("/"),
            any(map(_SECTION.search, texts)),
            -MAIN_NAMES.index(stem) if stem in MAIN_NAMES else -len(MAIN_NAMES),
            sum(map(len, texts)),
            [-ord(c) for c in name],
        )

    if documents:
        main = max(documents, key=rank)
        frames = [n for n in bare if main in targets[n] and n not in documents and n not in parts]
        return min(frames, key=lambda n: (len(n), n)) if frames else main
    # Plain TeX, or a class that the file leaves to another one.
    plain = [n for n in bare if n not in parts and (_PLAIN_TEX.search(bare[n]) or _DOCUMENT.search(bare[n]))]
    if not plain and len(bare) == 1:
        plain = [n for n, text in bare.items() if re.search(r"\\[A-Za-z]{2,}|\$[^$]+\$", text)]
    return max(plain, key=lambda n: (len(bare[n]), [-ord(c) for c in n])) if plain else None


def _targets(name: str, text: str, files: dict[str, str]) -> list[str]:
    """Files that a file includes."""
    folder = posixpath.dirname(name)
    found = []
    for m in _INCLUDES.finditer(text):
        path = posixpath.normpath(posixpath.join(folder, m[1] or "", m[2]))
        found += [p for p in (path + ".tex", path) if p in files][:1]
    return found


def _is_tex(name: str) -> bool:
    return not name.lower().endswith((".sty", ".cls", ".bbl", ".def", ".cfg", ".clo"))


def without_comments(text: str) -> str:
    """Text without comments, as TeX reads lines: `%` takes the end of its line and the blanks of the next one with it.

    A line that is a comment goes whole; behind a blank the end of the line stays, because TeX sees a space there either way.
    `\\%`, verbatim text and addresses are left alone; `comment` environments go.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "%" not in text and "{comment}" not in text:
        return text
    out: list[str] = []
    unclosed: set[str] = set()
    copied = at = 0  # text before `copied` is in out
    joined = False  # the line before was joined to what follows
    while (stop := _STOPS.search(text, at)) is not None:
        at = stop.end()
        environment = stop["environment"]
        if environment is not None:
            if environment in unclosed:
                continue
            end = text.find(f"\\end{{{environment}}}", at)
            if end < 0:
                unclosed.add(environment)
                continue
            at = end + len(environment) + 6
            if environment == "comment":
                out.append(text[copied : stop.start()])
                copied = at
            continue
        if stop[0] != "%":
            continue
        start, line = stop.start(), text.rfind("\n", 0, stop.start()) + 1
        newline = text.find("\n", start)
        before = text[max(line, copied) : start]
        if newline < 0:
            out.append(text[copied:start])
            copied = at = len(text)
            break
        following = _LEADING.match(text, newline + 1)
        assert following is not None
        if not before.strip():
            out.append(text[copied : max(line, copied)])
            copied = at = following.end() if joined and line <= copied else newline + 1
            continue
        spaced = before[-1] in " \t"
        kept = text[copied:start].rstrip(" \t") if spaced else text[copied:start]
        out.append(kept + " " if spaced and kept.endswith("\\") else kept)
        rest = following.end()
        # A blank line ends the paragraph all the same.
        blank = rest == len(text) or text[rest] == "\n"
        word = rest < len(text) and text[rest].isalpha() and _ENDS_WORD.search(before[-60:])
        joined = not (blank or word or spaced)
        copied = at = rest if joined else newline
    out.append(text[copied:])
    return "".join(out)
