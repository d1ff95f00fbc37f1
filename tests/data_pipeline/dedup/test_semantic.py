from __future__ import annotations

import dataclasses
import random
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from dedup_runs import decisions, identifier, kept, write_run
from threadpoolctl import threadpool_limits

from configs.edge import ConfigError
from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import coverage, embed, semantic, settings

CONFIG = DedupConfig(semantic=True, keep="longest")
VOCABULARY = [
    f"{a}{b}{c}" for a in "bdfgklmnpr" for b in "aeiou" for c in ("nto", "ster", "ld", "vik", "rro")
]


def sentence(draw: random.Random, topic: list[str]) -> list[str]:
    return draw.choices(topic, k=12)


def documents(seed: int, count: int) -> list[tuple[str, str]]:
    """Documents of 20 sentences on a topic each; half of them also revised: words replaced, sentences moved."""
    draw = random.Random(seed)
    rows = []
    for n in range(count):
        topic = draw.sample(VOCABULARY, 120)
        base = [sentence(draw, topic) for _ in range(20)]
        rows.append((identifier((n, 0)), ". ".join(" ".join(s) for s in base)))
        if n % 2:
            revised = [[draw.choice(VOCABULARY) if draw.random() < 0.03 else w for w in s] for s in base[:18]]
            revised = revised[9:] + revised[:9]
            rows.append((identifier((n, 1)), ". ".join(" ".join(s) for s in revised)))
    draw.shuffle(rows)
    return rows


def test_revisions_are_found_and_others_stay(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [documents(0, 60)])
    counts = semantic.run(run, [0], CONFIG)
    assert counts["kept"] == 60
    stays = kept(run, "semantic")
    assert stays == {identifier((n, 0)) for n in range(60)}
    for n in range(1, 60, 2):
        row = decisions(run, "semantic")[identifier((n, 1))]
        other, similarity = row["detail"].split()
        assert (row["rule"], other) == ("semantic", identifier((n, 0)))
        assert float(similarity) >= CONFIG.semantic_coverage
    signals = {r["id"]: r for r in pq.read_table(run / "signals/semantic/00000.parquet").to_pylist()}
    assert signals[identifier((1, 1))]["similarity"] >= CONFIG.semantic_similarity
    assert signals[identifier((2, 0))]["similarity"] is None


def test_pages_of_one_topic_by_other_hands_stay(tmp_path: Path) -> None:
    """The cosine alone would take them for one another: that is what coverage is for."""
    draw = random.Random(3)
    topics = [draw.sample(VOCABULARY, 60) for _ in range(10)]
    rows = [
        (identifier((t, i)), ". ".join(" ".join(sentence(draw, topic)) for _ in range(25)))
        for t, topic in enumerate(topics)
        for i in range(6)
    ]
    run = write_run(tmp_path / "run", [rows])
    assert semantic.run(run, [0], CONFIG)["dropped"] == 0
    assert semantic.run(run, [0], DedupConfig(keep="longest", semantic_coverage=0))["dropped"] >= 40


def test_an_excerpt_goes_and_its_source_stays_but_not_the_other_way_round(tmp_path: Path) -> None:
    whole = documents(4, 1)[0][1]
    part = whole[: len(whole) // 2]
    others = documents(5, 20)
    run = write_run(tmp_path / "run", [[*others, ("a" * 32, whole), ("b" * 32, part)]])
    semantic.run(run, [0], CONFIG)
    found = decisions(run, "semantic")
    assert found["a" * 32]["keep"] and not found["b" * 32]["keep"]
    quality: dict[str, float | None] = dict.fromkeys([i for i, _ in others], 0.5)
    quality |= {"a" * 32: 0.1, "b" * 32: 0.9}
    run = write_run(tmp_path / "other", [[*others, ("a" * 32, whole), ("b" * 32, part)]], quality)
    semantic.run(run, [0], DedupConfig(semantic=True, keep="quality"))
    found = decisions(run, "semantic")
    assert found["a" * 32]["keep"] and found["b" * 32]["keep"]


@pytest.mark.parametrize("limit", [16_384, 25])
def test_decisions_do_not_depend_on_shards_and_parts(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(semantic, "LARGEST_CLUSTER", limit)
    rows = documents(1, 80)
    one = write_run(tmp_path / "one", [rows])
    many = write_run(tmp_path / "many", [rows[70:], rows[:3], [], rows[3:70]])
    assert semantic.run(one, [0], CONFIG)["dropped"] > 20
    semantic.run(many, [2, 0, 1, 3], CONFIG, parts=5)
    assert decisions(one, "semantic") == decisions(many, "semantic")


def test_similarities_do_not_depend_on_the_threads_of_the_machine(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [documents(4, 1200)])
    config = dataclasses.replace(CONFIG, semantic_clusters=1)
    semantic.prepare(run, [0], config)
    semantic.embed_shard(run, 0, config)
    semantic.cluster(run, config)
    found = []
    for threads in (1, 4):
        with threadpool_limits(threads):
            semantic.neighbours(run, 0, 1, config)
        found.append((run / "semantic/neighbours/00000.arrays").read_bytes())
    assert found[0] == found[1]


def test_more_shards_than_a_process_may_open_files(tmp_path: Path) -> None:
    rows = documents(2, 200)
    run = write_run(tmp_path / "run", [[row] for row in rows])
    semantic.prepare(run, list(range(len(rows))), CONFIG)
    for shard in range(len(rows)):
        semantic.embed_shard(run, shard, CONFIG)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = sum(1 for _ in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + semantic.MAPPED + 20, before[1]))
    try:
        semantic.cluster(run, CONFIG)
        semantic.neighbours(run, 0, 1, CONFIG)
        assert semantic.decide(run, CONFIG)["considered"] == len(rows)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def greedy(cosines: np.ndarray, covers: Callable[[int, int], float], at: float, covered: float) -> list[int]:
    """Position of the document that stays for each, by definition."""
    stays: list[int] = []
    found = []
    for i in range(len(cosines)):
        near = sorted((j for j in stays if cosines[i, j] >= at), key=lambda j: (-cosines[i, j], j))
        near = [j for j in near[: semantic.CHECKED] if covers(i, j) >= covered]
        found.append(near[0] if near else i)
        if not near:
            stays.append(i)
    return found


@pytest.mark.parametrize("block", [7, 1024])
def test_neighbours_are_those_of_the_definition(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "_BLOCK", block)
    draw = np.random.default_rng(0)
    embedded = draw.normal(size=(300, 4)).astype(np.float32)
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    sketches = [(np.unique(draw.integers(0, 40, 12).astype(np.uint32)), 0) for _ in range(300)]

    def covers(i: int, j: int) -> float:
        return len(np.intersect1d(sketches[i][0], sketches[j][0])) / len(sketches[i][0])

    cosines = embedded @ embedded.T
    found = semantic.near_neighbours(embedded, sketches, 0.8, 0.4)
    expected = greedy(cosines, covers, 0.8, 0.4)
    dropped = {i: j for i, j in enumerate(expected) if i != j}
    assert dict(zip(found["document"].tolist(), found["representative"].tolist(), strict=True)) == dropped
    assert 20 < len(dropped) < 290
    alone = semantic.near_neighbours(embedded, None, 0.9)
    expected = greedy(cosines, lambda i, j: 1.0, 0.9, 0.0)
    assert {*alone["document"].tolist()} == {i for i, j in enumerate(expected) if i != j}


def test_containment_of_a_book_is_estimated_by_its_sample() -> None:
    draw = random.Random(6)
    words = ["".join(draw.choices("abcdefghijklmnopqrst", k=5)) for _ in range(30_000)]
    book = " ".join(words)
    half = " ".join(words[:15_000])
    a, b = coverage.sketch(half), coverage.sketch(book)
    assert len(a[0]) <= coverage.MOST and len(b[0]) <= coverage.MOST and b[1] > a[1] > 0
    assert coverage.containment(*a, *b) > 0.97
    assert abs(coverage.containment(*b, *a) - 0.5) < 0.1
    assert coverage.containment(*coverage.sketch(""), *a) == 0
    assert coverage.sketch("word")[0].size == 1


def test_the_projection_brings_words_of_one_topic_together() -> None:
    """Two halves of a topic's vocabulary never meet in the pair compared, but in other documents they do."""
    draw = random.Random(7)
    topics = [draw.sample(VOCABULARY, 40) for _ in range(6)]
    texts = [" ".join(draw.choices(topics[n % 6], k=60)) for n in range(300)]
    model = embed.fit(texts, 8)
    first, second = (model.embed(" ".join(topics[0][k : k + 15])) for k in (0, 20))
    other = model.embed(" ".join(w for w in topics[1] if w not in topics[0]))
    assert first @ second > 0.8 > 0.6 > abs(float(first @ other))
    np.testing.assert_allclose(np.linalg.norm(first), 1, atol=1e-6)
    assert not model.embed("…").any()
    # A small corpus is kept whole: its cosines are those of TF-IDF.
    small = texts[:5]
    exact = embed.fit(small, 8)
    terms = [embed.terms(t) for t in small]
    dense = np.zeros((5, embed.FEATURES))
    for row, (features, counts) in zip(dense, terms, strict=True):
        row[features] = (1 + np.log(counts)) * exact.inverse[features]
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    ours = np.stack([exact.embed(t) for t in small])
    np.testing.assert_allclose(ours @ ours.T, dense @ dense.T, atol=1e-3)


def test_the_least_typical_stays_where_asked(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [documents(8, 40)])
    config = DedupConfig(
        keep="longest", semantic_keep="centroid", semantic_coverage=0, semantic_similarity=0.9
    )
    assert semantic.run(run, [0], config)["dropped"] >= 15


def test_empty_and_wordless_documents(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [[("a" * 32, ""), ("b" * 32, "…"), ("c" * 32, "one two")], []])
    assert semantic.run(run, [0, 1], CONFIG)["kept"] == 3
    empty = write_run(tmp_path / "empty", [[]])
    assert semantic.run(empty, [0], CONFIG)["considered"] == 0


def test_impossible_parameters_are_named() -> None:
    for name, config in {
        "semantic_similarity": DedupConfig(semantic_similarity=1.5),
        "semantic_coverage": DedupConfig(semantic_coverage=-0.1),
        "semantic_clusters": DedupConfig(semantic_clusters=0),
    }.items():
        with pytest.raises(ConfigError, match=rf"dedup\.{name}"):
            settings.check_semantic(config)
