"""One file shared among workers, and files that lie elsewhere: always the records of the whole, each once."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import http.server
import json
import lzma
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import fsspec
import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.schema.pipeline import RecipeConfig
from data_pipeline.read import Item, Record, SetAside, Skipped, Unit, records, storage
from data_pipeline.read.storage import Unreachable, find
from data_pipeline.read.units import Source, plan
from data_pipeline.zstd import zstd

RECIPE = RecipeConfig(name="test")
PACK: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": functools.partial(gzip.compress, compresslevel=1, mtime=0),
    "bz2": bz2.compress,
    "xz": functools.partial(lzma.compress, preset=0),
    "zstd": functools.partial(zstd.compress, options={zstd.CompressionParameter.checksum_flag: 1}),
    "lz4": lz4.frame.compress,
}


def units_of(name: str, unit_bytes: int) -> tuple[Unit, ...]:
    return plan([Source("test", RECIPE, name)], unit_bytes).units


def read(name: str, unit_bytes: int = 2**26) -> list[Item]:
    return [item for unit in units_of(name, unit_bytes) for item in records(unit, RECIPE)]


def payloads(items: list[Item]) -> list[bytes]:
    return [i.payload for i in items if isinstance(i, Record)]


def warc_record(number: int, body: bytes) -> bytes:
    http_part = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>" + body
    return (
        b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://example.org/%d\r\n"
        b"Content-Length: %d\r\n\r\n" % (number, len(http_part))
    ) + http_part + b"\r\n\r\n"  # fmt: skip


@pytest.fixture(scope="module")
def bodies() -> list[bytes]:
    draw = random.Random(0)
    # Pages that hold what a record starts with: parts must not begin inside of them.
    trap = b"\r\n\r\nWARC/1.0\r\nWARC-Type: response\r\nContent-Length: 3\r\n\r\nabc\r\n\r\n"
    return [draw.randbytes(draw.randrange(40_000)).hex().encode() + trap * (i % 5 == 0) for i in range(120)]


@pytest.mark.parametrize("pack", PACK)
def test_parts_of_an_archive_are_the_whole(tmp_path: Path, bodies: list[bytes], pack: str) -> None:
    path = tmp_path / "crawl.warc"
    path.write_bytes(b"".join(PACK[pack](warc_record(i, b)) for i, b in enumerate(bodies)))
    assert len(units_of(str(path), 300_000)) > 3
    assert payloads(read(str(path), 300_000)) == [b"<html>" + b for b in bodies]


@pytest.mark.parametrize("pack", PACK)
@pytest.mark.parametrize("lines_of_a_member", [1, 7, 1000])
def test_parts_of_lines_are_the_whole(tmp_path: Path, pack: str, lines_of_a_member: int) -> None:
    draw = random.Random(1)
    lines = [
        json.dumps({"text": f"{i} " + draw.randbytes(draw.randrange(1500)).hex()}).encode() + b"\n"
        for i in range(1500)
    ]
    whole = b"".join(lines)
    if lines_of_a_member == 7:  # members that end within lines
        cuts = [0, *sorted(draw.randrange(len(whole)) for _ in range(40)), len(whole)]
        members = [whole[a:b] for a, b in pairwise(cuts)]
    else:
        members = [
            b"".join(lines[i : i + lines_of_a_member]) for i in range(0, len(lines), lines_of_a_member)
        ]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(map(PACK[pack], members)))
    if not (lines_of_a_member == 1000 and pack != "plain"):  # two members are two parts at the most
        assert len(units_of(str(path), 200_000)) > 3
    assert payloads(read(str(path), 200_000)) == [json.loads(line)["text"].encode() for line in lines]


def test_parts_of_parquet_are_the_whole(tmp_path: Path) -> None:
    texts = [f"{i} " + random.Random(i).randbytes(500).hex() for i in range(4000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "rows.parquet", row_group_size=300)
    assert len(units_of(str(tmp_path), 2**18)) > 4
    assert payloads(read(str(tmp_path), 2**18)) == [t.encode() for t in texts]


@pytest.mark.parametrize("pack", ["gzip", "zstd", "bz2", "lz4"])
def test_damage_in_the_middle_of_lines_costs_one_member(tmp_path: Path, pack: str) -> None:
    draw = random.Random(2)
    members = [
        PACK[pack](b"".join(b'{"text": "%d %s"}\n' % (100 * m + i, draw.randbytes(400).hex().encode()) for i in range(100)))
        for m in range(6)
    ]  # fmt: skip
    broken = bytearray(members[2])
    broken[len(broken) // 2 : len(broken) // 2 + 64] = draw.randbytes(64)
    members[2] = bytes(broken)
    (tmp_path / "rows.jsonl").write_bytes(b"".join(members))
    items = read(str(tmp_path / "rows.jsonl"))
    # The checksum of a member comes at its end, so lines of it that were read before may hold the damage.
    numbers = [int(n) for p in payloads(items) if (n := p.split()[0]).isdigit()]
    assert [n for n in numbers if not 200 <= n < 300] == [*range(200), *range(300, 600)]
    assert any(isinstance(i, SetAside) and "damaged" in i.reason for i in items)


def test_zstd_archive_with_a_dictionary(tmp_path: Path, bodies: list[bytes]) -> None:
    raw = [warc_record(i, b"<p>%d</p>" % i * 50) for i in range(300)]
    dictionary = zstd.train_dict(raw, 4096)
    head = b"\x5d\x2a\x4d\x18" + len(dictionary.dict_content).to_bytes(4, "little") + dictionary.dict_content
    path = tmp_path / "crawl.warc.zst"
    path.write_bytes(head + b"".join(zstd.compress(r, zstd_dict=dictionary) for r in raw))
    assert payloads(read(str(path))) == [b"<html>" + b"<p>%d</p>" % i * 50 for i in range(300)]


class Server(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, with ranges, and with an error now and then."""

    failing = 0
    requests: list[str | None] = []  # noqa: RUF012

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def send_head(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            return super().send_head()  # type: ignore[return-value]
        if not path.is_file():
            self.send_error(404)
            return None
        asked = self.headers.get("Range")
        if asked is not None and Server.failing:
            Server.failing -= 1
            self.send_error(503)
            return None
        if self.command == "GET":
            Server.requests.append(asked)
        data = path.read_bytes()
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "")
        self.send_response(206 if span else 200)
        body = data[int(span[1]) : int(span[2]) + 1] if span else data
        self.send_header("Content-Length", str(len(body)))
        if span:
            self.send_header("Content-Range", f"bytes {span[1]}-{int(span[1]) + len(body) - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        return None


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    pytest.importorskip("aiohttp")
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Server, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Server.failing, Server.requests = 0, []
    yield f"http://127.0.0.1:{server.server_port}/", folder
    server.shutdown()


def test_remote_files_are_read_by_ranges_and_shared(
    web: tuple[str, Path], bodies: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.01)
    address, folder = web
    archive = b"".join(PACK["gzip"](warc_record(i, b)) for i, b in enumerate(bodies))
    (folder / "a.warc.gz").write_bytes(archive)
    (folder / "b.jsonl.zst").write_bytes(zstd.compress(b'{"text": "one"}\n{"text": "two"}\n'))
    pq.write_table(pa.table({"text": ["three", "four"]}), folder / "c.parquet")
    found = find(address)
    assert [storage.base_name(f) for f in found.files] == ["a.warc.gz", "b.jsonl.zst", "c.parquet"]
    local = [b"<html>" + b for b in bodies]
    assert len(units_of(address + "a.warc.gz", 300_000)) > 3
    assert payloads(read(address + "a.warc.gz", 300_000)) == local
    assert payloads(read(address)) == [*local, b"one", b"two", b"three", b"four"]
    assert all(
        asked is not None and asked.startswith("bytes=") for asked in Server.requests
    )  # never a whole file


def test_a_server_that_fails_is_asked_again_and_then_named(
    web: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.01)
    address, folder = web
    (folder / "a.jsonl").write_text('{"text": "one"}\n')
    Server.failing = 3
    assert payloads(read(address + "a.jsonl")) == [b"one"]
    Server.failing = 10**6
    # Not set aside: a rerun must read what a server withheld.
    with pytest.raises(Unreachable, match=r"a\.jsonl cannot be read after 5 tries"):
        read(address + "a.jsonl")
    with pytest.raises(ValueError, match="matches no file"):
        find(address + "none.jsonl")


def test_a_changed_remote_file_changes_the_fingerprint(web: tuple[str, Path]) -> None:
    address, folder = web
    rows = "".join(f'{{"text": "{i:06}"}}\n' for i in range(10_000))
    (folder / "a.jsonl").write_text(rows)

    def print_of() -> str:
        storage._info.cache_clear()
        return plan([Source("test", RECIPE, address + "a.jsonl")], 2**26).inputs

    before = print_of()
    assert print_of() == before
    (folder / "a.jsonl").write_text(rows[:-9] + "xxxxx" + rows[-4:])  # as long, and far behind the head
    os.utime(folder / "a.jsonl", (1, 1))
    assert print_of() != before


def test_other_addresses(tmp_path: Path) -> None:
    (tmp_path / "a b.jsonl").write_text('{"text": "one"}\n')
    assert payloads(read(f"file://{tmp_path}/a%20b.jsonl")) == [b"one"]
    memory = fsspec.filesystem("memory")
    memory.pipe(
        {
            "/crawl/x.jsonl": b'{"text": "two"}\n',
            "/crawl/deep/y.jsonl.gz": gzip.compress(b'{"text": "three"}\n'),
        }
    )
    try:
        assert payloads(read("memory://crawl")) == [b"three", b"two"]
        assert payloads(read("memory://crawl/*.jsonl")) == [b"two"]
    finally:
        memory.rm("/crawl", recursive=True)
    with pytest.raises(ValueError, match="no driver for nothing://"):
        read("nothing://bucket/x")


def samples() -> list[Path]:
    data = os.environ.get("ARRIERO_TEST_DATA")
    return sorted((Path(data) / "web" / "warc_samples").glob("*/*")) if data else []


@pytest.mark.skipif(not samples(), reason="ARRIERO_TEST_DATA names no folder of real archives")
def test_real_archives_read_alike_plain_and_recompressed(tmp_path: Path) -> None:
    """Records of an archive do not depend on how it is compressed, and sound records are all there."""
    for path in samples():
        plain = path.read_bytes()
        if path.suffix == ".gz":
            try:
                plain = gzip.decompress(plain)
            except (EOFError, OSError):
                continue
        seen = []
        for pack in ("plain", "gzip", "zstd"):
            copy = tmp_path / "copy.warc"
            copy.write_bytes(PACK[pack](plain))
            unit = Unit(0, "test", "warc", (str(copy),), str(copy), 0, 1, 0, None, 0)
            items = list(records(unit, RECIPE))
            seen.append(
                [(i.url, i.payload, i.drop) if isinstance(i, Record) else i.reason
                 for i in items if not isinstance(i, SetAside)]
            )  # fmt: skip
            assert any(isinstance(i, (Record, Skipped)) for i in items) or len(items) == 1
        assert seen[0] == seen[1] == seen[2], path.name


@pytest.mark.skipif(not samples(), reason="ARRIERO_TEST_DATA names no folder of real archives")
def test_every_page_that_fastwarc_reads_is_read_or_set_aside() -> None:
    fastwarc = pytest.importorskip("fastwarc.warc")
    missing = []
    for path in samples():
        unit = Unit(0, "test", "warc", (str(path),), str(path), 0, 1, 0, None, 0)
        items = list(records(unit, RECIPE))
        ours = {i.url or "" for i in items if isinstance(i, Record)}
        aside = sum(isinstance(i, SetAside) for i in items)
        theirs: set[str] = set()
        with path.open("rb") as file, contextlib.suppress(Exception):  # it stops at damage
            for record in fastwarc.ArchiveIterator(file, parse_http=False):
                if record.headers.get("WARC-Type") == "response":
                    theirs.add((record.headers.get("WARC-Target-URI") or "").strip("<>"))
        found = {url for url in theirs - ours if not url.startswith("dns:")}
        if len(found) > aside:
            missing.append((path.name, found))
    assert not missing
