"""HTML of posts → text. Posts are Markdown that a site has made into clean HTML, so nothing is judged: all of it is kept.

Code blocks, inline code and formulas (TeX between dollar signs, as text) keep every character. Elements become lines:
paragraphs and headings between blank lines, `- ` and `1. ` before items, a row of a table a line with ` | ` between cells.
"""

# ruff: noqa: SIM905
from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import Any

import orjson

_PIECE = re.compile(
    r"<(?P<end>/?)(?P<name>[A-Za-z][A-Za-z0-9]*)(?P<attributes>(?:\s(?:[^<>\"']|\"[^\"<]*\"|'[^'<]*')*)?)/?>"
    r"|<!--"
)
_ATTRIBUTE = re.compile(r"([A-Za-z-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")
_BLOCKS = frozenset(
    (
        "p",
        "div",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "blockquote",
        "pre",
        "ul",
        "ol",
        "dl",
        "table",
        "details",
        "hr",
    )
)
_LINES = frozenset(("li", "tr", "dt", "dd", "summary", "caption"))
_INLINE = frozenset(
    "a abbr b big br center cite code col colgroup del em font i img ins kbd mark q s samp small span strike strong "
    "sub sup tbody td tfoot th thead tt u var".split()
)
_SPACE = " \t\r\n"
_PLAIN_SCRIPT = re.compile(r"[+−-]?\w+")
_ORDINAL = re.compile(r"st|nd|rd|th|er|re|e|o|a|º|ª", re.IGNORECASE)
PLACEHOLDER = "enter image description here"
"""What the editor writes for an image without a description."""
MAX_SCRIPT = 60
"""Characters of a superscript or subscript that is marked; longer ones are small print."""
MAX_NUMBER = 10**6


def to_text(payload: bytes) -> str:
    """Text of a thread: title, question, then its answers as they are ordered.

    Args:
        payload: JSON `{title, question, answers}`, the last two in HTML (`read.stackexchange`).
    """
    thread: dict[str, Any] = orjson.loads(payload)
    parts = [f"Q: {title}" if (title := thread["title"].strip()) else "", plain(thread["question"])]
    for answer in thread["answers"]:
        parts += ["A:", plain(answer)]
    text = ""
    for part in filter(None, parts):
        there = len(text) - len(text.rstrip("\n"))  # a listing at the end keeps its line feeds
        text += "\n" * max(2 - there, 0) + part if text else part
    return text


def plain(source: str) -> str:
    """Text of a post in HTML. Never raises; linear in its length."""
    writer = _Writer()
    at = 0
    comments = True
    while piece := _PIECE.search(source, at):
        if piece.start() > at:
            writer.text(html.unescape(source[at : piece.start()]))
        at = piece.end()
        if piece["name"] is None:
            end = source.find("-->", at) if comments else -1
            comments = end >= 0  # one that does not end is text, and so is every later one
            if comments:
                at = end + 3
            else:
                writer.text(piece.group())
            continue
        name = piece["name"].lower()
        if name not in _INLINE and name not in _BLOCKS and name not in _LINES:
            writer.text(html.unescape(piece.group()))  # `vector<int>` that nobody escaped
        elif piece["end"]:
            writer.close(name)
        else:
            writer.open(name, piece["attributes"])
    if at < len(source):
        writer.text(html.unescape(source[at:]))
    return writer.finished()


@dataclass
class _List:
    ordered: bool
    number: int


@dataclass
class _Writer:
    """Pieces of text, and the line feeds that are due before the next one."""

    pieces: list[str] = field(default_factory=list)
    exact: int = -1
    """The last piece that must not be trimmed."""
    due: int = 0
    marker: str = ""
    """What the next text begins with: the sign of an item."""
    lists: list[_List] = field(default_factory=list)
    scripts: list[tuple[str, int]] = field(default_factory=list)
    """(`^` or `_`, pieces before it) of open superscripts and subscripts."""
    block: list[str] | None = None
    """Content of an open `pre`."""
    code: int = 0
    """Open inline `code`."""
    cells: int = 0

    def text(self, text: str) -> None:
        if self.block is not None:
            # HTML: a line feed right behind `<pre>` is not content.
            self.block.append(text if self.block else text.removeprefix("\n"))
            return
        starts = self.due or self.marker or not self.pieces
        if starts and not self.code:
            text = text.lstrip(_SPACE)
        if not text:
            return
        self.begin()
        self.pieces.append(text)
        if self.code:
            self.exact = len(self.pieces) - 1

    def begin(self) -> None:
        """Write the line feeds that are due, and the sign of an item."""
        if self.pieces and self.due:
            self.trim()
            last = self.pieces[-1]
            there = len(last) - len(last.rstrip("\n"))
            self.pieces.append("\n" * max(self.due - there, 0))
        self.due = 0
        if self.marker:
            self.pieces.append(self.marker)
            self.marker = ""

    def trim(self) -> None:
        """Remove white space from the end, as far as it is not code."""
        while len(self.pieces) - 1 > max(self.exact, 0) and not self.pieces[-1].strip(_SPACE):
            self.pieces.pop()
        if len(self.pieces) - 1 != self.exact:
            self.pieces[-1] = self.pieces[-1].rstrip(_SPACE)

    def need(self, lines: int) -> None:
        """Have so many line feeds before the next text; what is inside an item begins behind its sign."""
        if self.pieces and not self.marker:
            self.due = max(self.due, lines)

    def open(self, name: str, attributes: str) -> None:
        if self.block is not None:
            self.block.append("\n" if name == "br" else "")
            return
        if name in ("ul", "ol"):
            self.need(1 if self.lists else 2)
            self.lists.append(_List(name == "ol", _first(attributes)))
        elif name in _BLOCKS:
            self.need(2)
            if name == "pre":
                self.block = []
        elif name in _LINES:
            self.marker = ""
            self.need(1)
            self.cells = 0
            if name == "li" and self.lists:
                items = self.lists[-1]
                sign = f"{items.number}. " if items.ordered else "- "
                items.number += 1
                self.marker = "  " * min(len(self.lists) - 1, 20) + sign
        elif name == "br":
            if self.pieces:
                self.due = min(self.due + 1, 2) if self.due < 2 else self.due
        elif name in ("td", "th"):
            if self.cells:
                self.begin()
                if self.pieces:
                    self.trim()
                self.pieces.append(" | ")
                self.exact = len(self.pieces) - 1
            self.cells += 1
        elif name == "img":
            said = _attributes(attributes).get("alt", "").strip()
            if said and said.lower() != PLACEHOLDER:
                self.text(said)
        elif name in ("sup", "sub"):
            self.scripts.append(("^" if name == "sup" else "_", len(self.pieces)))
        elif name == "code":
            self.code += 1

    def close(self, name: str) -> None:
        if self.block is not None:
            if name == "pre":
                self.close_block("".join(self.block))
            return
        if name in ("ul", "ol"):
            if self.lists:
                self.lists.pop()
            self.marker = ""
            self.need(1 if self.lists else 2)
        elif name in _BLOCKS:
            self.need(2)
        elif name in _LINES:
            self.need(1)
        elif name in ("sup", "sub") and self.scripts:
            self.close_script(*self.scripts.pop())
        elif name == "code":
            self.code = max(self.code - 1, 0)

    def close_block(self, code: str) -> None:
        self.block = None
        if not code.strip():
            return
        marker = self.marker
        self.begin()
        if marker:
            self.pieces[-1] = marker.rstrip() + "\n"
        self.pieces.append(code)
        self.exact = len(self.pieces) - 1
        self.need(2)

    def close_script(self, sign: str, begin: int) -> None:
        """`10^3`, `x_i`, `e^(x + 1)`; ordinals stay joined: 1st."""
        if begin >= len(self.pieces) or self.due:
            return
        content = "".join(self.pieces[begin:])
        before = self.pieces[begin - 1][-1:] if begin else ""
        if sign == "^" and before.isdigit() and _ORDINAL.fullmatch(content):
            return
        if not content.strip() or len(content) > MAX_SCRIPT or not before.strip():
            return  # small print
        if _PLAIN_SCRIPT.fullmatch(content):
            self.pieces[begin] = sign + self.pieces[begin]
        else:
            self.pieces[begin] = f"{sign}(" + self.pieces[begin]
            self.pieces.append(")")

    def finished(self) -> str:
        if self.block is not None:
            self.close_block("".join(self.block))  # a `pre` that nobody closed
        if self.pieces:
            self.trim()
        return "".join(self.pieces)


def _attributes(text: str) -> dict[str, str]:
    return {a[0].lower(): html.unescape(a[1] or a[2] or a[3]) for a in _ATTRIBUTE.findall(text)}


def _first(attributes: str) -> int:
    """Number of the first item of an ordered list."""
    said = _attributes(attributes).get("start", "1") if attributes else "1"
    return min(int(said), MAX_NUMBER) if said.isascii() and said.isdigit() and len(said) < 10 else 1
