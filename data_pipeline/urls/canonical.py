"""Canonical URLs: addresses that are written differently and name one page become equal.

After RFC 3986, section 6 (syntax, case, percent-encoding, path segments, scheme), and the aliases that crawls are full of
(Bar-Yossef et al. 2007, "Do not crawl in the DUST"). The rules, in order:

 1. scheme: `http` and `https` are one; other schemes stay as they are written, and so does what is no URL
 2. user and password go
 3. host: lower case, international names as Punycode, no final dot, no `www.`
 4. port: the scheme's default goes
 5. fragment: goes, unless it is an address of its own (`#!…`)
 6. percent-encoding: letters, digits and `-._~` decoded, the rest encoded as UTF-8 in upper case
 7. path: `.` and `..` resolved, `//` is `/`
 8. session ids in the path go (`;jsessionid=…`, `/(S(…))/`)
 9. index files go (`index.html`, `default.aspx`, …)
10. a final slash goes
11. parameters that track or name a session go (`utm_…`, `gclid`, `PHPSESSID`, …)
12. the other parameters are sorted by name, those of one name keep their order; `a` is `a=`; empty ones go;
    `+` is a space, `&amp;` is `&`
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from data_pipeline.urls.domains import ascii_host

MAX_CHARACTERS = 8192
"""Characters of a URL; a longer one is its own canonical form."""
_DEFAULT_PORT = {"http": 80, "https": 443}
_ORDINARY = re.compile(
    r"(https?)://([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?(/[!-\"$->@-~]*)?(?:\?([!-\"$-~]*))?(?:#([!-~]*))?"
)
"""A web address of ASCII, as most are: `urlsplit` takes several times as long."""
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_SAFE = "%/:@!$&'()*+,;=~-._?"
_PLAIN = re.compile(r"[A-Za-z0-9/:@!$&'()*+,;=~._?-]*")
_DOTS = re.compile(r"(?:^|/)\.{1,2}(?:/|$)|//")
_SESSION_PATH = re.compile(r";(?:jsessionid|phpsessid|sid|sessionid)=[^/?;]*", re.IGNORECASE)
_SESSION_SEGMENT = re.compile(r"/\((?:[A-Z]\([0-9A-Za-z_-]{8,}\))+\)(?=/|$)")
_INDEX = re.compile(
    r"(?:/(?:index\.(?:html?|xhtml|shtml|php\d?|aspx?|jspx?|cfm|cgi|pl)|default\.(?:html?|aspx?)))+$", re.I
)
_TRACKING = re.compile(
    r"utm[_-]\w+|(?:mtm|matomo|piwik|hsa)_\w+|pk_(?:campaign|kwd|keyword|source|medium|content|cid)|"
    r"ns_(?:source|mchannel|campaign|linkname|fee)|at_(?:medium|campaign\w*|custom\d|link_\w+|ptr_\w+|bbc_team)|"
    r"wt[_.]mc(?:_\w+)?|vero_(?:id|conv)|oly_(?:anon|enc)_id|__hs(?:tc|sc|fp)|_hs(?:enc|mi)|hsctatracking|"
    r"(?:fb|g|d|y|ym|tw|tt)clid|msclkid|[gw]braid|gclsrc|gad_(?:source|campaignid)|li_fat_id|igsh(?:id)?|mc_[ce]id|"
    r"_ga|_gl|mkt_tok|rb_clickid|s_(?:cid|kwcid)|wicked(?:id|source)|ref_(?:src|url)|_openstat|srsltid|epik|xtor|cmpid|"
    r"icid|ncid|spm|fb_(?:action_ids|action_types|source|ref)|action_(?:object|type|ref)_map|trk|trkinfo|trkcampaign|"
    r"_branch_match_id|replytocom",
    re.IGNORECASE,
)
_SESSION = re.compile(
    r"phpsessid|jsessionid|aspsessionid\w*|asp\.net_sessionid|session_?id|sess_?id|oscsid|zenid|cfid|cftoken|xtcsid",
    re.IGNORECASE,
)
_AMPERSAND = re.compile(r"^(?:amp;)+")
"""The rest of `&amp;`, of a link taken from HTML as it is."""
_SESSION_VALUE = re.compile(r"[0-9a-fA-F]{32}|(?=[0-9A-Za-z]*[0-9])[0-9A-Za-z]{20,64}")


def canonical(url: str) -> str:
    """The canonical form of a URL. Idempotent; never raises: what cannot be split is returned without white space."""
    url = url.strip()
    split = _split(url) if len(url) <= MAX_CHARACTERS else None
    if split is None:
        return url
    scheme, host, port, raw_path, raw_query, raw_fragment = split
    while host.startswith("www.") and host.count(".") > 1:
        host = host.removeprefix("www.")
    if ":" in host:
        host = f"[{host}]"
    # The canonical form is an address of https, whose default port then says nothing either.
    place = host if port in (None, _DEFAULT_PORT[scheme], 443) else f"{host}:{port}"
    query = _query(raw_query) if raw_query else ""
    fragment = "#" + _encoded(raw_fragment) if raw_fragment and raw_fragment.startswith("!") else ""
    return f"https://{place}{_path(raw_path or '')}{query}{fragment}"


def _split(url: str) -> tuple[str, str, int | None, str | None, str | None, str | None] | None:
    """(scheme, host, port, path, query, fragment); None where it is no web address."""
    plain = _ORDINARY.fullmatch(url)
    if plain is not None and (plain[3] is None or int(plain[3]) < 1 << 16):
        host = plain[2].lower().rstrip(".")
        number = int(plain[3]) if plain[3] else None
        return (plain[1], host, number, plain[4], plain[5], plain[6]) if host else None
    try:
        parts = urlsplit(url)
        port = parts.port
        host = ascii_host(parts.hostname or "")
    except ValueError:  # a malformed port or IPv6 address
        return None
    if parts.scheme not in _DEFAULT_PORT or not host:
        return None
    return parts.scheme, host, port, parts.path, parts.query, parts.fragment


def is_address(url: str | None) -> bool:
    """Whether a URL is one of the web: only such ones have a canonical form."""
    return url is not None and url.lstrip()[:8].lower().startswith(("http://", "https://"))


def _path(path: str) -> str:
    path = _encoded(path)
    if ";" in path:
        path = _SESSION_PATH.sub("", path)
    if "(" in path:
        path = _SESSION_SEGMENT.sub("", path)
    if _DOTS.search(path):
        path = _resolved(path)
    return _INDEX.sub("", path.rstrip("/")).rstrip("/") or "/"


def _resolved(path: str) -> str:
    found: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del found[-1:]
        elif segment not in ("", "."):
            found.append(segment)
    return "/" + "/".join(found)


def _encoded(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    if "%" in text:
        text = _ESCAPE.sub(_escape, text)
    return quote(text, safe=_SAFE, errors="replace")


def _escape(match: re.Match[str]) -> str:
    digits = match[1]
    if digits is None:  # a lone percent sign
        return "%25"
    value = int(digits, 16)
    return chr(value) if value in _UNRESERVED else f"%{digits.upper()}"


def _query(query: str) -> str:
    kept = []
    for parameter in query.split("&"):
        # Encoded first, so that no escape hides a name.
        name, _, value = (_encoded(part.replace("+", "%20")) for part in parameter.partition("="))
        name = _AMPERSAND.sub("", name)
        if not name or _TRACKING.fullmatch(name) or _SESSION.fullmatch(name):
            continue
        if name.lower() in ("sid", "s") and _SESSION_VALUE.fullmatch(value):
            continue
        kept.append((name, value))
    kept.sort(key=lambda pair: pair[0])
    return "?" + "&".join(f"{name}={value}" for name, value in kept) if kept else ""
