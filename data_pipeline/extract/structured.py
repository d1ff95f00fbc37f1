"""Main text that a page declares in JSON-LD, for pages whose body is drawn by scripts.

`articleBody`, or what schema.org's Recipe, HowTo, FAQPage and QAPage, Product and things that are described in words say.
Strings may hold HTML, which is parsed like a page.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from data_pipeline.extract.mathml import with_tex
from data_pipeline.extract.parse import parse
from data_pipeline.extract.render import render

LEAST_CHARS = 25
"""A declared text is longer than this, and a page with less is empty."""
SHARE = 3
"""A declared text is taken where it is this many times as long as what the page shows."""
MAX_DEPTH = 12
"""Levels of a structure that are read."""
MAX_ITEMS = 20_000
"""Values of a structure that are read."""
_BODY = re.compile(rb'"articleBody"\s*:\s*"((?:[^"\\]++|\\.)*+)"')
_DESCRIBED = ("Article", "Posting", "Report", "Event", "Course", "Book", "Movie")
"""How the kinds of things end whose name and description are all that is read."""
MAX_NOTICE = 300
"""Characters up to which a page that speaks of JavaScript says only that it needs it."""
_BEGIN = re.compile(r"[{\[]")
_FOLLOWING = re.compile(r"[}\]][^{\[}\]\n]*\n[^{\[}\]\n]*(?=[{\[])")
_TRAILING_COMMA = re.compile(r",(?=\s*[}\]])")
_DECODER = json.JSONDecoder(strict=False)
_MARKUP = re.compile(r"</?[A-Za-z][A-Za-z0-9]{0,15}(?:\s[^<>]*)?/?>")
_CONTROL = re.compile(rb"[\x00-\x1f]")
_SPACE = re.compile(r"\s+")


def body(data: bytes, shown: str) -> str:
    """The text that JSON-LD declares, where the page shows far less; empty elsewhere."""
    if not data:
        return ""
    if len(shown) <= MAX_NOTICE and "javascript" in shown.lower():
        shown = ""
    bodies = list(dict.fromkeys(_plain(_unescape(m.group(1))) for m in _BODY.finditer(data)))
    # The entries of a live blog are articles of their own.
    declared = "\n".join(bodies) if b"LiveBlogPosting" in data else max(bodies, key=len, default="")
    if len(declared) <= LEAST_CHARS and len(shown) < LEAST_CHARS:
        declared = _described(data)
    enough = len(declared) > LEAST_CHARS and len(shown) < max(LEAST_CHARS, len(declared) // SHARE)
    return declared if enough else ""


def _unescape(raw: bytes) -> str:
    try:
        return str(orjson.loads(b'"' + _CONTROL.sub(b" ", raw) + b'"'))
    except orjson.JSONDecodeError:
        return raw.decode("utf-8", "replace")


def _plain(text: str) -> str:
    """Lines of a string of JSON-LD: of its markup, escaped or not, the text."""
    if "&lt;" in text and not _MARKUP.search(text):
        text = html.unescape(text)
    if _MARKUP.search(text):
        tree = parse(with_tex(text.replace("\n", "<br>").encode("utf-8", "replace")))
        return render(tree, np.ones(len(tree.blocks), bool))
    lines = (_SPACE.sub(" ", line).strip() for line in html.unescape(text).splitlines())
    return "\n".join(line for line in lines if line)


def _described(data: bytes) -> str:
    """Text of the things that a page describes; the longest of them where there are several kinds."""
    texts = []
    for value in _documents(data.decode("utf-8", "replace").replace("<![CDATA[", "").replace("]]>", "")):
        texts += ["\n".join(lines) for thing in _things(value) if (lines := _lines(thing))]
    return max(texts, key=len, default="")


def _documents(text: str) -> Iterator[Any]:
    """Values of the scripts of a page, one after the other, whatever wraps them; trailing commas are passed over."""
    at = 0
    while (begin := _BEGIN.search(text, at)) is not None:
        try:
            value, at = _DECODER.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            following = _FOLLOWING.search(text, begin.start())
            at = following.end() if following is not None else len(text)
            try:
                value, _ = _DECODER.raw_decode(_TRAILING_COMMA.sub("", text[begin.start() : at]))
            except (ValueError, RecursionError):
                continue
        yield value


def _things(value: Any) -> Iterator[dict[str, Any]]:
    """Objects in a structure, outer ones first."""
    pending = [(value, 0)]
    for _ in range(MAX_ITEMS):
        if not pending:
            return
        item, depth = pending.pop()
        if isinstance(item, dict):
            yield item
        if depth < MAX_DEPTH and isinstance(item, dict | list):
            inner = item.values() if isinstance(item, dict) else item
            pending += [(child, depth + 1) for child in inner if isinstance(child, dict | list)]


def _lines(thing: dict[str, Any]) -> list[str]:
    """Lines of an object of a kind that describes a whole page."""
    kinds = thing.get("@type")
    names = {str(kind).rsplit("/", 1)[-1] for kind in (kinds if isinstance(kinds, list) else [kinds])}
    if "Recipe" in names:
        parts = _strings(thing.get("recipeIngredient") or thing.get("ingredients"))
        steps = _steps(thing.get("recipeInstructions"))
        return [*_head(thing), *(f"- {p}" for p in parts), *steps]
    if "HowTo" in names:
        tools = [*_strings(thing.get("supply")), *_strings(thing.get("tool"))]
        return [*_head(thing), *(f"- {t}" for t in tools), *_steps(thing.get("step"))]
    if names & {"FAQPage", "QAPage"}:
        return [*_head(thing), *_questions(thing.get("mainEntity"))]
    if names & {"Product", "ProductGroup", "ProductModel"}:
        said = [
            line
            for p in _list(thing.get("additionalProperty"))
            if isinstance(p, dict)
            and (line := ": ".join([*_strings(p.get("name")), *_strings(p.get("value"))]))
        ]
        return [*_head(thing), *said]
    if any(name.endswith(_DESCRIBED) for name in names):
        return _head(thing)
    return []


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _strings(value: Any) -> list[str]:
    """Plain strings of a value: itself, its items, or the names and texts of its objects."""
    found = []
    for item in _list(value)[:MAX_ITEMS]:
        said = item.get("text") or item.get("name") if isinstance(item, dict) else item
        if isinstance(said, str | int | float) and (text := _plain(str(said))):
            found.append(text)
    return found


def _head(thing: dict[str, Any]) -> list[str]:
    name = _strings(thing.get("headline") or thing.get("name"))
    return [*name, *_strings(thing.get("description")), *_strings(thing.get("text"))]


def _steps(value: Any, depth: int = 0) -> list[str]:
    """Steps, numbered where they are several objects; sections begin with their name."""
    lines: list[str] = []
    number = 0
    for item in _list(value)[:MAX_ITEMS]:
        inner = isinstance(item, dict) and (item.get("itemListElement") or item.get("steps"))
        if inner and depth < MAX_DEPTH and not item.get("text"):
            lines += [*_strings(item.get("name")), *_steps(inner, depth + 1)]
            continue
        for text in _strings(item):
            number += 1
            lines.append(f"{number}. {text}" if isinstance(value, list) and len(value) > 1 else text)
    return lines


def _questions(value: Any) -> list[str]:
    lines: list[str] = []
    for item in _list(value)[:MAX_ITEMS]:
        if isinstance(item, dict):
            lines += _strings(item.get("name") or item.get("text"))
            lines += _strings(item.get("acceptedAnswer"))
            lines += _strings(item.get("suggestedAnswer"))
    return lines
