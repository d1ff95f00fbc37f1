from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from dedup_runs import decisions, identifier, kept, write_run

from configs.edge import ConfigError
from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import corpus, semantic

CONFIG = DedupConfig(semantic=True, keep="longest")
VOCABULARY = [f"word{i}" for i in range(3000)]


def sentences(draw: random.Random, count: int) -> list[str]:
    return [" ".join(draw.choices(VOCABULARY, k=12)) + "." for _ in range(count)]


def documents(seed: int, count: int) -> list[tuple[str, str]]:
    """Documents of five paragraphs, half of them twice: with the paragraphs in another order."""
    draw = random.Random(seed)
    rows = []
    for n in range(count):
        base = [" ".join(sentences(draw, 4)) for _ in range(5)]
        rows.append((identifier((n, 0)), " ".join(base)))
        if n % 2:
            rows.append((identifier((n, 1)), " ".join(draw.sample(base, len(base)))))
    draw.shuffle(rows)
    return rows


def test_documents_with_reordered_paragraphs_are_found_and_others_stay(tmp_path: Path) -> None:
    rows = documents(0, 60)
    run = write_run(tmp_path / "run", [rows])
    counts = semantic.decide(run, [0], CONFIG)
    assert counts["kept"] == 60
    for i, row in decisions(run, "semantic").items():
        if not row["keep"]:
            other, similarity = row["detail"].split()
            assert row["rule"] == "semantic"
            assert other in kept(run, "semantic") - {i}
            assert float(similarity) >= CONFIG.semantic_similarity
    assert not (run / "scratch").exists()


def test_decisions_do_not_depend_on_shards(tmp_path: Path) -> None:
    rows = documents(1, 80)
    one = write_run(tmp_path / "one", [rows])
    many = write_run(tmp_path / "many", [rows[70:], rows[:3], [], rows[3:70]])
    semantic.decide(one, [0], CONFIG)
    semantic.decide(many, [2, 0, 1, 3], CONFIG)
    assert decisions(one, "semantic") == decisions(many, "semantic")


def test_the_projection_keeps_cosines(tmp_path: Path) -> None:
    draw = random.Random(2)
    base = sentences(draw, 30)
    texts = [" ".join([*base[: 30 - k], *sentences(draw, k)]) for k in range(0, 31, 3)]
    run = write_run(tmp_path / "run", [[(identifier(n), t) for n, t in enumerate(texts)]])
    found = corpus.load(run, [0], "semantic", "longest")
    embedded = semantic.embed(found, 256, run)
    dense = np.zeros((len(texts), semantic.FEATURES))
    df = np.zeros(semantic.FEATURES)
    ordered = [texts[r] for r in found.row]
    for n, (features, counts) in enumerate(semantic.term_counts(ordered)):
        dense[n, features] = 1 + np.log(counts)
        df[features] += 1
    dense *= np.log((1 + len(texts)) / (1 + df)) + 1
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)
    assert np.abs(embedded @ embedded.T - dense @ dense.T).max() < 4 / 256**0.5


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    embedded = draw.normal(size=(300, 8)).astype(np.float32)
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    cluster = draw.integers(0, 3, 300)
    whole, similarity = semantic.near_neighbours(embedded, cluster, 0.8)
    monkeypatch.setattr(semantic, "_BLOCK", 7)
    blocks, _ = semantic.near_neighbours(embedded, cluster, 0.8)
    np.testing.assert_array_equal(whole, blocks)
    stays = whole == np.arange(300)
    assert 10 < stays.sum() < 290
    cosines = embedded @ embedded.T
    for i in range(300):
        preferred = np.flatnonzero(stays[:i] & (cluster[:i] == cluster[i]))
        best = cosines[i, preferred].max(initial=-1)
        assert stays[i] == (best < 0.8)
        if not stays[i]:
            assert similarity[i] == pytest.approx(best, abs=1e-6)


def test_empty_and_wordless_documents(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [[("a" * 32, ""), ("b" * 32, "…"), ("c" * 32, "one two")], []])
    assert semantic.decide(run, [0, 1], CONFIG)["kept"] == 3
    empty = write_run(tmp_path / "empty", [[]])
    assert semantic.decide(empty, [0], CONFIG)["considered"] == 0


def test_impossible_parameters_are_named() -> None:
    with pytest.raises(ConfigError, match=r"dedup\.semantic_similarity"):
        semantic.check(DedupConfig(semantic_similarity=1.5))
