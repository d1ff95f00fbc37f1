"""Names of HTML: elements and what the parser does with them, attributes, character references; as hash tables.

Names are keyed by 32-bit FNV-1a of their lower-case bytes; `table` refuses names that collide.
"""

# ruff: noqa: SIM905
from __future__ import annotations

import html.entities
from collections.abc import Iterable, Mapping

import numpy as np

VOID, BLOCK, RAW, SKIP, CLOSES_P, INLINE, SCOPE, BOLD, HEADING = (1 << i for i in range(9))
"""Bits of an element: no content; breaks lines; content is not markup; content is not shown; a start ends an open
`p`; formatting; end tags do not look beyond it; shown bold; heading."""

_BLOCKS = (
    "html body address article aside blockquote center dd details dialog dir div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup hr li main menu nav ol p pre search section summary table ul "
    "tbody thead tfoot tr td th caption legend optgroup option plaintext listing xmp button noscript"
).split()
_CLOSING_P = (
    "address article aside blockquote center details dialog dir div dl dt dd li fieldset figcaption figure footer "
    "form h1 h2 h3 h4 h5 h6 header hgroup hr main menu nav ol p pre search section summary table ul listing"
).split()
_VOIDS = "area base basefont bgsound br col embed frame hr img input keygen link meta param source track wbr".split()
_RAWS = "script style textarea title noembed noframes iframe".split()
_SKIPPED = (
    "head svg select datalist template object applet audio video canvas map rp frameset colgroup progress meter"
).split()
_INLINES = (
    "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark math nobr q rb rt rtc ruby s "
    "samp small span strike strong sub sup time tt u var annotation picture slot output"
).split()
_BOLDS = "b strong h1 h2 h3 h4 h5 h6 th".split()
_SCOPES = "html body table td th caption button".split()

NAMES: tuple[str, ...] = (
    "",
    *dict.fromkeys([*_BLOCKS, *_VOIDS, *_RAWS, *_SKIPPED, *_INLINES]),
)
"""Elements by number; 0 is any other, an inline element."""
ID = {name: number for number, name in enumerate(NAMES)}
ATTRIBUTES = (
    "class id role itemprop itemtype href style hidden aria-hidden alt alttext type display aria-label start value "
    "colspan rowspan reversed open"
).split()
"""Attributes that the parser looks at, numbered from 1."""
UNSHOWN_CLASSES = (
    "katex-html mathjax mathjaxpreview mathjaxdisplay mathjax_preview mathjax_display mjx-chtml gutter linenos lineno "
    "line-numbers-rows mwe-math-fallback-image-inline mwe-math-fallback-image-display headerlink mw-editsection "
    "line-number linenumber react-syntax-highlighter-line-number lnt hljs-ln-numbers rouge-gutter"
).split()
"""Classes whose elements repeat what stands beside them (rendered maths, line numbers, anchors of headings)."""
COMMENT_SECTIONS = (
    "comments commentlist comment-list comments-list comments-area comments-section comment-section comments-container "
    "comments-wrapper comment-thread disqus_thread kommentare kommentarbereich commentaires comentarios commenti komentarze "
    "reacties comments-title"
).split()
"""Ids and classes of the elements that hold the comments of readers."""
MATH_IMAGES = "latex tex math mwe-math-fallback-image latexrender teximage".split()
"""Classes of images whose `alt` is TeX."""


def fnv(name: str) -> int:
    """32-bit FNV-1a of the UTF-8 bytes."""
    value = 2166136261
    for byte in name.encode():
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value


def properties() -> np.ndarray:
    """Bits of every element, int32 by number."""
    bits = np.zeros(len(NAMES), np.int32)
    for names, bit in (
        (_BLOCKS, BLOCK),
        (_CLOSING_P, CLOSES_P),
        (_VOIDS, VOID),
        (_RAWS, RAW),
        (_SKIPPED, SKIP),
        (_INLINES, INLINE),
        (_BOLDS, BOLD),
        (_SCOPES, SCOPE),
        (["h1", "h2", "h3", "h4", "h5", "h6"], HEADING),
    ):
        for name in names:
            bits[ID[name]] |= bit
    bits[0] |= INLINE
    return bits


def table(keys: Mapping[int, int]) -> np.ndarray:
    """Open-addressing table uint32 [2^k, 2] of (hash, value + 1), for values ≥ 0; an empty slot holds 0 twice."""
    size = 16
    while size < 3 * len(keys):
        size *= 2
    slots = np.zeros((size, 2), np.uint32)
    for key, value in keys.items():
        i = key & (size - 1)
        while slots[i, 1]:
            i = (i + 1) & (size - 1)
        slots[i] = key, value + 1
    return slots


def numbered(names: Iterable[str], start: int = 0) -> np.ndarray:
    """Table of names by their position; raises ValueError where two names have one hash."""
    keys: dict[int, int] = {}
    for number, name in enumerate(names, start):
        if keys.setdefault(fnv(name), number) != number:
            raise ValueError(f"two names share the hash of {name!r}")
    return table(keys)


def references() -> tuple[np.ndarray, np.ndarray]:
    """(table, code points int32 [n, 3]) of HTML's named character references; the third tells that `;` may miss."""
    full = {name.removesuffix(";") for name in html.entities.html5}
    names = sorted(full)
    points = np.zeros((len(names), 3), np.int32)
    for i, name in enumerate(names):
        text = html.entities.html5.get(name + ";") or html.entities.html5[name]
        points[i, : len(text)] = [ord(c) for c in text]
        points[i, 2] = name in html.entities.html5
    return numbered(names), points


_CP1252 = bytes(range(0x80, 0xA0)).decode("cp1252", "replace")
CP1252 = np.array([ord(c) for c in _CP1252], np.int32)
"""What numeric references 128-159 mean (HTML standard, 13.2.5.80)."""
