"""Lines of published URL lists in the notations of other tools: Adblock, hosts files, dnsmasq, lines with comments.

Each becomes entries of our own lists (`docs/data-pipeline.md`, URL lists), or nothing where it says nothing about pages.
"""

from __future__ import annotations

import re

_TRAILING_COMMENT = re.compile(r"\s+[#;].*$")
_ADBLOCK_COMMENT = re.compile(r"!|\[adblock", re.I)
_COSMETIC = re.compile(r"#[@?$%]*#")  # hides parts of a page
_ADBLOCK_HOST = re.compile(r"\|\|([^/^$*|]+)(?:\^|/?$)(\$.*)?$")
_ADBLOCK_ADDRESS = re.compile(r"\|\|?(?:[a-z]+://)?([^^$|*]+)[\^|]?(\$.*)?$", re.I)
_HOSTS_FILE = re.compile(
    r"(?:0|\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?:%\w+)?)\s+([^\s#;].*)$", re.I
)
_UNBOUND = re.compile(r"local-(?:zone|data):\s*[\"']?([^\s\"']+)", re.I)
_MATCH_PATTERN = re.compile(r"^\*://")
_DNSMASQ = re.compile(r"(?:address|server|local|ipset|nftset)=/(.+)/[^/]*$")
_PORT = re.compile(r"^((?:[a-z]+://)?[^/:\s\[\]]+):\d{1,5}(?=/|$)", re.I)
_ADBLOCK_BELOW = re.compile(r"\|\|\*\.([\w-]+(?:\.[\w-]+)+)\^?(?:\$.*)?$")
_ADBLOCK_BARE = re.compile(r"([\w-]+(?:\.[\w-]+)+)(?:\^(?:\$[a-z~].*)?|\$[a-z~].*)$", re.I)
_WITH_SUBDOMAINS = re.compile(r"^(?:\+?\.|domain:|full:)(?=\w)", re.I)
_LOCAL = frozenset(
    {
        "localhost",
        "localhost.localdomain",
        "local",
        "broadcasthost",
        "ip6-localhost",
        "ip6-loopback",
        "ip6-localnet",
        "ip6-mcastprefix",
        "ip6-allnodes",
        "ip6-allrouters",
        "ip6-allhosts",
        "0.0.0.0",
    }
)


def plain_entries(line: str) -> list[str]:
    """The entries that a line stands for, in the notation of our own lists.

    Adblock: hosts (`||ads.example^`) and addresses (`||ads.example/path`) are taken, with or without options; comments,
    exceptions (`@@`), cosmetic rules (`##`) and patterns for resources inside of pages say nothing about pages. Hosts
    files, dnsmasq, Unbound, Squid (`.ads.example`), Clash (`+.ads.example`) and V2Ray (`domain:ads.example`): the
    hosts; what stands for all hosts is `*`, which no list may hold. Ports are left out, because one host is one site.
    """
    if _ADBLOCK_COMMENT.match(line) or line.startswith(("@@", ";")) or _COSMETIC.search(line):
        return []
    if match := _HOSTS_FILE.match(line):
        names = _TRAILING_COMMENT.sub("", " " + match[1]).split()
        return [n for n in names if not n.startswith("#") and n.lower() not in _LOCAL]
    if match := _DNSMASQ.match(line):
        return ["*" if name == "#" else name.lstrip(".") for name in match[1].split("/") if name.strip(".")]
    if match := _UNBOUND.match(line):
        return [match[1].rstrip(".")]
    if match := _ADBLOCK_BELOW.match(line):
        return [f"*.{match[1]}"]
    if match := _ADBLOCK_BARE.match(line):
        return [match[1]]
    if line.startswith("|"):
        match = _ADBLOCK_HOST.match(line) or _ADBLOCK_ADDRESS.match(line)
        if match is not None and match.re is _ADBLOCK_HOST and "." not in match[1]:
            return [f"*.{match[1]}"] if match[1].isalnum() else []
        return [_PORT.sub(r"\1", match[1])] if match and "." in match[1] else []
    return [
        _PORT.sub(r"\1", _WITH_SUBDOMAINS.sub("", _MATCH_PATTERN.sub("", _TRAILING_COMMENT.sub("", line))))
    ]
