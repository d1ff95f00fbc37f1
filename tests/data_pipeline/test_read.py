"""Readers: what is damaged is set aside and named, the rest is read, memory stays bounded."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.schema.pipeline import RecipeConfig
from data_pipeline.read import Item, Record, SetAside, Skipped, Unit, records
from data_pipeline.read import python as environment
from data_pipeline.read.python import Entry, docstrings, spread
from data_pipeline.read.storage import find
from data_pipeline.read.units import Source, plan
from data_pipeline.zstd import zstd

RECIPE = RecipeConfig(name="test")


def read(path: Path, recipe: RecipeConfig = RECIPE, unit_bytes: int = 2**26) -> list[Item]:
    units = plan([Source("test", recipe, str(path))], unit_bytes).units
    return [item for unit in units for item in records(unit, recipe)]


def payloads(items: list[Item]) -> list[bytes]:
    return [i.payload for i in items if isinstance(i, Record)]


def warc_record(number: int, body: bytes = b"", length: int | None = None) -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + (
        body or b"<html><p>page %d</p></html>" % number
    )
    return (
        b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://example.org/%d\r\n"
        b"Content-Type: application/http\r\nContent-Length: %d\r\n\r\n" % (number, length or len(http))
    ) + http + b"\r\n\r\n"  # fmt: skip


@pytest.mark.parametrize(
    "pack",
    [lambda d: d, gzip.compress, bz2.compress, lzma.compress, zstd.compress, lz4.frame.compress],
)
def test_any_compression_under_any_name(tmp_path: Path, pack) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(pack(b'{"text": "one"}\n{"text": "two"}\n'))
    assert payloads(read(path)) == [b"one", b"two"]


def test_damaged_gzip_member_costs_one_record(tmp_path: Path) -> None:
    members = [gzip.compress(warc_record(i, bytes(range(256)) * 20), mtime=0) for i in range(8)]
    broken = bytearray(members[3])
    broken[len(broken) // 2] ^= 0xFF
    members[3] = bytes(broken)
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(members))
    items = read(path)
    aside = [i for i in items if isinstance(i, SetAside)]
    assert [i.url for i in items if isinstance(i, Record)] == [
        f"http://example.org/{i}" for i in (0, 1, 2, 4, 5, 6, 7)
    ]
    assert [(a.record, a.offset) for a in aside] == [(3, sum(map(len, members[:3])))]
    assert "gzip" in aside[0].reason


@pytest.mark.parametrize("compress", [False, True])
def test_lying_content_length_costs_one_record(tmp_path: Path, compress: bool) -> None:
    raw = [
        warc_record(0),
        warc_record(1, length=20),
        warc_record(2),
        warc_record(3, length=10**5),
        warc_record(4),
    ]
    path = tmp_path / ("a.warc.gz" if compress else "a.warc")
    path.write_bytes(b"".join(gzip.compress(r) if compress else r for r in raw))
    items = read(path)
    urls = [i.url for i in items if isinstance(i, Record)]
    assert (
        "http://example.org/0" in urls
        and "http://example.org/2" in urls
        and "http://example.org/1" not in urls
    )
    if compress:  # members end records, so nothing behind a lie is lost
        assert "http://example.org/4" in urls
    assert len([i for i in items if isinstance(i, SetAside)]) == 2


def test_truncated_archive_keeps_whole_records(tmp_path: Path) -> None:
    data = b"".join(gzip.compress(warc_record(i), mtime=0) for i in range(3))
    (tmp_path / "a.warc.gz").write_bytes(data[:-20])
    items = read(tmp_path / "a.warc.gz")
    assert [type(i) for i in items] == [Record, Record, SetAside]


def test_parts_of_an_archive_are_the_whole(tmp_path: Path) -> None:
    import random

    draw = random.Random(0)
    bodies = [b"<html>" + draw.randbytes(60_000).hex().encode() + b"</html>" for _ in range(60)]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(gzip.compress(warc_record(i, b), mtime=0) for i, b in enumerate(bodies)))
    units = plan([Source("test", RECIPE, str(path))], 2**20).units
    assert len(units) > 2
    assert payloads(read(path, unit_bytes=2**20)) == bodies


def test_parts_of_a_jsonl_file_are_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i} " + "x" * (i % 97)}) + "\n" for i in range(30_000)))
    units = plan([Source("test", RECIPE, str(path))], 2**20).units
    assert len(units) > 1
    assert payloads(read(path, unit_bytes=2**20)) == payloads(read(path))


def test_bad_lines_are_set_aside_or_repaired(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [
        b'{"text": "good"}',
        b'{"text": "bad \xff byte"}',
        b'{"text": "nul \\u0000 here"}',
        b'{"text": "lone \\ud800 surrogate"}',
        b'{"text": 5}',
        b'{"no": "text"}',
        b"[1, 2]",
        b'{"text": "cut',
        b'{"text": "last"}',
    ]
    path.write_bytes(b"\n".join(lines))
    items = read(path)
    assert payloads(items) == [b"good", b"nul  here", "lone \ufffd surrogate".encode(), b"last"]
    assert [i.record for i in items if isinstance(i, SetAside)] == [1, 4, 5, 6, 7]
    assert [i.repaired for i in items if isinstance(i, Record)] == [0, 1, 1, 0]
    assert "invalid UTF-8" in next(i.reason for i in items if isinstance(i, SetAside))


def test_giant_line_is_skipped_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "')
        for _ in range(60):
            file.write(b"x" * 2**20)
        file.write(b'"}\n{"text": "after"}\n')
    recipe = RecipeConfig(name="test", max_record_bytes=2**20)
    tracemalloc.start()
    items = read(path, recipe)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert payloads(items) == [b"after"]
    assert isinstance(items[0], SetAside) and "longer than" in items[0].reason
    assert peak < 16 * 2**20


def test_damaged_compressed_lines_keep_what_came_before(tmp_path: Path) -> None:
    data = gzip.compress(b"".join(b'{"text": "%d"}\n' % i for i in range(50_000)), mtime=0)
    (tmp_path / "rows.jsonl.gz").write_bytes(data[: len(data) // 2])
    items = read(tmp_path / "rows.jsonl.gz")
    assert isinstance(items[-1], SetAside) and len(payloads(items)) > 1000


def test_parquet_rows_and_missing_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", None, "c"], "url": ["u1", "u2", "u3"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 broken")
    items = read(tmp_path)
    assert payloads(items) == [b"a", b"c"]
    reasons = [i.reason for i in items if isinstance(i, SetAside)]
    assert len(reasons) == 3 and "no column `text`" in reasons[1] and "not readable" in reasons[2]


def test_wiki_pages_one_damaged(tmp_path: Path) -> None:
    def page(title: str, text: str, more: str = "<ns>0</ns>") -> str:
        return f"<page><title>{title}</title>{more}<revision><text>{text}</text></revision></page>"

    export = (
        '<mediawiki xml:lang="de"><siteinfo><base>https://de.wikipedia.org/wiki/Start</base></siteinfo>'
        + page("A b", "Text of A")
        + page("B", "Text <broken of B")
        + page("C", "#REDIRECT [[A]]")
        + page("Talk:A", "talk", "<ns>1</ns>")
        + "<page><title>D</title>"
        + page("E", "Text of E")
        + "</mediawiki>"
    )
    (tmp_path / "dump.xml.bz2").write_bytes(bz2.compress(export.encode()))
    items = read(tmp_path / "dump.xml.bz2")
    found = [i for i in items if isinstance(i, Record)]
    assert [(r.url, r.drop) for r in found] == [
        ("https://de.wikipedia.org/wiki/A_b", None),
        ("https://de.wikipedia.org/wiki/C", "extract.redirect"),
        ("https://de.wikipedia.org/wiki/Talk:A", "extract.namespace"),
        ("https://de.wikipedia.org/wiki/E", None),
    ]
    assert found[0].language == "de" and found[0].licence == "CC-BY-SA"
    assert len([i for i in items if isinstance(i, SetAside)]) == 2


def test_non_documents_are_skipped(tmp_path: Path) -> None:
    info = b"WARC/1.0\r\nWARC-Type: warcinfo\r\nContent-Length: 2\r\n\r\nab\r\n\r\n"
    (tmp_path / "a.warc").write_bytes(info + warc_record(1))
    items = read(tmp_path / "a.warc")
    assert items[0] == Skipped("warc-type warcinfo") and len(payloads(items)) == 1


@pytest.mark.parametrize(("name", "message"), [("none", "matches no file"), ("empty", "empty folder")])
def test_missing_input_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        find(str(tmp_path / name))


def test_docstrings_and_code_of_a_module_share_their_group() -> None:
    units = {
        documents: plan(
            [
                Source(
                    "s",
                    RecipeConfig(name="p", reader="python", documents=documents, max_source_bytes=300_000),
                    "environment",
                )
            ],
            2**26,
        ).units
        for documents in ("code", "prose")
    }
    code = units["code"][0].files[0].split("\t")
    unit = Unit(0, "s", "python", ("docstring\t" + "\t".join(code[1:]),), "environment", 0, 1, 0, None, 0)
    (prose,) = environment.read(unit, RECIPE)
    (source,) = environment.read(
        Unit(0, "s", "python", ("\t".join(code),), "environment", 0, 1, 0, None, 0), RECIPE
    )
    assert isinstance(prose, Record) and isinstance(source, Record)
    assert prose.group == source.group and prose.url != source.url


def test_cap_is_spread_over_packages() -> None:
    entries = [Entry("code", "big", f"{i}.py", 100) for i in range(100)]
    entries += [Entry("code", "small", f"{i}.py", 100) for i in range(5)]
    chosen = spread(entries, 3000)
    assert sum(e.size for e in chosen) <= 3000
    assert sum(e.distribution == "small" for e in chosen) == 5
    assert sum(e.distribution == "big" for e in chosen) == 25


def test_files_of_an_environment_above_the_largest_record_are_left_out_not_cut() -> None:
    recipe = RecipeConfig(name="p", reader="python", documents="code", max_source_bytes=300_000)
    small = replace(recipe, max_record_bytes=2000)
    units = plan([Source("s", small, "environment")], 2**26).units
    items = [item for unit in units for item in environment.read(unit, small)]
    assert items and all(isinstance(item, Record) and len(item.payload) <= 2000 for item in items)
    assert sum(unit.bytes for unit in units) > 150_000  # the limit of the source is spread over small files
    (large,) = (plan([Source("s", recipe, "environment")], 2**26)).units
    kept = [item for item in environment.read(large, small) if isinstance(item, SetAside)]
    assert kept and "larger than 2000 bytes" in kept[0].reason


def test_docstrings_in_order() -> None:
    source = """
'''Module documentation that is long enough to count.'''
class A:
    '''Class with a documentation of some length here.'''
    def f(self):
        '''Method with a documentation of some length here.'''
"""
    assert [part.split()[0] for part in docstrings(source).split("\n\n")] == ["Module", "Class", "Method"]


@pytest.mark.parametrize("name", ["closed.txt", "closed"])
def test_unreadable_file_and_folder_are_left_out_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "open.txt").write_text("one")
    (tmp_path / "closed.txt").write_text("two") if "." in name else (tmp_path / "closed").mkdir()
    (tmp_path / name).chmod(0)
    script = (
        "import sys; from configs.schema.pipeline import RecipeConfig; from data_pipeline.read import units; "
        "print(units.plan([units.Source('s', RecipeConfig(name='r'), sys.argv[1])], 2**26))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    if os.geteuid() == 0:  # root reads everything, unless it gives that up
        if shutil.which("setpriv") is None:
            pytest.skip("root reads everything, and there is no `setpriv` to give that up")
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    unknown = done.stdout.split("unknown=")[1]
    assert str(tmp_path / name) in unknown and "cannot be read: Permission denied" in unknown
    assert str(tmp_path / "open.txt") in done.stdout.split("unknown=")[0]
