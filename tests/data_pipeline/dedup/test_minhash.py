from __future__ import annotations

import dataclasses
import gzip
import io
import os
import random
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from dedup_runs import decisions, identifier, kept, write_run

from configs.edge import ConfigError
from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import bands, corpus, minhash, sets, shingles, signatures, sketches, stored, verify
from data_pipeline.zstd import zstd

VOCABULARY = [f"w{i}" for i in range(5000)]
CONFIG = DedupConfig(keep="longest")


def text_of(draw: random.Random, words: int) -> list[str]:
    return draw.choices(VOCABULARY, k=words)


def changed(words: list[str], draw: random.Random, changes: int) -> list[str]:
    """The words with some replaced: each change costs up to five shingles."""
    out = list(words)
    for at in draw.sample(range(len(out)), changes):
        out[at] = draw.choice(VOCABULARY)
    return out


def near_duplicates(seed: int, families: int) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    rows = []
    for f in range(families):
        base = text_of(draw, draw.randint(60, 400))
        for m in range(draw.randint(1, 4)):
            words = changed(base, draw, draw.randint(0, len(base) // 40)) if m else base
            rows.append((identifier((f, m)), " ".join(words)))
    draw.shuffle(rows)
    return rows


def test_agreement_of_signatures_estimates_jaccard() -> None:
    rows = near_duplicates(0, 60)
    texts = [t for _, t in rows]
    minima, counts = signatures.signatures(texts, 5, 120)
    sets = shingles.shingle_sets(texts, 5)
    assert (counts > 0).all()
    errors = []
    for i in range(len(texts)):
        for j in range(i):
            exact = shingles.jaccard(sets[i], sets[j])
            if exact > 0:
                sigma = max((exact * (1 - exact) / 120) ** 0.5, 1e-9)
                errors.append(((minima[i] == minima[j]).mean() - exact) / sigma if exact < 1 else 0.0)
    assert len(errors) > 50
    assert abs(np.mean(errors)) < 0.5
    assert np.std(errors) < 1.3


def test_signatures_are_those_of_datasketch() -> None:
    from datasketch import MinHash

    texts = [t for _, t in near_duplicates(1, 40)] + [
        "",
        "…",
        "one",
        "one two",
        "a b c d e",
        "a b c d e f",
        "汉字" * 9,
    ]
    for permutations in (1, 16, 120, 128):
        minima, _ = signatures.signatures(texts, 5, permutations)
        for text, row in zip(texts, minima, strict=True):
            sketch = MinHash(num_perm=permutations, hashfunc=int)
            assert sketch.scheme == sketches.SCHEME
            sketch.update_batch(sketches.hash_values(text, 5))
            assert sketch.hashvalues.dtype == row.dtype
            np.testing.assert_array_equal(sketch.hashvalues, row)


def test_the_same_pairs_meet_as_in_datasketch() -> None:
    from datasketch import MinHash, MinHashLSH

    texts = [t for _, t in near_duplicates(1, 120)]
    bands, rows = 14, 8
    minima, _ = signatures.signatures(texts, 5, bands * rows)
    keys = signatures.band_keys(minima, bands, rows)
    lsh = MinHashLSH(num_perm=bands * rows, params=(bands, rows))
    for i, text in enumerate(texts):
        sketch = MinHash(num_perm=bands * rows, hashfunc=int)
        sketch.update_batch(sketches.hash_values(text, 5))
        lsh.insert(i, sketch)
    theirs = {
        (min(i, j), max(i, j))
        for table in lsh.hashtables
        for key in table.keys()  # noqa: SIM118 (a storage, not a dict)
        for i in table.get(key)
        for j in table.get(key)
        if i != j
    }
    ours = {(i, j) for i in range(len(texts)) for j in range(i + 1, len(texts)) if (keys[i] == keys[j]).any()}
    assert ours == theirs
    sets = shingles.shingle_sets(texts, 5)
    near = {
        (i, j): exact
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if (exact := shingles.jaccard(sets[i], sets[j])) >= 0.8
    }
    expected = np.mean([1 - (1 - exact**rows) ** bands for exact in near.values()])
    assert len(near) > 50
    assert len(ours & set(near)) / len(near) == pytest.approx(expected, abs=0.08)


def test_every_drop_is_a_verified_duplicate_of_a_kept_document(tmp_path: Path) -> None:
    rows = near_duplicates(2, 80)
    run = write_run(tmp_path / "run", [rows])
    counts = minhash.run(run, 1, CONFIG)
    found = decisions(run, "minhash")
    sets = dict(zip([i for i, _ in rows], shingles.shingle_sets([t for _, t in rows], 5), strict=True))
    stay = kept(run, "minhash")
    assert counts["dropped"] == len(rows) - len(stay) > 30
    for i, row in found.items():
        if not row["keep"]:
            representative, similarity = row["detail"].split()
            assert row["rule"] == "minhash"
            assert representative in stay
            assert shingles.jaccard(sets[i], sets[representative]) == pytest.approx(
                float(similarity), abs=1e-4
            )
            assert float(similarity) >= CONFIG.jaccard
        else:
            assert row["rule"] is None
    left = sorted(stay)
    missed = sum(
        shingles.jaccard(sets[a], sets[b]) >= CONFIG.jaccard for n, a in enumerate(left) for b in left[:n]
    )
    assert missed <= 1
    assert not list((run / "minhash/sets").iterdir())


def test_decisions_do_not_depend_on_shards(tmp_path: Path) -> None:
    rows = near_duplicates(3, 60)
    shuffled = random.Random(0).sample(rows, len(rows))
    one = write_run(tmp_path / "one", [rows])
    many = write_run(tmp_path / "many", [shuffled[:10], [], shuffled[10:50], shuffled[50:]])
    minhash.run(one, 1, CONFIG)
    minhash.run(many, 4, CONFIG)
    assert decisions(one, "minhash") == decisions(many, "minhash")


def test_deletion_is_not_transitive(tmp_path: Path) -> None:
    # a–b and b–c are duplicates, a–c are not; a is preferred, so b goes and c stays.
    base = text_of(random.Random(5), 400)
    a, b, c = base, base[30:], base[60:]  # Jaccard a–b .924, b–c .918, a–c .85
    rows = [(identifier(n), " ".join(w)) for n, w in zip("abc", (a, b, c), strict=True)]
    config = dataclasses.replace(CONFIG, jaccard=0.9)
    run = write_run(tmp_path / "run", [rows])
    minhash.run(run, 1, config)
    assert kept(run, "minhash") == {identifier("a"), identifier("c")}


def test_preference_is_quality_then_length_then_id(tmp_path: Path) -> None:
    text = " ".join(text_of(random.Random(6), 200))
    rows = [("b" * 32, text), ("a" * 32, text), ("c" * 32, text + " end")]
    scores: dict[str, float | None] = {"a" * 32: 0.1, "b" * 32: 0.9}  # c has none
    run = write_run(tmp_path / "run", [rows], quality=scores, dates={"a" * 32: "2020-01-01"})
    for keep, stays in (("quality", "b"), ("longest", "c"), ("first", "a")):
        minhash.run(run, 1, DedupConfig(keep=keep))  # type: ignore[arg-type]
        assert kept(run, "minhash") == {stays * 32}, keep
        assert decisions(run, "minhash")[stays * 32]["detail"] == "3 documents"
    same = write_run(tmp_path / "same", [rows[:2]])
    minhash.run(same, 1, DedupConfig())
    assert kept(same, "minhash") == {"a" * 32}


def test_what_policy_a_dropped_takes_no_part(tmp_path: Path) -> None:
    text = " ".join(text_of(random.Random(7), 100))
    rows = [("a" * 32, text), ("b" * 32, text)]
    run = write_run(tmp_path / "run", [rows], dropped={"a" * 32})
    counts = minhash.run(run, 1, CONFIG)
    assert counts["considered"] == 1
    found = decisions(run, "minhash")
    assert found["b" * 32]["keep"]
    assert found["a" * 32] == {"id": "a" * 32, "keep": False, "rule": None, "detail": None}


def test_a_giant_bucket_costs_one_comparison_a_document(tmp_path: Path) -> None:
    draw = random.Random(8)
    base = text_of(draw, 150)
    rows = [(identifier(n), " ".join(changed(base, draw, 1))) for n in range(600)]
    run = write_run(tmp_path / "run", [rows])
    counts = minhash.run(run, 1, CONFIG)
    assert counts["kept"] <= 3
    assert counts["verified"] <= 2 * len(rows)


def test_a_giant_bucket_of_different_pages_stays_linear(tmp_path: Path) -> None:
    draw = random.Random(10)
    frame = text_of(draw, 120)
    rows = [(identifier(n), " ".join([*frame, *text_of(draw, 25)])) for n in range(400)]
    rows += [(identifier((n, "copy")), rows[n][1] + " end") for n in range(0, 400, 40)]
    run = write_run(tmp_path / "run", [rows])
    counts = minhash.run(run, 1, CONFIG)
    assert counts["dropped"] == 10
    assert counts["verified"] <= 64 * len(rows)


def test_little_memory_and_many_ranges_give_the_same_decisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = near_duplicates(9, 60)
    plenty, little = (
        write_run(tmp_path / n, [rows[:90], rows[90:]], dropped={rows[3][0]}) for n in ("plenty", "little")
    )
    minhash.run(plenty, 2, CONFIG)
    # As if 64 MiB were some KiB: several ranges of keys, several segments of sets, sets in a file.
    monkeypatch.setattr(bands, "_SORT_BYTES", 2**20)
    monkeypatch.setattr(corpus, "_BATCH_ROWS", 7)
    monkeypatch.setattr(sets, "_BYTES", 2**16)
    monkeypatch.setattr(verify, "_BYTES", 2**16)
    few = dataclasses.replace(CONFIG, memory_mb=64)
    assert minhash.run(little, 2, few)["segments"] > 20
    assert decisions(plenty, "minhash") == decisions(little, "minhash")


def test_texts_without_words_are_never_duplicates(tmp_path: Path) -> None:
    rows = [(identifier(n), text) for n, text in enumerate(["", "…", "—", "one two", "one two"])]
    run = write_run(tmp_path / "run", [rows])
    minhash.run(run, 1, CONFIG)
    assert len(kept(run, "minhash")) == 4


def test_pairs_are_not_verified_without_their_sets(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [near_duplicates(9, 20)])
    minhash.run(run, 1, CONFIG)
    with pytest.raises(ValueError, match="remove that folder"):
        verify.verify(run, 1, 0, CONFIG)


def test_an_empty_corpus(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [[], []])
    assert minhash.run(run, 2, CONFIG)["considered"] == 0


def test_impossible_parameters_are_named() -> None:
    with pytest.raises(ConfigError, match=r"20 × 7 = 140 .* `dedup.permutations` is 120"):
        stored.check(dataclasses.replace(CONFIG, rows=7))
    with pytest.raises(ConfigError, match=r"dedup\.jaccard"):
        stored.check(dataclasses.replace(CONFIG, jaccard=0.0))


def test_cluster_sizes_are_a_signal(tmp_path: Path) -> None:
    draw = random.Random(11)
    base, other = text_of(draw, 200), text_of(draw, 200)
    rows = [(identifier(n), " ".join([*base, *["end"] * n])) for n in range(3)] + [
        ("f" * 32, " ".join(other))
    ]
    run = write_run(tmp_path / "run", [rows[:1], rows[1:]], dropped={"f" * 32})
    minhash.run(run, 2, CONFIG)
    found = [
        row for n in (0, 1) for row in pq.read_table(run / f"signals/minhash/0000{n}.parquet").to_pylist()
    ]
    assert [row["id"] for row in found] == [i for i, _ in rows]
    assert [row["cluster_size"] for row in found] == [3, 3, 3, None]
    assert [row["cluster"] for row in found] == [rows[2][0]] * 3 + [None]


@pytest.mark.skipif("ARRIERO_TEST_DATA" not in os.environ, reason="ARRIERO_TEST_DATA is not set")
def test_recall_and_precision_on_a_labelled_crawl(tmp_path: Path) -> None:
    data = Path(os.environ["ARRIERO_TEST_DATA"]) / "neardup"
    with zstd.open(data / "uci_docs.jsonl.zst", "rb") as file:
        texts = [orjson.loads(line)["text"] for line in io.BufferedReader(file)]
    with gzip.open(data / "uci_pairs.tsv.gz", "rt") as file:
        rows = [line.split("\t") for line in file.readlines()[1:]]
    truth = {(int(a), int(b)) for a, b, j in rows if float(j) >= 0.8}
    listed = {(int(a), int(b)): float(j) for a, b, j in rows}
    keys = signatures.band_keys(signatures.signatures(texts, 5, 120)[0], 20, 6)
    met = sum(1 for a, b in truth if (keys[a] == keys[b]).any())
    assert met / len(truth) >= 0.97

    run = write_run(tmp_path / "run", [[(f"{i:032x}", t) for i, t in enumerate(texts)]])
    minhash.run(run, 1, CONFIG)
    found = decisions(run, "minhash")
    dropped = [(int(i, 16), int(row["detail"].split()[0], 16)) for i, row in found.items() if not row["keep"]]
    right = sum(listed.get((min(p), max(p)), 0.0) >= 0.8 for p in dropped)
    assert right / len(dropped) >= 0.99
    stay = {int(i, 16) for i, row in found.items() if row["keep"]}
    removable = {b for pair in truth for b in pair} - stay
    left = sum(a in stay and b in stay for a, b in truth)
    assert left <= 0.02 * len(removable)
