from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dedup_runs import decisions, identifier, kept, write_run

from configs.schema.pipeline import DedupConfig, RecipeConfig
from data_pipeline import collect
from data_pipeline.annotate import url as annotator
from data_pipeline.dedup import url
from data_pipeline.document import write_table
from data_pipeline.read import units as planning

Capture = tuple[str, str | None, str | None]
"""Id, URL, date."""


def run_of(path: Path, shards: list[list[Capture]], dropped: set[str] | None = None) -> Path:
    dates = {i: d for shard in shards for i, _, d in shard if d is not None}
    run = write_run(
        path, [[(i, f"text of {i}") for i, _, _ in s] for s in shards], dates=dates, dropped=dropped
    )
    for number, shard in enumerate(shards):
        table = pa.table(
            {"id": [i for i, _, _ in shard], "url": pa.array([u for _, u, _ in shard], pa.string())}
        )
        write_table(annotator.annotate(table, None), run / f"signals/url/{number:05d}.parquet")
    return run


def test_the_newest_capture_of_a_page_stays(tmp_path: Path) -> None:
    a, b, c, d, e, f = (identifier(n) for n in range(6))
    shards: list[list[Capture]] = [
        [
            (a, "http://www.x.example/page/", "2023-05-01"),
            (b, "https://x.example/page?utm_source=mail", "2023-05-01T10:00:00Z"),
        ],
        [
            (c, "https://x.example/page#top", None),
            (d, "https://x.example/Page", "2020-01-01"),
            (e, None, None),
            (f, None, None),
        ],
    ]
    run = run_of(tmp_path / "run", shards)
    counts = url.decide(run, [0, 1], [0, 1], DedupConfig())
    assert counts == {"considered": 6, "kept": 4, "dropped": 2, "clusters": 1}
    found = decisions(run, "url")
    assert kept(run, "url") == {b, d, e, f}
    assert found[a]["rule"] == found[c]["rule"] == "url"
    assert found[a]["detail"].split()[0] == found[c]["detail"].split()[0] == b


def test_warc_captures_of_one_day_are_told_apart(tmp_path: Path) -> None:
    """From the bytes of the archive to the decision."""
    records = b""
    for hour, words in (("23:59:58", "newest"), ("07:00:00", "older"), ("23:59:57.5", "almost")):
        body = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nThe " + words.encode() + b" one."
        head = (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://x.example/\r\nWARC-Date: 2024-03-01T{hour}Z\r\n"
            f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        records += head.encode() + body + b"\r\n\r\n"
    (tmp_path / "x.warc").write_bytes(records)
    run = tmp_path / "run"
    recipe = RecipeConfig(name="web", one_per_url=True)
    for unit in planning.plan([planning.Source("web", recipe, str(tmp_path / "x.warc"))], 1 << 20).units:
        collect.read_unit(run, unit, recipe)
    documents = pq.read_table(run / "documents/00000.parquet")
    write_table(annotator.annotate(documents, None), run / "signals/url/00000.parquet")
    url.decide(run, [0], [0], DedupConfig())
    texts = dict(zip(documents["id"].to_pylist(), documents["text"].to_pylist(), strict=True))
    assert [texts[i] for i in kept(run, "url")] == ["The newest one."]


def test_of_captures_of_one_day_the_preferred_one_stays(tmp_path: Path) -> None:
    rows = [(identifier(n), "http://x.example/", "2023-05-01") for n in range(4)]
    run = run_of(tmp_path / "run", [rows])
    write_table(
        pa.table({"id": [i for i, _, _ in rows], "score": pa.array([0.1, 0.9, None, 0.5], pa.float32())}),
        run / "signals/quality/00000.parquet",
    )
    url.decide(run, [0], [0], DedupConfig(keep="quality"))
    assert kept(run, "url") == {rows[1][0]}


def test_a_dropped_capture_stands_for_none(tmp_path: Path) -> None:
    """The newest capture may have been refused: then the newest of the others stays."""
    rows: list[Capture] = [(identifier(n), "http://x.example/", f"2023-05-0{n + 1}") for n in range(3)]
    run = run_of(tmp_path / "run", [rows], dropped={rows[2][0]})
    url.decide(run, [0], [0], DedupConfig())
    assert kept(run, "url") == {rows[1][0]}
    assert decisions(run, "url")[rows[2][0]]["rule"] is None


def test_sources_whose_addresses_are_no_pages_keep_everything(tmp_path: Path) -> None:
    rows: list[Capture] = [(identifier(n), "http://x.example/dump", None) for n in range(4)]
    run = run_of(tmp_path / "run", [rows[:2], rows[2:]])
    url.decide(run, [0, 1], [1], DedupConfig())
    assert len(kept(run, "url") & {i for i, _, _ in rows[:2]}) == 2
    assert len(kept(run, "url") & {i for i, _, _ in rows[2:]}) == 1


@pytest.mark.parametrize("seed", range(3))
def test_the_choice_does_not_depend_on_shards(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    rows: list[Capture] = [
        (
            identifier(n),
            draw.choice([None, f"http://x.example/{draw.randrange(20)}", f"python:{draw.randrange(20)}"]),
            draw.choice(
                [None, "2023", "2023-01-02", f"2023-01-0{draw.randrange(1, 9)}T0{draw.randrange(9)}:00:00Z"]
            ),
        )
        for n in range(200)
    ]
    expected: dict[str, tuple] = {}
    for i, u, d in rows:
        key = u if u is not None and u.startswith("http") else i
        # Of equally old ones: longer text (all equal here), then smaller id.
        age = (d or "").replace("-", "").replace("T", "").replace(":", "").replace("Z", "")
        rank = (-int(age.ljust(14, "0")) if age else 1, i)
        expected[key] = min(expected.get(key, (rank, i)), (rank, i))
    wanted = {i for _, i in expected.values()}
    for shards in (1, 3, 7):
        draw.shuffle(rows)
        run = run_of(tmp_path / f"{shards}", [rows[k::shards] for k in range(shards)])
        url.decide(run, list(range(shards)), range(shards), DedupConfig())
        assert kept(run, "url") == wanted
