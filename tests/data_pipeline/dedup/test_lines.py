from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dedup_runs import decisions, identifier, kept, write_run

from configs.edge import ConfigError
from configs.schema.pipeline import DedupConfig
from data_pipeline import edits
from data_pipeline.dedup import corpus, line_hashes, lines, settings
from data_pipeline.dedup.line_hashes import BLANK, EXEMPT, TEXT, units

Rows = list[tuple[str, str]]
LENIENT = {"line_min_length": 1, "line_min_characters": 0, "line_min_share": 0.0}


def deduplicate(
    run: Path, shards: int, config: DedupConfig, chosen: set[int] | None = None
) -> dict[str, str]:
    """Id → text after the edits; the decisions are in the run."""
    chosen = set(range(shards)) if chosen is None else chosen
    for shard in range(shards):
        lines.hashes(run, shard, chosen, config)
    for part in range(settings.line_ranges(shards)):
        lines.counts(run, part, shards, config)
    found = {}
    for shard in range(shards):
        lines.decide(run, shard, chosen, shards, config)
        table = pq.read_table(run / f"documents/{shard:05d}.parquet")
        proposed = edits.read(run, ["lines"], shard, table["id"])
        for row, (name, text) in enumerate(
            zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True)
        ):
            found[name] = edits.apply(text, proposed[row]) if row in proposed else text
    return found


def normal(line: str) -> str:
    """The normal form, in plain Python."""
    letters = []
    for letter in line.lower():
        base = unicodedata.normalize("NFD", letter)
        c = base[0] if len(base) > 1 and all("\u0300" <= x < "\u0370" for x in base[1:]) else letter
        category = unicodedata.category(c)
        if "\u0300" <= c < "\u0370" or (category[0] in "PSC" and c not in "\t\r\v\f\x85"):
            continue
        letters.append("0" if category == "Nd" else " " if category[0] in "ZC" else c)
    return " ".join("".join(letters).split(" ")).strip() if letters else ""


def key(line: str) -> str:
    return re.sub(" +", " ", normal(line)).strip()


def corpus_of(n: int, seed: int) -> Rows:
    draw = random.Random(seed)
    menu = [
        "Home",
        "Log in",
        "© 2024 Ünïted News, all rights reserved",
        "Share this!",
        "Read more …",
        "МЕНЮ сайта",
    ]
    rows = []
    for k in range(n):
        parts = [
            f"Paragraph {k}-{j} says something of its own, {draw.random()}."
            for j in range(draw.randrange(1, 6))
        ]
        text = [f"{p} {''.join(draw.choices('abcdefghij klmno', k=40))}" for p in parts]
        for line in draw.choices(menu, k=draw.randrange(4)):
            variant = draw.choice(
                [line, line.upper(), f"  {line} ", line.replace("2024", "1999"), f"* {line}"]
            )
            text.insert(draw.randrange(len(text) + 1), variant)
        rows.append((identifier((seed, k)), draw.choice(["\n", "\n\n"]).join(text) + draw.choice(["", "\n"])))
    return rows


def split(rows: Rows, shards: int, run: Path) -> Path:
    return write_run(run, [rows[k::shards] for k in range(shards)])


@pytest.mark.parametrize("within", [False, True])
def test_a_line_seen_more_often_than_allowed_goes_everywhere(tmp_path: Path, within: bool) -> None:
    rows = corpus_of(120, 1)
    refrain = (identifier("song"), "\n".join(["Falala, the refrain"] * 7 + ["and one verse of the song"]))
    rows.append(refrain)
    config = DedupConfig(lines="llama3", line_count=6, line_within=within, **LENIENT)
    found = deduplicate(split(rows, 3, tmp_path / "run"), 3, config)
    assert ("Falala" in found[refrain[0]]) is not within
    distinct = list if within else set
    seen = Counter(k for _, text in rows for k in distinct(map(key, text.split("\n"))) if k)  # type: ignore[operator]
    assert {k for k, n in seen.items() if n > 6} == {
        "home",
        "log in",
        "0000 united news all rights reserved",
        "share this",
        "read more",
        "меню саита",
        *(["falala the refrain"] if within else []),
    }
    for name, text in rows:
        expected = [x for x in text.split("\n") if x.strip() and not (key(x) and seen[key(x)] > 6)]
        assert [x for x in found[name].split("\n") if x.strip()] == expected


def test_exactly_the_count_stays(tmp_path: Path) -> None:
    rows = [
        (identifier(k), f"Some line of document number {'abcdefghijklmn'[k]}\nSix times\n") for k in range(6)
    ]
    rows += [
        (identifier(k + 6), f"Other line of document {'abcdefghijklmn'[k]}\nSeven times") for k in range(7)
    ]
    config = DedupConfig(lines="llama3", line_count=6, **LENIENT)
    found = deduplicate(split(rows, 2, tmp_path / "run"), 2, config)
    assert sum("Six times" in t for t in found.values()) == 6
    assert sum("Seven times" in t for t in found.values()) == 0


def test_ccnet_keeps_the_first_of_every_line(tmp_path: Path) -> None:
    rows = [
        *corpus_of(120, 2),
        (identifier("song"), "Falala, the refrain\nand one verse\nFalala, the refrain"),
    ]
    found = deduplicate(split(rows, 4, tmp_path / "run"), 4, DedupConfig(lines="ccnet", **LENIENT))
    seen: set[str] = set()
    for name, text in sorted(rows):
        expected = []
        for line in text.split("\n"):
            if line.strip() and (not key(line) or key(line) not in seen):
                expected.append(line)
            seen.add(key(line))
        assert [x for x in found[name].split("\n") if x.strip()] == expected


@pytest.mark.parametrize("rule", ["ccnet", "llama3"])
@pytest.mark.parametrize("unit", ["line", "paragraph"])
def test_output_does_not_depend_on_shards_order_or_memory(
    tmp_path: Path, rule: str, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = corpus_of(300, 3)
    config = DedupConfig(lines=rule, line_unit=unit, line_count=3, line_bucket_documents=120)  # type: ignore[arg-type]
    results = []
    for shards, per_hash in ((1, 64), (5, 64), (5, 64 * 2048), (3, 512 * 2048)):
        monkeypatch.setattr(lines, "_BYTES_PER_HASH", per_hash)
        random.Random(shards).shuffle(rows)
        run = split(rows, shards, tmp_path / f"{shards}-{per_hash}")
        results.append((deduplicate(run, shards, config), decisions(run, "lines")))
        if per_hash > 64:
            assert len(list((run / "lines/runs").glob("*.arrays"))) >= shards
    assert all(r == results[0] for r in results[1:])
    assert results[0][0] != dict(rows)


def test_memory_bounds_the_size_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_BYTES_PER_HASH", 512 * 2**10)  # the bound is then 1,024 hashes
    rows = corpus_of(800, 4)
    run = split(rows, 1, tmp_path / "run")
    config = DedupConfig(lines="llama3")
    counts = lines.hashes(run, 0, {0}, config)
    assert counts["runs"] == len(list((run / "lines/runs").glob("*.arrays"))) > counts["lines"] // 1024
    monkeypatch.setattr(lines, "_BYTES_PER_HASH", 64)
    assert lines.hashes(split(rows, 1, tmp_path / "one"), 0, {0}, config)["runs"] == 1


def test_buckets_are_counted_apart(tmp_path: Path) -> None:
    rows = [(identifier(k), f"The same line\n{identifier(k)} has its own words") for k in range(40)]
    found = deduplicate(
        split(rows, 2, tmp_path / "run"), 2, DedupConfig(lines="ccnet", line_bucket_documents=10, **LENIENT)
    )
    assert sum("The same line" in t for t in found.values()) == 4


def test_the_work_to_count_documents_does_not_grow_with_the_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = split(corpus_of(40, 5), 8, tmp_path / "run")
    config = DedupConfig(lines="llama3", line_bucket_documents=10)
    looked: list[int] = []
    whole = corpus.kept_before

    def counted(run_dir: Path, shard: int, step: str, ids: pa.ChunkedArray) -> np.ndarray:
        looked.append(shard)
        return whole(run_dir, shard, step, ids)

    monkeypatch.setattr(corpus, "kept_before", counted)
    for shard in range(8):
        lines.hashes(run, shard, set(range(8)), config)
    assert len(looked) == 8 + 8


def test_only_kept_documents_of_chosen_shards_count(tmp_path: Path) -> None:
    rows = [
        (
            identifier(k),
            f"The same line\nWords of {identifier(k).translate(str.maketrans('0123456789', 'ghijklmnop'))}",
        )
        for k in range(9)
    ]
    run = write_run(tmp_path / "run", [rows[:4], rows[4:]], dropped={rows[0][0]})
    found = deduplicate(run, 2, DedupConfig(lines="llama3", line_count=2, **LENIENT), chosen={0})
    assert found[rows[0][0]] == rows[0][1]
    assert all("same line" not in found[i] for i, _ in rows[1:4])
    assert all(found[i] == t for i, t in rows[4:])
    assert kept(run, "lines") == {i for i, _ in rows[1:]}
    three = deduplicate(run, 2, DedupConfig(lines="llama3", line_count=3, **LENIENT), chosen={0})
    assert three == dict(rows)


def test_a_document_of_which_too_little_is_left_goes(tmp_path: Path) -> None:
    menu = "\n".join(f"Menu entry {c}" for c in "abcdefgh")
    long = "Words of a document that are found in it alone and make it long enough to stay. " * 5
    rows = [(identifier(k), f"{menu}\nshort {chr(97 + k)}") for k in range(4)]
    rows += [(identifier(9), f"{menu}\n{long}"), (identifier(10), "short and alone")]
    run = split(rows, 2, tmp_path / "run")
    deduplicate(
        run, 2, DedupConfig(lines="llama3", line_count=3, line_min_characters=100, line_min_share=0.5)
    )
    assert kept(run, "lines") == {identifier(9), identifier(10)}
    found = decisions(run, "lines")[rows[0][0]]
    assert (found["rule"], found["detail"]) == ("lines", "7 of 103 characters left")
    signals = {
        r["id"]: r for p in sorted((run / "signals/lines").glob("*")) for r in pq.read_table(p).to_pylist()
    }
    assert signals[rows[0][0]] == {"id": rows[0][0], "removed": 8, "removed_chars": 96, "kept_chars": 7}
    assert signals[identifier(10)] == {
        "id": identifier(10),
        "removed": 0,
        "removed_chars": 0,
        "kept_chars": 15,
    }


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a x\nGONE\nb x", "a x\nb x"),
        ("a x\n\nGONE\n\nb x", "a x\n\nb x"),
        ("a x\nGONE\n\nb x", "a x\n\nb x"),
        ("a x\n\nGONE\nb x", "a x\n\nb x"),
        ("GONE\n\na x", "a x"),
        ("a x\n\nGONE", "a x"),
        ("a x\nGONE\n", "a x\n"),
        ("a x\nGONE\ngone!\n\n\nGone\nb x", "a x\nb x"),
        ("a x\n\nGONE\n\nb x\n\nGONE\n\nc x", "a x\n\nb x\n\nc x"),
        ("GONE", ""),
        ("GONE\n\nGONE\n", "\n"),
        ("é x 💡\nGONE\nb x", "é x 💡\nb x"),
    ],
)
def test_paragraphs_stay_apart_by_one_empty_line(tmp_path: Path, text: str, left: str) -> None:
    rows = [(identifier(k), "gone") for k in range(3)] + [(identifier("x"), text)]
    found = deduplicate(
        split(rows, 1, tmp_path / "run"), 1, DedupConfig(lines="llama3", line_count=3, **LENIENT)
    )
    assert found[identifier("x")] == left


def kinds(text: str) -> list[int]:
    return units(pa.array([text]), False).kind.tolist()


def test_code_tables_and_lines_without_letters_are_left_alone() -> None:
    assert kinds("text\n\n---\n12\n* 3 *") == [TEXT, BLANK, EXEMPT, EXEMPT, EXEMPT]
    assert kinds("a\n```python\nimport os\n\nreturn\n```\nb") == [
        TEXT,
        *[EXEMPT] * 2,
        BLANK,
        *[EXEMPT] * 2,
        TEXT,
    ]
    assert kinds("| a | b |\n|---|---|\nc") == [EXEMPT, EXEMPT, TEXT]
    assert kinds("a\n\n    code = 1\n\tmore()\n\nb\n    hanging indent") == [
        TEXT,
        BLANK,
        EXEMPT,
        EXEMPT,
        BLANK,
        TEXT,
        TEXT,
    ]
    assert kinds("a\n\n    - entry of a list") == [TEXT, BLANK, TEXT]


def test_offsets_count_code_points_and_hashes_follow_the_normal_form() -> None:
    text = "Ünïcode ﬁrst — 12\r\n\n  unicode FIRST 99  \n💡 ideas\nideas\n你好，世界\n你好世界！\nहिन्दी\nहिन्दू"
    found = units(pa.array(["", text, None]), False)
    cut = [text[a:b] for a, b in zip(found.start.tolist(), found.end.tolist(), strict=True)]
    assert cut == text.split("\n")
    same: dict[int, set[str]] = {}
    for h, line in zip(found.hash.tolist(), cut, strict=True):
        same.setdefault(h, set()).add(key(line))
    assert all(len(v) == 1 for v in same.values())
    assert len(same) == len({key(line) for line in cut})


def test_documents_of_endless_lines_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_hashes, "MAX_UNITS", 100)
    found = units(pa.array(["a line\nanother", "\n" * 100, "x\n" * 99, "y\n" * 100, "a line"]), False)
    assert sorted(set(found.document.tolist())) == [0, 2, 4]
    assert found.hash[0] == found.hash[-1]


def test_a_line_without_end_is_a_line() -> None:
    found = units(pa.array(["word " * 2_000_000, "word " * 1_999_999 + "word"]), False)
    assert found.hash[0] == found.hash[1] != 0


def test_short_lines_are_left_alone() -> None:
    texts = pa.array(["Read more!\nPros -- 1\n\nLearn more\n阅读更多\n阅读\n\nshort\nlines"])
    found = units(texts, False, 9)
    assert found.kind.tolist() == [TEXT, EXEMPT, BLANK, TEXT, TEXT, EXEMPT, BLANK, EXEMPT, EXEMPT]
    assert (found.hash[found.kind == EXEMPT] == 0).all()
    assert units(texts, True, 9).kind.tolist() == [TEXT, BLANK, TEXT, BLANK, TEXT]
    assert units(texts, True, 13).kind.tolist() == [TEXT, BLANK, TEXT, BLANK, EXEMPT]


def test_a_paragraph_is_its_lines() -> None:
    found = units(
        pa.array(["One line\ntwo lines\n\none line\n\nONE line\nTwo lines\n", "one line\ntwo lines"]), True
    )
    texts = [k for k in range(len(found)) if found.kind[k] == TEXT]
    h = found.hash[texts].tolist()
    assert h[0] == h[2] == h[3] != h[1]
    assert (found.start[texts].tolist(), found.end[texts].tolist()) == ([0, 20, 30, 0], [18, 28, 48, 18])


def test_settings_that_cannot_work_are_refused() -> None:
    for name, value in (
        ("line_count", 0),
        ("line_bucket_documents", 0),
        ("line_memory_mb", 1),
        ("line_min_share", 1.5),
    ):
        with pytest.raises(ConfigError, match=f"dedup.{name}"):
            settings.check_lines(DedupConfig(**{name: value}))
