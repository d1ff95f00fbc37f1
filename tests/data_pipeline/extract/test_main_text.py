"""Main text: what stays, what goes, how it is written."""

# ruff: noqa: E501
from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.extract import extract, html
from data_pipeline.extract.parse import parse
from data_pipeline.extract.units import with_headings
from data_pipeline.read import Record

PARAGRAPHS = [
    "The valley was settled early, because the river never freezes there and the southern slopes carry vines, and by the"
    " time the first charter was written, four mills stood along its banks.",
    "In the spring of that year, however, the snow melted within a week. The water rose above the second floor of the old"
    " customs house, and the bridge, which had stood for two centuries, was carried away.",
    "Nobody was hurt, as the watchman had seen the ice move and rung the bell. The council met the same night and voted,"
    " after a long debate, to build in stone.",
]
PAGE = """<!DOCTYPE html><html lang="en-GB"><head><title>The flood | Valley News</title>
<meta property="og:title" content="The flood"><meta property="article:published_time" content="2021-03-04T10:00:00Z">
<meta name="author" content="A. Writer"></head><body>
<div id="cookie-banner" class="cookie-consent"><p>We use cookies to improve your experience. <button>Accept all</button></p></div>
<nav class="main-menu"><ul><li><a href="/">Home</a></li><li><a href="/news">News</a></li><li><a href="/sport">Sport</a></li></ul></nav>
<main><article class="post"><h1>The flood</h1><div class="entry-content"><p>{0}</p><p>{1}</p>{extra}<p>{2}</p></div></article>
<div class="related-posts"><h3>You may also like</h3><ul><li><a href="/1">Ten walks for the weekend</a></li><li><a href="/2">What
the council decided</a></li></ul></div>
<form class="comment-form" id="respond"><label>Leave a comment</label><textarea></textarea><input type="submit"></form></main>
<footer class="site-footer"><p>© 2021 Valley News. All rights reserved.</p><a href="/imprint">Imprint</a></footer></body></html>"""


def page(extra: str = "") -> html.Page:
    return html.main_text(PAGE.format(*PARAGRAPHS, extra=extra).encode(), "http://valley.example/flood")


def test_the_article_stays_and_its_surroundings_go() -> None:
    text = page().text
    assert all(paragraph in text for paragraph in PARAGRAPHS)
    for gone in (
        "cookies",
        "Accept all",
        "Sport",
        "Ten walks",
        "Leave a comment",
        "All rights reserved",
        "Imprint",
    ):
        assert gone not in text


def test_comments_of_readers_go_and_discussions_stay() -> None:
    opinion = "<p>I disagree with the council, since a wooden bridge costs half as much and can be repaired by anyone.</p>"
    comments = f'<ol id="comments" class="commentlist"><li>{opinion}</li><li>{opinion}</li></ol>'
    text = html.main_text(
        PAGE.format(*PARAGRAPHS, extra="").replace("<footer", comments + "<footer").encode()
    ).text
    assert PARAGRAPHS[0] in text
    assert "wooden bridge" not in text
    posts = "".join(
        f'<div class="post"><div class="post-content"><p>{paragraph}</p></div></div>'
        for paragraph in PARAGRAPHS
    )
    thread = f'<html><body><h1>Which bridge?</h1><div id="comments">{posts}</div></body></html>'
    found = html.main_text(thread.encode(), "http://forum.example/threads/which-bridge.1/").text
    assert all(paragraph in found for paragraph in PARAGRAPHS)


def test_metadata_of_the_page() -> None:
    assert page().metadata == {
        "title": "The flood",
        "published": "2021-03-04",
        "author": "A. Writer",
        "language_hint": "en",
    }


def test_code_lists_and_tables_keep_their_shape() -> None:
    code = "def area(width, height):\n    if width < 0:\n        raise ValueError(width)\n    return width * height"
    rows = "".join(f"<tr><td>Mill {i}</td><td>{1700 + i}</td></tr>" for i in range(6))
    items = "".join(
        f"<li>The mill number {i} ground rye, wheat and oats until the war.</li>" for i in range(4)
    )
    text = page(
        f"<pre><code>{code.replace('<', '&lt;')}</code></pre><table><tr><th>Name</th><th>Built</th></tr>{rows}</table>"
        f"<p>These mills are known, with their years and their uses:</p><ul>{items}</ul>"
    ).text
    assert code in text
    assert "Mill 1 | 1701\nMill 2 | 1702\n" in text
    assert "\n- The mill number 0 ground rye, wheat and oats until the war.\n- The mill" in text


def test_tables_that_lay_out_a_page_become_lines() -> None:
    cells = "".join(f"<td>{paragraph}</td>" for paragraph in PARAGRAPHS)
    text = html.main_text(f"<html><body><table><tr>{cells}</tr></table></body></html>".encode()).text
    assert text == "\n".join(PARAGRAPHS)


def test_a_page_without_text_takes_the_body_it_declares() -> None:
    found = html.main_text(
        b'<script type="application/ld+json">{"articleBody": "First \\"line\\" of the text, long enough to be one.\\nSecond."}'
        b"</script><p>Loading"
    )
    assert found.text == 'First "line" of the text, long enough to be one.\nSecond.'
    assert found.fallback


def test_plain_text_and_empty_records() -> None:
    def made(kind: str, payload: bytes) -> tuple[str, str | None]:
        done = extract(Record("f", 0, 0, kind, payload, ""))  # type: ignore[arg-type]
        return done.text, done.drop

    assert made("text", b"a < b\r\n<p>c\r\n") == ("a < b\n<p>c", None)
    assert made("html", b"") == ("", "extract.empty")
    assert made("html", b"<html><script>x</script></html>") == ("", "extract.empty")


@pytest.mark.parametrize("language", ["de", "ja", "ru"])
def test_articles_in_other_languages(language: str) -> None:
    sentence = {
        "de": "Der Fluss friert dort nie zu, und an den südlichen Hängen wächst Wein, weshalb das Tal früh besiedelt wurde. ",
        "ja": "その谷は早くから人が住みついた。川が凍らず、南の斜面では葡萄がよく育つからである。",
        "ru": "Долину заселили рано, потому что река там никогда не замерзает, а на южных склонах растёт виноград. ",
    }[language]
    body = "".join(f"<p>{sentence * 3}</p>" for _ in range(5))
    menu = "".join(f'<li><a href="/{i}">{sentence.split()[0][:6]}</a></li>' for i in range(20))
    found = html.main_text(
        f"<html lang={language}><body><ul class=menu>{menu}</ul><div id=text>{body}</div></body></html>".encode()
    )
    assert found.text == "\n".join([(sentence * 3).strip()] * 5)
    assert found.metadata["language_hint"] == language


def test_headings_of_sections_follow_their_text() -> None:
    tree = parse(b"<h1>a</h1><p>b</p><h2>c</h2><h3>d</h3><p>e</p><h2>f</h2><p>g</p><h2>h</h2>")
    p = np.array([0.4, 0.9, 0.3, 0.2, 0.9, 0.3, 0.1, 0.3])
    keep = p > 0.5
    assert with_headings(tree, p, keep, 0.1).nonzero()[0].tolist() == [1, 2, 3, 4]
    assert with_headings(tree, p, keep, 0.25).nonzero()[0].tolist() == [1, 4]
    linked = parse(b"<h2><a href=/a>c</a></h2><p>b</p>")
    assert with_headings(linked, p[2:4], np.array([False, True]), 0.1).nonzero()[0].tolist() == [1]
