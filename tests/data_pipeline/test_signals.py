"""Extraction, signals, policy."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from configs import edge
from configs.edge import ConfigError
from configs.schema.pipeline import FilterConfig, RecipeConfig, RuleConfig
from data_pipeline import policy
from data_pipeline.annotate import heuristics
from data_pipeline.document import Document, ShardWriter, document_id, read_table, shard_path, write_table
from data_pipeline.extract import wikitext
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
        "{{Infobox|a={{nested|{{{1|}}}}}}}'''Lima''' (''Spanish'': {{IPA|x}}) is "
        "the [[capital city|capital]] of [[Peru]]."
        "<ref name=a>Book</ref><ref name=b/>\n[[File:x.jpg|thumb|A [[link]] in it]]\n== History ==\n"
        "* First [http://x.org item]\n"
        "{|\n| cell\n|}\n=== Empty ===\n== See also ==\n* [[Other]]\n[[Category:Cities]]"
    )
    assert wikitext.to_text(source) == ("Lima (Spanish: ) is the capital of Peru.\n\nHistory\n\nFirst item")


def test_unclosed_wikitext_ends() -> None:
    assert "after" in wikitext.to_text("before {{open\nafter the template that never ends")


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
    "name", ["web", "prose", "books", "wikipedia", "python_code", "python_prose", "text"]
)
def test_recipes_of_the_package_are_valid(name: str) -> None:
    policy.check(edge.load_group("recipe", name, RecipeConfig).filter)


def test_equal_records_become_copies(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "0.parquet") as writer:
        for text in ("a", "b", "a", "a"):
            writer.add(Document(id=document_id("s", "", text.encode()), source="s", text=text))
        assert writer.copies == 2
    assert read_table(tmp_path / "0.parquet")["metadata"].to_pylist() == ['{"copies":3}', "{}"]
