"""Documents whose words are far from those of the corpus."""

from __future__ import annotations

import random
from collections import Counter
from math import log2
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest

from data_pipeline.analysis import analyse, distribution
from data_pipeline.annotate import outliers
from data_pipeline.document import Document, ShardWriter, document_id, read_shard, read_table, shard_path
from data_pipeline.heuristics import annotate as heuristics

COMMON = [f"w{i}" for i in range(400)]


def corpus() -> list[tuple[str, str]]:
    draw = random.Random(5)
    weights = [1 / (i + 1) for i in range(len(COMMON))]
    found = [("en", " ".join(draw.choices(COMMON, weights, k=draw.randrange(20, 900)))) for _ in range(500)]
    found += [("de", " ".join(draw.choices(COMMON[::-1], weights, k=50))) for _ in range(3)]
    found.append(("en", " ".join(f"{draw.getrandbits(60):x}" for _ in range(200))))
    found.append(("en", ""))
    return found


def run(folder: Path, documents: list[tuple[str, str]], shards: int) -> dict[str, pa.Table]:
    """All stages; signals by document id, and the distribution."""
    (folder / "units.json").parent.mkdir(parents=True, exist_ok=True)
    (folder / "units.json").write_bytes(orjson.dumps([{}] * shards))
    for shard in range(shards):
        rows = documents[shard::shards]
        with ShardWriter(shard_path(folder, "documents", shard)) as writer:
            for i, (language, text) in enumerate(rows):
                identifier = document_id("s", f"{shard}/{i}/{text[:9]}", b"")
                writer.add(Document(identifier, "s", text, language=language))
        heuristics.annotate(folder, shard, [language for language, _ in rows])
    outliers.merge(folder, shards)
    found = {}
    for shard in range(shards):
        shard_documents = read_shard(folder, shard)
        table = outliers.annotate(folder, shard, shard_documents)
        for text, row in zip(shard_documents["text"].to_pylist(), table.to_pylist(), strict=True):
            found[text] = row
    return found


def test_signals_are_those_of_the_definition(tmp_path: Path) -> None:
    documents = corpus()
    found = run(tmp_path, documents, 2)
    texts = [t for language, t in documents if language == "en"]
    buckets = {w: int(h >> np.uint64(46)) for w, h in _hashes(texts).items()}
    every = Counter(buckets[w] for t in texts for w in t.split())
    text = texts[0]
    own = Counter(buckets[w] for w in text.split())
    n, rest = sum(own.values()), every.total() - own.total() + distribution.SMOOTHING * distribution.BUCKETS
    bits = {k: -log2((every[k] - c + distribution.SMOOTHING) / rest) for k, c in own.items()}
    assert found[text]["cross_entropy"] == pytest.approx(sum(c / n * bits[k] for k, c in own.items()))
    assert found[text]["kl"] == pytest.approx(sum(c / n * (bits[k] + log2(c / n)) for k, c in own.items()))
    assert found[text]["unseen"] == 0


def _hashes(texts: list[str]) -> dict[str, np.uint64]:
    words = sorted({w for t in texts for w in t.split()})
    return dict(zip(words, analyse([" ".join(words)]).hashes, strict=True))


def test_outliers_stand_out_and_small_languages_are_not_judged(tmp_path: Path) -> None:
    documents = corpus()
    found = run(tmp_path, documents, 1)
    strange = found[documents[-2][1]]
    assert strange["unseen"] > 0.95 and strange["excess"] > 3 and strange["kl"] > 10
    for language, text in documents[:-2]:
        row = found[text]
        assert (row["excess"] is None) if language == "de" else (abs(row["excess"]) < 1)
    assert found[""]["kl"] is None


def test_distribution_does_not_depend_on_shards(tmp_path: Path) -> None:
    documents = corpus()
    one, three = run(tmp_path / "1", documents, 1), run(tmp_path / "3", documents, 3)
    first, second = (read_table(tmp_path / n / outliers.DISTRIBUTION) for n in ("1", "3"))
    assert first.equals(second)
    assert (tmp_path / "1" / outliers.DISTRIBUTION).read_bytes() == (
        tmp_path / "3" / outliers.DISTRIBUTION
    ).read_bytes()
    for text, row in one.items():
        assert {k: v for k, v in row.items() if k != "id"} == {
            k: v for k, v in three[text].items() if k != "id"
        }
