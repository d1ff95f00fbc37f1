"""Pages whose body is drawn by scripts fall back to what they declare in JSON-LD."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from data_pipeline.extract import html


def declared(thing: Any, shown: str = "<div id=root></div>") -> html.Page:
    data = orjson.dumps({"@context": "https://schema.org", **thing}).replace(b"</", b"<\\/")
    return html.main_text(b'<script type="application/ld+json">' + data + b"</script>" + shown.encode())


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("<p>The river &amp; the mill.</p><p>It rises in the hills.</p>", "The river & the mill.\nIt rises in the hills."),
        ("&lt;p&gt;The river rises.&lt;/p&gt;&lt;p&gt;It floods.&lt;/p&gt;", "The river rises.\nIt floods."),
        ("The river rises if 1 < 2 and 3 > 2.\n\nIt floods.", "The river rises if 1 < 2 and 3 > 2.\nIt floods."),
        ("<ul><li>The river rises</li><li>10<sup>6</sup> litres</li></ul>", "- The river rises\n- 10^6 litres"),
    ],
)  # fmt: skip
def test_markup_in_an_article_body_is_no_text(body: str, text: str) -> None:
    page = declared({"@type": "NewsArticle", "articleBody": body})
    assert page.text == text
    assert page.fallback


_STEP = {"@type": "HowToStep", "text": "Boil the milk."}
_OTHER = {"@type": "HowToStep", "text": "<b>Stir</b> until it is thick."}


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (
            {
                "@type": ["Recipe"],
                "name": "Custard",
                "recipeIngredient": ["1 l milk", "4 eggs"],
                "recipeInstructions": [_STEP, _OTHER],
            },
            "Custard\n- 1 l milk\n- 4 eggs\n1. Boil the milk.\n2. Stir until it is thick.",
        ),
        (
            {
                "@type": "Recipe",
                "name": "Custard",
                "recipeInstructions": [{"@type": "HowToSection", "name": "Cream", "itemListElement": [_STEP, _OTHER]}],
            },
            "Custard\nCream\n1. Boil the milk.\n2. Stir until it is thick.",
        ),
        (
            {"@type": "HowTo", "name": "Custard", "tool": [{"name": "a pan"}], "step": [_STEP, _OTHER]},
            "Custard\n- a pan\n1. Boil the milk.\n2. Stir until it is thick.",
        ),
        (
            {
                "@graph": [
                    {
                        "@type": "FAQPage",
                        "mainEntity": [
                            {
                                "@type": "Question",
                                "name": "Does the river freeze?",
                                "acceptedAnswer": {"@type": "Answer", "text": "<p>It never does.</p>"},
                            }
                        ],
                    }
                ]
            },
            "Does the river freeze?\nIt never does.",
        ),
        (
            {"@type": "Product", "name": "Boat", "description": "A wooden boat for two.",
             "additionalProperty": [{"name": "Length", "value": 4}]},
            "Boat\nA wooden boat for two.\nLength: 4",
        ),
        (
            {"@type": "BlogPosting", "headline": "The river", "description": "It rises in the hills above the town."},
            "The river\nIt rises in the hills above the town.",
        ),
        ({"@type": "Organization", "name": "The mill", "description": "A company that grinds corn and wheat."}, ""),
    ],
)  # fmt: skip
def test_a_page_without_text_falls_back_to_what_it_describes(thing: dict[str, Any], text: str) -> None:
    assert declared(thing).text == text


def test_a_page_that_shows_its_text_does_not_fall_back() -> None:
    paragraph = "The river rises in the hills above the town and runs for forty miles to the sea, and it floods the fields. "
    page = declared(
        {"@type": "Product", "name": "Boat", "description": "x" * 100},
        f"<h1>The river</h1>{f'<p>{paragraph}</p>' * 5}",
    )
    assert "river" in page.text
    assert not page.fallback


@pytest.mark.parametrize(
    "data",
    [b"{", b"[" * 100_000, b"[" * 90 + b"]" * 90, b'{"@type": 5}', b'{"@type": "Recipe", "name": [[]]}'],
)
def test_damaged_structures_are_passed_over(data: bytes) -> None:
    assert html.main_text(b'<script type="application/ld+json">' + data + b"</script>").text == ""


_RECIPE = {"@type": "http://schema.org/Recipe", "name": "Custard", "recipeInstructions": [_STEP, _OTHER]}
_CUSTARD = "Custard\n1. Boil the milk.\n2. Stir until it is thick."


@pytest.mark.parametrize(
    "wrap",
    [
        "//<![CDATA[\n{}\n//]]>",
        "<!--\n{}\n-->",
        "{};",
        "{} ,",
        '{{"@type": "WebSite"\n}}\n{}',
        '{{"a": \n}}\n{}',
    ],
)
def test_scripts_that_wrap_their_structure_are_read(wrap: str) -> None:
    data = wrap.format(orjson.dumps(_RECIPE).decode()).replace("</", "<\\/")
    page = f"<script type='application/ld+json'>{data}</script><div id=root></div>"
    assert html.main_text(page.encode()).text == _CUSTARD
    comma = f"<script type='application/ld+json'>{data.replace('}]', '},]')}</script>"
    assert html.main_text(comma.encode()).text == _CUSTARD


@pytest.mark.parametrize("notice", ["<noscript>You need to enable JavaScript to run this app.</noscript>", "<p>Bitte schalten Sie JavaScript ein, um diese Seite mit allem zu sehen, was sie Ihnen bietet.</p>"])  # fmt: skip # noqa: E501
def test_a_page_that_only_asks_for_scripts_shows_nothing(notice: str) -> None:
    assert declared(_RECIPE, f"{notice}<div id=root></div>").text == _CUSTARD


def test_the_entries_of_a_live_blog_are_all_read() -> None:
    entries = [
        {"@type": "BlogPosting", "articleBody": f"At {i} o'clock the river rose again."} for i in range(3)
    ]
    page = declared({"@type": "LiveBlogPosting", "liveBlogUpdate": entries})
    assert page.text.split("\n") == [entry["articleBody"] for entry in entries]


@pytest.mark.parametrize("kind", ["ProductGroup", "Course", "MusicEvent", "Book", "JobPosting"])
def test_things_that_are_described_in_words(kind: str) -> None:
    said = "It rises in the hills above the town and runs for forty miles to the sea."
    assert declared({"@type": kind, "name": "The river", "description": said}).text == f"The river\n{said}"
