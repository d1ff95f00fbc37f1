from __future__ import annotations

import random
import re

import pytest

from data_pipeline.urls import canonical as module
from data_pipeline.urls.canonical import canonical, is_address

EQUAL = [
    ("scheme", "http://x.example/a", "HTTPS://x.example/a"),
    ("user", "http://me:secret@x.example/a", "http://x.example/a"),
    ("host case, final dot", "http://X.Example./a", "http://x.example/a"),
    ("www", "http://www.x.example/a", "http://x.example/a"),
    ("international", "http://münchen.example/", "http://xn--mnchen-3ya.EXAMPLE"),
    ("port", "http://x.example:80/a", "https://x.example:443/a"),
    ("fragment", "http://x.example/a#part", "http://x.example/a"),
    ("encoding", "http://x.example/%7ea/%c3%a9?q=%41", "http://x.example/~a/é?q=A"),
    ("space", "http://x.example/a%20b?q=a+b", "http://x.example/a b?q=a%20b"),
    ("lone percent", "http://x.example/100%", "http://x.example/100%25"),
    ("dots", "http://x.example/a/./b/../c//d", "http://x.example/a/c/d"),
    ("above the root", "http://x.example/../../a", "http://x.example/a"),
    ("java session", "http://x.example/a;jsessionid=0A1B?b=1", "http://x.example/a?b=1"),
    ("asp session", "http://x.example/(S(abcdef0123456789))/a.aspx", "http://x.example/a.aspx"),
    ("index", "http://x.example/a/index.html", "http://x.example/a/"),
    ("default", "http://x.example/Default.aspx?b=1", "http://x.example/?b=1"),
    ("slash", "http://x.example/a/", "http://x.example/a"),
    ("root", "http://x.example", "http://x.example/"),
    ("tracking", "http://x.example/a?utm_source=b&fbclid=c&gclid=d", "http://x.example/a"),
    (
        "session",
        "http://x.example/a?PHPSESSID=1&s=0123456789abcdef0123456789abcdef&b=1",
        "http://x.example/a?b=1",
    ),
    ("order", "http://x.example/a?c=1&b=2", "http://x.example/a?b=2&c=1"),
    ("empty", "http://x.example/a?", "http://x.example/a"),
    ("empty parameters", "http://x.example/a?&b=1&&", "http://x.example/a?b=1"),
    ("no value", "http://x.example/a?b", "http://x.example/a?b="),
    ("ampersand", "http://x.example/a?b=1&amp;c=2", "http://x.example/a?b=1&c=2"),
    ("tracking, encoded", "http://x.example/a?utm%5Fsource=b", "http://x.example/a"),
]
DIFFERENT = [
    ("path case", "http://x.example/A", "http://x.example/a"),
    ("other port", "http://x.example:8080/a", "http://x.example/a"),
    ("subdomain", "http://m.x.example/", "http://x.example/"),
    ("www is the name", "http://www.example/", "http://example/"),
    ("encoded slash", "http://x.example/a%2Fb", "http://x.example/a/b"),
    ("encoded ampersand", "http://x.example/?a=b%26c", "http://x.example/?a=b&c"),
    ("plus in a path", "http://x.example/a+b", "http://x.example/a%20b"),
    ("order of equal names", "http://x.example/?a=1&a=2", "http://x.example/?a=2&a=1"),
    ("short sid", "http://x.example/?sid=17", "http://x.example/?sid=18"),
    ("search s", "http://x.example/?s=llama", "http://x.example/?s=alpaca"),
    ("id that looks like tracking", "http://x.example/?nsid=1", "http://x.example/?nsid=2"),
    ("ref", "http://x.example/?ref=main", "http://x.example/?ref=dev"),
    ("index within", "http://x.example/index.php/a", "http://x.example/a"),
    ("page of its own", "http://x.example/#!/a", "http://x.example/#!/b"),
    ("parentheses", "http://x.example/Llama_(animal)", "http://x.example/Llama"),
]


@pytest.mark.parametrize(("one", "other"), [e[1:] for e in EQUAL], ids=[e[0] for e in EQUAL])
def test_one_page_has_one_address(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(("one", "other"), [e[1:] for e in DIFFERENT], ids=[e[0] for e in DIFFERENT])
def test_different_pages_keep_different_addresses(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


def test_ordinary_addresses_are_split_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = random.Random(1)
    pieces = [
        "x.Example",
        "www.",
        ".",
        ":80",
        ":99999",
        ":",
        "/",
        "a",
        "?",
        "=",
        "&",
        "#",
        "#!",
        "%41",
        "é",
        " ",
        "@",
    ]
    urls = ["http://" + "".join(chosen.choices(pieces, k=6)) for _ in range(10_000)]
    found = [canonical(u) for u in urls]
    monkeypatch.setattr(module, "_ORDINARY", re.compile("(?!)"))
    assert [canonical(u) for u in urls] == found


@pytest.mark.parametrize("part", ["/a", "%", "&b=1", "é", "/..", "(A(", ";sid=", "?", "#", "www."])
def test_endless_addresses_take_no_time(part: str) -> None:
    for n in (8000 // len(part), 1_000_000):
        url = "http://x.example/?" + part * n
        assert canonical(canonical(url)) == canonical(url)


def test_canonical_addresses_stay_as_they_are() -> None:
    chosen = random.Random(0)
    pieces = [
        "a",
        "%41",
        "%2f",
        "%",
        "é",
        "/",
        "//",
        ".",
        "..",
        "?",
        "&",
        "=",
        "amp;",
        ";sid=1",
        "index.html",
        "#",
        "!",
        "+",
        "/index.html",
        "utm%5Fterm=",
        "a%6Dp;",
    ]
    hosts = [
        "www.x.example",
        "www.www.x.example",
        "x.example:443",
        "x.example:080",
        "x.example。",
        "www。é.example.",
    ]
    for _ in range(5000):
        url = f"{chosen.choice(('http', 'https'))}://{chosen.choice(hosts)}/" + "".join(
            chosen.choices(pieces, k=8)
        )
        assert canonical(canonical(url)) == canonical(url), url


@pytest.mark.parametrize(
    "url", ["ftp://x.example/A", "python:os.path", "http://[broken", "http://x:notaport/", "", "a b"]
)
def test_what_is_no_web_address_is_left_alone(url: str) -> None:
    assert canonical(url) == url.strip()
    assert is_address(url) == url.startswith("http")
