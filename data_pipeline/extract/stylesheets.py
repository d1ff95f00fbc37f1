"""What the style sheets of a page hide: classes and ids whose elements are not displayed.

Only rules that hold by themselves count: outside of `@media` and its like, with a selector of one element (`.x`, `#x`,
`div.x`). A name that any other rule displays, as `.panel.open` does for `.panel`, is not hidden: scripts and wider windows
show it.
"""

from __future__ import annotations

import re

import numpy as np

from data_pipeline.extract import tags

MAX_NAMES = 100
"""Hidden names of a page that are looked at."""
MAX_BYTES = 1 << 20
"""Bytes of style sheets that are looked at."""
_HIDES = re.compile(rb"display\s*:\s*none\b"), re.compile(rb"visibility\s*:\s*hidden\b")
_SHOWS = re.compile(rb"display\s*:\s*(?!none\b)[a-z]|visibility\s*:\s*visible\b", re.I)
_SIMPLE = re.compile(
    rb"\s*[a-z][a-z0-9]*([.#][a-z_\x80-\xff-][\w\x80-\xff-]*)\s*|\s*([.#][a-z_\x80-\xff-][\w\x80-\xff-]*)\s*",
    re.I,
)
_COMMENT = re.compile(rb"/\*.*?\*/", re.DOTALL)
NONE = tags.table({})
"""The table of a page whose style sheets hide nothing."""


def hidden(page: bytes) -> np.ndarray:
    """Table (see `tags.table`) of the hashes of `.class` and `#id` that the page's style sheets hide."""
    sheets = b"".join(_sheets(page))
    if not sheets:
        return NONE
    names: list[bytes] = []
    begin = depth = 0
    for place in sorted(match.start() for hides in _HIDES for match in hides.finditer(sheets)):
        opened = sheets.rfind(b"{", begin, place)
        if opened < 0:  # another declaration of the rule at hand
            continue
        depth += sheets.count(b"{", begin, place) - sheets.count(b"}", begin, place)
        begin = place
        if depth != 1:
            continue
        before = max(
            sheets.rfind(b"}", 0, opened), sheets.rfind(b"{", 0, opened), sheets.rfind(b";", 0, opened)
        )
        for selector in sheets[before + 1 : opened].split(b","):
            simple = _SIMPLE.fullmatch(selector)
            if simple is not None and len(names) < MAX_NAMES:
                names.append(simple[1] or simple[2])
    unshown = [name for name in dict.fromkeys(names) if not _is_displayed(sheets, name)]
    return tags.table({tags.fnv(name.decode("utf-8", "replace")): 0 for name in unshown}) if unshown else NONE


def _sheets(page: bytes) -> list[bytes]:
    """The style sheets of a page whose braces pair, without their comments; none where they hide nothing."""
    sheets = []
    at = size = 0
    hides = False
    while (at := page.find(b"<style", at)) >= 0 and size < MAX_BYTES:
        end = page.find(b"</style", at)
        if end < 0:
            break
        sheet = page[page.find(b">", at) + 1 : end]
        at = end
        if sheet.count(b"{") != sheet.count(b"}"):
            continue
        hides = hides or b"none" in sheet or b"hidden" in sheet
        size += len(sheet)
        sheets.append(_COMMENT.sub(b"", sheet) if b"/*" in sheet else sheet)
    return sheets if hides else []


def _is_displayed(sheets: bytes, name: bytes) -> bool:
    """Whether a rule whose selector holds this name displays something."""
    at = sheets.find(name)
    while at >= 0:
        end = at + len(name)
        if not (sheets[end : end + 1].isalnum() or sheets[end : end + 1] in (b"-", b"_")):
            opened = sheets.find(b"{", end)
            closed = sheets.find(b"}", end)
            if 0 <= opened < closed and _SHOWS.search(sheets, opened, closed):
                return True
        at = sheets.find(name, end)
    return False
