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
    r"(?:0\.0\.0\.0|127(?:\.\d{1,3}){3}|::1?|fe80::\S*|ff0\d::\S*|255\.255\.255\.255)\s+(\S.*)$"
)
_DNSMASQ = re.compile(r"(?:address|server|local|ipset|nftset)=/(.+)/[^/]*$")
_PORT = re.compile(r"^((?:[a-z]+://)?[^/:\s\[\]]+):\d{1,5}(?=/|$)", re.I)
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
    files and dnsmasq: the hosts. Ports are left out, because one host is one site.
    """
    if _ADBLOCK_COMMENT.match(line) or line.startswith(("@@", ";")) or _COSMETIC.search(line):
        return []
    if match := _HOSTS_FILE.match(line):
        names = _TRAILING_COMMENT.sub("", " " + match[1]).split()
        return [n for n in names if not n.startswith("#") and n.lower() not in _LOCAL]
    if match := _DNSMASQ.match(line):
        return [name for name in match[1].split("/") if name]
    if line.startswith("|"):
        match = _ADBLOCK_HOST.match(line) or _ADBLOCK_ADDRESS.match(line)
        return [_PORT.sub(r"\1", match[1])] if match and "." in match[1] else []
    return [_PORT.sub(r"\1", _TRAILING_COMMENT.sub("", line))]
