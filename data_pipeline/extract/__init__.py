"""Extraction: a raw record → main text, or the rule under which there is none."""

from __future__ import annotations

from dataclasses import dataclass

from data_pipeline.read import Record


@dataclass(frozen=True)
class Extracted:
    """What extraction made of a record."""

    text: str
    """Main text; empty where `drop` is set."""
    drop: str | None = None
    """Rule of the funnel that drops the document."""
    fallback: bool = False
    """The simple extractor had to step in."""
    repaired: int = 0
    """Characters replaced or removed while decoding."""


def extract(record: Record) -> Extracted:
    """Main text of a record by the extractor of its kind."""
    from data_pipeline.extract import html, wikitext
    from data_pipeline.extract.charset import decode
    from data_pipeline.read.jsonl import repair

    if record.drop is not None:
        return Extracted("", record.drop)
    raw, replaced = decode(record.payload, record.charset, html=record.kind == "html")
    raw, removed = repair(raw)
    fallback = False
    if record.kind == "html":
        text, fallback = html.main_text(raw)
    elif record.kind == "wikitext":
        text = wikitext.to_text(raw)
    else:
        text = raw.replace("\r\n", "\n").replace("\r", "\n")
    text = repair(text)[0].strip()
    return Extracted(text, None if text else "extract.empty", fallback, replaced + removed)
