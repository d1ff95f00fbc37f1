from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.schema.pipeline import ClassifierConfig
from data_pipeline.classify import fasttext

CONFIG = ClassifierConfig(buckets=1000)
GERMAN = "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als"
ENGLISH = "the of and to a in that is was he for it with as his on be at by i"


def rows(seed: int = 0, count: int = 200) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    return [
        (" ".join(draw.choices((GERMAN if n % 2 else ENGLISH).split(), k=8)), "de" if n % 2 else "en")
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.bin"
    fasttext.train(rows(), CONFIG, path, seed=0)
    return path


def test_equal_rows_and_seed_give_an_equal_file(tmp_path: Path, model: Path) -> None:
    again = fasttext.train(rows(), CONFIG, tmp_path / "elsewhere" / "m.bin", seed=0)
    other = fasttext.train(rows(), CONFIG, tmp_path / "other.bin", seed=1)
    assert (tmp_path / "elsewhere" / "m.bin").read_bytes() == model.read_bytes()
    assert other["sha256"] != again["sha256"]
    assert again["labels"] == {"de": 100, "en": 100}
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["m.bin"]


def test_the_order_of_rows_makes_no_difference(tmp_path: Path, model: Path) -> None:
    by_label = sorted(rows(), key=lambda row: row[1])
    fasttext.train(by_label, CONFIG, tmp_path / "m.bin", seed=0)
    assert (tmp_path / "m.bin").read_bytes() == model.read_bytes()


@pytest.mark.parametrize("buckets", [10, 3000, 200_000])
def test_what_the_process_did_before_makes_no_difference(tmp_path: Path, buckets: int) -> None:
    config = dataclasses.replace(CONFIG, buckets=buckets, epochs=2)
    digests = set()
    for n in range(3):
        dirt = [np.full(size, 1e30, np.float32) for size in (1000, 50_000, 3_300_000)]
        del dirt  # back to the allocator, which may hand it to the training
        digests.add(fasttext.train(rows(), config, tmp_path / f"{n}.bin", seed=0)["sha256"])
    assert len(digests) == 1


def test_scores_are_probabilities_in_the_order_of_labels(model: Path) -> None:
    classifier = fasttext.Classifier(model)
    scores = classifier.scores(["und der die", "and of the\nsecond line", " \n\t "])
    assert classifier.labels == ("de", "en")
    assert scores.shape == (3, 2)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[:2].sum(axis=1), 1, atol=1e-4)
    assert scores[0, 0] > 0.9
    assert scores[1, 1] > 0.9
    assert np.isnan(scores[2]).all()
    labels, values = classifier.best(["und der die", ""])
    assert labels == ["de", None]
    assert values[0] == pytest.approx(float(scores[0, 0]))
    assert classifier.scores([]).shape == (0, 2)


def test_batches_equal_single_texts(model: Path) -> None:
    classifier = fasttext.Classifier(model)
    texts = [t for t, _ in rows(5, 30)]
    together = classifier.scores(texts)
    np.testing.assert_array_equal(together, np.concatenate([classifier.scores([t]) for t in texts]))


def test_a_model_retrained_at_the_same_path_is_used(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    fasttext.train(rows(), CONFIG, path, seed=0)
    assert fasttext.Classifier(path).best(["und der die"])[0] == ["de"]
    swapped = [(text, {"de": "en", "en": "de"}[label]) for text, label in rows()]
    fasttext.train(swapped, CONFIG, path, seed=0)
    assert fasttext.Classifier(path).best(["und der die"])[0] == ["en"]


def test_labels_inside_a_text_do_not_count(tmp_path: Path, model: Path) -> None:
    poisoned = [(f"__label__en {text}" if label == "de" else text, label) for text, label in rows()]
    counts = fasttext.train(poisoned, CONFIG, tmp_path / "m.bin", seed=0)
    assert counts["labels"] == {"de": 100, "en": 100}
    assert fasttext.Classifier(tmp_path / "m.bin").labels == ("de", "en")
    assert fasttext.Classifier(model).best(["__label__en und der die"])[0] == ["de"]


def test_of_a_long_text_start_and_middle_are_read(model: Path) -> None:
    start, middle, end = "und der die " * 10, "the of and " * 10, "zu den das " * 10
    text = start + middle + end
    assert fasttext.excerpt(text, 100) == text[:49] + " " + text[(len(text) - 50) // 2 :][:50]
    assert fasttext.excerpt(text[:100], 100) == text[:100]
    classifier = fasttext.Classifier(model, max_characters=100)
    np.testing.assert_array_equal(
        classifier.scores([text]), classifier.scores([text[:49] + "\n" + text[(len(text) - 50) // 2 :][:50]])
    )


def library_model(path: Path, lines: list[str], then: str = "", **settings: object) -> Any:
    """A model trained by fastText itself, in a process whose memory is zero (see `fasttext._fit`)."""
    import fasttext as library

    (path.parent / "rows.txt").write_text("".join(lines))
    settings |= {"input": str(path.parent / "rows.txt"), "thread": 1, "verbose": 0}
    code = (
        f"import fasttext\nm = fasttext.train_supervised(**{settings!r})\n{then}\nm.save_model({str(path)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"MALLOC_PERTURB_": "255"})
    return library.load_model(str(path))


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "softmax", "minn": 1, "maxn": 3, "bucket": 5000},
        {"loss": "softmax", "minn": 2, "maxn": 5, "bucket": 5000, "wordNgrams": 3},
        {"loss": "softmax", "minn": 0, "maxn": 0, "bucket": 1000, "wordNgrams": 2},
        {"loss": "softmax", "minn": 0, "maxn": 0, "bucket": 0, "wordNgrams": 1},
        {"loss": "hs", "minn": 2, "maxn": 4, "bucket": 5000},
        {"loss": "ova", "minn": 1, "maxn": 2, "bucket": 100},
    ],
    ids=str,
)
def test_scores_are_those_of_fasttext(tmp_path: Path, settings: dict[str, object]) -> None:
    draw = random.Random(1)
    alphabets = ("abcdefg hij", "абвгде жзи", "äöüß àéî xyz", "文字漢語 的是", "🖕𝒳 ab")
    texts = ["".join(draw.choices(alphabets[n % 5], k=draw.randint(5, 120))) for n in range(600)]
    lines = [f"__label__l{n % 5} {fasttext.one_line(text, 2000)}\n" for n, text in enumerate(texts)]
    trained = library_model(tmp_path / "m.bin", lines, dim=7, epoch=5, lr=0.1, **settings)
    odd = [
        "nul\0byte x",
        "</s> end",
        "a </s> b c",
        "\u2028 sep \x85 n\xa0x\x1cy",
        "x" * 5000,
        "é " * 3000,
        "\u3000a文 字",
    ]
    odd += ["a __label__l1 b", "文" * 1999 + " 字", "ab" * 999 + "\u3000" + "cd" * 999, "unseen", "🖕" * 2001]
    found = fasttext.Classifier(tmp_path / "m.bin").scores(odd + texts)
    expected = fasttext.Classifier(tmp_path / "m.bin")
    expected._model = trained  # the library itself, as for quantised models
    # Its sigmoid is a table of 512 steps; elsewhere only the places after the fifth differ.
    np.testing.assert_allclose(
        found, expected.scores(odd + texts), atol=1e-2 if settings["loss"] == "ova" else 5e-5
    )


def test_quantised_models_are_scored_too(tmp_path: Path) -> None:
    lines = [f"__label__{label} {text}\n" for text, label in rows(0, 1000)]
    quantize = f"m.quantize(input={str(tmp_path / 'rows.txt')!r}, thread=1)"
    library_model(tmp_path / "m.ftz", lines, quantize, dim=8, bucket=2000, maxn=3, minn=1)
    found = fasttext.Classifier(tmp_path / "m.ftz").best(["und der die", "of and the", ""])[0]
    assert found == ["de", "en", None]


def test_a_model_that_is_cut_short_is_refused(tmp_path: Path, model: Path) -> None:
    whole = model.read_bytes()
    for size in (20, 110, 200, 5000, len(whole) - 1):
        (tmp_path / "m.bin").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is not"):
            fasttext.Classifier(tmp_path / "m.bin")


def test_odd_characters_are_survived(tmp_path: Path, model: Path) -> None:
    odd = ["nul\0byte", "lone \ud800 surrogate", "</s> end", "\u2028 separators \x85 next"]
    assert not np.isnan(fasttext.Classifier(model).scores(odd)).any()
    fasttext.train([*rows(), *((t, "de") for t in odd)], CONFIG, tmp_path / "m.bin", seed=0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "no usable row"),
        ([("a b", "x"), ("c d", "x"), ("", "y")], "only the label 'x' .1 rows were empty"),
        ([("a b", "x"), ("c d", "x"), ("e", "y")], "at least 2 rows; too few of: y"),
        ([("a b", "two words")], "must be one word"),
    ],
)
def test_rows_that_cannot_be_learnt_from(tmp_path: Path, bad: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fasttext.train(bad, CONFIG, tmp_path / "m.bin", seed=0)
    assert not list(tmp_path.iterdir())


def test_a_diverging_training_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lower learning_rate"):
        fasttext.train(rows(), dataclasses.replace(CONFIG, learning_rate=1e9), tmp_path / "m.bin", seed=0)


def test_files_that_are_no_model(tmp_path: Path, model: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="is not a fastText model"):
        fasttext.Classifier(tmp_path / "m.bin")
    with pytest.raises(FileNotFoundError, match="expected a fastText"):
        fasttext.Classifier(tmp_path / "absent.bin")
    with pytest.raises(ValueError, match="no label 'nsfw'; its labels are: de, en"):
        fasttext.Classifier(model).column("nsfw")
