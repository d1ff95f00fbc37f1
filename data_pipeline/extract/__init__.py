"""Extraction: a raw record → main text, or the rule under which there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from data_pipeline.read import Record, SetAside


@dataclass(frozen=True)
class Extracted:
    """What extraction made of a record."""

    text: str
    """Main text; empty where `drop` is set."""
    drop: str | None = None
    """Rule of the funnel that drops the document."""
    fallback: bool = False
    """The text is what the page declares as its article body, or the page was too long and cut."""
    repaired: int = 0
    """Characters replaced or removed while decoding."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Of HTML: `title`, `published` (ISO 8601 day), `author`, `language_hint`, where the page states them."""
    removed: dict[str, int] = field(default_factory=dict)
    """Of wikitext: elements that were removed, by kind (`wikitext.Plain`)."""


class Unreadable(ValueError):
    """A record that is set aside, because nothing sure can be made of it; the message says why."""


def set_aside(record: Record, error: Unreadable) -> SetAside:
    """What `rejected/` says of such a record."""
    return SetAside(
        record.file,
        record.number,
        record.offset,
        f"{record.given}: {error}",
        f"{record.kind} that can be read",
    )


def extract(record: Record, keep_abstract: bool = False) -> Extracted:
    """Main text of a record by the extractor of its kind.

    Args:
        keep_abstract: of a paper.

    Raises:
        Unreadable: the record belongs to those that are set aside.
    """
    from data_pipeline.extract import html, latex, posts, wikitext
    from data_pipeline.read.charset import decode
    from data_pipeline.read.jsonl import repair

    if record.drop is not None:
        return Extracted("", record.drop)
    if record.kind == "latex":
        paper = latex.to_plain(record.payload, keep_abstract)
        if paper.reason is not None:
            raise Unreadable(paper.reason)
        return Extracted(
            paper.text,
            None if paper.text else "extract.empty",
            metadata=dict(paper.metadata),
            removed=paper.removed,
        )
    raw, replaced = decode(record.payload, record.charset, html=record.kind == "html")
    raw, removed = repair(raw)
    fallback = False
    metadata: dict[str, Any] = {}
    left_out: dict[str, int] = {}
    if record.kind == "html":
        page = html.main_text(raw.encode("utf-8", "replace"), record.url)
        text, fallback, metadata = page.text, page.fallback, page.metadata
    elif record.kind == "wikitext":
        article = wikitext.to_plain(raw)
        text, left_out = article.text, article.removed
    elif record.kind == "thread":
        text = posts.to_text(raw.encode())
    else:
        text = raw.replace("\r\n", "\n").replace("\r", "\n")
    text = repair(text)[0].rstrip().lstrip("\n")  # the first line may be code
    return Extracted(
        text, None if text else "extract.empty", fallback, replaced + removed, metadata, left_out
    )
