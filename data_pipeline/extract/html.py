"""Main text of HTML pages by trafilatura, without comments, with bounds on size and time.

Pages beyond the bounds, and pages in which trafilatura finds nothing, go to a simple extractor (text of block
elements outside navigation), and are counted as such.
"""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import lxml.html
import trafilatura
from lxml import etree

from data_pipeline.extract.tidy import tidy

MAX_CHARACTERS = 4_000_000
"""Larger pages go to the simple extractor: trafilatura takes memory and time in multiples of the page."""
MAX_TAGS = 60_000
"""Pages with more tags go to the simple extractor; crawler traps nest and repeat without end."""
MAX_DEPTH_RUN = 3_000
"""Longest run of opening tags without a closing one; deeper trees exhaust recursive walkers."""
MAX_SECONDS = 120
"""Processor time for one page: far above what the bounds on size allow, so that the verdict never hangs on the load."""

_RUN = re.compile(rf"(?:<[a-zA-Z][^<>]*>\s*){{{MAX_DEPTH_RUN}}}")
_BLOCKS = ("p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "td", "th", "pre", "blockquote", "dd", "dt")
_CHROME = (
    "script",
    "style",
    "nav",
    "header",
    "footer",
    "aside",
    "form",
    "noscript",
    "template",
    "svg",
    "iframe",
)
_SPACE = re.compile(r"\s+")

logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
logging.getLogger("htmldate").setLevel(logging.CRITICAL)


class _TooLong(Exception):
    """Extraction took more processor time than a page is worth."""


def main_text(page: str) -> tuple[str, bool]:
    """(main text, whether the simple extractor made it). The text is empty where there is none."""
    if len(page) > MAX_CHARACTERS or page.count("<") > MAX_TAGS or _is_too_deep(page):
        return simple_text(page[:MAX_CHARACTERS]), True
    try:
        with _limit(MAX_SECONDS):
            text = trafilatura.extract(page, include_comments=False, include_tables=True)
    except (_TooLong, RecursionError, etree.LxmlError, ValueError, TypeError, AttributeError):
        # trafilatura walks trees of arbitrary pages; whatever page it cannot walk, the simple extractor gets.
        text = None
    if text:
        return tidy(text), False
    return simple_text(page), True


def _is_too_deep(page: str) -> bool:
    """Whether MAX_DEPTH_RUN tags open in a row. Such a run lies between two closing tags: few pages need the search."""
    crowded = any(piece.count("<") >= MAX_DEPTH_RUN for piece in page.split("</"))
    return crowded and _RUN.search(page) is not None


def simple_text(page: str) -> str:
    """Text of block elements outside scripts, navigation and forms, one line each."""
    try:
        tree = lxml.html.document_fromstring(
            page.encode("utf-8"), parser=lxml.html.HTMLParser(encoding="utf-8")
        )
    except (etree.LxmlError, ValueError, AssertionError):
        return ""
    etree.strip_elements(tree, *_CHROME, etree.Comment, with_tail=False)
    lines = []
    for element in tree.iter(*_BLOCKS):
        if element.tag in ("td", "th", "li", "blockquote", "dd") and any(
            child.tag in _BLOCKS for child in element.iterdescendants()
        ):
            continue
        line = _SPACE.sub(" ", "".join(element.itertext())).strip()
        if line:
            lines.append(line)
    return "\n".join(lines)


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    """Raise _TooLong after so much processor time; only in main threads, which may handle signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGVTALRM, expire)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
