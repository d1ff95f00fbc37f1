"""What plain text keeps of scripts, ruby, formulas, lists, and of what a page does not show."""

from __future__ import annotations

import pytest

from data_pipeline.extract import html
from data_pipeline.extract.layout import BEGIN, STOP
from data_pipeline.extract.mathml import with_tex
from data_pipeline.extract.parse import parse

PROSE = (
    "The river rises in the hills above the town and runs for forty miles to the sea, and every spring it floods the "
    "lower meadows. "
)


def text(markup: str) -> str:
    """Text of all blocks."""
    tree = parse(with_tex(markup.encode()))
    out = tree.text.tobytes()
    return "\n".join(out[b[BEGIN] : b[STOP]].decode() for b in tree.blocks)


def article(markup: str) -> list[str]:
    """Lines of the main text of an article that holds this."""
    page = (
        "<html lang=en><title>The river</title><main><article><h1>The river</h1>"
        f"<p>{PROSE}</p>{markup}<p>{PROSE}</p></article></main></html>"
    )
    return html.main_text(page.encode()).text.split("\n")


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("<p>3.2 × 10<sup>6</sup> litres", "3.2 × 10^6 litres"),
        ("<p>10<sup>&minus;9</sup> m, 10<SUP>-3</SUP> m", "10^−9 m, 10^-3 m"),
        ("<p>5 km<sup>2</sup>, 3 m s<sup>-1</sup>, 4 µm<sup>3</sup>", "5 km^2, 3 m s^-1, 4 µm^3"),
        ("<p>e<sup>iπ</sup>, x<sup>&alpha;</sup>, 5<sup>ος</sup>, Κ<sup>ος</sup>", "e^(iπ), x^α, 5ος, Κος"),
        ("<p>10<span style='font-size:80%;Vertical-Align : super'>6</span> l", "10^6 l"),
        ("<p>10<font style='vertical-align:super'>&minus;9</font> x<i style='vertical-align:sub'>i</i>", "10^−9 x_i"),
        ("<p>a<b style='vertical-align:middle'>2</b>, e<em style='vertical-align:super'>n+1</em>", "a2, e^(n+1)"),
        ("<p>x<sup>n+1</sup> and (a+b)<sup>2</sup> and 2<sup>n</sup>", "x^(n+1) and (a+b)^2 and 2^n"),
        ("<p>sin<sup>2</sup> x + <i>y</i><sup>2</sup>", "sin^2 x + y^2"),
        ("<p>Add 1<sup>1</sup>/<sub>2</sub> cups", "Add 1 1/2 cups"),
        ("<p>Add 1<sup>3</sup>&frasl;<sub>4</sub> cups, <sup>1</sup>⁄<sub>2</sub> pint", "Add 1 3⁄4 cups, 1⁄2 pint"),
        ("<p>the 1<sup>st</sup>, le XX<sup>e</sup>, n<sup>o</sup> 5, Acme<sup>TM</sup>", "the 1st, le XXe, no 5, AcmeTM"),
        ("<p>CO<sub>2</sub>, H<sub>2</sub>O, C<sub>6</sub>H<sub>12</sub>", "CO2, H2O, C6H12"),
        ("<p>x<sub>i</sub>, a<sub>n+1</sub>, V<sub>max</sub>, 101<sub>2</sub>", "x_i, a_(n+1), V_max, 101_2"),
        ("<p>In 1911<sup>2</sup> the mill was sold.<sup>3</sup> A man<sup>4</sup>", "In 1911 the mill was sold. A man"),
        ('<p>In 1911<sup><a href="#fn2">2</a></sup> it fell<a href="#fn3"><sup>3</sup></a>', "In 1911 it fell"),
        ('<p>It had 40<sup class="footnote-ref">12</sup> rooms', "It had 40 rooms"),
        ('<p>In 1911<sup><a href="#c2">[2]</a></sup> it fell', "In 1911[2] it fell"),
        ("<p><sup>2</sup> See the map.", "2 See the map."),
        ("<p>中国<sup>2</sup>は", "中国は"),
    ],
)  # fmt: skip
def test_scripts_in_plain_text(markup: str, expected: str) -> None:
    assert text(markup) == expected


@pytest.mark.parametrize(
    "ruby",
    [
        "<ruby>村<rt>むら</rt></ruby>",
        "<ruby>村<rp>(</rp><rt>むら</rt><rp>)</rp></ruby>",
        "<ruby>村<rt>むら</ruby>",
        "<ruby>\n村\n<rt>むら</rt>\n</ruby>",
        "<ruby><rb>村</rb><rt>むら</rt></ruby>",
        "<ruby><rb>村<rtc><rt>むら</rtc></ruby>",
        "<ruby><ruby>村<rt>むら</rt></ruby><rt>village</rt></ruby>",
    ],
)
def test_ruby_is_written_without_its_readings(ruby: str) -> None:
    assert text(f"<p>ある{ruby}に住む") == "ある村に住む"
    assert text(f"<p>a {ruby} b") == "a 村 b"


def test_ruby_of_several_bases() -> None:
    assert (
        text("<p><ruby>漢<rt>かん<rb>字<rt>じ</ruby>と<ruby>東<rt>とう</rt>京<rt>きょう</rt></ruby>")
        == "漢字と東京"
    )


@pytest.mark.parametrize(
    ("mathml", "tex"),
    [
        ("<mfrac><mn>1</mn><mrow><mi>n</mi><mo>+</mo><mn>1</mn></mrow></mfrac>", r"\frac{1}{n+1}"),
        ("<msup><mi>x</mi><mn>10</mn></msup>", "x^{10}"),
        ("<msup><mrow><mi>a</mi><mi>b</mi></mrow><mn>2</mn></msup>", "{ab}^2"),
        ("<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>", "x_i^2"),
        ("<msqrt><mi>x</mi><mo>&#x2212;</mo><mn>1</mn></msqrt>", r"\sqrt{x-1}"),
        ("<mroot><mi>x</mi><mn>3</mn></mroot>", r"\sqrt[3]{x}"),
        (
            "<munderover><mo>∑</mo><mrow><mi>i</mi><mo>=</mo><mn>1</mn></mrow><mi>n</mi></munderover><mi>i</mi>",
            r"\sum_{i=1}^ni",
        ),
        ("<mover><mi>x</mi><mo>¯</mo></mover>", r"\overline{x}"),
        (
            "<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>0</mn></mtd></mtr><mtr><mtd><mi>a</mi></mtd><mtd><mi>b</mi></mtd></mtr></mtable>",
            r"\begin{matrix} 1 & 0 \\ a & b \end{matrix}",
        ),
        (
            "<mmultiscripts><mi>C</mi><mn>6</mn><none/><mprescripts/><none/><mn>12</mn></mmultiscripts>",
            "{}^{12}C_6",
        ),
        ("<mmultiscripts><mi>x</mi><none/><mn>2</mn></mmultiscripts>", "x^2"),
        ("<mi>sin</mi><mo>&#x2061;</mo><mi>x</mi>", r"\sin x"),
        ('<mfenced open="[" close=")"><mi>a</mi><mi>b</mi></mfenced>', "[a,b)"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "mml:"])
def test_mathml_becomes_tex(mathml: str, tex: str, prefix: str) -> None:
    named = mathml.replace("</", "\0").replace("<", "<" + prefix).replace("\0", "</" + prefix)
    assert text(f"<p>a <{prefix}math>{named}</{prefix}math> b") == f"a ${tex}$ b"


def test_the_annotation_of_a_formula_comes_before_its_alttext() -> None:
    annotated = '<semantics><mi>q</mi><annotation encoding="application/x-tex">q^2</annotation></semantics>'
    assert text(f'<p>a <math alttext="q to the 2">{annotated}</math> b') == "a $q^2$ b"
    assert text('<p>a <math alttext="q^2"><mi>q</mi></math> b') == "a $q^2$ b"
    plain = '<semantics><mi>q</mi><annotation encoding="application/openmath">OMV</annotation></semantics>'
    assert text(f"<p>a <math>{plain}</math> b") == "a $q$ b"


def test_formulas_in_scripts_and_comments_are_no_markup() -> None:
    page = b'<script>"<math><mi>x</mi></math>"</script><!-- <math><mi>y</mi></math> --><p>z'
    assert with_tex(page) == page


@pytest.mark.parametrize(
    "hidden",
    [
        "<span hidden>secret</span>",
        '<span style="color:red; display : none">secret</span>',
        '<b aria-hidden="true">secret</b>',
        "<div hidden><p>A secret paragraph that nobody is to read, since the page does not show it at all.</p></div>",
        '<p style="display:none">A secret paragraph that nobody is to read, as the page does not show it.</p>',
        "<dialog><p>A secret paragraph in a dialogue that no one has opened, so that no page shows it.</p></dialog>",
        "<noscript><p>A secret paragraph for readers whose browser runs no scripts, and for nobody else.</p></noscript>",
        '<section aria-hidden="true"><p>A secret paragraph that is not to be read aloud, nor at all.</p></section>',
    ],
)
def test_what_a_page_does_not_show_is_left_out(hidden: str) -> None:
    assert "secret" not in "\n".join(article(f"<p>{PROSE}{hidden}</p>" if hidden[1] in "sb" else hidden))


_NOTE = "<{0}>A secret paragraph that nobody is to read, as the page does not show it to any of its readers.</{0}>"


@pytest.mark.parametrize(
    ("rule", "shown"),
    [
        (".x-1{display:none}", False),
        ("p{margin:0} #Note2 , .other { color: red; display : none !important }", False),
        ("p.x-1{visibility:hidden}/* .x-1{display:block} */", False),
        ("@media print{.x-1{display:none}}", True),
        (".x-1{display:none} .x-1.open{display:block}", True),
        (".x-1{display:none} @media (min-width:60em){.x-1{display:block}}", True),
        (".menu .x-1{display:none}", True),
        (".x-1:hover{display:none} .x-12{display:none} .X-1{display:none}", True),
        (".x-1::before{display:none} .x-1{display:inline-none", True),
    ],
)
def test_what_a_style_sheet_hides_is_left_out(rule: str, shown: bool) -> None:
    page = (
        f"<html lang=en><head><title>The river</title><style>{rule}</style></head><main><article>"
        f"<h1>The river</h1><p>{PROSE}</p>{_NOTE.format('p').replace('<p', '<p id=Note2 class=&quot;a x-1&quot;', 1)}"
        f"<p>{PROSE}</p></article></main></html>"
    ).replace("&quot;", '"')
    assert ("secret" in html.main_text(page.encode()).text) is shown


def test_a_page_that_a_script_reveals_keeps_its_text() -> None:
    page = f"<title>t</title><div style='display:none'><article><h1>The river</h1>{f'<p>{PROSE}</p>' * 4}</article></div>"
    assert "forty miles" in html.main_text(page.encode()).text
    found = article(f'<div hidden="until-found"><p>{PROSE.replace("river", "canal")}</p></div>')
    assert any("canal" in line for line in found)


_ITEM = "cross the river by the old bridge and follow the path along the bank to the mill"


@pytest.mark.parametrize(
    ("start", "numbers"),
    [
        ("<ol>", ["1.", "2.", "3."]),
        ("<ol start=7>", ["7.", "8.", "9."]),
        ("<ol reversed>", ["3.", "2.", "1."]),
        ("<ol start='0'>", ["0.", "1.", "2."]),
        ("<ol type=a>", ["a.", "b.", "c."]),
        ("<ol type=I start=4>", ["IV.", "V.", "VI."]),
    ],
)
def test_numbered_lists_keep_their_numbers(start: str, numbers: list[str]) -> None:
    lines = article(
        start + "".join(f"<li>{_ITEM} {word}.</li>" for word in ("first", "then", "last")) + "</ol>"
    )
    assert [line.split()[0] for line in lines if _ITEM in line] == numbers


def test_nested_lists_keep_their_nesting() -> None:
    lines = article(
        f"<ol><li>{_ITEM}<ul><li>inner {_ITEM}</li><li value=9>inner {_ITEM}</li></ul></li>"
        f"<li value=5>{_ITEM}<li>{_ITEM}</ol>"
    )
    assert [line for line in lines if _ITEM in line] == [
        f"1. {_ITEM}",
        f"  - inner {_ITEM}",
        f"  - inner {_ITEM}",
        f"5. {_ITEM}",
        f"6. {_ITEM}",
    ]
