"""Files that mean harm: what tests feed to the readers and to a whole run."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import zipfile
from pathlib import Path

import brotli
import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
from isal import igzip_lib

from data_pipeline.zstd import zstd

MEGA = 2**20
TEXT = "A sentence of a harmless page that stands behind the harm. " * 30


def record(url: str, body: bytes, headers: bytes = b"", length: str | None = None) -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + headers + b"\r\n" + body
    size = length if length is not None else str(len(http))
    return (
        b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: %s\r\nContent-Length: %s\r\n\r\n"
        % (url.encode(), size.encode())
        + http
        + b"\r\n\r\n"
    )


def good(name: str) -> bytes:
    return record(f"http://example.org/{name}", f"<html><p>{TEXT} {name}</p></html>".encode())


def squeeze(data: bytes) -> bytes:
    """gzip, quickly."""
    return igzip_lib.compress(data, 1, igzip_lib.COMP_GZIP)


def zeros_zstd(size: int) -> bytes:
    """A zstd frame of zeros, made in pieces."""
    out = io.BytesIO()
    with zstd.ZstdFile(out, "wb", level=1) as writer:
        for _ in range(size // MEGA):
            writer.write(bytes(MEGA))
    return out.getvalue()


def archives(folder: Path) -> dict[str, int]:
    """Archives, each with a sound record before and behind the harm: sound records by file name."""
    bomb = bytes(256 * MEGA)
    inner = {
        "gzip": squeeze(bomb),
        "br": brotli.compress(bomb[: 64 * MEGA], quality=1),
        "zstd": zeros_zstd(256 * MEGA),
        "deflate": igzip_lib.compress(bomb, 1, igzip_lib.COMP_DEFLATE),
        "gzip, gzip": squeeze(squeeze(bomb)),
        "gzip, gzip, gzip, gzip, gzip, gzip": b"\x1f\x8b",
        "br, nonsense": b"\xff" * 100,
    }
    files: dict[str, list[bytes]] = {
        f"encoding-{i}": [
            record("http://example.org/bomb", body, b"Content-Encoding: %s\r\n" % name.encode())
        ]
        for i, (name, body) in enumerate(inner.items())
    }
    files["outer"] = [record("http://example.org/outer", bomb)]
    for i, length in enumerate(
        ("-5", "1" + "0" * 30, "9" * 5000, "²", "1e3", "", "3", "70000000000", "12345")
    ):
        files[f"length-{i}"] = [record("http://example.org/liar", b"<p>x</p>", length=length)]
    files["header"] = [b"WARC/1.0\r\nX: " + b"a" * (3 * MEGA) + b"\r\n\r\n"]
    files["headers"] = [b"WARC/1.0\r\n" + b"A: b\r\n" * 200_000 + b"\r\n"]
    files["line"] = [b"\0" * MEGA]
    files["chunked"] = [
        record("http://example.org/chunked", b"ffffffff\r\nx", b"Transfer-Encoding: chunked\r\n")
    ]
    files["arc"] = [b"http://a.b " + b"1 " * 200_000 + b"x\n"]
    files["url"] = [record("http://example.org/../../../etc/passwd\\..\\x", f"<p>{TEXT} path</p>".encode())]
    expected = {}
    for name, harm in files.items():
        parts = [good(f"{name}/before"), *harm, good(f"{name}/behind")]
        (folder / f"{name}.warc.gz").write_bytes(b"".join(map(squeeze, parts)))
        # Of a plain archive the record behind a bomb would be found too, but the file would be large.
        expected[f"{name}.warc.gz"] = 3 if name in ("url", "chunked") else 2
    return expected


def lines(folder: Path) -> dict[str, int]:
    """JSONL: sound rows by file name."""
    sound = json.dumps({"text": TEXT}).encode() + b"\n"
    rows = {
        "long": b'{"text": "' + b"x" * (100 * MEGA) + b'"}\n',
        "longer": None,
        "deep-list": b"[" * 10**6 + b"\n",
        "deep": b'{"text": "x", "a": ' + b'{"a":' * 10**5 + b"1" + b"}" * 10**5 + b"}\n",
        "number": b'{"text": "' + TEXT.encode() + b'number", "id": ' + b"9" * 10**6 + b"}\n",
        "nul": b"\0" * 1000 + b"\n",
        "types": b'{"text": ["a"]}\n{"text": null}\n"text"\n5\n{"text": {"text": "a"}}\n',
        "utf8": b'{"text": "\xff\xfe\xed\xa0\x80"}\n',
        "keys": b'{"text": "'
        + TEXT.encode()
        + b'keys", "\\ud800": "\\udfff", "k": "'
        + b"v" * MEGA
        + b'"}\n',
        "surrogates": b'{"text": "' + TEXT.encode() + b'\\ud800 \\udc00\\u0000", "id": "\\ud800"}\n',
    }
    expected = {}
    for name, row in rows.items():
        path = folder / f"{name}.jsonl"
        if row is None:
            # A line of a gigabyte in a file of some kilobytes.
            path = folder / f"{name}.jsonl.zst"
            frames = [zstd.compress(sound), zeros_zstd(1024 * MEGA), zstd.compress(b"\n" + sound)]
            path.write_bytes(b"".join(frames))
        else:
            path.write_bytes(sound + row + sound)
        expected[path.name] = 3 if name in ("keys", "surrogates") else 2
    ids = [
        "../../etc/passwd",
        "/etc/passwd",
        "a\0b",
        "..",
        "C:\\x",
        "\n",
        "a" * 10**6,
        "%2e%2e/",
        "\u202e",
        "",
    ]
    (folder / "ids.jsonl").write_text(
        "".join(
            json.dumps({"text": f"{TEXT} {i}", "id": x, "url": x, "language": x, "date": x, "group": x})
            + "\n"
            for i, x in enumerate(ids)
        )
    )
    expected["ids.jsonl"] = len(ids)
    return expected


def tables(folder: Path) -> dict[str, int | None]:
    """Parquet: sound rows by file name, null where that is a matter of luck."""
    texts = [f"{TEXT} {i}" for i in range(2000)]
    pq.write_table(pa.table({"text": texts}), folder / "sound.parquet", row_group_size=200)
    expected: dict[str, int | None] = {"sound.parquet": len(texts)}
    data = (folder / "sound.parquet").read_bytes()
    draw = random.Random(5)
    for i in range(24):
        broken = bytearray(data)
        for _ in range(1 + i):
            broken[draw.randrange(len(broken) if i % 2 else len(broken) - 3000)] = draw.randrange(256)
        (folder / f"flipped-{i}.parquet").write_bytes(bytes(broken))
        expected[f"flipped-{i}.parquet"] = None
    (folder / "cut.parquet").write_bytes(data[: len(data) // 2])
    expected["cut.parquet"] = 0
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array(["y" * (6 * MEGA)]))
    pq.write_table(pa.table({"text": shared}), folder / "shared.parquet")
    expected["shared.parquet"] = 400
    pq.write_table(pa.table({"text": [TEXT, "z" * (100 * MEGA), TEXT]}), folder / "giant.parquet")
    expected["giant.parquet"] = 2
    pq.write_table(pa.table({"text": [1, 2, 3]}), folder / "numbers.parquet")
    expected["numbers.parquet"] = 0
    pq.write_table(pa.table({"text": [["a"], None]}), folder / "lists.parquet")
    expected["lists.parquet"] = 0
    invalid = pa.Array.from_buffers(
        pa.string(), 3, pa.array([b"one", b"t\xffo", b"six"], pa.binary()).buffers()
    )
    pq.write_table(pa.table({"text": invalid}), folder / "bytes.parquet")
    expected["bytes.parquet"] = 2
    return expected


def others(folder: Path) -> dict[str, int]:
    """Text, XML and compressed files: sound documents by file name."""
    expected = {}
    (folder / "line.txt").write_bytes(b"w " * (50 * MEGA))
    expected["line.txt"] = 0
    (folder / "bomb.txt.bz2").write_bytes(bz2.compress(bytes(300 * MEGA)))
    expected["bomb.txt.bz2"] = 0
    (folder / "bomb.txt.xz").write_bytes(lzma.compress(bytes(200 * MEGA), preset=0))
    expected["bomb.txt.xz"] = 0
    (folder / "bomb.txt.lz4").write_bytes(lz4.frame.compress(bytes(300 * MEGA)))
    expected["bomb.txt.lz4"] = 0
    page = f"<page><title>T</title><ns>0</ns><revision><text>{TEXT}</text></revision></page>"
    (folder / "pageless.xml.zst").write_bytes(zstd.compress(b"<mediawiki>") + zeros_zstd(512 * MEGA))
    expected["pageless.xml.zst"] = 0
    deep = "<page>" + "<a>" * 10**5 + "</a>" * 10**5 + "</page>"
    (folder / "deep.xml").write_text(f"<mediawiki>{deep}{page.replace('T<', '&b;<')}{page}</mediawiki>")
    expected["deep.xml"] = 1
    return expected


def left_out(folder: Path) -> set[str]:
    """Files that no reader takes, by name."""
    (folder / "empty.jsonl").touch()
    (folder / "empty.warc.gz").touch()
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with zipfile.ZipFile(folder / "nested.zip", "w") as file:
        file.writestr("a.txt", "text")
    (folder / "russian.doll.txt.gz").write_bytes(gzip.compress(gzip.compress(gzip.compress(b"text"))))
    (folder / "nowhere").symlink_to(folder / "no such file")
    (folder / "self").symlink_to(folder / "self")
    os.mkfifo(folder / "pipe")
    return {
        "empty.jsonl", "empty.warc.gz", "picture.png", "nested.zip", "russian.doll.txt.gz", "nowhere", "self", "pipe",
    }  # fmt: skip


def loops(folder: Path) -> None:
    """Folders that contain themselves."""
    (folder / "deep").mkdir()
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "deep" / "here").symlink_to(folder / "deep")
