"""Title, date, author and language of a page, and what kind of page it says it is: `meta`, JSON-LD, `time`, the URL."""

# ruff: noqa: SIM905
from __future__ import annotations

import html
import re
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

import numpy as np
import orjson

from data_pipeline.compiled import kernel
from data_pipeline.extract import tags
from data_pipeline.extract.layout import M_HTML, M_JSON, M_META, M_TIME, M_TITLE, TAG
from data_pipeline.extract.parse import Tree

MAX_BYTES = 1 << 16
"""Bytes of a `meta` element that are read; of JSON-LD sixteen times as many."""
SYSTEM_BYTES = 1 << 15
"""First bytes of a page in which the name of its publishing system is looked for."""
_ATTRIBUTE = re.compile(
    rb"([A-Za-z:-]{2,30})\s*=\s*(?:\"([^\"]{0,20000})\"|'([^']{0,20000})'|([^\s\"'>]{1,2000}))"
)
_TITLES = ("og:title", "twitter:title", "dc.title", "dcterms.title", "citation_title", "parsely-title")
_DATES = (
    "article:published_time",
    "datepublished",
    "og:published_time",
    "og:article:published_time",
    "citation_publication_date",
    "citation_date",
    "dc.date.issued",
    "dcterms.issued",
    "dcterms.created",
    "dc.date",
    "dcterms.date",
    "date.created",
    "datecreated",
    "parsely-pub-date",
    "sailthru.date",
    "publish-date",
    "publish_date",
    "publication_date",
    "publicationdate",
    "pubdate",
    "release_date",
    "cxenseparse:recs:publishtime",
    "date",
    "last-modified",
    "article:modified_time",
    "og:updated_time",
)
_AUTHORS = (
    "author",
    "article:author",
    "dc.creator",
    "dcterms.creator",
    "citation_author",
    "parsely-author",
    "sailthru.author",
    "twitter:creator",
    "byl",
)
_LANGUAGES = ("og:locale", "content-language", "language", "dc.language", "dcterms.language", "inlanguage")
_JSON_STRING = rb'"\s*:\s*"((?:[^"\\]++|\\.)*+)"'
_HEADLINE = re.compile(rb'"headline' + _JSON_STRING)
_PUBLISHED = re.compile(rb'"(?:datePublished|dateCreated|uploadDate)' + _JSON_STRING)
_DATETIME = re.compile(rb"datetime\s*=\s*[\"']?([^\"'>]{6,40})", re.I)
_IN_LANGUAGE = re.compile(rb'"inLanguage' + _JSON_STRING)
_AUTHOR = re.compile(rb'"author"\s*:\s*[\[{][^\]}]{0,400}?"name' + _JSON_STRING)
_AUTHOR_NAME = re.compile(rb'"author' + _JSON_STRING)
_ISO = re.compile(r"(?<!\d)((?:19|20)\d\d)[-/.]?([01]\d)[-/.]?([0-3]\d)(?!\d)")
_DAY_FIRST = re.compile(r"(?<!\d)([0-3]?\d)\.\s?([01]?\d)\.((?:19|20)\d\d)(?!\d)")
_ENGLISH = re.compile(
    r"\b([0-3]?\d)\.?\s+([A-Za-z]{3})[a-z]*\.?,?\s+((?:19|20)\d\d)\b|\b([A-Z][a-z]{2})[a-z]*\.?\s+([0-3]?\d),?\s+((?:19|20)\d\d)\b"
)
_MONTHS = {m: i for i, m in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
_IN_URL = re.compile(
    r"/((?:19|20)\d\d)[/_-]?([01]\d)[/_-]?([0-3]\d)(?=\D|$)|/((?:19|20)\d\d)/(\d\d?)/(\d\d?)/"
)
_LANGUAGE = re.compile(r"\s*([A-Za-z]{2,3})(?:[-_][A-Za-z0-9-]*)?\s*(?:$|[,;])")
_SPACE = re.compile(r"\s+")
_KINDS = (
    re.compile(rb"og:type[\"'][^>]{0,60}article", re.I),
    re.compile(rb'"@type"\s*:\s*\[?\s*"[A-Za-z]{0,12}(?:Article|Posting)"'),
    re.compile(rb'"@type"\s*:\s*\[?\s*"Product(?:Group)?"|og:type["\'][^>]{0,60}product'),
    re.compile(rb'"@type"\s*:\s*\[?\s*"(?:DiscussionForumPosting|QAPage|Question|Answer)"'),
    re.compile(rb'"@type"\s*:\s*\[?\s*"(?:ItemList|CollectionPage|SearchResultsPage|OfferCatalog)"'),
    re.compile(rb'"articleBody"'),
    re.compile(
        rb'"@type"\s*:\s*\[?\s*"(?:Organization|LocalBusiness|Service|ProfessionalService|Corporation)"'
    ),
)
_SYSTEMS = (
    (b"wp-content",),
    (b"mediawiki", b"sphinx", b"docusaurus", b"mkdocs", b"gitbook", b"readthedocs"),
    (b"cdn.shopify", b"woocommerce", b"Magento"),
    (b"phpbb", b"vbulletin", b"xenforo", b"XenForo", b"discourse", b"invisioncommunity"),
)
_DISCUSSION = 3
"""Place of the kind for discussions in _KINDS; their software is the last of _SYSTEMS."""
_FORUM = re.compile(
    r"^\w+://[^/]*(?:forum|discuss|community|reddit|answers)|/(?:forums?|threads?|topics?|t|r|questions|discussions?|q)/"
    r"|viewtopic|showthread|item\?id=",
    re.I,
)
_COUNTED = ("p", "li", "td", "article", "form", "h3", "button", "time")
N_PAGE = len(_KINDS) + len(_SYSTEMS) + len(_COUNTED) + 4


@dataclass(frozen=True)
class Head:
    """What the parser marked, as bytes."""

    html: bytes
    title: bytes
    metas: list[bytes]
    json: bytes
    times: list[bytes]


def head(page: bytes, tree: Tree) -> Head:
    """Collect the marked places of a page."""
    html_tag = title = b""
    metas, times, jsons = [], [], []
    for kind, begin, end in tree.marks.tolist():
        if kind == M_META:
            metas.append(page[begin : min(end, begin + MAX_BYTES)])
        elif kind == M_JSON:
            jsons.append(page[begin : min(end, begin + 16 * MAX_BYTES)])
        elif kind == M_TIME:
            times.append(page[begin : min(end, begin + MAX_BYTES)])
        elif kind == M_TITLE and not title:
            title = page[begin : min(end, begin + MAX_BYTES)]
        elif kind == M_HTML and not html_tag:
            html_tag = page[begin : min(end, begin + MAX_BYTES)]
    return Head(html_tag, title, metas, b"\n".join(jsons), times)


def page_features(page: bytes, tree: Tree, found: Head) -> np.ndarray:
    """What the page says it is, and shares of its elements; float64 [N_PAGE]."""
    said = b"".join(found.metas) + found.json
    count = np.bincount(tree.nodes[:, TAG], minlength=len(tags.NAMES))
    blocks = max(1, len(tree.blocks))
    values = [float(kind.search(said) is not None) for kind in _KINDS]
    systems = np.zeros(len(_SYSTEMS))
    find_systems(np.frombuffer(bytearray(page[:SYSTEM_BYTES]), np.uint8), *_system_names(), systems)
    values += systems.tolist()
    values += [float(np.log1p(count[tags.ID[name]])) for name in _COUNTED]
    values += [
        float(count[tags.ID["main"]] > 0),
        count[tags.ID["p"]] / blocks,
        count[tags.ID["a"]] / blocks,
        float(np.log1p(count[tags.ID["h2"]])),
    ]
    return np.array(values)


@kernel("void(uint8[::1], uint8[::1], uint8[:,::1], int64[::1], int64[::1], float64[::1])")
def find_systems(data, begins, names, lengths, system, found):
    """Set `found` to 1 for each of _SYSTEMS that has a name in the data; one pass for all names.

    Args:
        begins: uint8 [65536], number of the name that begins with two bytes, from 1; 0: none.
        names: uint8 [names, longest]; lengths, system: int64 [names].
    """
    for i in range(len(data) - 1):
        name = np.int64(begins[np.int64(data[i]) | np.int64(data[i + 1]) << 8])
        if name == 0 or i + lengths[name - 1] > len(data):
            continue
        name -= 1
        k = 2
        while k < lengths[name] and data[i + k] == names[name, k]:
            k += 1
        if k == lengths[name]:
            found[system[name]] = 1.0


@cache
def _system_names() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """_SYSTEMS as `find_systems` takes them."""
    pairs = [(name, i) for i, names in enumerate(_SYSTEMS) for name in names]
    begins = np.zeros(1 << 16, np.uint8)
    names = np.zeros((len(pairs), max(len(name) for name, _ in pairs)), np.uint8)
    for k, (name, _) in enumerate(pairs):
        assert not begins[name[0] | name[1] << 8], "two names begin alike"
        begins[name[0] | name[1] << 8] = k + 1
        names[k, : len(name)] = list(name)
    return begins, names, np.array([len(name) for name, _ in pairs]), np.array([i for _, i in pairs])


def is_forum(features: np.ndarray, url: str | None) -> bool:
    """Whether a page is a discussion, by what it says, by its software or by its address."""
    return bool(
        features[_DISCUSSION] or features[len(_KINDS) + len(_SYSTEMS) - 1] or (url and _FORUM.search(url))
    )


def describe(found: Head, url: str | None) -> dict[str, Any]:
    """`title`, `published` (ISO 8601 day), `author` and `language_hint` (ISO 639) where the page states them."""
    said = _meta_values(found.metas)
    result = {
        "title": _first(said, _TITLES)
        or _json(_HEADLINE, found.json)
        or _clean(found.title.decode("utf-8", "replace")),
        "published": _published(said, found, url),
        "author": _author(said, found.json),
        "language_hint": _language(said, found),
    }
    return {key: value for key, value in result.items() if value}


def _meta_values(metas: list[bytes]) -> dict[str, str]:
    values: dict[str, str] = {}
    for meta in metas:
        found = {
            m.group(1).lower(): m.group(2) or m.group(3) or m.group(4) or b""
            for m in _ATTRIBUTE.finditer(meta)
        }
        name = (
            found.get(b"property")
            or found.get(b"name")
            or found.get(b"itemprop")
            or found.get(b"http-equiv")
            or b""
        )
        content = found.get(b"content")
        if name and content:
            values.setdefault(name.decode("ascii", "replace").lower(), content.decode("utf-8", "replace"))
    return values


def _first(values: dict[str, str], names: tuple[str, ...]) -> str:
    for name in names:
        if text := _clean(values.get(name, "")):
            return text
    return ""


def _clean(text: str) -> str:
    return _SPACE.sub(" ", html.unescape(text)).strip()[:500]


def _unescape(raw: bytes) -> str:
    try:
        value = orjson.loads(b'"' + re.sub(rb"[\x00-\x1f]", b" ", raw) + b'"')
    except orjson.JSONDecodeError:
        return raw.decode("utf-8", "replace")
    return str(value)


def _json(pattern: re.Pattern[bytes], text: bytes) -> str:
    match = pattern.search(text)
    return _clean(_unescape(match.group(1))) if match else ""


def _author(said: dict[str, str], json: bytes) -> str:
    for name in (
        _json(_AUTHOR, json),
        _json(_AUTHOR_NAME, json),
        *(_clean(said.get(n, "")) for n in _AUTHORS),
    ):
        if name and "://" not in name and len(name) < 120 and not name.startswith("@"):
            return name
    return ""


def _published(said: dict[str, str], found: Head, url: str | None) -> str:
    candidates = [_json(_PUBLISHED, found.json)] + [said.get(name, "") for name in _DATES[:-3]]
    for candidate in candidates:
        if day := iso_day(candidate):
            return day
    if url and (m := _IN_URL.search(url)):
        year, month, day_of = (
            (m.group(1), m.group(2), m.group(3)) if m.group(1) else (m.group(4), m.group(5), m.group(6))
        )
        if day := _day(year, month, day_of):
            return day
    for tag in found.times[:20]:
        stated = _DATETIME.search(tag)
        if stated and (day := iso_day(stated.group(1).decode("utf-8", "replace"))):
            return day
    for name in _DATES[-3:]:
        if day := iso_day(said.get(name, "")):
            return day
    return ""


def iso_day(text: str) -> str:
    """The day a date names, as YYYY-MM-DD; empty where it names none."""
    if m := _ISO.search(text):
        return _day(m.group(1), m.group(2), m.group(3))
    if m := _DAY_FIRST.search(text):
        return _day(m.group(3), m.group(2), m.group(1))
    if m := _ENGLISH.search(text):
        day, month, year = (
            (m.group(1), m.group(2), m.group(3)) if m.group(1) else (m.group(5), m.group(4), m.group(6))
        )
        if number := _MONTHS.get(month.lower()):
            return _day(year, str(number), day)
    return ""


def _day(year: str, month: str, day: str) -> str:
    try:
        found = date(int(year), int(month), int(day))
    except ValueError:
        return ""
    return found.isoformat() if found.year >= 1990 else ""


def _language(said: dict[str, str], found: Head) -> str:
    m = re.search(rb"\blang\s*=\s*[\"']?\s*([A-Za-z]{2,3}(?:[-_][A-Za-z0-9-]*)?)", found.html, re.I)
    stated = [m.group(1).decode("ascii")] if m else []
    stated += [said.get(name, "") for name in _LANGUAGES] + [_json(_IN_LANGUAGE, found.json)]
    for value in stated:
        if match := _LANGUAGE.match(value):
            return match.group(1).lower()
    return ""
