"""Sketches that datasketch opens, and the question what is near a text."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from dedup_runs import identifier, write_run

from configs.edge import ConfigError
from configs.schema.pipeline import DedupConfig
from data_pipeline import lineage, run
from data_pipeline.dedup import near, shingles, sketches
from data_pipeline.document import write_table

CONFIG = DedupConfig(keep="longest", sketches=True)
VOCABULARY = [f"w{i}" for i in range(5000)]
SYLLABLES = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "rt", "l", "sk", "m")]


def words(draw: random.Random, count: int) -> list[str]:
    return ["".join(draw.choices(SYLLABLES, k=2)) for _ in range(count)]


def test_datasketch_opens_what_a_run_wrote(tmp_path: Path) -> None:
    from datasketch import LeanMinHash, MinHash, MinHashLSH

    draw = random.Random(0)
    texts = [" ".join(draw.choices(VOCABULARY, k=150)) for _ in range(30)]
    texts += ["", "… — …", texts[0] + " and a few more words"]
    rows = [(identifier(n), text) for n, text in enumerate(texts)]
    made = write_run(tmp_path / "run", [rows[:10], [], rows[10:]])
    for shard in range(3):
        documents = pq.read_table(made / f"documents/{shard:05d}.parquet")
        keep = [i != identifier(5) for i in documents["id"].to_pylist()]
        write_table(
            documents.select(["id"]).append_column("keep", [keep]),
            made / f"decisions/final/{shard:05d}.parquet",
        )
        sketches.write(made, shard, CONFIG)

    # As the documentation says, with nothing of ours.
    table = pq.read_table(made / "sketches")
    settings = orjson.loads(table.schema.metadata[b"minhash"])
    lsh = MinHashLSH(num_perm=settings["permutations"], params=(settings["bands"], settings["rows"]))
    for key, stored in zip(table["id"].to_pylist(), table["sketch"].to_pylist(), strict=True):
        lsh.insert(key, LeanMinHash.deserialize(stored))
    wordless_or_dropped = {identifier(n) for n in (5, 30, 31)}
    assert set(lsh.keys) == {i for i, _ in rows} - wordless_or_dropped
    query = MinHash(num_perm=settings["permutations"], hashfunc=int)
    query.update_batch(sketches.hash_values(texts[0], settings["ngram"]))
    assert set(lsh.query(query)) == {identifier(0), identifier(32)}
    found = dict(sketches.read(made))
    np.testing.assert_array_equal(found[identifier(0)].hashvalues, query.hashvalues)
    exact = shingles.jaccard(*shingles.shingle_sets([texts[0], texts[32]], 5))
    assert found[identifier(32)].jaccard(query) == pytest.approx(exact, abs=0.1)

    # And by our own function.
    ours = sketches.open_lsh(made)
    assert set(ours.query(sketches.sketch(texts[0], 5, 120))) == {identifier(0), identifier(32)}
    with pytest.raises(FileNotFoundError, match=r"dedup\.sketches=true"):
        sketches.open_lsh(tmp_path)


@pytest.fixture(scope="module")
def packed_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished run over two files with families of documents: a base text, and revisions of it."""
    folder = tmp_path_factory.mktemp("near")
    draw = random.Random(1)
    texts = []
    for _ in range(40):
        base = words(draw, 300)
        texts.append(" ".join(base))
        texts.append(" ".join(base[:200] + words(draw, 100)))  # J ≈ 0.49
    (folder / "in").mkdir()
    for part in range(2):
        lines = b"".join(
            orjson.dumps({"id": f"d{n}", "text": t}) + b"\n" for n, t in list(enumerate(texts))[part::2]
        )
        (folder / f"in/{part}.jsonl").write_bytes(lines)
    arguments = ["recipe=text", f"input={folder / 'in'}", f"output={folder / 'out'}"]
    arguments += [
        "tokenizer=small",
        "tokenizer.vocab_size=400",
        "pack.sequence_length=128",
        "dedup.sketches=true",
    ]
    assert run.main([*arguments, "executor.workers=1"]) == 0
    return folder / "out", texts


def test_the_nearest_documents_come_first_with_their_exact_similarity(
    packed_run: tuple[Path, list[str]],
) -> None:
    output, texts = packed_run
    for chosen in (0, 7, 33):
        query = texts[chosen] + " " + " ".join(words(random.Random(2), 20))
        found = near.nearest(output, query, 5, 0.1)
        exact = [(shingles.jaccard(*shingles.shingle_sets([query, text], 5)), text) for text in texts]
        expected = sorted((e for e in exact if e[0] >= 0.1), reverse=True)
        assert [(round(n.similarity, 9), n.text) for n in found] == [(round(s, 9), t) for s, t in expected]
        assert len(found) == 2
        assert found[0].similarity > 0.9 > found[1].similarity > 0.3
    assert near.nearest(output, "wholly unrelated words that nobody ever wrote here", 5, 0.1) == []


def test_a_large_index_is_asked_by_bands(
    packed_run: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, texts = packed_run
    whole = near.nearest(output, texts[8] + " and so on", 5, 0.8)
    monkeypatch.setattr(near, "COMPARED", 10)
    assert near.nearest(output, texts[8] + " and so on", 5, 0.8) == whole
    assert len(whole) == 1


def test_trace_answers_what_is_near(
    packed_run: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    output, texts = packed_run
    given = ["data.path=" + str(output / "packed")]
    assert lineage.main([*given, f"near={texts[10]}", "limit=1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1.000  document ")
    assert "it holds 100% of the text" in out
    assert lineage.main([*given, "near=nothing of this, or: of that = {anywhere}"]) == 1
    assert "lower near_similarity=" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="`near` has no words"):
        lineage.main([*given, "near=…"])
    with pytest.raises(ConfigError, match="given: text, near"):
        lineage.main([*given, "near=a", "text=b"])


def test_an_index_of_another_format_is_refused(packed_run: tuple[Path, list[str]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`near`: .* holds no index"):
        near.nearest(tmp_path, "a b c", 5, 0.1)
    (tmp_path / "index").mkdir()
    manifest = orjson.loads((packed_run[0] / "index/manifest.json").read_bytes())
    (tmp_path / "index/manifest.json").write_bytes(orjson.dumps(manifest | {"format": 1}))
    with pytest.raises(ConfigError, match="has format 1 instead of 3"):
        near.nearest(tmp_path, "a b c", 5, 0.1)


def test_sketches_of_a_run_depend_on_their_settings_alone(packed_run: tuple[Path, list[str]]) -> None:
    output, texts = packed_run
    assert sketches.settings(output)["permutations"] == CONFIG.permutations
    ids = set(pq.read_table(output / "sketches")["id"].to_pylist())
    kept = {
        row["id"]
        for path in sorted((output / "decisions/final").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
        if row["keep"]
    }
    assert ids == kept
    assert len(ids) == len(texts)
