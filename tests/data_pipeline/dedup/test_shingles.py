from __future__ import annotations

import random
import re

import numpy as np
import pytest

from data_pipeline.dedup import shingles

WORDS = "the quick Brown fox_2 jumps over lazy dogs Straße ÉCOLE naïve слово привет नमस्ते 42 x a"


def reference(text: str, n: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)} or (
        {tuple(words)} if words else set()
    )


def random_texts(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    return [
        "".join(
            draw.choice(WORDS.split()) + draw.choice((" ", "  ", ", ", "\n", "-", "'", " — ", "\0"))
            for _ in range(draw.choice((0, 1, 3, 4, 5, 6, 40)))
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("ngram", [1, 2, 5])
def test_sets_are_those_of_the_word_ngrams(ngram: int) -> None:
    texts = random_texts(ngram, 120)
    ours, theirs = shingles.shingle_sets(texts, ngram), [reference(t, ngram) for t in texts]
    assert [len(s) for s in ours] == [len(s) for s in theirs]
    for i in range(len(texts)):
        for j in range(0, i, 7):
            union = theirs[i] | theirs[j]
            exact = len(theirs[i] & theirs[j]) / len(union) if union else 0.0
            assert shingles.jaccard(ours[i], ours[j]) == pytest.approx(exact)


def test_hashes_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [
        *random_texts(3, 60),
        "é " + "plain ascii words here and more",
        "plain ascii words here and more",
    ]
    together = shingles.shingle_sets(texts, 3)
    monkeypatch.setattr(shingles, "BATCH_BYTES", 50)
    for text, whole, small in zip(texts, together, shingles.shingle_sets(texts, 3), strict=True):
        np.testing.assert_array_equal(whole, small)
        np.testing.assert_array_equal(whole, shingles.shingle_sets([text], 3)[0])


def test_a_document_longer_than_a_batch_is_one_document() -> None:
    text = " ".join(f"word{i}" for i in range(300_000))
    assert len(text) > 2 * shingles.BATCH_BYTES
    assert len(shingles.shingle_sets(["before", text, "after"], 5)[1]) == 300_000 - 4


def test_ideographs_are_words_of_their_own() -> None:
    one, other = shingles.shingle_sets(["我们今天去公园散步", "我们今天去公园跑步"], 2)
    assert len(one) == 8
    assert shingles.jaccard(one, other) == pytest.approx(6 / 10)


def test_lone_surrogates_and_letters_that_grow_in_lower_case() -> None:
    assert len(shingles.shingle_sets(["a \ud800 b", "İstanbul İİ x", "next one here"], 1)[2]) == 3
