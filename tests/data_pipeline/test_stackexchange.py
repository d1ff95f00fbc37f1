"""Dumps of Stack Exchange: joined in bounded memory, in order of scores, broken rows set aside."""

from __future__ import annotations

import gzip
import json
import random
import struct
import subprocess
import sys
import zlib
from html import escape
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs import edge
from configs.schema.pipeline import RecipeConfig
from data_pipeline.extract import extract
from data_pipeline.read import Item, Record, SetAside, Skipped, Source, records, runs, sevenzip, stackexchange
from data_pipeline.read.stackexchange import site_of, site_of_file, wants
from data_pipeline.read.units import Plan, plan

RECIPE = RecipeConfig(name="test", reader="stackexchange")
HEAD = '\ufeff<?xml version="1.0" encoding="utf-8"?>\n<posts>\n'
SMALL = ("tokenizer.vocab_size=400", "tokenizer.n_special=16", "pack.sequence_length=64")


def row(identifier: object, kind: object, **more: object) -> str:
    said = {"Id": identifier, "PostTypeId": kind, "Score": 0, "Body": f"<p>body {identifier}</p>"} | more
    return (
        "  <row "
        + " ".join(
            f'{k}="{escape(str(v)).replace(chr(10), "&#xA;")}"' for k, v in said.items() if v is not None
        )
        + " />\n"
    )


def dump(folder: Path, *rows: str, site: str = "cooking") -> Path:
    path = folder / site / "Posts.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + "".join(rows) + "</posts>", encoding="utf-8")
    return path


def planned(path: Path, recipe: RecipeConfig = RECIPE) -> Plan:
    return plan([Source("test", recipe, str(path))], 2**26)


def read(path: Path, recipe: RecipeConfig = RECIPE) -> list[Item]:
    return [item for unit in planned(path, recipe).units for item in records(unit, recipe)]


def answers(record: Item) -> list[int]:
    assert isinstance(record, Record)
    return [a["id"] for a in record.metadata["answers"]]


def reasons(items: list[Item]) -> list[str]:
    return [item.reason for item in items if isinstance(item, SetAside)]


def test_scores_are_numbers_and_ties_go_by_id(tmp_path: Path) -> None:
    scores = {2: 9, 3: 10, 4: -1, 5: 10, 6: -10, 7: 100, 8: 0, 20: 9}
    rows = [row(i, 2, ParentId=1, Score=s) for i, s in scores.items()]
    random.Random(0).shuffle(rows)
    rows.insert(4, row(1, 1, Title="T", AcceptedAnswerId=8, Score=3))
    path = dump(tmp_path, *rows)
    (record,) = read(path)
    assert answers(record) == [7, 3, 5, 2, 20, 8, 4, 6]
    assert isinstance(record, Record)
    assert [extract(record).text.find(f"body {i}\n") for i in answers(record)[:-1]] == sorted(
        extract(record).text.find(f"body {i}\n") for i in answers(record)[:-1]
    )
    (first,) = read(path, RecipeConfig(name="test", reader="stackexchange", accepted_first=True))
    assert answers(first) == [8, 7, 3, 5, 2, 20, 4, 6]


def test_fields_of_a_document(tmp_path: Path) -> None:
    question = row(
        5, 1, Title="A < B & \"C\"", Tags="<a-b><c++>", Score=-2, CreationDate="2016-08-02T15:39:14.947",
        OwnerUserId=7, ContentLicense="CC BY-SA 4.0", Body="<p>q</p>\n\n<pre><code>x &lt; 1\n</code></pre>\n",
    )  # fmt: skip
    (record,) = read(dump(tmp_path, question, row(6, 2, ParentId=5, Score=1, Body="<p>a</p>")))
    assert isinstance(record, Record)
    assert extract(record).text == 'Q: A < B & "C"\n\nq\n\nx < 1\n\nA:\n\na'
    assert (record.url, record.date, record.licence) == (
        "https://cooking.stackexchange.com/questions/5", "2016-08-02T15:39:14Z", "CC BY-SA 4.0",
    )  # fmt: skip
    said = {k: record.metadata[k] for k in ("site", "title", "tags", "score", "owner", "accepted")}
    assert said == {
        "site": "cooking.stackexchange.com", "title": 'A < B & "C"', "tags": ["a-b", "c++"], "score": -2, "owner": "7",
        "accepted": None,
    }  # fmt: skip
    newer = row(5, 1, Tags="|a-b|c|").replace("Score", "score")
    (record,) = read(dump(tmp_path / "newer", newer))
    assert isinstance(record, Record) and record.metadata["tags"] == ["a-b", "c"]


def test_answers_far_from_their_questions_are_joined_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(i, 1, Title=f"t{i}") for i in range(1, 401)]
    for i in range(1000, 3000):
        rows.append(row(i, 2, ParentId=i % 400 + 1, Score=(i * 7919) % 50 - 10))
    random.Random(1).shuffle(rows)
    path = dump(tmp_path, *rows)
    whole = read(path)
    written: list[int] = []
    spill = runs.Sorter._spill

    def counted(self: runs.Sorter) -> None:
        written.append(self._bytes)
        spill(self)

    monkeypatch.setattr(runs.Sorter, "_spill", counted)
    monkeypatch.setattr(runs.Sorter.__init__, "__defaults__", (2000,))
    monkeypatch.setattr(runs, "MERGED", 3)
    assert read(path) == whole
    assert len(written) > 81 and max(written) < 3000  # four levels of runs
    assert len(whole) == 400 and sum(len(answers(r)) for r in whole) == 2000
    for record in whole:
        assert isinstance(record, Record)
        given = record.metadata["answers"]
        assert given == sorted(given, key=lambda a: (-a["score"], a["id"]))


def test_a_broken_row_costs_itself(tmp_path: Path) -> None:
    broken = {
        '  <row Id="50" PostTypeId="2" ParentId="1" Body="never closed />\n': "not XML",
        row(51, 2, ParentId=1, Score="many"): "Score is `many`, no number",
        row(52, 2, ParentId=None): "ParentId is missing",
        row("x", 1): "Id is `x`, no number",
        row(53, None): "PostTypeId is missing",
        '  <row Id="54" PostTypeId="1" Body="&bomb;" />\n': "not XML: Entity 'bomb'",
        '  <row Id="55" Id="56" PostTypeId="1" />\n': "not XML: Attribute Id redefined",
        row(57, 2, ParentId=999): "answer 57 belongs to question 999, which is not in the file",
        row(1, 1, Title="again"): "a second post with the id 1",
        row(2, 2, ParentId=1, Score=7): "a second post with the id 2",
    }
    good = [row(1, 1, Title="t"), row(2, 2, ParentId=1), row(3, 2, ParentId=1, Body="<p>a&#x1;b</p>")]
    good[2] = good[2].replace("&amp;#x1;", "&#x1;")
    path = dump(tmp_path, *good, *broken, row(4, 2, ParentId=1))
    items = read(path)
    kept = [i for i in items if isinstance(i, Record)]
    assert [answers(r) for r in kept] == [[2, 3, 4]] and kept[0].repaired == 1
    found = {item.record: item for item in items if isinstance(item, SetAside)}
    data = path.read_bytes()
    for number, (text, reason) in enumerate(broken.items(), len(good)):
        assert found[number].reason.startswith(reason), found[number]
        assert data[found[number].offset :].startswith(text.strip()[:30].encode())
    assert len(found) == len(broken)


def test_deleted_and_other_posts(tmp_path: Path) -> None:
    items = read(
        dump(
            tmp_path, row(1, 1, Title="t", Body=""), row(2, 2, ParentId=1, Body=""), row(3, 2, ParentId=1, Body=None),
            row(4, 5), row(5, 4), row(6, 1, Title=None, Body=None), row(7, 1, Title="alone"),
        )
    )  # fmt: skip
    skipped = [i.reason for i in items if isinstance(i, Skipped)]
    assert skipped == ["an answer without text"] * 2 + ["post of type 4", "post of type 5"]
    made = [(extract(i).text, extract(i).drop) for i in items if isinstance(i, Record)]
    assert made == [("Q: t", None), ("", "extract.empty"), ("Q: alone\n\nbody 7", None)]


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE posts [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {chr(97 + i)} "{f"&{chr(96 + i)};" * 10}">' for i in range(1, 10)
    )
    outside = '<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    path = tmp_path / "ai" / "Posts.xml"
    path.parent.mkdir()
    used = row(2, 1, Body="X").replace("X", "&j;") + row(3, 1, Body="X").replace("X", "&f;")
    path.write_text(f'<?xml version="1.0"?>{bomb}{outside}<posts>{row(1, 1, Title="t")}{used}</posts>')
    items = [
        i for u in plan([Source("t", RECIPE, str(path.parent))], 2**26).units for i in records(u, RECIPE)
    ]
    assert [i.number for i in items if isinstance(i, Record)] == [0]
    assert "a document type or entity declaration" in reasons(items)
    assert sum("Entity" in r for r in reasons(items)) == 2
    assert not any("root:" in str(i) for i in items)


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RecipeConfig(name="test", reader="stackexchange", max_record_bytes=2**20)
    long = row(2, 1, Title="t", Body="b" * 2**21)
    thread = [row(i, 2, ParentId=4, Body="a" * 2**18) for i in range(100, 108)]
    path = dump(tmp_path, row(1, 1, Title="t"), long, row(3, 1, Title="t"), row(4, 1, Title="t"), *thread)
    items = read(path, recipe)
    assert [i.url.rsplit("/", 1)[1] for i in items if isinstance(i, Record) and i.url] == ["1", "3"]
    assert reasons(items) == [
        "a row larger than 1048576 bytes",
        "question 4 is larger than 1048576 bytes with its answers",
    ]
    bomb = tmp_path / "bomb" / "Posts.xml.gz"
    bomb.parent.mkdir()
    bomb.write_bytes(gzip.compress((HEAD + row(1, 1, Title="t") + row(9, 5, Body="") * 200_000).encode()))
    monkeypatch.setattr(stackexchange, "RATIO_FREE", 2**20)
    monkeypatch.setattr(stackexchange, "MAX_RATIO", 50)
    items = read(bomb)
    assert sum(isinstance(i, Record) for i in items) == 1
    assert [r[-59:] for r in reasons(items)] == [
        "decompresses to more than 50 times its size, as no dump does"[-59:]
    ]


def test_a_file_that_ends_early_keeps_what_was_read(tmp_path: Path) -> None:
    whole = (HEAD + "".join(row(i, 1, Title="t") for i in range(1, 2000))).encode()
    path = tmp_path / "ai" / "Posts.xml.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(whole)[:-4000])
    items = read(path)
    assert sum(isinstance(i, Record) for i in items) > 500
    assert [r.split(":")[0] for r in reasons(items)] == ["damaged after this offset"]
    cut = dump(tmp_path, row(1, 1, Title="t"), row(2, 1, Title="t").rstrip(" />\n"), site="math")
    cut.write_text(cut.read_text().removesuffix("</posts>"))
    assert reasons(read(cut)) == ["the file ends inside a row"]
    empty = dump(tmp_path, site="beer")
    assert reasons(read(empty)) == ["no <row> in the file"]


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("math", "math.stackexchange.com"),
        ("ai.stackexchange.com.7z", "ai.stackexchange.com"),
        ("stackoverflow.com-Posts.7z", "stackoverflow.com"),
        ("pt.stackoverflow", "pt.stackoverflow.com"),
        ("meta.mathoverflow", "meta.mathoverflow.net"),
        ("Math.StackExchange", "math.stackexchange.com"),
    ],
)
def test_names_of_sites(name: str, site: str) -> None:
    assert site_of(name) == site
    assert site_of_file(f"/dumps/{name}/Posts.xml.bz2") == site
    assert site_of_file("s3://bucket/all.7z", f"{name}/Posts.xml") == site


def test_which_sites_are_read(tmp_path: Path) -> None:
    assert wants("ai.stackexchange.com", ()) and not wants("ai.meta.stackexchange.com", ())
    assert not wants("meta.stackexchange.com", ("*",)) and wants("meta.stackexchange.com", ("meta",))
    assert wants("ru.stackoverflow.com", ("math", "*.stackoverflow")) and not wants(
        "stackoverflow.com", ("math",)
    )
    for site in ("math", "beer", "math.meta", "stackoverflow"):
        dump(tmp_path, row(1, 1, Title=site), site=site)
    (tmp_path / "math" / "Comments.xml").write_text("<?xml version='1.0'?><comments><row Id='1'/></comments>")
    default = edge.load_group("recipe", "stackexchange", RecipeConfig)
    assert len(set(default.sites)) == 28 and not any("meta" in s for s in default.sites)
    made = planned(tmp_path, default)
    assert [u.files[0].split("/")[-2] for u in made.units] == ["math", "stackoverflow"]
    assert {(f.split("/")[-2], why.split(" ")[0]) for _, f, why in made.unknown} == {
        ("beer", "beer.stackexchange.com"), ("math.meta", "math.meta.stackexchange.com"), ("math", "<comments>,"),
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"beer.stackexchange.com .* is not among `recipe.sites`"):
        planned(tmp_path / "beer", default)


def archive(path: Path, members: dict[str, str], **options: object) -> Path:
    py7zr = pytest.importorskip("py7zr", reason="py7zr is not installed: pip install 'arriero[7z]'")
    with py7zr.SevenZipFile(path, "w", **options) as file:
        for name, text in members.items():
            file.writestr(text, name)
    return path


def test_an_archive_is_read_like_its_file(tmp_path: Path) -> None:
    rows = [row(1, 1, Title="t"), *(row(i, 2, ParentId=1, Score=i) for i in range(2, 3000))]
    path = dump(tmp_path, *rows, site="ai.stackexchange.com")
    text = path.read_text(encoding="utf-8")
    made = archive(
        tmp_path / "ai.stackexchange.com.7z", {"Comments.xml": "<comments/>" * 999, "Posts.xml": text}
    )
    (inside,), (outside,) = read(made), read(path)
    assert isinstance(inside, Record) and isinstance(outside, Record)
    assert (inside.payload, inside.metadata, inside.url) == (outside.payload, outside.metadata, outside.url)
    damaged = bytearray(made.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "beer.stackexchange.com.7z").write_bytes(damaged)
    items = read(tmp_path / "beer.stackexchange.com.7z")
    assert any("damaged 7z archive" in r for r in reasons(items))


def test_archives_that_are_refused(tmp_path: Path) -> None:
    text = HEAD + row(1, 1, Title="t") + "</posts>"
    made = archive(tmp_path / "beer.7z", {"Users.xml": "<users/>"})
    assert reasons(read(made)) == ["no Posts.xml in the archive, which holds: Users.xml"]
    locked = archive(tmp_path / "ai.7z", {"Posts.xml": text}, password="x")
    assert reasons(read(locked)) == ["damaged after this offset: an encrypted 7z archive"]
    small = RecipeConfig(name="test", reader="stackexchange", max_window_bytes=2**16)
    plain = archive(tmp_path / "math.7z", {"Posts.xml": text})
    (reason,) = reasons(read(plain, small))
    assert "raise `recipe.max_window_bytes`" in reason
    for cut in (10, 31, 40, plain.stat().st_size - 3):
        (tmp_path / "cut.7z").write_bytes(plain.read_bytes()[:cut])
        assert reasons(read(tmp_path / "cut.7z"))
    with pytest.raises(ValueError, match="7z archive; unpack it, or read"):
        planned(plain, RecipeConfig(name="auto"))


def rename(path: Path, old: str, new: str) -> None:
    """Another name, as long as the first, in an archive whose header is not compressed, with its checksums."""
    data = bytearray(path.read_bytes().replace(old.encode("utf-16-le"), new.encode("utf-16-le")))
    offset, size = struct.unpack_from("<QQ", data, 12)
    struct.pack_into("<I", data, 28, zlib.crc32(data[32 + offset : 32 + offset + size]))
    struct.pack_into("<I", data, 8, zlib.crc32(data[12:32]))
    path.write_bytes(data)


def test_members_are_neither_written_nor_followed(tmp_path: Path) -> None:
    py7zr = pytest.importorskip("py7zr")
    secret = dump(tmp_path / "secret", row(7, 1, Title="secret"))
    made = tmp_path / "evil.7z"
    with py7zr.SevenZipFile(made, "w") as file:
        file.set_encoded_header_mode(False)
        file.writestr(HEAD + row(1, 1), "aa/bb/up/Posts.xml")
    rename(made, "aa/bb/up/Posts.xml", "../../up/Posts.xml")
    link = tmp_path / "Posts.xml"
    link.symlink_to(secret)
    with py7zr.SevenZipFile(tmp_path / "link.7z", "w") as file:
        file.write(link, "Posts.xml")
    before = sorted(tmp_path.rglob("*"))
    for path in (made, tmp_path / "link.7z"):
        items = read(path)
        assert not any(isinstance(i, Record) and b"secret" in i.payload for i in items)
        assert reasons(items)
    assert sorted(tmp_path.rglob("*")) == before


def test_dictionaries_that_archives_ask_for() -> None:
    assert sevenzip.dictionary_bytes(sevenzip.LZMA2, b"\x18") == 2**24
    assert sevenzip.dictionary_bytes(sevenzip.LZMA2, b"\x28") == 2**32 - 1
    assert sevenzip.dictionary_bytes(sevenzip.LZMA, b"]\x00\x00\x00\x04") == 2**26
    assert sevenzip.dictionary_bytes(sevenzip.PPMD, b"\x06\x00\x00\x00\x01") == 2**24
    assert sevenzip.dictionary_bytes(b"\x04\x02\x02", b"") == 0


def test_a_run_has_the_same_bytes_on_one_and_two_workers(tmp_path: Path) -> None:
    for site in ("math", "superuser", "tex"):
        rows = [row(i, 1, Title=f"{site} question {i} about rivers and stones") for i in range(1, 30)]
        rows += [
            row(i, 2, ParentId=i % 29 + 1, Score=i % 13, Body=f"<p>{site} " + f"answer {i} " * 9)
            for i in range(40, 120)
        ]
        random.Random(2).shuffle(rows)
        dump(tmp_path / "in", *rows, site=site)
    made = []
    for workers in (1, 2):
        output = tmp_path / f"out{workers}"
        words = ("recipe=stackexchange", f"input={tmp_path}/in", f"output={output}", f"executor.workers={workers}",
                 "stop_after=final", *SMALL)  # fmt: skip
        result = subprocess.run(
            [sys.executable, "-m", "launch.cli", "data", *words], capture_output=True, text=True, timeout=600
        )
        assert result.returncode == 0, result.stderr
        made.append({p.name: p.read_bytes() for p in sorted((output / "documents").glob("*.parquet"))})
    assert made[0] == made[1] and len(made[0]) == 3
    metadata = [
        json.loads(m)
        for m in pq.read_table(tmp_path / "out1" / "documents" / "00001.parquet")["metadata"].to_pylist()
    ]
    assert {m["site"] for m in metadata} == {"superuser.com"}
