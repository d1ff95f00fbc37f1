from __future__ import annotations

import gzip
import random
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
from publicsuffixlist import PublicSuffixList

from data_pipeline.annotate import url, url_lists
from data_pipeline.urls import domains


def annotated(index: Path | None, *urls: str | None) -> dict[str, list]:
    table = pa.table({"id": [str(i) for i in range(len(urls))], "url": pa.array(urls, pa.string())})
    return url.annotate(table, index).to_pydict()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own")
    folder = root / "lists"
    (folder / "adult").mkdir(parents=True)
    (folder / "LICENSE").write_text("good.example")
    (folder / "adult" / "domains").write_text(
        "# a comment\nwww.Bad.example\n1.2.3.4\nmünchen.example\ngood.co.uk\nco.uk\n"
    )
    (folder / "urls.txt.gz").write_bytes(gzip.compress(b"host.example/members\nhttp://host.example/b?id=3\n"))
    single = root / "mixed.txt"
    single.write_text(
        "porn\n(^|[-_/])xx[0-9]+($|[-_/])\n*.wild.example\n*.zip\nhost.example/below/*\n*casino*\n"
        "glob.example/*/adult/*\nglob.example/a*z\n/^re\\.example.+q=1/\n"
    )
    soft = root / "soft.txt"
    soft.write_text("teen\nhot\n")
    url_lists.build((str(folder), str(single)), (str(soft),), root / "index", None)
    return root / "index"


@pytest.mark.parametrize(
    ("address", "listed"),
    [
        ("http://bad.example/", "adult.domain"),
        ("https://WWW.bad.example:8080/x", "adult.domain"),
        ("https://a.b.bad.example./x?y", "adult.domain"),
        ("bad.example/no-scheme", "adult.domain"),
        ("http://notbad.example/", "none"),
        ("http://good.example/", "none"),
        ("http://other.co.uk/", "none"),
        ("http://a.good.co.uk/", "adult.domain"),
        ("http://1.2.3.4/x", "adult.domain"),
        ("http://5.1.2.3.4.com/", "none"),
        ("http://xn--mnchen-3ya.example/", "adult.domain"),
        ("http://MÜNCHEN.example/", "adult.domain"),
        ("http://host.example/members/1", "lists.url"),
        ("http://www.host.example/members?id=1", "lists.url"),
        ("http://host.example/membership", "none"),
        ("http://host.example/b?id=3", "lists.url"),
        ("http://host.example/b?id=34", "none"),
        ("http://host.example/below/", "none"),
        ("http://host.example/Below/this", "mixed.url"),
        ("http://wild.example/", "none"),
        ("http://a.wild.example/", "mixed.domain"),
        ("http://report.zip/", "mixed.domain"),
        ("http://x.example/free-PORN/1", "mixed.word"),
        ("http://x.example/a%20porn%20b", "mixed.word"),
        ("http://pornography.example/", "none"),
        ("http://my-casino-s.example/", "mixed.subword"),
        ("http://x.example/gallery/xx12/", "mixed.expression"),
        ("http://x.example/gallery/axx12/", "none"),
        ("http://glob.example/1/adult/x", "mixed.expression"),
        ("http://glob.example/1/adult/", "none"),
        ("http://glob.example/abcz/x", "mixed.expression"),
        ("http://glob.example/abcz1", "none"),
        ("http://re.example/?q=1", "mixed.expression"),
        ("http://[broken", "none"),
        ("", "none"),
        pytest.param("http://" + "a." * 100_000 + "bad.example/", "none", id="long"),
    ],
)
def test_each_kind_of_entry_covers_what_it_says(own: Path, address: str, listed: str) -> None:
    assert annotated(own, address)["listed"] == [listed]


def test_the_entry_that_was_found_is_named(own: Path) -> None:
    found = annotated(
        own, "http://a.bad.example/", "http://host.example/members/1?x", "http://x.example/porn"
    )
    assert found["entry"] == ["bad.example", "host.example/members", "porn"]


def test_the_key_is_that_of_the_canonical_address() -> None:
    same = ["http://www.x.example/a/?utm_source=b", "https://X.example/a#c"]
    found = annotated(None, *same, "https://x.example/b", "python:os.path", None)["key"]
    assert found[0] == found[1] != found[2]
    assert found[3:] == [None, None]


def test_soft_words_are_counted_once_each(own: Path) -> None:
    found = annotated(own, "http://x.example/teen-hot", "http://x.example/Teen/teen", "http://hotel.example/")
    assert found["soft_words"] == [2, 1, 0]
    assert found["listed"] == ["none"] * 3


def test_without_lists_or_url_there_is_no_value(own: Path) -> None:
    assert annotated(own, None)["listed"] == annotated(own, None)["soft_words"] == [None]
    found = annotated(None, "http://a.b.example.co.uk/x")
    assert found["listed"] == found["soft_words"] == [None]
    assert found["domain"] == ["example.co.uk"]


def test_datatroves_lists_are_found_by_domain_word_and_part(tmp_path: Path) -> None:
    """The bundled lists are read from the installed package, and from the cache the second time."""
    names = (url_lists.DATATROVE,)
    first = url_lists.build(names, (), tmp_path / "index", tmp_path / "cache")
    assert first["entries"] > 4_000_000
    index = url_lists.Index.load(tmp_path / "index")
    word, part, soft = min(index.cased_words), min(index.subwords), sorted(index.cased_soft_words)[:2]
    found = annotated(
        tmp_path / "index",
        "https://en.wikipedia.org/wiki/Llama",
        f"http://x.example/{word}/1",
        f"http://x.example/{word.upper()}/1",
        f"http://x{part}x.example/",
        f"http://x.example/{soft[0]}+{soft[1]}",
        "http://porn.com/",
    )
    assert found["listed"] == [
        "none",
        "datatrove.word",
        "none",
        "datatrove.subword",
        "none",
        "datatrove.domain",
    ]
    assert found["soft_words"][4] == 2
    again = url_lists.build(names, (), tmp_path / "again", tmp_path / "cache")
    assert again == first
    for name in ("keys.npy", "codes.npy", "index.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "index" / name).read_bytes()


def test_of_equal_entries_the_first_list_counts(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("bad.example\nporn\n")
    for order in (("one", "two"), ("two", "one")):
        url_lists.build(tuple(str(tmp_path / n) for n in order), (), tmp_path / "index", None)
        listed = annotated(tmp_path / "index", "http://bad.example/", "http://x.example/porn")["listed"]
        assert listed == [f"{order[0]}.domain", f"{order[0]}.word"]


def test_an_edited_list_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    for host in ("one.example", "two.example"):
        path.write_text(f"{host}\n")
        url_lists.build((str(path),), (), tmp_path / "index", tmp_path / "cache")
        assert annotated(tmp_path / "index", f"http://{host}/")["listed"] == ["list.domain"]


def test_the_cache_keeps_a_few_indices(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    for number in range(url_lists.CACHED + 3):
        path.write_text(f"host{number}.example\n")
        url_lists.build((str(path),), (), tmp_path / "index", tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == url_lists.CACHED
    for kept in (tmp_path / "cache").glob("url-*"):  # as another process may
        shutil.rmtree(kept)
    url_lists.build((str(path),), (), tmp_path / "index", tmp_path / "cache")
    assert annotated(tmp_path / "index", f"http://host{number}.example/")["listed"] == ["list.domain"]


def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("bad.example\n")
    (tmp_path / "cache").write_text("a file")
    url_lists.build((str(tmp_path / "list.txt"),), (), tmp_path / "index", tmp_path / "cache")
    assert annotated(tmp_path / "index", "http://bad.example/")["listed"] == ["list.domain"]


def test_bad_lists_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bytes.txt").write_bytes(b"ok\n\xff\xfe\n")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"words\n" * 100)[:20])
    (tmp_path / "expression.txt").write_text("fine.example\n(broken\n")
    (tmp_path / "star.txt").write_text("*é*\n")
    for name, message in (
        ("absent", "does not exist"),
        ("empty", "holds no list"),
        ("bytes.txt", r"is not UTF-8 \(line 2\)"),
        ("cut.gz", "damaged gzip"),
        ("expression.txt", "line 2: '.broken' is no regular expression"),
        ("star.txt", "line 1: .* holds no letter"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            url_lists.build((str(tmp_path / name),), (), tmp_path / "index", None)


def test_ordinary_addresses_are_split_as_any_other() -> None:
    chosen = random.Random(0)
    pieces = [
        "http://",
        "https://",
        "x.Example",
        "www.",
        ".",
        ":80",
        ":",
        "/",
        "a",
        "?",
        "=",
        "&",
        "#",
        "%41",
        "é",
        " ",
        "@",
        "[",
    ]
    for _ in range(20_000):
        address = chosen.choice(pieces[:2]) + "".join(chosen.choices(pieces[2:], k=6))
        try:
            parts = urlsplit(address)
            host = domains.ascii_host(parts.hostname or "")
            expected = (host, parts.path + ("?" + parts.query if parts.query else ""))
        except ValueError:
            expected = ("", address)
        assert domains.split(address) == expected, address


def test_registered_domains_follow_the_public_suffix_list() -> None:
    generator = np.random.default_rng(0)
    reference = PublicSuffixList(only_icann=True)
    suffixes = [
        "com",
        "co.uk",
        "ck",
        "a.kawasaki.jp",
        "city.kawasaki.jp",
        "www.ck",
        "blogspot.com",
        "xn--p1ai",
        "nosuchtld",
    ]
    for suffix in suffixes:
        for depth in range(4):
            host = ".".join([*generator.choice(["a", "www", "b-c"], depth), suffix])
            assert domains.registered(host) == reference.privatesuffix(host), host
    assert domains.registered("a.b.nosuchtld") == "b.nosuchtld"
    assert domains.registered("10.0.0.1") is domains.registered("localhost") is domains.registered("") is None


FOREIGN = {
    "adblock": "[Adblock Plus 2.0]\n! Title: ads\n||ads.example^\n||track.example^$third-party\n||host.example/bad^\n"
    "@@||good.example^\n##.banner\nsite.example##.ad\n||*^\n/banner/*/img^\n|https://start.example/x|\n",
    "hosts": "# hosts\n127.0.0.1 localhost\n::1 ip6-localhost\nfe80::1%lo0 localhost\n"
    "0.0.0.0 ads.example track.example # both\n2001:db8::1\tstart.example\n",
    "unbound": 'local-zone: "ads.example" always_nxdomain\nlocal-data: "track.example. A 0.0.0.0"\n*://start.example/*\n',
    "dnsmasq": "address=/ads.example/0.0.0.0\nserver=/track.example/start.example/\n",
    "bare adblock": "ads.example^\ntrack.example^$all\n||*.below.example^\nstart.example$document\n",
    "squid, clash, v2ray": ".ads.example\n+.track.example\ndomain:start.example\n",
    "pi-hole": "(^|\\.)ads\\.example$\n(\\.|^)track\\.example$\n0 start.example\n",
    "dnsmasq with dots": "address=/.ads.example/.track.example/\nlocal=/start.example/\n",
    "comments": "; head\nads.example   # why\ntrack.example:8080\nhttp://start.example:81/x\n",
}


@pytest.mark.parametrize("notation", FOREIGN)
def test_lists_of_other_tools_are_understood(tmp_path: Path, notation: str) -> None:
    (tmp_path / f"{notation}.txt").write_text(FOREIGN[notation])
    url_lists.build((str(tmp_path / f"{notation}.txt"),), (), tmp_path / "index", None)
    pages = {
        "http://ads.example/a": True,
        "https://sub.ads.example:8443/": True,
        "http://track.example/b": True,
        "http://start.example/x": True,
        "http://good.example/": False,
        "http://site.example/": False,
        "http://localhost/": False,
        "http://en.example.org/wiki/river": False,
        "http://host.example/fine": False,
    }
    listed = annotated(tmp_path / "index", *pages)["listed"]
    assert {p: found != "none" for p, found in zip(pages, listed, strict=True)} == pages


@pytest.mark.parametrize("line", ["(ads|)", "/.*/", "^", "a*|$", "*.*", "/./", "*://*/*", "/[?/]./"])
def test_an_entry_that_would_match_every_page_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"fine.example\n{line}\n")
    with pytest.raises(ValueError, match=r"line 2: .* matches every address"):
        url_lists.build((str(tmp_path / "list.txt"),), (), tmp_path / "index", None)


@pytest.mark.parametrize(
    "line",
    [
        "DOMAIN-SUFFIX,ads.example",
        'zone "ads.example" { type master; };',
        "address=/#/0.0.0.0",
        "conf-dir=/etc/dnsmasq.d",
        "bogus-nxdomain=192.0.2.1",
        "payload:",
        "regexp:^ads",
        "keyword:ads",
        "ads.example CNAME .",
    ],
)
def test_a_notation_that_is_not_known_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"fine.example\n{line}\n")
    with pytest.raises(ValueError, match="line 2: "):
        url_lists.build((str(tmp_path / "list.txt"),), (), tmp_path / "index", None)
