"""`arriero trace` on a real packed dataset."""

from __future__ import annotations

import shutil

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packing_example import Example

from configs.edge import ConfigError
from configs.schema.data_verbs import PackedPath, TraceRun
from data_pipeline import edits
from data_pipeline.document import write_table
from data_pipeline.lineage import main, run
from data_pipeline.pack import pack


@pytest.fixture
def packed(example: Example) -> Example:
    pack(example.run_dir, example.config)
    return example


def trace(example: Example, **what: str) -> int:
    return run(TraceRun(PackedPath(str(example.run_dir / "packed")), **what))  # type: ignore[arg-type]


def test_a_packed_document_is_found_by_id_and_url_without_the_data_directory(
    packed: Example, tmp_path, capsys
) -> None:
    alone = tmp_path / "elsewhere"
    shutil.copytree(packed.run_dir / "packed", alone)
    document = max(packed.kept.values(), key=lambda d: len(d.text))
    for key in (f"id={document.id}", f"url={document.url}"):
        assert main([key, f"data.path={alone}"]) == 0
        out = capsys.readouterr().out
        assert document.id in out and f"/{document.source}" in out and "tokens 0–" in out
        assert document.text[:10] in out


def test_a_dropped_document_names_its_rule(packed: Example, capsys) -> None:
    document = next(iter(packed.dropped.values()))
    for what in ({"id": document.id}, {"url": document.url}, {"text": document.text[:80]}):
        assert trace(packed, **what) == 0
        assert "dropped by gopher.n_words (12 < 50)" in capsys.readouterr().out


def test_text_is_traced_to_the_sequence_that_holds_it(packed: Example, capsys) -> None:
    document = max(packed.kept.values(), key=lambda d: len(d.text))
    words = document.text[3000:3060]
    assert trace(packed, text=words) == 0
    out = capsys.readouterr().out
    assert repr(words[:20])[1:-1] in out
    assert out.count("sequence ") <= 4


def test_edits_of_a_document_are_shown(packed: Example, capsys) -> None:
    document = max(packed.kept.values(), key=lambda d: len(d.text))
    for path in sorted((packed.run_dir / "documents").glob("*.parquet")):
        table = pq.read_table(path)
        ids = table["id"].to_pylist()
        if document.id not in ids:
            continue
        row = ids.index(document.id)
        spans = [[edits.Span(0, 10), edits.Span(20, 30)] if i == document.id else [] for i in ids]
        edits.write(packed.run_dir, "lines", int(path.stem), table["id"], spans)
        edited = pa.table({"id": [document.id], "text": [edits.apply(document.text, [spans[row]])]})
        write_table(edited, packed.run_dir / "kept" / path.name)
    for what in ({"id": document.id}, {"url": document.url}, {"text": document.text[3000:3060]}):
        assert trace(packed, **what) == 0
        out = capsys.readouterr().out
        assert f"edits lines: 20 characters at 2 places: {document.text[:10]!r}" in out
        assert "this text was taken out" not in out
    assert trace(packed, text=document.text[:40]) == 0
    assert (
        "this text was taken out of the document, or changed, before it was packed:"
        in capsys.readouterr().out
    )


def test_a_record_that_was_set_aside_is_found(packed: Example, capsys) -> None:
    folder = packed.run_dir / "rejected"
    folder.mkdir()
    record = {
        "file": "crawl.warc",
        "record": 7,
        "offset": 991,
        "reason": "truncated",
        "expected": "100 bytes",
        "excerpt": "GET /quux",
    }
    (folder / "00000.jsonl").write_bytes(orjson.dumps(record) + b"\n")
    assert trace(packed, text="/quux") == 0
    assert "set aside: crawl.warc, record 7 at byte 991" in capsys.readouterr().out


def test_what_is_not_there_exits_1_with_a_sentence(packed: Example, capsys) -> None:
    assert trace(packed, url="https://nowhere.example") == 1
    assert "no document with url 'https://nowhere.example' is in" in capsys.readouterr().err
    for path in packed.run_dir.iterdir():
        if path.name != "packed":
            shutil.rmtree(path)
    assert trace(packed, text="anything") == 1
    assert "needs the data directory" in capsys.readouterr().err


def test_exactly_one_question(packed: Example) -> None:
    with pytest.raises(ConfigError, match="exactly one of"):
        trace(packed, url="a", text="b")
    with pytest.raises(ConfigError, match="32 hexadecimal digits"):
        trace(packed, id="xyz")
