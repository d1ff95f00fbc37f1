"""The report's tables of packing and of bytes a token."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from example_report import manifest

from configs.schema.pipeline import TokenizerConfig
from data_pipeline.document import SCHEMA
from data_pipeline.tokenize import TokenShard, encode_shard, train_tokenizer
from launch.report.packing import _stream, by_language


def test_padding_and_cut_documents_of_a_stream() -> None:
    name, info = next(iter(manifest().streams.items()))
    row = {"documents": 40, "tokens": 9000, "bytes": 36_000, "sequences": 10, "cut": 4}
    assert _stream(name, row, 1000)[3:5] == ["4.00", "4.00"]
    assert "10" in _stream(name, row, 1000)[5] and _stream(name, row, 1000)[6].startswith("4 (")
    assert _stream(name, row | {"cut": None}, 1000)[6] == "—"
    assert info.cut is None


def test_bytes_a_token_by_source_and_language(tmp_path: Path) -> None:
    texts = [("web", "en", "the river rises"), ("web", "de", "der Fluss steigt"), ("code", None, "x = 1")]
    train_tokenizer(
        [(t, t) for _, _, t in texts], TokenizerConfig(vocab_size=300, n_special=8), 0, tmp_path / "tok"
    )
    shards = []
    for number in range(2):
        rows = [
            {"id": f"{number}{i:031x}", "source": s, "language": lang, "group": "g", "text": t}
            for i, (s, lang, t) in enumerate(texts)
        ]
        shards.append(tmp_path / f"{number}.arrow")
        encode_shard(pa.Table.from_pylist(rows, SCHEMA), tmp_path / "tok", shards[-1])
    lengths = TokenShard(shards[0]).lengths
    found = {(source, language): row for source, language, *row in by_language(shards)}
    assert found.keys() == {("web", "en"), ("web", "de"), ("code", "und")}
    for (source, language, text), length in zip(texts, lengths.tolist(), strict=True):
        documents, tokens, ratio = found[source, language or "und"]
        assert (documents, tokens, ratio) == ("2", str(2 * length), f"{len(text.encode()) / length:.2f}")
