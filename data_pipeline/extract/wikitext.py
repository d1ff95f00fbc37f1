"""Wikitext → plain text: references, files and most templates go; prose, headings, lists, link labels, formulas, code,
tables of data and what formatting templates hold stay. What goes is counted by kind.

One pass resolves what nests (templates, tables, links) by matching brackets, because regular expressions cannot; the rest
is line by line. Nothing is expanded: a template's own text is not in the dump.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import dataclass

from data_pipeline.extract.wikitext_parts import (
    BAR,
    ROW,
    SCRIPT,
    is_reference,
    script,
    table,
    template,
    variant,
)

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
_DROPPED_TAGS = (
    "ref|gallery|timeline|score|imagemap|hiero|graph|mapframe|maplink|templatestyles|references|categorytree|inputbox"
    "|section"
)
_LITERAL = re.compile(
    r"<(nowiki|pre|math|chem|ce|syntaxhighlight|source)\b[^<>]*(?<!/)>(.*?)</\1\s*>", re.I | re.S
)
_KEPT = re.compile("\x00(\\d+)\x01")
_OWN = re.compile("[\x00-\x03]")
_VARIANT = re.compile(r"-\{(?!\{)((?:(?!-\{|\}-).)*)\}-", re.S)
_SELF_CLOSED = re.compile(rf"<({_DROPPED_TAGS})\b[^<>]*/>", re.I)
_PAIRED = re.compile(rf"<({_DROPPED_TAGS})\b[^<>]*>.*?</\1\s*>", re.I | re.S)
_NOWIKI = re.compile(r"<nowiki\s*/>|</?nowiki\s*>", re.I)
_BREAK = re.compile(r"<(?:br|hr)\b[^<>]*/?>|</?(?:p|div|center|blockquote|poem)\b[^<>]*>", re.I)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,500}>")
_BRACKETS = re.compile(r"\{\{|\}\}|\{\||\|\}(?!\})|\[\[|\]\]")
_PARAMETER = re.compile(r"\{\{\{[^{}]*\}\}\}")
_EXTERNAL = re.compile(r"\[(?:https?:|ftp:|mailto:|//)[^\s\]]*(?:\s+([^\[\]]*))?\]")
_QUOTES = re.compile(r"'{2,5}")
_MAGIC = re.compile(r"__[A-Z]{3,30}__")
_HEADING = re.compile(r"^(={1,6})\s*(.*?)\s*\1\s*$")
_LIST = re.compile(r"^[*#:;]+\s*")
_EMPTY_PARENTHESES = re.compile(r"\s*[(（](?:[\s,;:，；]|(?:or|and)\b)*[)）]")
_BLANKS = re.compile(r"[ \t\u00a0]{2,}")
# Namespaces whose links show no prose. Localised names are recognised by their options (`thumb`, `|200px`) below.
_HIDDEN = re.compile(
    r"^\s*:?\s*(?:file|image|category|media|datei|bild|kategorie|fichier|catégorie|archivo|imagen|categoría|file"
    r"|immagine|categoria|bestand|afbeelding|categorie|plik|grafika|kategoria|ficheiro|imagem|файл|изображение"
    r"|категория|kategori|fil|tiedosto|luokka|ファイル|画像|カテゴリ|文件|图像|分类|檔案|圖像|분류|파일|תמונה|קובץ"
    r"|קטגוריה|ملف|صورة|تصنيف|پرونده|رده|soubor|kategorie|kép|fájl|kategória|dosya|resim|kategorija|slika|datoteka"
    r"|tập tin|hình|thể loại|berkas|gambar|αρχείο|εικόνα|κατηγορία|зображення|категорія|attēls|kategoreja)\s*:",
    re.I,
)
_IMAGE_OPTION = re.compile(
    r"\|\s*(?:thumb|thumbnail|mini|miniatur|vignette|frame|\d*x?\d+\s*px)\s*(?:\||$)", re.I
)
_CAPTIONED = re.compile(r"\|[^|]*\w[^|=]*\s[^|=]*\w[^|]*$")
"""A last option of several words: the caption of a file."""
_INTERWIKI = re.compile(r"^\s*[a-z]{2,3}(?:-[a-z]+)*\s*:", re.I)
EMPTY_SECTIONS = frozenset(
    [
        "references",
        "notes",
        "footnotes",
        "citations",
        "bibliography",
        "sources",
        "external_links",
        "see_also",
        "further_reading",
        "notes_and_references",
        "einzelnachweise",
        "weblinks",
        "quellen",
        "literatur",
        "siehe_auch",
        "références",
        "notes_et_références",
        "liens_externes",
        "voir_aussi",
        "referencias",
        "enlaces_externos",
        "véase_también",
        "referenze",
        "collegamenti_esterni",
        "note",
        "voci_correlate",
        "bronnen",
        "externe_links",
        "przypisy",
        "linki_zewnętrzne",
        "referências",
        "ligações_externas",
        "ver_também",
        "примечания",
        "ссылки",
        "литература",
    ]
)
"""Headings of sections that hold lists of links, normalised; the section goes up to the next heading as high."""


@dataclass(frozen=True)
class Plain:
    """An article as text."""

    text: str
    """Paragraphs separated by empty lines, headings on lines of their own."""
    removed: dict[str, int]
    """How many elements were removed, by kind: names of tags, `template`, `template in a sentence`, `table`, `file`,
    `section`, `broken line`."""


def to_text(source: str) -> str:
    """Plain text of an article."""
    return to_plain(source).text


def to_plain(source: str) -> Plain:
    """Plain text of an article, and what was removed from it."""
    removed: Counter[str] = Counter()
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(_literal(match.group(1).lower(), match.group(2)))
        block = "\n" in kept[-1]
        return f"\n\x00{len(kept) - 1}\x01\n" if block else f"\x00{len(kept) - 1}\x01"

    def drop(match: re.Match[str]) -> str:
        removed[match.group(1).lower()] += 1
        return ""

    text = _COMMENT.sub("", _OWN.sub("", source))
    text = _LITERAL.sub(keep, text)
    text = _SELF_CLOSED.sub("", text)  # they hold no text
    text = _PAIRED.sub(drop, text)
    while (plain := _VARIANT.sub(lambda m: variant(m.group(1)), text)) != text:
        text = plain
    while (plain := _PARAMETER.sub("", text)) != text:  # parameters nest: {{{a|{{{b|}}}}}}
        text = plain
    text = _unnest(text, removed)
    text = _EXTERNAL.sub(lambda m: m.group(1) or "", text)
    text = _MAGIC.sub("", _QUOTES.sub(lambda m: "" if len(m.group()) > 1 else m.group(), text))
    text = _NOWIKI.sub("", _BREAK.sub("\n", text))
    text = html.unescape(_TAG.sub("", SCRIPT.sub(script, text)))
    text = _lines(text, removed).replace(BAR, "|").replace(ROW, "")
    return Plain(_KEPT.sub(lambda m: kept[int(m.group(1))], text), {k: n for k, n in removed.items() if n})


def _literal(tag: str, inner: str) -> str:
    """Text of an element whose content is no wikitext."""
    if tag in ("math", "chem", "ce"):
        formula = " ".join(inner.split())
        return f"$\\ce{{{formula}}}$" if formula and tag != "math" else f"${formula}$" if formula else ""
    return inner.strip("\n") if tag in ("syntaxhighlight", "source") else html.unescape(inner).strip("\n")


def _unnest(text: str, removed: Counter[str]) -> str:
    """Resolve templates and tables, and put labels in place of links, by matching brackets; files go."""
    closing = {"}}": "{{", "|}": "{|", "]]": "[["}
    # Each level: the bracket that opened it, where its text starts in `out`.
    levels: list[tuple[str, int]] = []
    out: list[str] = []
    at = 0
    for match in _BRACKETS.finditer(text):
        out.append(text[at : match.start()])
        at, bracket = match.end(), match.group()
        if bracket == "{|" and text[max(match.start() - 1, 0) : match.start()] == "{":
            out.append(bracket)  # `{{{|}}}`: an empty parameter, not a table
        elif bracket not in closing:
            levels.append((bracket, len(out)))
        elif any(opened == closing[bracket] for opened, _ in levels):
            opened, start = levels.pop()
            while opened != closing[bracket]:  # brackets that were never closed end with what encloses them
                opened, start = levels.pop()
            inner = "".join(out[start:])
            del out[start:]
            nested = any(enclosing != "[[" for enclosing, _ in levels)
            shown = _resolved(opened, inner, "" if nested else _line_before(out), text[at : at + 1], removed)
            # Inside another bracket a `|` of text is no separator.
            out.append(shown.replace("|", BAR) if levels else shown)
        elif bracket != "]]":
            continue
    out.append(text[at:])
    if levels:
        # What was never closed hides at most its own line: the author meant prose after it.
        start = levels[0][1]
        rest = "".join(out[start:])
        if levels[0][0] != "[[":
            removed["template" if levels[0][0] == "{{" else "table"] += 1
            rest = rest.partition("\n")[2]
        out[start:] = [rest]
    return "".join(out)


def _line_before(out: list[str]) -> str:
    """What stands before, in part: of the line, if anything."""
    return next((piece for piece in reversed(out) if piece), "\n").rpartition("\n")[2]


def _resolved(opened: str, inner: str, before: str, after: str, removed: Counter[str]) -> str:
    """Text of a bracket's content; what shows nothing is counted."""
    if opened == "[[":
        label = _label(inner)
        if not label and _CAPTIONED.search(inner):
            removed["file"] += 1
        return label
    if opened == "{|":
        rows = table(inner)
        removed["table"] += rows is None
        return rows or ""
    text = template(inner)
    if text is None and is_reference(inner):
        removed["ref"] += 1
    elif text is None:
        in_sentence = before.strip("*#:; ") != "" and after not in ("", "\n", "|")
        removed["template in a sentence" if in_sentence else "template"] += 1
    return text or ""


def _label(link: str) -> str:
    if _HIDDEN.match(link) or _IMAGE_OPTION.search(link):
        return ""
    target, bar, label = link.partition("|")
    if not bar:
        if _INTERWIKI.match(target) and not target.startswith(":"):
            return ""
        return target.lstrip(":").strip()
    return label.rsplit("|", 1)[-1].strip() or target.split("(")[0].rsplit(":", 1)[-1].strip()


def _lines(text: str, removed: Counter[str]) -> str:
    out: list[str] = []
    skip_above = 0  # level of the heading whose section is left out; 0: none
    pending: list[tuple[int, str]] = []  # headings whose section has shown no text yet
    for source in text.split("\n"):
        heading = _HEADING.match(source.strip())
        if heading:
            level, title = len(heading.group(1)), heading.group(2).strip()
            if skip_above and level > skip_above:
                continue
            skip_above = level if title.lower().replace(" ", "_") in EMPTY_SECTIONS else 0
            removed["section"] += skip_above > 0
            pending = [p for p in pending if p[0] < level]
            if not skip_above:
                pending.append((level, title))
            continue
        if skip_above:
            continue
        line = source
        if not source.startswith(ROW):
            line = _EMPTY_PARENTHESES.sub("", _LIST.sub("", source.strip()))
            line = _BLANKS.sub(" ", line).strip()
        if not line or line[0] in "|!" or line in ("{|", "|}", "}}", "----"):
            removed["broken line"] += line[:1] in ("|", "!") and len(line) > 2
            if out and out[-1]:
                out.append("")
            continue
        for _, title in pending:
            if out and out[-1]:
                out.append("")
            out += [title, ""]
        pending = []
        out.append(line)
    return "\n".join(out).strip()
