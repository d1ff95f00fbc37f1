"""LaTeX papers → text: inputs resolved, comments removed, macros of the author expanded, front matter and bibliography cut.

As LLaMA 1 (section 2.1, after Lewkowycz et al. 2022, appendix B) reads arXiv. What is a macro, an argument and a space is
TeX's own rule (The TeXbook, chapters 7, 8 and 20), within what substitution of text can do: `expand.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import orjson

from data_pipeline.extract.latex.expand import Bomb, Expander
from data_pipeline.extract.latex.macros import group_end
from data_pipeline.extract.latex.source import VERBATIM, Bundle

_LEVELS = (
    re.compile(r"\\(?:part|chapter|section)\b\*?\s*[\[{]"),
    re.compile(r"\\(?:subsection|subsubsection|paragraph)\b\*?\s*[\[{]"),
)
_ABSTRACT = re.compile(r"\\begin\s*\{abstract\}.{0,100000}?\\end\s*\{abstract\}", re.DOTALL)
_ABSTRACT_COMMAND = re.compile(r"\\abstract\s*(?=\{)")
_FRONT = re.compile(r"\\maketitle(?![A-Za-z])|\\end\s*\{(?:abstract|frontmatter|titlepage)\}")
_LIST_BEGIN = re.compile(r"\\begin\s*\{(thebibliography|references|biblist)\}")
_LIST_HEADING = re.compile(
    r"\\(?:chapter|section|subsection)\*?\s*\{\s*(?:References?|Bibliography|Literature cited)\s*\}\s*"
    r"(?:\\addcontentsline\s*\{[^{}]*\}\s*\{[^{}]*\}\s*\{[^{}]*\}\s*)?$",
    re.I,
)
_COMMANDS = re.compile(
    r"\\(?:bibliographystyle|bibliography|printbibliography|addbibresource|nobibliography|setcitestyle|bibpunct"
    r"|mciteSetBstSublistMode|tableofcontents|listoffigures|listoftables|maketitle)(?![A-Za-z])\*?"
    r"(?:\s*\[[^\]]*\])?(?:\s*\{[^{}]*\})*[ \t]*"
)
_BLANK = re.compile(
    rf"(\\begin\s*\{{(?P<e>{VERBATIM})\}}.{{0,50000}}?\\end\s*\{{(?P=e)\}})|(?:[ \t]*\n){{3,}}|[ \t]+\n",
    re.DOTALL,
)


@dataclass(frozen=True)
class Plain:
    """Text of a paper."""

    text: str
    """Sections in order; empty where `reason` is set."""
    reason: str | None = None
    """Why the paper cannot be read."""
    removed: dict[str, int] = field(default_factory=dict)
    """Files that are not in the archive, files that include themselves, macros that could not be expanded."""
    metadata: dict[str, object] = field(default_factory=dict)
    """`main_file`; `sections` false where the paper has none; `unexpanded`: names of macros left as they were."""


def to_plain(payload: bytes, abstract: bool = False) -> Plain:
    """Text of a paper.

    Args:
        payload: its files, as `source.Bundle.to_bytes` writes them.
        abstract: keep the abstract, which comes before the first section.
    """
    bundle = Bundle(**orjson.loads(payload))
    expander = Expander(bundle)
    try:
        text = expander.run()
    except Bomb as bomb:
        return Plain("", str(bomb), metadata={"main_file": bundle.main})
    text, sections = _from_first_section(text, abstract)
    text = _without_bibliography(text)
    text = _BLANK.sub(lambda m: m[1] or ("\n" if m[0].count("\n") == 1 else "\n\n"), text).strip()
    metadata: dict[str, object] = {"main_file": bundle.main}
    if not sections:
        metadata["sections"] = False
    if expander.unexpanded:
        metadata["unexpanded"] = sorted(expander.unexpanded)
    removed = {
        "missing files": expander.missing,
        "files that include themselves": expander.cycles,
        "macros left unexpanded": len(expander.unexpanded),
    }
    return Plain(text, None, {k: n for k, n in removed.items() if n}, metadata)


def _from_first_section(text: str, abstract: bool) -> tuple[str, bool]:
    """What begins with the first section, and whether there is one. A paper without sections is kept from behind its
    front matter, or whole."""
    kept = _abstract(text) if abstract else ""
    for level in _LEVELS:
        if (found := level.search(text)) is not None:
            return kept + text[found.start() :], True
    front = 0
    for found in _FRONT.finditer(text):
        front = found.end()
    return kept + text[front:], False


def _abstract(text: str) -> str:
    if (found := _ABSTRACT.search(text)) is not None:
        return found[0] + "\n\n"
    if (command := _ABSTRACT_COMMAND.search(text)) is not None:
        end = group_end(text, command.end())
        if end is not None:
            return "\\begin{abstract}\n" + text[command.end() + 1 : end - 1].strip() + "\n\\end{abstract}\n\n"
    return ""


def _without_bibliography(text: str) -> str:
    """Without lists of references, with their headings, and without the commands that make them; what follows stays."""
    parts: list[str] = []
    at = 0
    while (begin := _LIST_BEGIN.search(text, at)) is not None:
        before = text[at : begin.start()]
        heading = _LIST_HEADING.search(before, max(len(before) - 400, 0))
        parts.append(before[: heading.start()] if heading else before)
        end = re.compile(rf"\\end\s*\{{{begin[1]}\}}").search(text, begin.end())
        at = end.end() if end else len(text)
    parts.append(text[at:])
    return _COMMANDS.sub("", "".join(parts))
