"""Tables of data and listings of code are kept whole; tables that lay out a page dissolve."""

from __future__ import annotations

import random

import pytest

from data_pipeline.extract import html

PARAGRAPHS = [
    "The river rises in the hills above the town and runs for forty miles to the sea, and each spring it floods the fields.",
    "Farmers keep their sheep on the higher ground until the water has gone, and then move them down to the new grass.",
    "In the old days a ferry crossed the river at the mill, but a bridge was built there after the war, and it was sold.",
    "Visitors who come in summer can walk along the bank from the mill to the harbour, which takes about three hours.",
]
BOATS = [
    ("Boat", "Built", "Length", "Type"),
    ("Heron", "1911", "9 m", "ferry"),
    ("Otter", "1924", "11 m", "barge"),
    ("Swan", "1931", "8 m", "yacht"),
    ("Teal", "1938", "7 m", "trawler"),
    ("Pike", "1946", "6 m", "dinghy"),
]


def main_text(content: str, title: str = "The boats") -> str:
    page = f"<html lang=en><title>{title}</title><main><article><h1>{title}</h1>{content}</article></main></html>"
    return html.main_text(page.encode()).text


def paragraphs(n: int) -> str:
    return "".join(f"<p>{p}</p>" for p in PARAGRAPHS[:n])


def rows(table: list[tuple[str, ...]], first: str = "{}", head: bool = True) -> str:
    made = []
    for i, cells in enumerate(table):
        tag = "th" if head and not i else "td"
        made.append("<tr>" + "".join(f"<{tag}>{first.format(c) if i and not j else c}</{tag}>" for j, c in enumerate(cells)) + "</tr>")  # fmt: skip # noqa: E501
    return "".join(made)


def expected(table: list[tuple[str, ...]]) -> list[str]:
    return [" | ".join(cells) for cells in table]


@pytest.mark.parametrize(
    "markup",
    [
        "<table>{}</table>",
        "<table><thead></thead><tbody>{}</tbody></table>",
        "<div class=table-wrapper><table class='table table-striped'>{}</table></div>",
        "<figure class=wp-block-table><table>{}</table><figcaption>The boats of the harbour</figcaption></figure>",
        "<table class=css-1x2ab3><caption>The boats of the harbour</caption>{}</table>",
    ],
)
@pytest.mark.parametrize("first", ["{}", "<a href='/boats/{0}'>{0}</a>", "<b>{}</b>"])
@pytest.mark.parametrize("around", [(2, 2), (1, 0), (0, 1), (4, 4)])
def test_a_table_of_data_is_kept_whole(markup: str, first: str, around: tuple[int, int]) -> None:
    before, after = around
    lines = main_text(paragraphs(before) + markup.format(rows(BOATS, first)) + paragraphs(after)).split("\n")
    assert [line for line in lines if " | " in line] == expected(BOATS)


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("first", ["{}", "<a href='/years/{0}'>{0}</a>"])
def test_a_table_of_numbers_is_kept_whole(first: str, head: bool) -> None:
    draw = random.Random(1)
    numbers = [("Year", "Births", "Deaths", "Balance")] if head else []
    numbers += [
        (str(1900 + i), f"{draw.randrange(10**6):,}", f"{draw.random():.2f}", f"{draw.randrange(-99, 99)}%")
        for i in range(20)
    ]
    lines = main_text(paragraphs(2) + f"<table>{rows(numbers, first, head)}</table>" + paragraphs(2)).split(
        "\n"
    )
    assert [line for line in lines if " | " in line] == expected(numbers)


def test_a_page_that_is_mostly_a_table_keeps_it() -> None:
    numbers = [(f"Station {i}", f"{i}.5 °C", f"{i * 7} mm") for i in range(30)]
    lines = main_text(f"<table>{rows(numbers, head=False)}</table>", "Weather of today").split("\n")
    assert [line for line in lines if " | " in line] == expected(numbers)


@pytest.mark.parametrize(
    ("table", "lines"),
    [
        (
            "<tr><th>Boat<th>Built<th>Type<tr><td>Heron<td><td>ferry<tr><td>Otter<td>1924<td>barge",
            ["Boat | Built | Type", "Heron |  | ferry", "Otter | 1924 | barge"],
        ),
        (
            "<tr><th>Boat<th>Built<th>Type<tr><td rowspan=2>Heron<td>1911<td>ferry<tr><td>1924<td>barge",
            ["Boat | Built | Type", "Heron | 1911 | ferry", "Heron | 1924 | barge"],
        ),
        (
            "<tr><th>Boat<th colspan=2>Size<th>Type<tr><td>Heron<td>9 m<td>3 m<td>ferry<tr><td>Otter<td>8 m<td>2 m<td>barge",
            ["Boat | Size |  | Type", "Heron | 9 m | 3 m | ferry", "Otter | 8 m | 2 m | barge"],
        ),
        (
            "<tr><th>Boat<th>Built<th>Type<tr><td colspan=3>Old boats<tr><td>Heron<td>1911<td>ferry<tr><td>Teal<td>1938<td>",
            ["Boat | Built | Type", "Old boats", "Heron | 1911 | ferry", "Teal | 1938 |"],
        ),
        (
            "<tr><th>Boat<th>Built<th>Type<tr><td>Heron<td>1911<td rowspan=9>ferry<tr><td>Otter<td>1924<tr><td>Swan<td>1931",
            ["Boat | Built | Type", "Heron | 1911 | ferry", "Otter | 1924 | ferry", "Swan | 1931 | ferry"],
        ),
    ],
)
def test_cells_stay_in_their_columns(table: str, lines: list[str]) -> None:
    found = main_text(paragraphs(2) + f"<table>{table}</table>" + paragraphs(2)).split("\n")
    assert found[found.index(PARAGRAPHS[1]) + 1 : -2] == lines


def test_a_span_cannot_make_a_page_large() -> None:
    cells = "<tr>" + f"<td rowspan=1000 colspan=1000>{'word ' * 30}</td>" * 20 + "</tr>"
    page = f"<table>{cells * 50}</table>{paragraphs(2)}"
    assert len(main_text(page)) < 50 * len(page)


@pytest.mark.parametrize(
    "layout",
    [
        "<table><tr><td>{0}</td><td>{1}</td></tr><tr><td>{2}</td><td>{3}</td></tr></table>",
        "<table role=presentation><tr><td>{0}<td>{1}<tr><td>{2}<td>{3}</table>",
        "<table><tr><td><table><tr><td>{0}<td>{1}</table><td><table><tr><td>{2}<td>{3}</table></table>",
        "<table><tr><td><p>{0}</p><p>{1}</p></td></tr><tr><td><p>{2}</p><p>{3}</p></td></tr></table>",
    ],
)
def test_tables_that_lay_out_a_page_dissolve(layout: str) -> None:
    lines = main_text(layout.format(*(p + " " + p.replace("the", "a") for p in PARAGRAPHS))).split("\n")
    assert not any(" | " in line for line in lines)
    assert all(any(p in line for line in lines) for p in PARAGRAPHS)


def test_a_table_of_links_is_no_data() -> None:
    menu = [tuple(f"<a href=/{i}/{j}>Section {i} {j}</a>" for j in range(4)) for i in range(5)]
    page = f"<title>t</title><table class=menu>{rows(menu, head=False)}</table><article><h1>The river</h1>{paragraphs(4)}"
    assert "Section" not in html.main_text(page.encode()).text


@pytest.mark.parametrize(
    "listing",
    [
        f'<pre><span class="{name}">1</span>a = 1\n<span class="{name}">2</span>  b = 2</pre>'
        for name in ("linenos", "lineno", "line-number", "linenumber", "lnt")
    ]
    + [
        "<table class=rouge-table><tr><td class='rouge-gutter gl'><pre class=lineno>1\n2\n</pre></td><td class=rouge-code>"
        "<pre>a = 1\n  b = 2\n</pre></td></tr></table>",
        "<table class=lntable><tr><td class=lntd><pre><code><span class=lnt>1\n</span>"
        "<span class=lnt>2\n</span></code></pre></td>"
        "<td class=lntd><pre><code>a = 1\n  b = 2</code></pre></td></tr></table>",
    ],
)
def test_numbers_of_lines_are_no_code(listing: str) -> None:
    found = main_text(paragraphs(2) + listing + paragraphs(2)).split("\n")
    at = found.index("a = 1")
    assert found[at + 1] == "  b = 2" and not {"1", "2"} & set(found)


_CODE = "def ferry(miles):\n    if miles &gt; 40:\n        return None\n    return miles * 3"


def made_up_names() -> list[str]:
    draw = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz"

    def pick(alphabet: str, n: int) -> str:
        return "".join(draw.choices(alphabet, k=n))

    mixed, small = letters + letters.upper() + "0123456789", letters + "0123456789"
    return [name for _ in range(10) for name in (f"css-{pick(small, 7)}", f"sc-{pick(mixed, 6)}", "_" + pick(mixed, 5), pick(letters, 5))]  # fmt: skip # noqa: E501


@pytest.mark.parametrize("name", made_up_names())
def test_names_that_no_human_wrote_do_not_decide_about_code(name: str) -> None:
    found = main_text(
        paragraphs(2) + f'<pre class="{name}"><code class="{name}">{_CODE}</code></pre>' + paragraphs(2)
    )
    assert _CODE.replace("&gt;", ">") in found
