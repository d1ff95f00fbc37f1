"""MediaWiki XML exports: pages are cut out of the stream one by one, so a damaged page costs one page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO
from urllib.parse import quote

from lxml import etree

from configs.schema.pipeline import RecipeConfig
from data_pipeline.read import Item, Record, SetAside, Unit, excerpt
from data_pipeline.read.streams import DAMAGE, blocks, open_stream

HEAD_BYTES = 2**20
"""Bytes before the first page that are looked at."""
_PAGE, _PAGE_END = b"<page>", b"</page>"
_REDIRECT = re.compile(r"\s*#\s*\w+\s*:?\s*\[\[")


def read(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Pages of an export; redirects and pages outside the article namespace name the rule that drops them."""
    number, position, found = 0, 0, False
    site = Site()
    try:
        with open_stream(file, recipe.max_window_bytes) as stream:
            for offset, data, reason in pages(stream, recipe.max_record_bytes):
                position = offset
                if reason == "head":
                    site = Site.parse(data)
                    continue
                found = True
                if reason is not None:
                    yield SetAside(file, number, offset, reason, "<page>…</page>", excerpt(data))
                else:
                    yield _page(data, file, number, offset, site)
                number += 1
    except DAMAGE as error:
        yield SetAside(
            file,
            number,
            position,
            f"damaged stream after this offset: {error}",
            "a readable file; the rest is lost",
        )
        return
    if not found:
        yield SetAside(file, 0, 0, "no <page> in the file", "a MediaWiki XML export")


class Site:
    """Language, base URL and licence of a wiki, from the head of its export."""

    def __init__(self, language: str | None = None, base: str = "", licence: str | None = None) -> None:
        self.language, self.base, self.licence = language, base, licence

    @classmethod
    def parse(cls, head: bytes) -> Site:
        """From the bytes before the first page."""
        text = head.decode("utf-8", "replace")
        language = re.search(r'xml:lang="([a-zA-Z-]+)"', text)
        base = re.search(r"<base>([^<]+)</base>", text)
        prefix = base.group(1).rsplit("/", 1)[0] + "/" if base else ""
        licence = "CC-BY-SA" if ".wikipedia.org" in prefix else None
        return cls(language.group(1).split("-")[0].lower() if language else None, prefix, licence)


def pages(stream: IO[bytes], limit: int) -> Iterator[tuple[int, bytes, str | None]]:
    """(offset, bytes, reason) of the head (reason `head`) and of each page; a reason names what is wrong with it."""
    buffer, start, headed = b"", 0, False
    inside = skipping = False
    for block in blocks(stream):
        buffer += block
        while True:
            if not inside:
                at = buffer.find(_PAGE)
                if at < 0:
                    if not headed and len(buffer) > HEAD_BYTES:
                        yield start, buffer[:HEAD_BYTES], "head"
                        headed = True
                    if headed:
                        drop = max(len(buffer) - len(_PAGE), 0)
                        buffer, start = buffer[drop:], start + drop
                    break
                if not headed:
                    yield start, buffer[:at], "head"
                    headed = True
                buffer, start, inside = buffer[at:], start + at, True
            end = buffer.find(_PAGE_END)
            again = buffer.find(_PAGE, len(_PAGE), None if end < 0 else end)
            if again >= 0:
                if not skipping:
                    yield start, buffer[: min(again, 1024)], "a page that does not end"
                buffer, start, skipping = buffer[again:], start + again, False
                continue
            if end >= 0:
                size = end + len(_PAGE_END)
                if not skipping:
                    yield start, buffer[:size], None
                buffer, start, inside, skipping = buffer[size:], start + size, False, False
                continue
            if len(buffer) > limit and not skipping:
                yield start, buffer[:1024], f"a page larger than {limit} bytes"
                skipping = True
            if skipping:
                drop = max(len(buffer) - len(_PAGE_END), 0)
                buffer, start = buffer[drop:], start + drop
            break
    if inside and not skipping:
        yield start, buffer[:1024], "the file ends inside a page"


def _page(data: bytes, file: str, number: int, offset: int, site: Site) -> Item:
    try:
        page = etree.fromstring(
            data, etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
        )
    except etree.XMLSyntaxError as error:
        return SetAside(file, number, offset, f"not XML: {error}", "<page>…</page>", excerpt(data))
    title, namespace = page.findtext("title") or "", page.findtext("ns") or "0"
    text = page.findtext("revision/text") or ""
    url = site.base + quote(title.replace(" ", "_"), safe="/:()',!*@&=+$;") if title else None
    redirect = page.find("redirect") is not None or _REDIRECT.match(text[:200]) is not None
    model = page.findtext("revision/model") or "wikitext"
    drop = (
        "extract.namespace"
        if namespace != "0"
        else "extract.redirect"
        if redirect
        else "extract.content_model"
        if model != "wikitext"
        else None
    )
    timestamp = page.findtext("revision/timestamp")
    return Record(
        file=file,
        number=number,
        offset=offset,
        kind="wikitext",
        payload=text.encode(),
        given=url or title,
        url=url,
        charset="utf-8",
        language=site.language,
        licence=site.licence,
        date=timestamp[:10] if timestamp else None,
        drop=drop,
        metadata={"title": title, "namespace": namespace},
    )
