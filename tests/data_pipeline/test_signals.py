"""Extraction, signals, policy."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from configs import edge
from configs.edge import ConfigError
from configs.schema.pipeline import FilterConfig, RecipeConfig, RuleConfig
from data_pipeline import collect, policy
from data_pipeline.document import Document, ShardWriter, document_id, read_table, shard_path, write_table
from data_pipeline.extract import wikitext
from data_pipeline.heuristics import annotate as heuristics
from data_pipeline.read import Unit
from data_pipeline.read.charset import decode


def test_ids_tell_source_given_and_payload_apart() -> None:
    base = document_id("s", "g", b"p")
    assert len(base) == 32 and base == document_id("s", "g", b"p")
    assert (
        len({base, document_id("sg", "", b"p"), document_id("s", "gp", b""), document_id("s", "", b"gp")})
        == 4
    )


@pytest.mark.parametrize(
    ("data", "declared", "expected"),
    [
        ("Grüße".encode(), "iso-8859-1", "Grüße"),
        ("Grüße aus Köln".encode("latin-1"), "iso-8859-1", "Grüße aus Köln"),
        (
            b'<meta charset="windows-1251">' + "Привет".encode("cp1251"),
            None,
            '<meta charset="windows-1251">Привет',
        ),
        ("\ufeffBOM".encode("utf-16-le"), None, "BOM"),
        ("日本語".encode("shift_jis"), "shift_jis", "日本語"),
    ],
)
def test_character_sets(data: bytes, declared: str | None, expected: str) -> None:
    assert decode(data, declared, html=True) == (expected, 0)


def test_wikitext() -> None:
    source = (
        "{{Infobox|a={{nested|{{{1|}}}}}}}'''Lima''' (''Spanish'': {{foo|x}}) is "
        "the [[capital city|capital]] of [[Peru]]."
        "<ref name=a>Book</ref><ref name=b/>\n[[File:x.jpg|thumb|A [[link]] in it]]\n== History ==\n"
        "* First [http://x.org item]\n"
        "=== Empty ===\n== See also ==\n* [[Other]]\n[[Category:Cities]]"
    )
    plain = wikitext.to_plain(source)
    assert plain.text == ("Lima (Spanish: ) is the capital of Peru.\n\nHistory\n\nFirst item")
    assert plain.removed == {"ref": 1, "template": 2, "template in a sentence": 1, "file": 1, "section": 1}


def test_unclosed_wikitext_ends() -> None:
    assert "after" in wikitext.to_text("before {{open\nafter the template that never ends")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("Speed <math>\\frac{s}{t}</math>, <ce>H2O</ce>.", "Speed $\\frac{s}{t}$, $\\ce{H2O}$."),
        ("A <nowiki>[[link]] '''x''' {{t}}</nowiki> b", "A [[link]] '''x''' {{t}} b"),
        (
            "So:\n<syntaxhighlight lang=c>\nif (a) {\n    b[[1]] |= 2;\n}\n</syntaxhighlight>\nend",
            "So:\n\nif (a) {\n    b[[1]] |= 2;\n}\n\nend",
        ),
        (
            "{{convert|1300|mi|km}} and {{Frac|1|2}} of {{lang|fr|2=le pont}} {{Val|5}}",
            "1300 mi and 1/2 of le pont 5",
        ),
        ("{{Quote|text=The river {{nowrap|rises}}.|author=A}}", "The river rises."),
        ("{{lang-de|Brücke}}{{snd}}{{nihongo|bridge|橋|hashi}}", "Brücke – bridge (橋, hashi)"),
        ("-{zh-hant:電腦;zh-hans:计算机}-是-{机器}-。-{H|zh:a;zh-hans:b}-", "计算机是机器。"),
        (
            "10<sup>6</sup> km<sup>2</sup>, ''x''<sub>''i''</sub> and e<sup>iπ</sup>, 2<sup>n+1</sup>, Ca<sup>2+</sup>",
            "10^6 km^2, x_i and e^(iπ), 2^(n+1), Ca^(2+)",
        ),
        ("1<sup>st</sup> XX<sup>e</sup> H<sub>2</sub>O log<sub>10</sub>", "1st XXe H2O log10"),
        ("5{{e|6}}, 10{{sup|-3}}, {{10^|9}}, {{val|5|u=km}}", "5×10^6, 10^-3, 10^9, 5 km"),
        ("{{chem|H|2|O}} and {{chem2|CO2}}", "$\\ce{H2O}$ and $\\ce{CO2}$"),
        ("-{sr-el:most; sr-ec:мост}- -{R|raw}-", "мост raw"),
    ],
)
def test_what_wikitext_holds_as_text_stays(source: str, text: str) -> None:
    assert wikitext.to_plain(source) == wikitext.Plain(text, {})


def test_tables_of_wikitext_keep_rows_and_columns() -> None:
    source = (
        '{| class="wikitable"\n|+ Boats\n! # !! Name !! Type\n|-\n| rowspan="2" | 1911 || [[Heron (boat)|Heron]] || ferry\n'
        '|-\n| Otter || style="color:red" | {{nowrap|a | b}}\n|-\n| colspan=2 | sold\n| 1924\nor later\n|}\n'
        '{| class="navbox"\n| [[Other]]\n|}'
    )
    plain = wikitext.to_plain(source)
    rows = ["Boats", "# | Name | Type", "1911 | Heron | ferry", " | Otter | a", "sold |  | 1924 or later"]
    assert plain.text.splitlines() == rows
    assert plain.removed == {"table": 1}


def test_what_is_removed_from_wikitext_is_counted_by_kind(tmp_path: Path) -> None:
    dump = tmp_path / "dump.xml"
    body = "At {{unknown|5}}, it is long.&lt;ref&gt;Book&lt;/ref&gt; [[File:a.jpg|thumb|Two words]]"
    page = f"<page><title>A</title><ns>0</ns><revision><text>{body}</text></revision></page>"
    dump.write_text(
        f'<mediawiki xml:lang="en"><siteinfo/>{page}{page.replace("<title>A", "<title>B")}</mediawiki>'
    )
    recipe = edge.load_group("recipe", "wikipedia", RecipeConfig)
    unit = Unit(0, "w", "wikitext", (str(dump),), str(dump), 0, 1, 0, None, dump.stat().st_size)
    counts = collect.read_unit(tmp_path / "out", unit, recipe)
    removed = {k: n for k, n in counts.items() if k.startswith(collect.REMOVED)}
    assert removed == {"removed: ref": 2, "removed: file": 2, "removed: template in a sentence": 2}


def shard(run_dir: Path, texts: list[str], language: str | None = None) -> None:
    with ShardWriter(shard_path(run_dir, "documents", 0)) as writer:
        for i, text in enumerate(texts):
            identifier = document_id("s", str(i), text.encode())
            writer.add(Document(identifier, "s", text, language=language))
    heuristics.annotate(run_dir, 0)
    policy.copies(run_dir, 1)
    ids = read_table(shard_path(run_dir, "documents", 0))["id"]
    write_table(
        pa.table({"id": ids, "score": pa.nulls(len(ids), pa.float32())}),
        shard_path(run_dir, "signals/quality", 0),
    )


def test_first_failing_rule_names_the_drop_and_null_signals_drop_nothing(tmp_path: Path) -> None:
    shard(tmp_path, ["one two three", "one", "", "word " * 50])
    rules = {
        "quality": RuleConfig("quality.score", min=0.5),
        "short": RuleConfig("gopher.n_words", min=2),
        "repeats": RuleConfig("gopher.top_2_gram", max=0.9),
        "off": None,
    }
    counts = policy.decide(tmp_path, 0, FilterConfig("test", rules))
    decisions = read_table(shard_path(tmp_path, "decisions/a", 0)).to_pylist()
    assert [d["rule"] for d in decisions] == [None, "short", "extract.empty", "repeats"]
    assert [d["keep"] for d in decisions] == [True, False, False, False]
    assert decisions[1]["detail"] == "1"
    assert counts["not run: quality"] == 3


def test_rules_of_one_language_leave_others_alone(tmp_path: Path) -> None:
    rule = RuleConfig("gopher.n_stop_words", min=2, languages=("en",))
    for language, kept in (("en", False), ("de", True), (None, False)):
        shard(tmp_path / str(language), ["Ein Satz ohne englische Wörter"], language)
        policy.decide(tmp_path / str(language), 0, FilterConfig("test", {"stop": rule}))
        assert read_table(shard_path(tmp_path / str(language), "decisions/a", 0))["keep"].to_pylist() == [
            kept
        ]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (RuleConfig("gopher.n_word", min=1), "did you mean `gopher.n_words`"),
        (RuleConfig("gopher.n_words"), "give `min` or `max`"),
        (RuleConfig("language.language", min=1), "give `allow`"),
        (RuleConfig("gopher.n_words", min=5, max=1), "nothing could be kept"),
    ],
)
def test_rules_that_cannot_work_are_refused(rule: RuleConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        policy.check(FilterConfig("test", {"rule": rule}))


@pytest.mark.parametrize(
    "name", ["web", "prose", "books", "wikipedia", "arxiv", "python_code", "python_prose", "text"]
)
def test_recipes_of_the_package_are_valid(name: str) -> None:
    policy.check(edge.load_group("recipe", name, RecipeConfig).filter)


def test_equal_records_become_copies(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "0.parquet") as writer:
        for text in ("a", "b", "a", "a"):
            writer.add(Document(id=document_id("s", "", text.encode()), source="s", text=text))
        assert writer.copies == 2
    assert read_table(tmp_path / "0.parquet")["metadata"].to_pylist() == ['{"copies":3}', "{}"]
