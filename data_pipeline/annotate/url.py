"""URL signals: block lists of hosts, addresses and words, soft words, and the registered domain.

With the list `datatrove` this is the filter of FineWeb (Penedo et al. 2024): domains, subdomains, addresses, words, parts
of words, and words that are counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import xxhash

from data_pipeline.annotate.url_lists import (
    ADDRESS,
    ADDRESS_HOST,
    BELOW,
    HOST,
    SUBDOMAINS,
    Index,
    key,
    squeeze,
)
from data_pipeline.urls import domains
from data_pipeline.urls.canonical import canonical, is_address

COLUMNS = ("listed", "soft_words", "domain")
NOT_LISTED = "none"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("listed", pa.string()),
        ("entry", pa.string()),
        ("soft_words", pa.int32()),
        ("domain", pa.string()),
        ("key", pa.string()),
    ]
)
MAX_CHARACTERS = 4096
"""Characters of a URL that are looked at: no real one is longer, and expressions take time."""
_MAX_SEGMENTS = 32

_ASCII_WORDS = re.compile(r"[^a-zA-Z0-9]+")
_WORDS = re.compile(r"[\W_]+")


def annotate(documents: pa.Table, lists: Path | None) -> pa.Table:
    """URL signals, row-aligned with `documents` (columns `id`, `url`).

    Args:
        lists: folder of the index (`url_lists.build`); None: no lists.

    Returns:
        id; listed (`LIST.KIND`, such as `datatrove.domain`, or `none`; null without lists or URL); entry (what was found
        in the list; null where nothing); soft_words (different ones in the URL; null without lists or URL); domain
        (registered domain; null where there is none); key (hash of the canonical URL, 32 hexadecimal digits; null for
        what is no web address).
    """
    urls = [None if u is None else u[:MAX_CHARACTERS] for u in documents["url"].to_pylist()]
    parts = [None if u is None else domains.split(u) for u in urls]
    n = len(urls)
    listed: list[str | None] = [None] * n
    entries: list[str | None] = [None] * n
    soft: list[int | None] = [None] * n
    if lists is not None:
        index = Index.load(lists)
        found = _listed(index, parts)
        subwords = _subwords(index, urls)
        for i, (url, address) in enumerate(zip(urls, parts, strict=True)):
            if url is None or address is None:
                continue
            word, soft[i] = _words(index, url)
            match = found.get(i) or word or subwords.get(i) or _expression(index, *address)
            listed[i], entries[i] = match if match else (NOT_LISTED, None)
    registered = [None if p is None else domains.registered(p[0]) for p in parts]
    keys = [_canonical_hash(u) if is_address(u) else None for u in documents["url"].to_pylist()]
    return pa.table([documents["id"], listed, entries, soft, registered, keys], schema=SCHEMA)


def _canonical_hash(url: str) -> str:
    return xxhash.xxh3_128_hexdigest(canonical(url).encode("utf-8", "surrogatepass"))


def _listed(index: Index, parts: list[tuple[str, str] | None]) -> dict[int, tuple[str, str]]:
    """Row → (list and kind, entry) of the URLs whose host or address is listed."""
    hosts = {p[0] for p in parts if p is not None and p[0]}
    asked = [(host, kind, name) for host in hosts for kind, name in _host_entries(index, host)]
    by_host: dict[str, tuple[str, str]] = {}
    with_addresses: set[str] = set()
    for i, category in _lookup(index, asked):
        host, kind, name = asked[i]
        if kind == ADDRESS_HOST:
            with_addresses.add(host)
        else:
            by_host.setdefault(host, (f"{category}.domain", name))
    found: dict[int, tuple[str, str]] = {}
    addresses: list[tuple[int, int, str]] = []
    for row, part in enumerate(parts):
        if part is None:
            continue
        if part[0] in by_host:
            found[row] = by_host[part[0]]
        elif part[0] in with_addresses:
            addresses += [(row, kind, name) for kind, name in _address_entries(*part)]
    for i, category in _lookup(index, addresses):
        found.setdefault(addresses[i][0], (f"{category}.url", addresses[i][2]))
    return found


def _lookup(index: Index, asked: Sequence[tuple[Any, int, str]]) -> Iterator[tuple[int, str]]:
    """(position in `asked`, category) of those (…, kind, entry) that are listed; one search for all of them."""
    if not asked or not len(index.keys):
        return
    wanted = np.fromiter(
        (key(n.encode("utf-8", "surrogatepass"), k) for _, k, n in asked), np.uint64, len(asked)
    )
    at = np.minimum(np.searchsorted(index.keys, wanted), len(index.keys) - 1)
    for i in np.flatnonzero(index.keys[at] == wanted).tolist():
        yield i, index.categories[index.codes[at[i]]]


def _host_entries(index: Index, host: str) -> Iterator[tuple[int, str]]:
    """(kind, entry) of everything that would cover this host, down to its registered domain."""
    labels = host.split(".")
    shortest = domains.registered_labels(host)
    for i in range(len(labels) - shortest + 1 if shortest else 1):
        yield HOST, ".".join(labels[i:])
    bare = host.removeprefix("www.")
    if bare != host and not shortest:
        yield HOST, bare
    if SUBDOMAINS in index.kinds:
        for i in range(1, len(labels)):
            yield SUBDOMAINS, ".".join(labels[i:])
    if ADDRESS_HOST in index.kinds:
        yield ADDRESS_HOST, bare


def _address_entries(host: str, rest: str) -> Iterator[tuple[int, str]]:
    """(kind, entry) of every listed address that would cover this one, the longest first."""
    address = host.removeprefix("www.") + rest.lower()
    yield ADDRESS, address.rstrip("/")
    for end in [m.start() for m in re.finditer(r"[/?]", address)][:_MAX_SEGMENTS][::-1]:
        yield ADDRESS, address[:end]
        if address[end + 1 :].strip("/"):
            yield BELOW, address[:end]


def _words(index: Index, url: str) -> tuple[tuple[str, str] | None, int]:
    """The first listed word in a URL, and the number of its soft words."""
    written = set(_ASCII_WORDS.split(url))
    hits = [(w, index.cased_words[w]) for w in index.cased_words.keys() & written]
    soft = index.cased_soft_words & written
    if index.words or index.soft_words:
        folded = set(_WORDS.split(unquote(url).lower()))
        hits += [(w, index.words[w]) for w in index.words.keys() & folded]
        soft |= index.soft_words & folded
    if hits:
        word, code = min(hits)
        return (f"{index.categories[code]}.word", word), len(soft)
    return None, len(soft)


def _subwords(index: Index, urls: list[str | None]) -> dict[int, tuple[str, str]]:
    """Row → (list and kind, part of a word) of the URLs that hold one: each is searched in all URLs at once."""
    squeezed = [squeeze(u) if u else "" for u in urls] if index.subwords else []
    everything = "\n".join(squeezed)
    starts = np.cumsum([0] + [len(s) + 1 for s in squeezed])
    found: dict[int, tuple[str, str]] = {}
    for part, code in index.subwords.items():
        at = everything.find(part)
        while at >= 0:
            row = int(np.searchsorted(starts, at, side="right")) - 1
            found.setdefault(row, (f"{index.categories[code]}.subword", part))
            at = everything.find(part, int(starts[row + 1]))
    return found


def _expression(index: Index, host: str, rest: str) -> tuple[str, str] | None:
    address = host.removeprefix("www.") + rest.lower()
    for expression, code in index.expressions:
        # Pi-hole's expressions, such as `(^|\.)ads\.example$`, end with the host.
        of_host = expression.pattern.endswith("$") and "/" not in expression.pattern
        if expression.search(address) or (of_host and expression.search(host)):
            return f"{index.categories[code]}.expression", expression.pattern
    return None
