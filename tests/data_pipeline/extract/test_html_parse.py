"""Bytes of a page → blocks of text, and what hostile pages cost."""

from __future__ import annotations

import random

import numpy as np
import pytest

from data_pipeline.extract import html, tags
from data_pipeline.extract.layout import BEGIN, DEPTH, LINK, NODE, PARENT, STOP, TAG
from data_pipeline.extract.mathml import with_tex
from data_pipeline.extract.parse import MAX_DEPTH, parse


def blocks(page: str) -> list[tuple[str, str]]:
    """(element, text) of every block."""
    tree = parse(with_tex(page.encode()))
    text = tree.text.tobytes()
    return [(tags.NAMES[tree.nodes[b[NODE], TAG]], text[b[BEGIN] : b[STOP]].decode()) for b in tree.blocks]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<p>one<p>two</div>three", [("p", "one"), ("p", "two"), ("p", "three")]),
        ("<ul><li>a<li>b <b>c</b></ul>d", [("li", "a"), ("li", "b c"), ("html", "d")]),
        ("<table><tr><td>1<td>2<tr><th>3</table>4", [("td", "1"), ("td", "2"), ("th", "3"), ("html", "4")]),
        ("<dl><dt>a<dd>b<dt>c</dl>", [("dt", "a"), ("dd", "b"), ("dt", "c")]),
        ("<p>a<br>b<br><br>c", [("p", "a\nb"), ("p", "c")]),
        ("<p>x &lt; y &amp;amp; &eacute;&#233;&#xe9; &copy2 &nosuch; &#0;", [("p", "x < y &amp; ééé ©2 &nosuch; \ufffd")]),
        ("<p>a\u00a0\u3000\n b\u00ad\u200bc", [("p", "a bc")]),
        ("<p>a<script>if (a<b) '<p>x'</script>b<style>p{}</style><!-- c --><!-->d<![CDATA[e]]>f", [("p", "abdf")]),
        ("<svg><path d='1'/><text>no</text></svg>a<select><option>b</select>c", [("html", "a"), ("html", "c")]),
        ("<p title='a>b' class=x>3 < 4 <5", [("p", "3 < 4 <5")]),
        ("<p>text <!-- never closed <b>more</b><p>end", [("p", "text more"), ("p", "end")]),
        ("<div><a href=x>link<div>in</div></a>out</div>", [("div", "link"), ("div", "in"), ("div", "out")]),
        ("<pre>\n  if x:\n\ty &amp; z\n</pre>", [("pre", "  if x:\n\ty & z")]),
        ("", []),
        ("plain text", [("html", "plain text")]),
    ],
)  # fmt: skip
def test_blocks_of_markup(page: str, expected: list[tuple[str, str]]) -> None:
    assert blocks(page) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ('<p>a<math alttext="x&lt;y"><mi>x</mi></math>', "a$x<y$"),
        ('<p>a <math alttext="z" display="block"></math> b', "a $$z$$ b"),
        ('<p>a <math><mi>q</mi><annotation encoding="application/x-tex">q^2</annotation></math> b', "a $q^2$ b"),
        ('<p>a <span class="MathJax">xx</span><script type="math/tex">\\frac{1}{2}</script> b', "a $\\frac{1}{2}$ b"),
        ('<p>a <span class=katex-html>xx</span>b <img class="latex" alt="\\sum"> c', "a b $\\sum$ c"),
    ],
)  # fmt: skip
def test_formulas_become_tex_once(page: str, expected: str) -> None:
    assert [text for _, text in blocks(page)] == [expected]


def test_links_count_only_what_stands_in_them() -> None:
    tree = parse(b"<p><a href=x>four</a> other <a name=y>anchor</a><p><a href=x>unclosed<p>after")
    assert tree.blocks[:, LINK].tolist() == [4, 8, 0]


def test_deep_pages_stay_shallow_and_keep_their_text() -> None:
    tree = parse(b"<div>" * 1_000_000 + b"deep" + b"</div>" * 1_000_000 + b"<p>after")
    assert tree.nodes[:, DEPTH].max() <= MAX_DEPTH
    assert [t.tobytes() for t in np.split(tree.text, tree.blocks[1:, BEGIN])] == [b"deep", b"after"]
    assert (tree.nodes[1:, PARENT] < np.arange(1, len(tree.nodes))).all()


_HOSTILE = {
    "nested": b"<div>" * 1_000_000 + b"x",
    "inline": b"<b><i><a href=x>" * 300_000 + b"x</b>" * 300_000,
    "tables": b"<table><tr><td>" * 200_000 + b"x" + b"</tr>" * 200_000,
    "unmatched": b"<p><span>x</q></table></td>" * 50_000,
    "lists": b"<ul><li>" * 50_000 + b"<li>x" * 30_000,
    "one line": b"word " * 4_000_000,
    "no space": b"x" * 20_000_000,
    "comments": b"<!--" * 2_000_000,
    "cdata": b"<![CDATA[" * 1_000_000,
    "scripts": b"<script>" * 1_000_000,
    "quotes": b"<a href='" * 1_000_000,
    "attribute": b'<p class="' + b"word " * 3_000_000 + b'">x',
    "attributes": b"<p " + b"a=b " * 3_000_000 + b">x",
    "references": b"&#38&amp;&notanything&#x110000000000000;" * 300_000,
    "NUL": b"\0" * 5_000_000 + b"<p>x\0y</p>",
    "lone <": b"<" * 10_000_000,
    "breaks": b"a<br>" * 1_000_000,
    "repeated": b"<div class=a><p>the same words again</p></div>" * 30_000,
    "meta": b"<meta name=date content='2020-01-01 "
    + b"x" * 5_000_000
    + b"'>"
    + b"<meta name=a content=b>" * 100_000,
    "articleBody": b'<script type="application/ld+json">{"articleBody":"' + b"\\" * 3_000_000,
    "author": b'<script type="application/ld+json">' + b'"author":{"author":[' * 100_000,
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_hostile_pages_are_read_in_linear_time(name: str) -> None:
    page = html.main_text(_HOSTILE[name], "http://example.org/2020/01/01/")
    assert isinstance(page.text, str)


def test_any_bytes_are_a_page() -> None:
    draw = random.Random(0)
    pieces = [b"<", b">", b"</", b"<p", b"<td>", b"<math>", b"<annotation encoding=tex>", b"<pre>", b"<!--", b"-->", b"&#",
              b"&amp", b'"', b"'", b"=", b" class=", b"a b", b"\xff", b"\xe2\x80", b"\0", b"<script>", b"</script", b"<br>",
              b"<table>", b"</a>", b"<a href=x>", b"<h1>", b"</h2>", b"\n", b"<title>", b"<noscript>"]  # fmt: skip
    for _ in range(300):
        page = b"".join(draw.choices(pieces, k=draw.randrange(200)))
        tree = parse(page)
        assert (tree.blocks[:, BEGIN] < tree.blocks[:, STOP]).all()
        html.main_text(page)
