"""MathML → TeX, before a page is parsed: every `math` element is replaced by one whose `alttext` holds its formula.

The formula is, in this order: the TeX that the page annotates (`annotation` with an encoding that names TeX), the
`alttext` it states, or TeX written from the presentation elements of MathML Core (fractions, scripts, roots, matrices,
fences). Text of the formula itself is then no longer shown twice.
"""

# ruff: noqa: SIM905
from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

MAX_MATH_BYTES = 1 << 16
"""A longer `math` element is left as it is."""
MAX_MATH_DEPTH = 60
"""Elements nested deeper are written without structure."""
_EDGES = re.compile(rb"<(/?)((?:[a-z]{1,5}:)?math|script|style|textarea)(?=[\s/>])|<!--|-->", re.IGNORECASE)
_COMMENT = re.compile("<!--.*?(?:-->|$)", re.DOTALL)
_PIECE = re.compile(r"<(/?)([A-Za-z][\w:.-]*)((?:[^<>\"']|\"[^\"<]*\"|'[^'<]*')*)>|([^<]+)")
_ATTRIBUTE = re.compile(r"([A-Za-z:-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2061-\u2064\ufeff]")
_SPACE = re.compile(r"\s+")
_COMMAND = re.compile(r"\\[A-Za-z]+$")
_FUNCTIONS = frozenset(
    "arccos arcsin arctan arg cos cosh cot coth csc deg det dim exp gcd hom inf ker lg lim liminf limsup ln log max "
    "min Pr sec sin sinh sup tan tanh".split()
)
_OPERATORS = {
    "\u2212": "-",
    "\u2211": r"\sum",
    "\u220f": r"\prod",
    "\u222b": r"\int",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
}
"""Characters of operators and texts that TeX spells otherwise; others stay as they are in Unicode."""
_ACCENTS = {
    "^": r"\hat",
    "\u02c6": r"\hat",
    "~": r"\tilde",
    "\u02dc": r"\tilde",
    "\u00af": r"\overline",
    "\u0304": r"\overline",
    "\u203e": r"\overline",
    "\u2192": r"\vec",
    "\u20d7": r"\vec",
    "\u02d9": r"\dot",
    "\u00a8": r"\ddot",
}
_TEXT = frozenset("mi mn mo mtext ms".split())
_NOT_SHOWN = frozenset("annotation annotation-xml mphantom maligngroup malignmark none mprescripts".split())


@dataclass
class _Element:
    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[_Element | str] = field(default_factory=list)

    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text() for c in self.children)

    def elements(self) -> list[_Element]:
        return [c for c in self.children if isinstance(c, _Element) and c.name not in _NOT_SHOWN]


def with_tex(page: bytes) -> bytes:
    """The page with the formula of every `math` element as TeX in its `alttext`; linear in the bytes of the page."""
    if b"math" not in page and b"MATH" not in page:
        return page
    if not any(start in page for start in (b"<math", b":math", b"<MATH", b":MATH", b"<Math")):
        return page
    pieces: list[bytes] = []
    behind = 0
    raw = b""  # name of the element or comment whose content is not markup
    begin = -1
    for edge in _EDGES.finditer(page):
        token, name = edge.group(), (edge.group(2) or b"").lower()
        if raw:
            if token == b"-->" if raw == b"<!--" else (edge.group(1) == b"/" and name == raw):
                raw = b""
        elif token == b"<!--" or (name in (b"script", b"style", b"textarea") and not edge.group(1)):
            raw = name or token
        elif not name.endswith(b"math"):
            continue
        elif not edge.group(1):
            begin = edge.start() if begin < 0 else begin
        elif begin >= 0:
            end = page.find(b">", edge.end()) + 1
            if end and end - begin <= MAX_MATH_BYTES:
                pieces += [page[behind:begin], _replacement(page[begin:end])]
                behind = end
            begin = -1
    if not pieces:
        return page
    return b"".join([*pieces, page[behind:]])


def _replacement(element: bytes) -> bytes:
    root = _parse(element.decode("utf-8", "replace"))
    tex = _annotated(root) or root.attributes.get("alttext", "").strip() or _row(root, 0)
    tex = _SPACE.sub(" ", tex).strip()
    if not tex:
        return b""
    display = root.attributes.get("display", "") == "block" or root.attributes.get("mode", "") == "display"
    shown = ' display="block"' if display else ""
    return f'<math{shown} alttext="{html.escape(tex)}"></math>'.encode("utf-8", "replace")


def _parse(markup: str) -> _Element:
    """Elements of a formula; the outermost is `math`. End tags that fit nothing are passed over."""
    top = _Element("")
    stack = [top]
    for piece in _PIECE.finditer(_COMMENT.sub("", markup)):
        closing, name, attributes, text = piece.groups()
        if text is not None:
            stack[-1].children.append(_INVISIBLE.sub("", html.unescape(text)))
        elif not closing:
            said = {a[0].lower(): html.unescape(a[1] or a[2] or a[3]) for a in _ATTRIBUTE.findall(attributes)}
            element = _Element(name.rpartition(":")[2].lower(), said)
            stack[-1].children.append(element)
            if not attributes.rstrip().endswith("/") and len(stack) < MAX_MATH_DEPTH:
                stack.append(element)
        else:
            name = name.rpartition(":")[2].lower()
            open_names = [e.name for e in stack[1:]]
            if name in open_names:
                del stack[len(open_names) - open_names[::-1].index(name) :]
    first = top.elements()
    return first[0] if first else top


def _annotated(element: _Element) -> str:
    for child in element.children:
        if isinstance(child, _Element):
            if child.name == "annotation" and "tex" in child.attributes.get("encoding", "").lower():
                return child.text().strip()
            if found := _annotated(child):
                return found
    return ""


def _row(element: _Element, depth: int) -> str:
    """TeX of the children of an element, one after another."""
    return "".join(_join([_tex(child, depth + 1) for child in element.elements()])) or _escape(
        "".join(c for c in element.children if isinstance(c, str)).strip()
    )


def _join(parts: list[str]) -> list[str]:
    """Parts with a space wherever a command would run into the letters that follow it."""
    parts = [part for part in parts if part]
    return [
        part + " " if _COMMAND.search(part) and following[:1].isalnum() else part
        for part, following in zip(parts, [*parts[1:], ""], strict=False)
    ]


def _escape(text: str) -> str:
    return "".join(_OPERATORS.get(c, c) for c in text)


def _group(tex: str) -> str:
    return tex if len(tex) == 1 else "{" + tex + "}"


def _base(tex: str) -> str:
    """What a script is set on: braces only where it would otherwise be set on a part of it."""
    simple = len(tex) <= 1 or tex.isdigit() or re.fullmatch(r"\\[A-Za-z]+|\\left\(.*\\right\)|\(.*\)", tex)
    return tex if simple else "{" + tex + "}"


def _tex(element: _Element, depth: int) -> str:
    """TeX of one presentation element."""
    name = element.name
    if depth > MAX_MATH_DEPTH:
        return _escape(element.text().strip())
    if name in _TEXT:
        return _token(element)
    inner = element.elements()
    parts = [_tex(child, depth + 1) for child in inner] if name not in ("mtable", "mrow", "math") else []
    if name == "mfrac" and len(parts) == 2:
        thin = element.attributes.get("linethickness", "").strip() in ("0", "0px", "0pt")
        return (r"\binom" if thin else r"\frac") + "".join("{" + part + "}" for part in parts)
    if name == "msqrt":
        return r"\sqrt{" + "".join(_join(parts)) + "}"
    if name == "mroot" and len(parts) == 2:
        return rf"\sqrt[{parts[1]}]{{{parts[0]}}}"
    if name in ("msup", "msub", "msubsup", "munder", "mover", "munderover") and len(parts) >= 2:
        return _scripts(name, parts)
    if name == "mmultiscripts" and parts:
        return _around(element, depth)
    if name == "mfenced":
        before, after = element.attributes.get("open", "("), element.attributes.get("close", ")")
        between = element.attributes.get("separators", ",").strip()[:1]
        return _escape(before) + between.join(parts) + _escape(after)
    if name == "mtable":
        rows = [
            " & ".join(_row(cell, depth + 1) for cell in row.elements() if cell.name == "mtd")
            for row in inner
            if row.name in ("mtr", "mlabeledtr")
        ]
        return r"\begin{matrix} " + r" \\ ".join(rows) + r" \end{matrix}"
    if name == "mspace":
        return " "
    if name == "semantics" and parts:
        return parts[0]
    return _row(element, depth)


def _around(element: _Element, depth: int) -> str:
    """`mmultiscripts`: pairs of sub- and superscripts behind the base and, after `mprescripts`, before it."""
    base, *rest = [c for c in element.children if isinstance(c, _Element)]
    behind: list[str] = []
    before: list[str] = []
    scripts = behind
    for child in rest:
        if child.name == "mprescripts":
            scripts = before
        else:  # an absent script, `none`, holds its place
            scripts.append("" if child.name in _NOT_SHOWN else _tex(child, depth + 1))

    def written(parts: list[str]) -> str:
        return "".join(f"{'_^'[i % 2]}{_group(part)}" for i, part in enumerate(parts) if part)

    first = _tex(base, depth + 1)
    return (
        (f"{{}}{written(before)}" if any(before) else "")
        + (_base(first) if any(behind) else first)
        + written(behind)
    )


def _token(element: _Element) -> str:
    text = _SPACE.sub(" ", element.text())
    if element.name in ("mtext", "ms"):
        return rf"\text{{{_escape(text)}}}" if text.strip() else text
    text = text.strip()
    if element.name == "mi" and text in _FUNCTIONS:
        return "\\" + text
    if element.name == "mi" and len(text) > 1 and text.isalpha():
        return rf"\mathrm{{{text}}}"
    return _escape(text)


def _scripts(name: str, parts: list[str]) -> str:
    base = parts[0]
    if name == "mover" and parts[1] in _ACCENTS:
        return f"{_ACCENTS[parts[1]]}{{{base}}}"
    below = parts[1] if name in ("msub", "msubsup", "munder", "munderover") else ""
    above = parts[-1] if name in ("msup", "mover") or len(parts) == 3 else ""
    tex = _base(base)
    if below:
        tex += "_" + _group(below)
    if above:
        tex += "^" + _group(above)
    return tex
