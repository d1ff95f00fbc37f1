"""Parts of wikitext that carry text: templates that format it, tables of data, spellings of a language's variants.

A template's own text is not in the dump, but what it is given is: of templates that only format (a unit, a foreign word, a
quotation) that is the text, and a sentence without it has a hole. Other templates are removed, and counted by the caller.
"""

from __future__ import annotations

import html
import re

from data_pipeline.extract.wikitext_templates import (
    CHARACTERS,
    FORMATS,
    LANGUAGE,
    PHONETIC,
    QUOTATION,
    REFERENCE,
)

BAR = "\x02"
"""Stands for a `|` of text, which is no separator of an enclosing template or table any more."""
ROW = "\x03"
"""Stands before the row of a table, so that its first cell is not taken for markup of a line."""

_NAMED = re.compile(r"\s*([\w \-]{1,40}?)\s*=\s*", re.S)
_PLACE = re.compile(r"\{(\d|[*+]|-1)\}")
_ATTRIBUTES = re.compile(
    r"""\s*(?:[a-zA-Z][\w:-]*\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'|]+)\s*|(?:nowrap|scope|align)\s*)+"""
)
_SPAN = re.compile(r"""\b(col|row)span\s*=\s*["']?\s*(\d{1,3})""", re.I)
_LAYOUT = re.compile(
    r"\b(?:navbox|infobox|metadata|ambox|tmbox|toc|noprint|plainlinks|mw-collapsed-nav)\b", re.I
)
_CODE = r"[a-z]{2,3}(?:-[a-z]{2,8})*"
_RULE = re.compile(rf"\s*({_CODE})\s*:\s*(.*?)\s*(?=;\s*{_CODE}\s*:|;?\s*\Z)(?:;|\Z)", re.S)
_FLAGS = re.compile(r"\s*([A-Z-](?:\s*;\s*[A-Z-])*|[a-z;\s-]*)\s*\|")
PREFERRED = ("zh-hans", "zh-cn", "zh", "sr-ec", "sr-cyrl", "sr")
"""Variants that are chosen where a text gives several; otherwise the first that it gives."""


def variant(inner: str) -> str:
    """Text of `-{…}-`: one of the spellings; what only declares a rule, or the page's title, shows nothing."""
    flags = _FLAGS.match(inner)
    if flags:
        inner = inner[flags.end() :]
        if {"H", "T", "-"} & set(flags.group(1).replace(" ", "").split(";")):
            return ""
    spellings = dict(reversed([(m.group(1), m.group(2)) for m in _RULE.finditer(inner)]))
    if not spellings or not _RULE.match(inner):
        return inner.strip()
    return next((spellings[code] for code in PREFERRED if code in spellings), list(spellings.values())[-1])


def template(inner: str) -> str | None:
    """Text that a template formats; None for templates of other kinds.

    Args:
        inner: what stands between the braces, with nothing nested left in it.
    """
    name, *given = inner.split("|")
    name = name.strip().replace("_", " ")
    name = name[:1].lower() + name[1:]
    if name in CHARACTERS:
        return CHARACTERS[name]
    form = FORMATS.get(name) or FORMATS.get(name.lower())
    if form is None:
        form = "{1}" if LANGUAGE.fullmatch(name) else "[{1}]" if PHONETIC.fullmatch(name) else None
    quotes = form is None and QUOTATION.search(name) is not None
    if form is None and not quotes:
        return None
    values: list[str] = []
    longest = ""
    for parameter in given:
        key = _NAMED.match(parameter)
        value = parameter[key.end() :] if key else parameter
        value = value.strip()
        longest = max(longest, value, key=len)
        if key is None:
            values.append(value)
        elif key.group(1).isdigit() and 0 < int(key.group(1)) < 20:
            place = int(key.group(1)) - 1
            values += [""] * (place + 1 - len(values))
            values[place] = value
        elif key.group(1) in ("u", "ul") and len(values) == 1:
            values.append(value)  # the unit of a number
        elif key.group(1).lower() in ("text", "quote", "zitat", "texte", "texto", "testo", "cita"):
            values.insert(0, value)
    if quotes or form is None:
        return f"\n{longest}\n" if longest else None

    def fill(place: re.Match[str]) -> str:
        which = place.group(1)
        if which == "*":
            return ", ".join(v for v in values if v)
        if which == "+":
            return "".join(values)
        at = -1 if which == "-1" else int(which) - 1
        return values[at] if at < len(values) and values else ""

    # Alternatives, each with all of its places filled: `{1} ({2})|{1}`.
    for alternative in form.split("|"):
        places = [m.group(1) for m in _PLACE.finditer(alternative)]
        if all(values and (p in ("*", "+", "-1") or int(p) <= len(values)) for p in places):
            return re.sub(r"\s+", " ", _PLACE.sub(fill, alternative)).strip() or None
    return None


def script(match: re.Match[str]) -> str:
    """Text of `<sup>` and `<sub>`, as pages get theirs (`data_pipeline.extract.scripts`): `10^6`, `x_i`, `H2O`, `1st`.

    Args:
        match: of SCRIPT, in text without quotes of bold and italic.
    """
    inner = html.unescape(match.group(2)).strip()
    before = match.string[max(match.start() - 2, 0) : match.start()]
    base = before[-1:]
    single = base.isalpha() and not before[:-1].isalpha()
    if match.group(1).lower() == "b":
        if not single or (not base.islower() and inner.isdigit()):
            return inner
        return f"_{inner}" if inner.isalnum() else f"_({inner})" if _FORMULA.fullmatch(inner) else inner
    if not (base.isalnum() or base in (")", "]")) or not base:
        return inner
    if _EXPONENT.fullmatch(inner):
        return f"^{inner}"
    if inner.isalpha():
        variable = inner in _VARIABLES and (single or not base.isalpha())
        greek = single and base.isascii() and not inner.isascii()
        return f"^{inner}" if variable or (greek and len(inner) == 1) else f"^({inner})" if greek else inner
    return f"^({inner})" if _FORMULA.fullmatch(inner) and not inner.isalnum() else inner


SCRIPT = re.compile(r"<su([pb])\b[^<>]{0,100}>([^<>\n]{1,40})</su[pb]\s*>", re.I)
_EXPONENT = re.compile(r"[+\-−–]?\d+|[+\-−–]")
_FORMULA = re.compile(r"(?![(\[])(?=.*[\d+\-−–])[\w+\-−–./*·,]+")
_VARIABLES = frozenset("Tijkmnpqxyz")


def is_reference(inner: str) -> bool:
    """Whether a template refers to a source, or asks for one."""
    return REFERENCE.fullmatch(inner.partition("|")[0].strip().replace("_", " ")) is not None


def table(inner: str) -> str | None:
    """Rows of a table of data, a line each, cells between ` | `; None for boxes of navigation and such.

    Cells that span columns leave the following ones empty, and those that span rows the ones below: columns stay aligned.
    """
    head, _, body = inner.partition("\n")
    if _LAYOUT.search(head):
        return None
    caption, rows = "", [[]]  # type: str, list[list[tuple[str, int, int]]]
    for line in body.split("\n"):
        mark = line.lstrip()
        if mark.startswith("|-"):
            rows.append([])
        elif mark.startswith("|+"):
            caption = _cell(mark[2:])[0]
        elif mark[:1] in ("|", "!"):
            parts = re.split(r"\|\||!!" if mark[0] == "!" else r"\|\|", mark[1:])
            rows[-1] += [_cell(part) for part in parts]
        elif mark and rows[-1]:
            text, columns, down = rows[-1][-1]
            rows[-1][-1] = f"{text} {mark}".strip(), columns, down
    lines = [caption] if caption else []
    open_: dict[int, int] = {}
    for row in rows:
        cells: list[str] = []
        for text, columns, down in row:
            while open_.get(len(cells), 0) > 0:
                open_[len(cells)] -= 1
                cells.append("")
            for k in range(columns):
                if down > 1:
                    open_[len(cells)] = down - 1
                cells.append("" if k else text)
        while row and open_.get(len(cells), 0) > 0:
            open_[len(cells)] -= 1
            cells.append("")
        while cells and not cells[-1]:
            cells.pop()
        if any(cells):
            lines.append(ROW + f" {BAR} ".join(cells))
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def _cell(source: str) -> tuple[str, int, int]:
    """(text, columns, rows) of a cell, its attributes taken off."""
    before, bar, text = source.partition("|")
    spans = {"col": 1, "row": 1}
    if bar and _ATTRIBUTES.fullmatch(before):
        spans |= {m.group(1).lower(): max(1, int(m.group(2))) for m in _SPAN.finditer(before)}
    else:
        text = source
    return " ".join(text.split()), spans["col"], spans["row"]
