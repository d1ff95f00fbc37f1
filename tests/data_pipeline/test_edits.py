"""Edits: what a text becomes under the edits of several sets, and that kept documents carry them."""

from __future__ import annotations

import random
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline import edits, kept
from data_pipeline.document import DECISION_SCHEMA, SCHEMA, read_table, write_table
from data_pipeline.edits import Span
from data_pipeline.zstd import zstd

TEXT = "keep this\nmail me: a@b.org now\ndrop this\nend"
MAIL = Span(19, 26, "<email>")
LINE = Span(31, 41)


def test_spans_replace_and_delete() -> None:
    assert edits.apply(TEXT, [[MAIL], [LINE]]) == "keep this\nmail me: <email> now\nend"


def test_the_order_of_sets_does_not_change_what_is_deleted() -> None:
    line_of_mail = Span(10, 31)
    for sets in ([[MAIL], [line_of_mail, LINE]], [[line_of_mail, LINE], [MAIL]]):
        assert edits.apply(TEXT, sets) == "keep this\nend"


def test_a_deletion_leaves_no_part_of_what_is_masked() -> None:
    for deletion, left in (
        (Span(17, 22), "mail me<email> now"),
        (Span(22, 31), "mail me: <email>drop"),
        (Span(20, 22), "mail me: <email> now"),
        (Span(19, 26), "mail me:  now"),
    ):
        assert left in edits.apply(TEXT, [[MAIL], [deletion]]), deletion
    both = edits.apply(TEXT, [[MAIL], [Span(15, 21), Span(24, 30)]])
    assert "mail <email>\ndrop" in both


def test_random_edits_leave_what_no_span_names_and_nothing_else() -> None:
    draw = random.Random(0)
    for _ in range(3000):
        text = "".join(chr(0x4E00 + i) for i in range(30))
        sets = []
        for n in range(3):
            spans = [(draw.randrange(30), draw.randrange(1, 8)) for _ in range(draw.randrange(4))]
            sets.append([Span(a, min(30, a + d), draw.choice(["", f"<{n}>"])) for a, d in spans])
        deleted = {i for spans in sets for s in spans if not s.text for i in range(s.start, s.end)}
        left = {ord(c) - 0x4E00 for c in edits.apply(text, sets) if c not in "<>012"}
        assert not left & deleted
        assert left >= set(range(30)) - {i for spans in sets for s in spans for i in range(s.start, s.end)}
        # What the first set masks never survives, unless two of its own masks overlap.
        masks = [s for s in sets[0] if s.text]
        for mask in masks:
            if not any(m is not mask and m.start < mask.end and mask.start < m.end for m in masks):
                assert not left & set(range(mask.start, mask.end))


def test_of_two_replacements_the_set_named_first_wins() -> None:
    wider = Span(10, 30, "<contact>")
    assert "<contact>\ndrop" in edits.apply(TEXT, [[wider], [MAIL]])
    assert "mail me: <email> now" in edits.apply(TEXT, [[MAIL], [wider]])


def test_deletions_that_overlap_are_one() -> None:
    assert edits.apply("0123456789", [[Span(2, 5)], [Span(4, 7), Span(7, 8)]]) == "0189"


def test_a_span_outside_the_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="outside a text of 3 characters"):
        edits.apply("abc", [[Span(2, 4)]])


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    texts = [TEXT, "all of it goes", "dropped already", "untouched 😀"]
    rows = [{"id": f"{i:032x}", "source": "s", "metadata": "{}", "text": t} for i, t in enumerate(texts)]
    documents = pa.Table.from_pylist(rows, SCHEMA)
    write_table(documents, tmp_path / "documents/00000.parquet")
    decisions = [
        {"id": r["id"], "keep": i != 2, "rule": "short" if i == 2 else None} for i, r in enumerate(rows)
    ]
    write_table(pa.Table.from_pylist(decisions, DECISION_SCHEMA), tmp_path / "decisions/a/00000.parquet")
    flags = pa.array([[]] * 4, pa.list_(pa.string()))
    write_table(pa.table({"id": documents["id"], "flags": flags}), tmp_path / "flags/00000.parquet")
    spans = [[LINE, MAIL], [Span(0, 14)], [Span(0, 3)], []]
    edits.write(tmp_path, "mine", 0, documents["id"], spans)
    return tmp_path


def test_kept_documents_are_edited_and_empty_ones_are_dropped_by_a_rule(run_dir: Path) -> None:
    counts = kept.finish(run_dir, 0, ["a"], ["mine"], jsonl=True)
    table = pq.read_table(run_dir / "kept/00000.parquet")
    assert table["text"].to_pylist() == ["keep this\nmail me: <email> now\nend", "untouched 😀"]
    final = read_table(run_dir / "decisions/final/00000.parquet")
    assert final["rule"].to_pylist() == [None, kept.EMPTY_RULE, "short", None]
    assert counts == {"kept": 2, "dropped": 2, "edited": 2, "removed_characters": 24}
    lines = zstd.decompress((run_dir / "kept/00000.jsonl.zst").read_bytes())
    assert [orjson.loads(x)["text"] for x in lines.splitlines()] == table["text"].to_pylist()
    assert list(kept.texts(run_dir, 1)) == list(
        zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True)
    )


def test_a_policy_that_names_edits_nobody_wrote_is_an_error(run_dir: Path) -> None:
    with pytest.raises(ValueError, match="no stage wrote them; there are: mine"):
        kept.finish(run_dir, 0, ["a"], ["privacy"], jsonl=False)


def test_edits_of_another_shard_are_an_error(run_dir: Path) -> None:
    edits.write(run_dir, "mine", 0, pa.chunked_array([["f" * 32] * 4]), [[]] * 4)
    with pytest.raises(ValueError, match="ids differ"):
        kept.finish(run_dir, 0, ["a"], ["mine"], jsonl=False)
