from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from configs.edge import ConfigError
from configs.schema.pipeline import DecontaminateConfig
from data_pipeline import edits
from data_pipeline.annotate import contamination, evalsets
from data_pipeline.annotate.contamination import Annotator
from data_pipeline.wordhash import words

PROBLEM = (
    "A ferry carries 38 passengers and 14 bicycles from Calbuco to Ancud every morning. On Sundays it carries twice as "
    "many passengers but leaves all the bicycles behind. How many passengers does the ferry carry in two weeks?"
)
SOLUTION = (
    "On each of the twelve weekdays there are 38 passengers, so 12 * 38 = 456. On the two Sundays there are 76 each, so "
    "2 * 76 = 152. Together that makes 608."
)
CHOICES = [
    "a layer of volcanic ash",
    "a slowly moving glacier",
    "the roots of old alerce trees",
    "a passing herd",
]
PASSAGE = (
    "The lighthouse at Punta Corona was finished in 1859 and stands sixty metres above the channel. Its first keeper, a "
    "retired whaler, noted every ship that passed in a ledger that is now kept in the museum of Ancud."
)
SETS: dict[str, list[dict[str, Any]]] = {
    "sums": [{"question": PROBLEM, "answer": SOLUTION, "source": "x-17"}],
    "choice": [
        {
            "query": "Question: What most likely carved the wide valley north of the town?",
            "choices": CHOICES,
            "gold": 1,
        },
        {"query": "Question: Which tool?", "choices": ["saw", "hammer"], "gold": 0},
    ],
    "reading": [
        {
            "query": f"Passage: {PASSAGE}\nQuestion: who was the first keeper at punta corona?",
            "choices": ["no", "yes"],
        }
    ],
    "nested": [
        {
            "turns": [
                {"content": {"prompt": "Translate the shepherd's lament about seven missing brown ewes."}}
            ]
        }
    ],
}
FILLER = (
    "The market opens at seven and closes when the last boat has left. People come for potatoes, smoked mussels and the "
    "newspaper, and most of them stay for a coffee. In winter the stalls move into the old customs house. "
)


@pytest.fixture(scope="module")
def annotator(tmp_path_factory: pytest.TempPathFactory) -> Annotator:
    folder = tmp_path_factory.mktemp("sets")
    for name, rows in SETS.items():
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(b"\n".join(map(orjson.dumps, rows))))
    config = DecontaminateConfig(sets=(str(folder),))
    index = evalsets.load(config)
    index.save(folder / "index")
    return Annotator(evalsets.Index.read(folder / "index"), config)


def found(annotator: Annotator, text: str) -> set[tuple[str, int]]:
    """Items that a text in the middle of a page counts for."""
    index = annotator.index
    matches = annotator.matches(f"{FILLER}\n\n{text}\n\n{FILLER}")[0]
    items = (index.items[index.parts[m.part].item] for m in matches if m.counts)
    return {(i.set, i.number) for i in items}


def replaced(text: str, share: float) -> str:
    draw = random.Random(1)
    return " ".join("fjord" if draw.random() < share else w for w in text.split())


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t,
        str.upper,
        lambda t: t.replace(" ", "\n").replace(",", " ;"),
        lambda t: " ".join(f"<b>{w}</b>" if i % 5 == 0 else f"*{w}*" for i, w in enumerate(t.split())),
        lambda t: t.replace("e", "e\u0301").replace("'", "’"),
        lambda t: replaced(t, 0.1),
        lambda t: replaced(t, 0.2),
        lambda t: t[: len(t) * 2 // 3],
        lambda t: "".join(chr(ord(c) + 0xFEE0) if "!" < c < "~" else c for c in t),
    ],
    ids=["verbatim", "upper", "spacing", "markup", "accents", "10%", "20%", "truncated", "fullwidth"],
)
def test_a_question_is_found_however_it_is_written(annotator: Annotator, change: Any) -> None:
    assert found(annotator, change(PROBLEM)) == {("sums", 0)}


def test_what_is_found_in_a_document_does_not_depend_on_those_before(tmp_path: Path) -> None:
    path = tmp_path / "sums.jsonl"
    path.write_bytes(orjson.dumps(SETS["sums"][0]))
    config = DecontaminateConfig(sets=(str(path),))
    index = evalsets.load(config)
    for before in range(0, 2000, 5):
        compared = Annotator(index, config)
        assert compared.matches("and " * before + PROBLEM)[1]["matches"] == 1
        assert compared.matches(PROBLEM)[1]["matches"] == 1, before


def test_half_a_question_over_and_over_is_looked_around_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = [f"w{n}x" for n in range(24)]
    passage = " ".join(f"p{n}x" for n in range(300))
    path = tmp_path / "long.jsonl"
    path.write_bytes(orjson.dumps({"question": " ".join(question), "passage": passage}))
    config = DecontaminateConfig(sets=(str(path),))
    half = " ".join([*question[:7], "a", *question[8:14], *["b"] * 30])
    aligned: list[int] = []
    whole = contamination.align

    def counted(*given: Any) -> Any:
        aligned.append(1)
        return whole(*given)

    monkeypatch.setattr(contamination, "align", counted)
    compared = Annotator(evalsets.load(config), config)
    compared.matches(" ".join([half] * 40))
    few = len(aligned)
    compared.matches(" ".join([half] * 400))
    assert 0 < len(aligned) - few <= few


def test_a_solution_is_found_without_its_question(annotator: Annotator) -> None:
    assert found(annotator, SOLUTION) == {("sums", 0)}


def test_strings_are_found_wherever_they_stand_in_a_row(annotator: Annotator) -> None:
    assert found(annotator, "the shepherds lament about seven missing brown ewes") == {("nested", 0)}


def test_a_short_question_counts_with_its_answers_when_it_is_changed(annotator: Annotator) -> None:
    changed = "What most likely made the wide valley west of the city?"
    assert found(annotator, changed) == set()
    assert found(annotator, changed + "\n" + "\n".join(CHOICES)) == {("choice", 0)}


def test_the_source_of_a_passage_is_reported_and_does_not_count(annotator: Annotator) -> None:
    matches, signals = annotator.matches(PASSAGE)
    assert [annotator.index.parts[m.part].role for m in matches] == ["context"]
    assert signals["matches"] == 0 and signals["context"] > 0.95
    assert found(annotator, PASSAGE + " Who was first keeper at Punta Corona?") == {("reading", 0)}
    strict = Annotator(annotator.index, DecontaminateConfig(contexts=True))
    assert found(strict, PASSAGE) == {("reading", 0)}


@pytest.mark.parametrize(
    "text",
    [
        "Ferries to Ancud leave every morning and carry passengers and bicycles. On Sundays there are fewer of them.",
        " ".join(random.Random(2).sample(PROBLEM.split(), len(PROBLEM.split()))),
        "What carved the valley? A slowly moving glacier, most people say, and volcanic ash filled it.",
        "Which tool? saw or hammer",
    ],
    ids=["topic", "shuffled", "common", "short"],
)
def test_pages_on_the_same_topic_are_left_alone(annotator: Annotator, text: str) -> None:
    assert found(annotator, text) == set()


def test_words_between_the_matched_ones_count_against_them(annotator: Annotator) -> None:
    question = SETS["choice"][0]["query"].removeprefix("Question: ")
    strewn = "Likely, some say, a lake carved the wide valley, which runs on and on up north, toward another, newer town."
    assert annotator.matches(question)[1]["overlap"] == 1
    assert annotator.matches(strewn)[1]["overlap"] < 0.65


def test_items_that_cannot_be_looked_for_are_listed(annotator: Annotator) -> None:
    table = contamination.summary(annotator.index, [])
    assert table["choice"]["not_checkable"] == [1]
    assert [entry["not_checkable"] for name, entry in table.items() if name != "choice"] == [[], [], []]


def test_report_signals_and_edits_agree(annotator: Annotator) -> None:
    texts = [FILLER, f"{FILLER}{PROBLEM} {FILLER}", "", f"{PROBLEM}\n{SOLUTION}\n{FILLER}{PASSAGE}"]
    documents = pa.table(
        {"id": [f"{i:032x}" for i in range(4)], "url": [None, "u", None, "v"], "text": texts}
    )
    table, rows, spans = contamination.annotate(documents, annotator.index, annotator.config)
    assert table["matches"].to_pylist() == [0, 1, 0, 1]
    assert table["overlap"].to_pylist()[1] == pytest.approx(1)
    assert [(r["document"][-1], r["set"], r["part"], r["counts"]) for r in rows] == [
        ("1", "sums", "question", True),
        ("3", "sums", "question", True),
        ("3", "sums", "answer", True),
        ("3", "reading", "context", False),
    ]
    assert [orjson.loads(orjson.dumps(row)) for row in rows] == rows
    for row in rows:
        text = texts[int(row["document"], 16)]
        assert text[row["start"] : row["end"]].startswith(row["text"][:50])
        assert row["question"] in (PROBLEM[:160], "who was the first keeper at punta corona?")
    assert [edits.apply(t, [s]) for t, s in zip(texts, spans, strict=True)][1] == f"{FILLER}? {FILLER}"
    summary = contamination.summary(annotator.index, rows)
    assert (summary["sums"]["items_found"], summary["sums"]["documents"]) == (1, 2)
    assert (summary["reading"]["items_found"], summary["reading"]["items_in_context_only"]) == (0, 1)
    null = contamination.annotate(documents, None, annotator.config)
    assert null[0]["matches"].null_count == 4 and not null[1] and not any(null[2])


def test_alignment_is_the_heaviest_common_subsequence() -> None:
    draw = np.random.default_rng(0)
    for _ in range(50):
        text, part = draw.integers(0, 8, 30).astype(np.uint64), draw.integers(0, 8, 12).astype(np.uint64)
        weights = draw.choice([0.25, 1.0], 12)
        table = np.zeros((31, 13))
        for j in range(30):
            for i in range(12):
                match = table[j, i] + weights[i] if text[j] == part[i] else 0.0
                table[j + 1, i + 1] = max(match, table[j, i + 1], table[j + 1, i])
        runs = [
            k for i in range(12) for j in range(30) for k in range(1, 13)
            if i + k <= 12 and j + k <= 30 and (part[i : i + k] == text[j : j + k]).all()
        ]  # fmt: skip
        weight, start, end, run, _ = contamination.align(text, 0, 30, part, weights, 0, 12)
        assert weight == pytest.approx(table[-1, -1])
        assert run == max(runs, default=0)
        again = contamination.align(text, start, end, part, weights, 0, 12)
        assert again[0] == pytest.approx(weight), "the span holds the whole match"


def test_seeds_are_hashed_as_the_scan_hashes_them(annotator: Annotator) -> None:
    """Were they not, nothing would be found; this says where to look."""
    index = annotator.index
    part = next(i for i, p in enumerate(index.parts) if p.field == "question")
    seeds = evalsets.seed_hashes(words(PROBLEM)[0])
    held = index.posting_part == part
    assert held.sum() > 10 and np.isin(seeds, index.keys).sum() >= held.sum()


def test_unusable_sets_and_parameters_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        evalsets.load(DecontaminateConfig(sets=(str(tmp_path / "none.jsonl"),)))
    with pytest.raises(ConfigError, match="holds no JSONL"):
        evalsets.load(DecontaminateConfig(sets=(str(tmp_path),)))
    (tmp_path / "bad.jsonl").write_text('{"a": "b"}\n[1]\n')
    with pytest.raises(ConfigError, match="line 2: expected an object"):
        evalsets.load(DecontaminateConfig(sets=(str(tmp_path),)))
    with pytest.raises(ConfigError, match=r"decontaminate\.ngram"):
        contamination.check(DecontaminateConfig(ngram=2))
