"""Deduplication across snapshots: against the index of earlier runs."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from dedup_runs import decisions, identifier, kept, write_run

from configs.edge import ConfigError
from configs.schema.pipeline import DedupConfig
from data_pipeline.dedup import index, minhash
from data_pipeline.document import write_table

CONFIG = DedupConfig(keep="longest")
VOCABULARY = [f"w{i}" for i in range(5000)]


def text_of(draw: random.Random, words: int = 200) -> str:
    return " ".join(draw.choices(VOCABULARY, k=words))


def finish(run: Path, shards: int, config: DedupConfig = CONFIG) -> None:
    """Deduplicate, take its decisions for the final ones, write the index."""
    minhash.run(run, shards, config)
    for shard in range(shards):
        table = pq.read_table(run / f"decisions/minhash/{shard:05d}.parquet")
        write_table(table, run / f"decisions/final/{shard:05d}.parquet")
        index.write(run, shards, shard, config)


def snapshots(tmp_path: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]], Path]:
    draw = random.Random(0)
    old = [(identifier(("old", n)), text_of(draw)) for n in range(40)]
    old.append((identifier("short twin"), old[0][1].rsplit(" ", 3)[0]))  # dropped in the first run
    new = [
        (identifier(("new", n)), f"{text} and {n} more words at the end")
        for n, (_, text) in enumerate(old[:20])
    ]
    new += [(identifier(("fresh", n)), text_of(draw)) for n in range(20)]
    new += [(identifier(("copy", n)), text + " copied") for n, (_, text) in enumerate(new[20:30])]
    run = write_run(tmp_path / "first", [old[:15], old[15:]])
    finish(run, 2)
    return old, new, run


def test_what_an_earlier_run_kept_is_dropped_with_its_id_however_good_it_is(tmp_path: Path) -> None:
    old, new, first = snapshots(tmp_path)
    assert old[-1][0] not in kept(first, "minhash")
    second = write_run(tmp_path / "second", [new], quality={i: 1.0 for i, _ in new})
    minhash.run(second, 1, dataclasses.replace(CONFIG, index=(str(first),), keep="quality"))
    found = decisions(second, "minhash")
    for n in range(20):
        row = found[identifier(("new", n))]
        assert not row["keep"]
        assert row["detail"].split()[0] == identifier(("old", n))
        assert float(row["detail"].split()[1]) >= 0.8
    stay = kept(second, "minhash")
    assert sum(i in stay for i, _ in new[20:]) == 20  # of each fresh document and its copy, one
    sizes = {
        r["id"]: r["cluster_size"]
        for r in pq.read_table(second / "signals/minhash/00000.parquet").to_pylist()
    }
    assert sizes[identifier(("new", 3))] == 2


def test_a_chain_of_snapshots_and_the_split_into_shards(tmp_path: Path) -> None:
    _, new, first = snapshots(tmp_path)
    second = write_run(tmp_path / "second", [new])
    finish(second, 1, dataclasses.replace(CONFIG, index=(str(first),)))
    both = dataclasses.replace(CONFIG, index=(str(second), str(first)))
    third = [(identifier(("third", n)), text + " again") for n, (_, text) in enumerate(new)]
    one = write_run(tmp_path / "one", [third])
    many = write_run(tmp_path / "many", [third[30:], third[:7], third[7:30]])
    swapped = dataclasses.replace(CONFIG, index=(str(first), str(second)))
    minhash.run(one, 1, both)
    minhash.run(many, 3, swapped)
    assert decisions(one, "minhash") == decisions(many, "minhash")
    assert not kept(one, "minhash")
    details = {row["detail"].split()[0] for row in decisions(one, "minhash").values()}
    assert details <= kept(first, "minhash") | kept(second, "minhash")
    alone = write_run(tmp_path / "alone", [third])
    minhash.run(alone, 1, dataclasses.replace(CONFIG, index=(str(second),)))
    assert kept(alone, "minhash") == {identifier(("third", n)) for n in range(20)}


def test_an_index_that_does_not_fit_is_one_clear_error(tmp_path: Path) -> None:
    _, new, first = snapshots(tmp_path)
    second = write_run(tmp_path / "second", [new])
    config = dataclasses.replace(CONFIG, index=(str(first),))
    with pytest.raises(
        ConfigError, match=r"other parameters \(bands 20 instead of 14, rows 6 instead of 8\)"
    ):
        minhash.run(second, 1, dataclasses.replace(config, bands=14, rows=8))
    with pytest.raises(ConfigError, match="holds no index"):
        minhash.run(second, 1, dataclasses.replace(config, index=(str(tmp_path),)))
    with pytest.raises(ConfigError, match="is the output of this run"):
        minhash.run(second, 1, dataclasses.replace(config, index=(str(second),)))
    with pytest.raises(ConfigError, match="twice"):
        minhash.run(second, 1, dataclasses.replace(config, index=(str(first), f"{first}/../first")))
    manifest = first / "index/manifest.json"
    good = manifest.read_bytes()
    manifest.write_bytes(orjson.dumps(orjson.loads(good) | {"format": 99}))
    with pytest.raises(ConfigError, match="format 99 instead of 3"):
        minhash.run(second, 1, config)
    manifest.write_bytes(good)
    other = pq.read_table(first / "documents/00000.parquet")
    write_table(other.slice(1).append_column("x", other["id"].slice(1)), first / "documents/00000.parquet")
    with pytest.raises(ValueError, match="the ids differ"):
        minhash.run(second, 1, config)
    (first / "documents/00000.parquet").unlink()
    with pytest.raises(ConfigError, match=r"documents/00000\.parquet is missing"):
        minhash.run(second, 1, config)


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    _, new, first = snapshots(tmp_path)
    second = write_run(tmp_path / "second", [new])
    config = dataclasses.replace(CONFIG, index=(str(first),))
    part = first / "index/00001.arrays"
    whole = part.read_bytes()
    for damaged in (whole[:-40], b"PK\x03\x04" + whole[4:], whole[:3]):
        part.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"00001\.arrays is (cut short|damaged)"):
            minhash.run(second, 1, config)


def test_documents_of_two_indexes_all_stay_to_be_compared_with(tmp_path: Path) -> None:
    words = text_of(random.Random(3), 400).split()
    one, other, new = (
        words[:360],
        words[30:390],
        words[60:],
    )  # neighbours at J .84, the first and the last at .69
    folders = []
    for n, found in enumerate((one, other)):
        run = write_run(tmp_path / f"run{n}", [[(f"{n}" * 32, " ".join(found))]])
        finish(run, 1)
        folders.append(str(run))
    run = write_run(tmp_path / "new", [[("f" * 32, " ".join(new))]])
    minhash.run(run, 1, dataclasses.replace(CONFIG, index=tuple(folders)))
    row = decisions(run, "minhash")["f" * 32]
    assert not row["keep"]
    assert row["detail"].split()[0] == "1" * 32
