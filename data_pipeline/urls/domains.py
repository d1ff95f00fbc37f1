"""Hosts and registered domains, by the public suffix list that ships with the package `publicsuffixlist` (no network).

https://publicsuffix.org/list/ (ICANN section: `blogspot.com` is a domain that somebody registered, not a suffix).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import re
from urllib.parse import urlsplit

_PLAIN = re.compile(
    r"https?://([A-Za-z0-9.-]+)(?::[0-9]{0,5})?((?:/[!-\"$->@-~]*)?(?:\?[!-\"$-~]+)?)(?:\?|#[!-~]*)?"
)
"""A web address of ASCII, as most are: `urlsplit` takes five times as long."""
_MAX_HOST = 253
"""Characters of a name (RFC 1035, section 2.3.4)."""
_ADDRESS = re.compile(r"[0-9.]+|.*:.*")


def split(url: str) -> tuple[str, str]:
    """(host, rest) of a URL with or without a scheme: host in lower case and ASCII, without port, user and final dot.

    The rest is path and query as they are written. A URL that cannot be split has the host "" and is its own rest.
    """
    plain = _PLAIN.fullmatch(url)
    if plain is not None:
        return plain[1].lower().rstrip("."), plain[2]
    try:
        parts = urlsplit(url if "://" in url or url.startswith("//") else "//" + url)
        host = parts.hostname or ""
    except ValueError:  # a malformed port or IPv6 address
        return "", url
    return ascii_host(host), parts.path + ("?" + parts.query if parts.query else "")


def ascii_host(host: str) -> str:
    """Lower case, international names as Punycode, no final dot; an impossible name stays as it is written."""
    host = host.lower().rstrip(".")
    if not host.isascii():
        with contextlib.suppress(UnicodeError):
            host = host.encode("idna").decode("ascii")
    return host.rstrip(".")  # an ideographic full stop has become one of ASCII


def registered(host: str) -> str | None:
    """The registered domain of a host: `a.b.example.co.uk` → `example.co.uk`.

    None for addresses, public suffixes and single labels. A suffix that is not listed has one label.
    """
    n = registered_labels(host)
    return ".".join(host.split(".")[-n:]) if n else None


def registered_labels(host: str) -> int:
    """How many labels the registered domain of a host has; 0 where it has none."""
    return _registered_labels(host) if 0 < len(host) <= _MAX_HOST else 0


@functools.lru_cache(maxsize=65_536)
def _registered_labels(host: str) -> int:
    if _ADDRESS.fullmatch(host):
        return 0
    rules = _suffixes()
    labels = host.split(".")
    size = 1  # the rule `*` of the list's algorithm
    for i in range(len(labels)):
        rest = ".".join(labels[i:])
        if "!" + rest in rules:
            size = len(labels) - i - 1
            break
        parent = rest.partition(".")[2]
        if rest in rules or (parent and "*." + parent in rules):
            size = len(labels) - i
            break
    return size + 1 if len(labels) > size else 0


@functools.cache
def _suffixes() -> frozenset[str]:
    text = (importlib.resources.files("publicsuffixlist") / "public_suffix_list.dat").read_text("utf-8")
    icann = text.partition("===BEGIN PRIVATE DOMAINS===")[0]
    found = set()
    for line in icann.splitlines():
        rule = line.strip()
        if rule and not rule.startswith("//"):
            found.add(rule if rule.isascii() else rule.encode("idna").decode("ascii"))
    return frozenset(found)
