"""Inputs as other people make them: tables, dates, character sets, archives of odd servers, names and folders."""

from __future__ import annotations

import bz2
import datetime
import gzip
import json
import lzma
import os
import random
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.schema.pipeline import RecipeConfig
from data_pipeline.document import document_id
from data_pipeline.read import Item, Record, SetAside, http, records, storage
from data_pipeline.read.charset import decode
from data_pipeline.read.dates import iso_date
from data_pipeline.read.jsonl import language_of
from data_pipeline.read.units import Source, plan
from data_pipeline.zstd import zstd

RECIPE = RecipeConfig(name="test")
JAPANESE = "日本語の文書は昔から様々な文字コードで書かれてきました。この段落は確かめるためのものです。"


def read(path: Path, recipe: RecipeConfig = RECIPE, output: Path | None = None) -> list[Item]:
    units = plan([Source("test", recipe, str(path))], 2**26, output).units
    return [item for unit in units for item in records(unit, recipe)]


def texts(items: list[Item]) -> list[str]:
    return [i.payload.decode() for i in items if isinstance(i, Record)]


ROWS = {"text": ["one", "two", "three"], "url": ["http://e.com/1", None, "http://e.com/3"]}


@pytest.mark.parametrize(
    "other",
    [
        pa.array([["a"], [], None]),
        pa.array([{"x": 1, "y": ["b"]}, None, {"x": 2, "y": []}]),
        pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    ],
    ids=["list", "struct", "map"],
)
def test_nested_columns_of_parquet_beside_the_text_do_not_matter(tmp_path: Path, other: pa.Array) -> None:
    pq.write_table(pa.table({**ROWS, "tags": other, "group": other}), tmp_path / "a.parquet")
    assert texts(read(tmp_path / "a.parquet")) == ROWS["text"]


@pytest.mark.parametrize(
    "encoding", ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY", "RLE_DICTIONARY"]
)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_every_encoding_and_type_of_text_in_parquet(tmp_path: Path, encoding: str, kind: pa.DataType) -> None:
    table = pa.table({"text": pa.array(ROWS["text"], pa.string()).cast(kind)})
    options = (
        {"use_dictionary": True}
        if encoding == "RLE_DICTIONARY"
        else {"use_dictionary": False, "column_encoding": {"text": encoding}}
    )
    pq.write_table(table, tmp_path / "a.parquet", **options)
    assert texts(read(tmp_path / "a.parquet")) == ROWS["text"]


def test_a_binary_id_becomes_hexadecimal_and_a_binary_field_is_left_out(tmp_path: Path) -> None:
    table = pa.table({"text": ["one"], "id": [b"\xff\x00"], "language": [b"\xff"]})
    pq.write_table(table, tmp_path / "a.parquet")
    (record,) = read(tmp_path / "a.parquet")
    assert isinstance(record, Record) and record.metadata["given_id"] == "ff00" and record.language is None


def test_dates_of_parquet_are_dates(tmp_path: Path) -> None:
    day, moment = datetime.date(2019, 5, 1), datetime.datetime(2024, 1, 2, 3, 4, 5)
    for name, column in {
        "date": pa.array([day]),
        "timestamp": pa.array([moment], pa.timestamp("us")),
        "published": pa.array([1_714_557_600_000]),
    }.items():
        pq.write_table(pa.table({"text": ["one"], name: column}), tmp_path / f"{name}.parquet")
    found = {}
    for name in ("date", "timestamp", "published"):
        recipe = RecipeConfig(name="test", date_key=name if name == "published" else "date")
        (record,) = read(tmp_path / f"{name}.parquet", recipe)
        assert isinstance(record, Record)
        found[name] = record.date
    assert found == {
        "date": "2019-05-01",
        "timestamp": "2024-01-02T03:04:05Z",
        "published": "2024-05-01T10:00:00Z",
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-05-01", "2024-05-01"),
        ("2024-05-01T10:00:00Z", "2024-05-01T10:00:00Z"),
        ("2024-05-01 12:00:00+02:00", "2024-05-01T10:00:00Z"),
        ("2024-05-01T10:00:00.123456", "2024-05-01T10:00:00Z"),
        ("Wed, 01 May 2024 12:00:00 +0200", "2024-05-01T10:00:00Z"),
        ("20240501", "2024-05-01"),
        (1_714_557_600, "2024-05-01T10:00:00Z"),
        (1_714_557_600.5, "2024-05-01T10:00:00Z"),
        ("1714557600000", "2024-05-01T10:00:00Z"),
        (1_714_557_600_000_000, "2024-05-01T10:00:00Z"),
        (1_714_557_600_000_000_000, "2024-05-01T10:00:00Z"),
        ("2024-13-45", None),
        ("yesterday", None),
        ("", None),
        (True, None),
        (float("nan"), None),
        ([2024], None),
    ],
)
def test_dates_as_people_write_them(value: object, expected: str | None) -> None:
    assert iso_date(value) == expected


def test_what_is_no_date_is_kept_as_metadata(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one", "date": "last spring"}\n')
    (record,) = read(tmp_path / "a.jsonl")
    assert isinstance(record, Record) and record.date is None and record.metadata["date"] == "last spring"


def test_integers_of_any_length_are_ids(tmp_path: Path) -> None:
    ids = [2**64 - 1, 123456789012345678901234567890, 123456789012345678901234567891]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"id": i, "text": "x"}) + "\n" for i in ids))
    items = read(tmp_path / "a.jsonl")
    assert [i.given for i in items if isinstance(i, Record)] == [str(i) for i in ids]


def test_ids_that_people_gave_twice_are_told_apart_by_source_and_by_text() -> None:
    same = {document_id(source, "7", payload) for source in ("a", "b", "ab") for payload in (b"x", b"y", b"")}
    assert len(same) == 9
    assert document_id("a", "b7", b"x") != document_id("ab", "7", b"x") != document_id("ab", "", b"7x")


@pytest.mark.parametrize(
    ("name", "delimiter"), [("a.csv", ","), ("b.csv", ";"), ("c.tsv", "\t"), ("d.csv.gz", ",")]
)
def test_csv_with_quoted_newlines(tmp_path: Path, name: str, delimiter: str) -> None:
    lines = [
        delimiter.join(["id", "text"]),
        delimiter.join(["1", '"one, ""two""\nthree; four"']),
        delimiter.join(["2", "é"]),
    ]
    data = ("\ufeff" + "\r\n".join(lines) + "\r\n").encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert texts(read(tmp_path / name)) == ['one, "two"\nthree; four', "é"]


def test_a_bad_row_of_csv_is_set_aside_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,one\n2,two,three\n3,\xff\n4,four\n")
    items = read(tmp_path / "a.csv")
    assert texts(items) == ["one", "four"]
    reasons = [i.reason for i in items if isinstance(i, SetAside)]
    assert reasons == ["a row of 3 fields under 2 column names", "invalid UTF-8 in a field"]


def test_an_array_of_json_objects(tmp_path: Path) -> None:
    rows = [{"text": "one", "score": 1.5}, 7, {"text": "two", "nested": {"a": [1]}}]
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(rows, indent=1))
    items = read(tmp_path / "a.json")
    assert texts(items) == ["one", "two"]
    assert items[0].metadata == {"score": 1.5}  # type: ignore[union-attr]
    assert [i.reason for i in items if isinstance(i, SetAside)] == ["a JSON int"]
    (tmp_path / "a.json").write_text(json.dumps(rows)[:-20])
    items = read(tmp_path / "a.json")
    assert texts(items) == ["one"] and isinstance(items[-1], SetAside)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("utf16.csv", "text,url\nDer Fluß,x\n".encode("utf-16"), ["Der Fluß"]),
        ("stated.csv", b"sep=;\ntext;url\none, two;x\n", ["one, two"]),
        ("spaces.csv", b"url, text\nx,one\n", ["one"]),
        ("quotes.csv", b'url,text\nx,"a" b\ny,two\n', ["two"]),
        ("nan.json", b'[{"text": "one", "score": NaN}, {"text": "t\\ud800wo"}]', ["one", "t\ufffdwo"]),
        ("lines.jsonl", b'[{"text": "one"},\n {"text": "two"}]\n', ["one", "two"]),
        ("object.json", b'{\n  "text": "one"\n}\n{\n  "text": "two"\n}\n', ["one", "two"]),
        ("broken.json", b'[{"text": "one"}, {"text": "two"}, {"te', ["one", "two"]),
        ("open.json", b'[{"text": "one"}, {"text": "two"}', ["one", "two"]),
        ("bytes.json", b'[{"text": "one\xff"}]', ["one\ufffd"]),
    ],
)
def test_tables_as_other_programs_write_them(
    tmp_path: Path, name: str, data: bytes, expected: list[str]
) -> None:
    (tmp_path / name).write_bytes(data)
    items = read(tmp_path / name)
    assert texts(items) == expected
    damaged = name in ("quotes.csv", "broken.json", "open.json")
    assert sum(isinstance(item, SetAside) for item in items) == damaged


def test_an_array_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    rows = [{"text": "x" * 300_000 + str(i)} for i in range(12)] + [{"text": "y" * 2_500_000}]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    assert texts(read(tmp_path / "a.json")) == [row["text"] for row in rows]
    items = read(tmp_path / "a.json", RecipeConfig(name="test", max_record_bytes=2**21))
    assert len(texts(items)) == 12 and "more than 2097152 characters" in items[-1].reason  # type: ignore[union-attr]


def test_an_arrow_file_compressed_as_a_whole_without_footer_or_of_version_1(tmp_path: Path) -> None:
    table = pa.table({"text": ROWS["text"]})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    data = (tmp_path / "a.arrow").read_bytes()
    for name, written, aside in (
        ("b.arrow.zst", zstd.compress(data), 0),
        ("c.arrow", data[:-20], 1),
        ("d.feather", b"FEA1" + bytes(60) + b"FEA1", 1),
    ):
        (tmp_path / name).write_bytes(written)
        items = read(tmp_path / name)
        assert texts(items) == (ROWS["text"] if name != "d.feather" else []), name
        assert sum(isinstance(item, SetAside) for item in items) == aside, name


RIVER = "The river rises in the hills above the town and runs for forty miles to the sea. "


def _capture(i: int) -> bytes:
    body = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{i} {RIVER * 9}".encode()
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://e.com/{i}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("name", "content", "whole"),
    [
        ("a.jsonl", b'{"text": "one"}\n{"text": "two"}\n', ["one", "two"]),
        ("a.json", b'[{"text": "one"}, {"text": "two"}]', ["one", "two"]),
        ("a.csv", b"text,url\none,x\ntwo,y\n", ["one", "two"]),
        ("a.txt", b"one", ["one"]),
        ("a.xml", b"<mediawiki><page><title>A</title><revision><text>one</text></revision></page></mediawiki>", ["one"]),
        ("a.warc", _capture(0) + _capture(1), [f"{i} {RIVER * 9}" for i in range(2)]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
def test_what_follows_the_last_member_costs_nothing_and_is_named(
    tmp_path: Path, name: str, content: bytes, whole: list[str], suffix: str
) -> None:
    compress = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd.compress}[suffix]
    file = tmp_path / f"{name}.{suffix}"
    file.write_bytes(compress(content) + b"no member " * 40)
    items = read(file)
    assert texts(items) == whole
    aside = [i for i in items if isinstance(i, SetAside)]
    assert [i.file for i in aside] == [str(file)]
    file.write_bytes(compress(content) + bytes(700))  # zeros pad some files
    assert not any(isinstance(i, SetAside) for i in read(file))


@pytest.mark.parametrize("damage", ["compressed", "content", "short", "no dictionary", "length"])
def test_a_damaged_dictionary_costs_what_needs_it(tmp_path: Path, damage: str) -> None:
    captures = [_capture(i) for i in range(6)]
    dictionary = zstd.train_dict(captures * 40, 2000)
    stored = dictionary.dict_content
    if damage == "compressed":
        packed = bytearray(zstd.compress(stored))
        packed[20:60] = bytes(40)
        stored = bytes(packed)
    elif damage == "content":
        stored = bytes(4) + stored[4:]
    elif damage == "short":
        stored = zstd.compress(stored)[:9]
    elif damage == "no dictionary":
        stored = b"no dictionary"
    size = 2**31 if damage == "length" else len(stored)
    frames = [zstd.compress(c, zstd_dict=dictionary if i % 2 else None) for i, c in enumerate(captures)]
    file = tmp_path / "a.warc.zst"
    file.write_bytes(b"\x5d\x2a\x4d\x18" + size.to_bytes(4, "little") + stored + b"".join(frames))
    items = read(file)
    assert texts(items) == [f"{i} {RIVER * 9}" for i in (0, 2, 4)]
    reasons = [i.reason for i in items if isinstance(i, SetAside)]
    assert reasons and (
        damage == "length" or "the dictionary at the start of the file is damaged" in reasons[0]
    )


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow_files_and_streams(tmp_path: Path, kind: str) -> None:
    table = pa.table({**ROWS, "tags": [["a"], [], None]})
    new = {"file": pa.ipc.new_file, "stream": pa.ipc.new_stream}[kind]
    with new(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    assert texts(read(tmp_path / "a.arrow")) == ROWS["text"]
    data = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(data[:-40] if kind == "file" else data[:-400])
    assert isinstance(read(tmp_path / "a.arrow")[-1], SetAside)


@pytest.mark.parametrize(
    ("data", "declared", "expected"),
    [
        (JAPANESE.encode("iso2022_jp"), "iso-2022-jp", JAPANESE),
        (JAPANESE.encode("iso2022_jp"), None, JAPANESE),
        (JAPANESE.encode("cp932"), "windows-31j", JAPANESE),
        (JAPANESE.encode("euc_jp"), "x-euc-jp", JAPANESE),
        (JAPANESE.encode("utf-16-le"), "utf-16", JAPANESE),
        (JAPANESE.encode("utf-16-be"), "utf-16be", JAPANESE),
        ("Grüße, world".encode("utf-16-le"), None, "Grüße, world"),
        ("Привет".encode("cp866"), "ibm866", "Привет"),
        (JAPANESE.encode(), "utf-16", JAPANESE),
        (JAPANESE.encode(), "iso-8859-1", JAPANESE),
        ("déjà vu à l'été".encode("cp1252") + b" \x81 fin", "windows-1252", "déjà vu à l'été \ufffd fin"),
        ("中文".encode("hz"), "hz-gb-2312", "中文"),
    ],
)
def test_character_sets_by_label(data: bytes, declared: str | None, expected: str) -> None:
    assert decode(data, declared, False)[0] == expected


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        (
            "cp1252",
            "El pequeño pueblo está en un valle por el que corre un río, según dicen desde hace más de mil años.",
        ),
        (
            "cp1252",
            "La rivière coule très vite où l'on pêche, et les élèves s'arrêtent près du pont bâti l'été dernier.",
        ),
        (
            "iso8859-2",
            "Małe miasto leży w dolinie, przez którą płynie rzeka, a dzieci bawią się na moście.",
        ),
        ("cp1254", "Küçük şehir, içinden berrak bir ırmak geçen vadide yer alır ve ağaçlar çiçek açar."),
        ("cp1251", "Небольшой город лежит в долине, по которой течёт чистая река, и дети играют на мосту."),
        (
            "cp1257",
            "Mazā pilsēta atrodas ielejā, pa kuru tek dzidra upe, un bērni spēlējas uz tilta katru pavasari.",
        ),
        (
            "cp1253",
            "Η μικρή πόλη βρίσκεται σε μια κοιλάδα όπου κυλά ένα καθαρό ποτάμι και τα παιδιά παίζουν στη γέφυρα.",
        ),
    ],
)
def test_one_paragraph_without_a_label_is_detected(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding), None, False) == (text, 0)
    # A long head of plain ASCII before it changes nothing.
    page = b"<script>var a = 1;</script>\n" * 4000 + text.encode(encoding)
    assert decode(page, None, True)[0].endswith(text)


def test_a_declaration_in_a_comment_declares_nothing() -> None:
    text = "Небольшой город лежит в долине, по которой течёт чистая река."
    page = f"<!-- <meta charset=koi8-r> --><meta charset=windows-1251><!-- x --><p>{text}"
    assert decode(page.encode("cp1251"), None, True) == (page, 0)
    assert decode(page.replace(" -->", "", 1).encode("koi8-r"), None, True)[0].endswith(text)


def response(head: str, body: bytes) -> http.Response:
    return http.parse(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body, 2**20)


def test_a_quote_that_is_not_closed_costs_its_line_alone(tmp_path: Path) -> None:
    rows = ['"never closed,x', "one,x", '"two\nlines",x', '5" pipes,x', '"again,x', "three,x"]
    (tmp_path / "a.csv").write_text("text,url\n" + "\n".join(rows) + "\n")
    items = read(tmp_path / "a.csv")
    assert texts(items) == ["one", "two\nlines", '5" pipes', "three"]
    assert [i.excerpt for i in items if isinstance(i, SetAside)] == ['"never closed,x', '"again,x']
    (tmp_path / "b.csv").write_text("text,text\na,b\n")
    assert [i.reason for i in read(tmp_path / "b.csv")] == ["2 columns `text`"]


def test_json_lines_that_were_joined_or_begin_with_a_separator(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'\xef\xbb\xbf{"text":"a"}\n\xef\xbb\xbf{"text":"b"}\n\x1e{"text":"c"}\n'
    )
    assert texts(read(tmp_path / "a.jsonl")) == ["a", "b", "c"]


def test_a_language_that_is_stated_as_unknown_is_not_stated() -> None:
    assert [language_of(tag) for tag in ("und", "UND", "mul", "und-Latn", "zxx", "de")] == [
        *[None] * 4,
        "zxx",
        "de",
    ]


@pytest.mark.parametrize(
    ("value", "date"),
    [
        (20240501, "2024-05-01"),
        (20240501100000, "2024-05-01T10:00:00Z"),
        (2024, None),
        ("2024", None),
        ("2024/05/01 10:00:00", "2024-05-01T10:00:00Z"),
        ("2024-05-01T10:00:00+02", "2024-05-01T08:00:00Z"),
        ("2024-05-01 10:00:00 GMT", "2024-05-01T10:00:00Z"),
        ("20240501T100000Z", "2024-05-01T10:00:00Z"),
        ("May 1, 2024 10:00 PM", None),
        (1714557600, "2024-05-01T10:00:00Z"),
    ],
)
def test_days_in_digits_years_and_other_spellings(value: object, date: str | None) -> None:
    assert iso_date(value) == date


def test_times_that_python_cannot_hold_cost_no_row(tmp_path: Path) -> None:
    times = {
        "ns": 1714557600123456789,
        "s": 10**12,
    }  # nanoseconds, as pandas writes them, and the year 33,658
    for unit, value in times.items():
        table = pa.table({"text": ["one", "two"], "date": pa.array([value, None], pa.timestamp(unit))})
        pq.write_table(table, tmp_path / "a.parquet")
        with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
            writer.write_table(table)
        for name in ("a.parquet", "a.arrow"):
            found = read(tmp_path / name)
            assert texts(found) == ["one", "two"], name
            assert found[0].date == ("2024-05-01T10:00:00Z" if unit == "ns" else None)


def test_ids_in_binary_and_nested_stay_apart(tmp_path: Path) -> None:
    ids = {
        "fixed": pa.array([bytes(16), b"\0" * 15 + b"a"], pa.binary(16)),
        "text": pa.array([b"one", b"two"], pa.binary()),
        "struct": pa.array([{"$oid": "a"}, {"$oid": "b"}]),
    }
    given = {}
    for name, array in ids.items():
        pq.write_table(pa.table({"text": ["x", "y"], "id": array}), tmp_path / "a.parquet")
        given[name] = [i.given for i in read(tmp_path / "a.parquet")]
    assert given["fixed"] == ["00" * 16, "00" * 15 + "61"]
    assert given["text"] == ["one", "two"]
    assert given["struct"] == ["{'$oid': 'a'}", "{'$oid': 'b'}"]


def test_a_text_column_that_holds_lists_or_comes_twice_is_named(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"])
    for table, reason in (
        (pa.table({"text": [["a"]]}), "column `text` is not text: it is list<element: string>"),
        (twice, "2 columns `text`"),
    ):
        pq.write_table(table, tmp_path / "a.parquet")
        (item,) = read(tmp_path / "a.parquet")
        assert item.reason == reason


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts)


def test_only_what_is_chunked_to_its_end_is_undone() -> None:
    head = "HTTP/1.1 200 OK\nContent-Type: text/plain\nTransfer-Encoding: chunked"
    whole = response(head, chunked(b"one ", b"two") + b"0\r\n\r\n")
    assert (whole.body, whole.truncated) == (b"one two", False)
    for plain in (
        b"1\r\n00:00:01 --> 00:00:02\r\nGood evening",
        b"2024\nThe river rises",
        b"cafe\n",
        b"0\r\nkelvin is the least temperature.",
        b"3\nabc\nde\n4",
        b"",
        b"text",
    ):
        assert (response(head, plain).body, response(head, plain).truncated) == (plain, False)
    cut = response(head, chunked(b"one ") + b"10\r\nbreaks of")
    assert (cut.body, cut.truncated) == (b"one breaks of", True)


def test_a_chain_of_chunks_that_is_cut_or_breaks_is_undone_as_far_as_it_goes() -> None:
    head = "HTTP/1.1 200 OK\nContent-Type: text/html\nTransfer-Encoding: chunked"
    pieces = [PAGE[i : i + 300] for i in range(0, len(PAGE), 300)]
    body = chunked(*pieces)
    for cut in range(len(chunked(*pieces[:2])), len(body) + 1):
        found = response(head, body[:cut])
        assert found.truncated and PAGE.startswith(found.body), body[cut - 20 : cut]
    odd = chunked(*pieces[:2]) + b"?\r\n" + pieces[2]
    found = response(head, odd)
    assert (found.body, found.truncated) == (b"".join(pieces[:2]) + b"?\r\n" + pieces[2], True)
    short = b"11c\r\n" + body.partition(b"\r\n")[2]  # a size that is too small: nothing can be undone
    assert response(head, short).body == short


def test_a_compressed_body_is_decoded_up_to_where_its_chunks_are_cut_or_break() -> None:
    page = random.Random(1).randbytes(2000).hex().encode()
    packed = gzip.compress(page, mtime=0)
    pieces = [packed[i : i + 100] for i in range(0, len(packed), 100)]
    head = "HTTP/1.1 200 OK\nContent-Type: text/html\nContent-Encoding: gzip\nTransfer-Encoding: chunked"
    body = chunked(*pieces)
    for whole in (body[: len(body) // 2 + i] for i in range(110)):
        found = response(head, whole)
        assert found.truncated and len(found.body) > 200 and page.startswith(found.body)
    found = response(head, chunked(*pieces[:9]) + b"?\r\n" + b"".join(pieces[9:]))
    assert found.truncated and len(found.body) > 200 and page.startswith(found.body)


def test_transfer_codings_other_than_chunked_are_undone() -> None:
    page = b"<html>page</html>" * 20
    head = "HTTP/1.1 200 OK\nContent-Type: text/html\nTransfer-Encoding: gzip, chunked"
    assert response(head, chunked(gzip.compress(page)) + b"0\r\n\r\n").body == page


def test_status_lines_interim_responses_and_gzip_members() -> None:
    page = b"<html>page</html>"
    low = response("http/1.1 404 not found\ncontent-type: text/html", page)
    assert (low.status, low.content_type, low.body) == (404, "text/html", page)
    interim = response(
        "HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: x\n\nHTTP/1.1 200 OK\nContent-Type: text/html",
        page,
    )
    assert (interim.status, interim.body) == (200, page)
    two = gzip.compress(page) + gzip.compress(b"more") + b"garbage"
    members = response("HTTP/1.1 200 OK\nContent-Type: text/html\nContent-Encoding: gzip", two)
    assert members.body == page + b"more"


@pytest.mark.parametrize(
    "line",
    ["HTTP/2 200", "SPDY/3.1 200 OK", "\n\nHTTP/1.1 200 OK", "HTTP/1.1 200 Connection established\n\nHTTP/1.0 200"],
)  # fmt: skip
def test_status_lines_as_proxies_and_browsers_write_them(line: str) -> None:
    found = response(f"{line}\nContent-Type: text/html", b"<p>page")
    assert (found.status, found.content_type, found.body) == (200, "text/html", b"<p>page")


PAGE = b"<html><p>The river rises in the hills above the town.</p></html>" * 20


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ('"gzip"', gzip.compress(PAGE, mtime=0)),
        ("deflate", gzip.compress(PAGE, mtime=0)),
        ("gzip", zlib.compress(PAGE)),
        ("br", gzip.compress(PAGE, mtime=0)),
        ("gzip", zstd.compress(PAGE)),
        ("zstd", zstd.compress(PAGE[:99]) + zstd.compress(PAGE[99:])),
        ("zstd", PAGE),
        ("gzip", PAGE),
    ],
    ids=[
        "gzip quoted",
        "gzip as deflate",
        "zlib as gzip",
        "gzip as br",
        "zstd as gzip",
        "zstd frames",
        "zstd plain",
        "gzip plain",
    ],
)
def test_bodies_in_another_encoding_than_their_header_says(coding: str, body: bytes) -> None:
    found = response(f"HTTP/1.1 200 OK\nContent-Type: text/html\nContent-Encoding: {coding}", body)
    assert (found.body, found.truncated) == (PAGE, False)


def test_a_body_in_no_known_encoding_is_no_text() -> None:
    with pytest.raises(ValueError, match="not gzip, though its header says so"):
        response("HTTP/1.1 200 OK\nContent-Encoding: gzip", bytes(range(1, 256)))


def test_resources_of_archives(tmp_path: Path) -> None:
    def resource(uri: str, kind: str, body: bytes) -> bytes:
        fields = {
            "WARC-Type": "resource",
            "WARC-Target-URI": uri,
            "Content-Type": kind,
            "Content-Length": str(len(body)),
        }
        head = "WARC/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n"
        return head.encode() + body + b"\r\n\r\n"

    page = "<html><p>Der Fluß</p></html>".encode("cp1252")
    (tmp_path / "a.warc").write_bytes(
        resource("http://e.com/1", "text/html; charset=windows-1252", page)
        + resource(
            "metadata://gnu.org/software/wget/warc/wget_arguments.txt", "text/plain", b"--password=secret"
        )
    )
    (record, *_) = [i for i in read(tmp_path / "a.warc") if isinstance(i, Record)]
    assert record.charset == "windows-1252" and record.kind == "html"
    assert not [i for i in read(tmp_path / "a.warc") if isinstance(i, Record) and b"secret" in i.payload]


@pytest.mark.parametrize("tag", ["th", "tha", "tha_Thai", "th-TH", "TH", " th "])
def test_a_stated_language_has_one_name(tag: str) -> None:
    assert language_of(tag) == "th"


def test_a_name_that_is_not_utf8_is_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    with open(os.fsencode(tmp_path) + b"/b\xff.txt", "wb") as file:  # noqa: PTH123
        file.write(b"two")
    found = storage.find(str(tmp_path))
    assert [Path(f).name for f in found.files] == ["a.txt"]
    assert found.left_out == ((f"{tmp_path}/b\\xff.txt", "its name is not UTF-8; rename it"),)
    assert texts(read(tmp_path)) == ["one"]


def test_an_input_that_lies_in_the_output_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out" / "kept").mkdir(parents=True)
    (tmp_path / "out" / "kept" / "a.txt").write_text("one")
    with pytest.raises(ValueError, match="none outside of the output folder"):
        plan([Source("test", RECIPE, f"{tmp_path}/*/**")], 2**26, tmp_path / "out")


@pytest.mark.parametrize("pattern", ["", "/**/*.txt"])
def test_the_output_folder_is_no_input(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "deep" / "b.txt").write_text("two")
    found = storage.find(f"{tmp_path}{pattern}", tmp_path / "out")
    assert [Path(f).name for f in found.files] == ["a.txt"]
