from __future__ import annotations

import random
import re

import numpy as np
import pyarrow as pa
import pytest
import regex

from data_pipeline import wordhash
from data_pipeline.dedup import shingles

WORDS = """the quick Brown fox_2 jumps over lazy dogs Straße ÉCOLE naïve слово привет नमस्ते 42 x a हिन्दी தமிழ் ক্ষুদ্র שָׁלוֹם مَرْحَبًا
می‌خواهم Schiff­fahrt été 我们 ｶﾀｶﾅ がく ภาษาไทย ພາສາ ភាសាខ្មែរ မြန်မာစာ"""
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー--[\uff00-\uffef]]"
WORD = regex.compile(rf"(?:{UNSPACED}|[\w--{UNSPACED}]\w*?(?=\W|{UNSPACED}|$))\p{{M}}*", regex.V1)


def reference(text: str, n: int) -> set[tuple[str, ...]]:
    words = WORD.findall(re.sub("[\xad\u200c\u200d]", "", text.lower()))
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


def test_letters_with_their_marks_are_one_word() -> None:
    hindi = "हिन्दी भाषा में लिखा हुआ एक छोटा वाक्य"
    assert len(shingles.shingle_sets([hindi], 1)[0]) == len(hindi.split())
    _, starts, ends = wordhash.words(hindi)
    assert [hindi[a:b] for a, b in zip(starts, ends, strict=True)] == hindi.split()
    pointed, plain = (wordhash.words(text)[0] for text in ("שָׁלוֹם مَرْحَبًا e\u0301te\u0301", "שלום مرحبا été"))
    np.testing.assert_array_equal(pointed, plain)
    one, other, hyphen = shingles.shingle_sets(
        ["Schiff\xadfahrt im Nebel", "Schifffahrt im Nebel", "Schiff-fahrt"], 1
    )
    np.testing.assert_array_equal(one, other)
    assert len(hyphen) == 2


def test_ideographs_are_words_of_their_own() -> None:
    one, other = shingles.shingle_sets(["我们今天去公园散步", "我们今天去公园跑步"], 2)
    assert len(one) == 8
    assert shingles.jaccard(one, other) == pytest.approx(6 / 10)


def test_lone_surrogates_and_letters_that_grow_in_lower_case() -> None:
    assert len(shingles.shingle_sets(["a \ud800 b", "İstanbul İİ x", "next one here"], 1)[2]) == 3


def test_packed_sets_are_the_distinct_hashes_in_order() -> None:
    texts = [*random_texts(5, 80), "a a a a a a a a b", "the same words " * 200, "", "…"]
    packed, sizes = shingles.packed_sets(texts, 3)
    start = 0
    hashes = [part for _, h, ends in shingles.shingle_hashes(texts, 3) for part in np.split(h, ends[:-1])]
    for found, size in zip(hashes, sizes, strict=True):
        np.testing.assert_array_equal(packed[start : start + size], np.unique(found))
        start += size
    assert start == len(packed)


def test_arrow_strings_give_the_same_as_python_strings() -> None:
    texts = [None, *random_texts(6, 50), "", None, "x"]
    array = pa.array(texts, pa.string())
    for column, part in (
        (array, texts),
        (array.slice(7, 30), texts[7:37]),
        (array.cast(pa.large_string()), texts),
    ):
        ours, theirs = shingles.shingle_sets(column, 2), shingles.shingle_sets([t or "" for t in part], 2)
        assert len(ours) == len(part)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    assert shingles.shingle_sets(array.slice(0, 0), 2) == []


def test_a_similarity_below_the_threshold_is_zero_and_one_at_it_is_exact() -> None:
    draw = np.random.default_rng(0)
    for _ in range(300):
        size, common = int(draw.integers(1, 200)), 0
        common = int(draw.integers(0, size + 1))
        values = draw.choice(np.iinfo(np.int64).max, 3 * size, replace=False).astype(np.uint64)
        a = np.sort(values[:size])
        b = np.sort(np.concatenate([values[:common], values[size : size + int(draw.integers(1, size + 1))]]))
        exact = len(np.intersect1d(a, b)) / len(np.union1d(a, b))
        assert shingles.jaccard(a, b) == exact
        for least in (0.3, 0.8, exact, np.nextafter(exact, 2)):
            assert shingles.jaccard_from(a, b, least) == (exact if exact >= least else 0.0)


def test_capital_and_final_sigma_are_one_letter() -> None:
    one, other = shingles.shingle_sets(["ΟΔΟΣ ΜΑΣ", "οδος μας"], 1)
    np.testing.assert_array_equal(one, other)
