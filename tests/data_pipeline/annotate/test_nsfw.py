"""Listed words in every script, and the score of the page that weighs them."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from configs.schema.pipeline import NsfwConfig
from data_pipeline.annotate import listed_words, nsfw, nsfw_page

BIT = np.uint64(1)


def found(phrases: list[str], text: str) -> dict[str, int]:
    trie = listed_words.build([(p, 0) for p in phrases])
    counts = listed_words.count(trie, pa.array([text], pa.large_string()), [np.array([BIT])])
    return dict(zip(listed_words.COUNTS, counts[0, 0].tolist(), strict=True))


@pytest.mark.parametrize(
    ("phrase", "text", "covered"),
    [
        ("hell", "Hello, what the HELL!", 1),
        ("blöd", unicodedata.normalize("NFD", "so blöd ist das"), 1),
        ("bad egg", "a bad\n egg, a bad, egg", 4),
        ("bad egg", "bad bad egg", 2),
        ("a b a c", "a b a b a c", 4),
        ("хрен", "ХРЕН знает", 1),
        ("坏蛋", "他是坏蛋吗？坏人", 2),
        ("바보", "너는바보야", 2),
        ("ห่วย", "มันห่วยมาก", 4),
        ("कमीना", "वह कमीना है", 1),
        ("word", "w\u200bo\u00adrd", 1),
        ("💩", "this is 💩💩", 2),
        ("f*ck", "f*ck that", 2),
        ("über", "uber", 0),
    ],
)
def test_phrases_of_every_script(phrase: str, text: str, covered: int) -> None:
    assert found([phrase], text)["covered"] == covered


def test_overlapping_phrases_cover_their_words_once() -> None:
    counts = found(["one two", "two three", "two"], "one two three four two")
    assert (counts["words"], counts["covered"], counts["hits"], counts["distinct"]) == (5, 4, 4, 3)


def test_counts_of_a_text_do_not_depend_on_its_neighbours() -> None:
    draw = random.Random(0)
    words = ["alpha", "beta", "gamma", "delta", "坏", "蛋", "ü", "ü", "🖕", "-", ".", "\n"]
    texts = [" ".join(draw.choices(words, k=draw.randint(0, 40))) for _ in range(200)]
    trie = listed_words.build([("alpha beta", 0), ("gamma", 0), ("坏蛋", 0), ("ü", 0), ("🖕", 0)])
    mask = [np.full(len(texts), BIT)]
    whole = listed_words.count(trie, pa.array(texts, pa.large_string()), mask)
    for i in range(0, len(texts), 7):
        alone = listed_words.count(trie, pa.array(texts, pa.large_string()).slice(i, 1), [mask[0][:1]])
        assert (alone[0] == whole[i]).all()


def test_hostile_texts_are_counted_in_bounded_memory() -> None:
    trie = listed_words.build([("a " * 40, 0), ("a a", 0), ("a", 0)])
    text = "a " * 500_000 + "a\u0301"
    counts = listed_words.count(trie, pa.array([text], pa.large_string()), [np.array([BIT])])
    assert counts[0, 0, 0] == counts[0, 0, 1] + 1 == 500_001


@pytest.fixture
def config(tmp_path: Path) -> NsfwConfig:
    path = tmp_path / "en.txt"
    path.write_text("breasts\nnaked\nsex\nslut\nass\n")
    return NsfwConfig(word_lists=(str(path),))


SHOP = (
    "Hot naked babes, sex videos, slut wives show breasts and ass. Uncensored porn pictures, xxx webcam sex. "
    * 4
)
CLINIC = (
    "Patients notice pain of the breasts during puberty or pregnancy. The doctor asks about symptoms, medication and sex, "
    "and orders a biopsy of the tissue where cancer is possible. Studies report that treatment helps most patients. "
    * 3
)
STORY = (
    "The man was naked and cold. "
    + "He walked along the river until the evening came and the lamps were lit. " * 20
)


def test_company_decides_what_listed_words_mean(config: NsfwConfig) -> None:
    documents = pa.table({"id": ["0", "1", "2"], "language": ["en"] * 3, "text": [SHOP, CLINIC, STORY]})
    # Without lists the built-in words alone speak, less surely.
    for given, most in ((config, 0.5), (NsfwConfig(), 0.9)):
        shop, clinic, story = nsfw.annotate(documents, given, None)["score"].to_pylist()
        assert shop > 0.95 and clinic < most and story < most


def test_the_score_falls_with_company_of_reference_and_rises_with_the_classifier() -> None:
    counts = np.zeros((2, 3, 5), np.int64)
    counts[:, 0] = [300, 12, 12, 6, 0]
    counts[:, 2] = [300, 0, 0, 0, 0]
    counts[1, 2, 1] = 40
    none = np.full(2, np.nan)
    for lists, classifier in ((True, False), (True, True)):
        plain, reference = nsfw_page.score(nsfw_page.features(counts, none), lists, classifier)
        assert plain > reference
    low, high = (
        nsfw_page.score(nsfw_page.features(counts[:1], np.array([p])), True, True)[0] for p in (0.1, 0.9)
    )
    assert low < high
