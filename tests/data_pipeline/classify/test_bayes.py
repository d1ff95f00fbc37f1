from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from configs.schema.pipeline import ClassifierConfig
from data_pipeline.classify import bayes, fasttext

CONFIG = ClassifierConfig(
    method="bayes", min_char_ngram=1, max_char_ngram=3, word_ngrams=1, buckets=1 << 16, prior=20
)
TEXTS = {
    "de": "der alte Bahnhof liegt neben der neuen Brücke und ist schön",
    "en": "the old railway station stands next to the new bridge",
    "el": "ο παλιός σταθμός βρίσκεται δίπλα στη νέα γέφυρα",
    "zh": "旧火车站在新桥旁边",
}


def rows(seed: int = 0) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    return [
        (" ".join(draw.choices(text.split(), k=6)), label) for label, text in TEXTS.items() for _ in range(20)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bayes") / "m.bin"
    fasttext.train(rows(), CONFIG, path, 0)
    return path


def n_grams(line: str) -> Counter[str]:
    """n-grams of a line as fastText has them: within `<word>`, but not `<` or `>` alone."""
    found: Counter[str] = Counter()
    for word in line.split():
        marked = f"<{word}>"
        for n in range(1, 4):
            for i in range(len(marked) - n + 1):
                if not (n == 1 and i in (0, len(marked) - 1)):
                    found[marked[i : i + n]] += 1
    return found


def test_the_model_is_smoothed_naive_bayes_over_n_grams(model: Path) -> None:
    counts: dict[str, Counter[str]] = {label: Counter() for label in TEXTS}
    bare = str.maketrans("üö", "uo")  # Greek keeps its accents
    for text, label in rows():
        for line, weight in ((text, 1), (text.translate(bare), bayes.WITHOUT_ACCENTS)):
            for gram, times in n_grams(line).items():
                counts[label][gram] += weight * times  # type: ignore[assignment]
    vocabulary = set().union(*counts.values())
    total = {label: sum(c.values()) for label, c in counts.items()}
    line = "der neue bridge σταθμός 火 unseen"
    logits = {}
    for label in TEXTS:
        logits[label] = 0.0
        for gram, times in n_grams(line).items():
            share = np.mean([counts[k][gram] / total[k] for k in TEXTS])
            p = {
                k: (counts[k][gram] + bayes.FLOOR + CONFIG.prior * share)
                / (total[k] + bayes.FLOOR * len(vocabulary) + CONFIG.prior)
                for k in TEXTS
            }
            if gram in vocabulary:
                logits[label] += times * (math.log(p[label]) - np.mean([math.log(v) for v in p.values()]))
    n = sum(n_grams(line).values()) + 1  # fastText counts the end of the line
    values = np.array([logits[label] for label in sorted(TEXTS)]) * bayes.SCALE / n
    expected = np.exp(values - values.max()) / np.exp(values - values.max()).sum()
    np.testing.assert_allclose(fasttext.Classifier(model).scores([line])[0], expected, atol=1e-3)


def test_fasttext_itself_reads_the_model_and_agrees(model: Path) -> None:
    import fasttext as library

    ours = fasttext.Classifier(model)
    theirs = fasttext.Classifier(model)
    theirs._model = library.load_model(str(model))
    texts = [text for text, _ in rows(1)] + ["ünseen wörds", "x", "", "旧 火"]
    np.testing.assert_allclose(ours.scores(texts), theirs.scores(texts), atol=5e-5)
    assert ours.best(list(TEXTS.values()))[0] == list(TEXTS)


def test_equal_rows_in_any_order_give_an_equal_file(tmp_path: Path, model: Path) -> None:
    fasttext.train(random.Random(0).sample(rows(), len(rows())), CONFIG, tmp_path / "m.bin", 5)
    assert (tmp_path / "m.bin").read_bytes() == model.read_bytes()


def test_a_label_with_little_text_is_not_preferred_for_what_nobody_has_seen(tmp_path: Path) -> None:
    much = [(f"{a}{b}{c} {c}{a}", "much") for a in "abcde" for b in "fghij" for c in "klmno"]
    fasttext.train([*much, ("pq rs", "little"), ("pq", "little")], CONFIG, tmp_path / "m.bin", 0)
    classifier = fasttext.Classifier(tmp_path / "m.bin")
    assert classifier.scores(["xyz uvw"])[0, classifier.column("little")] < 0.7
    assert classifier.best(["afk kab", "pq rs"])[0] == ["much", "little"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"max_char_ngram": 0}, "set min_char_ngram"), ({"buckets": 10**9}, "lower classifier.buckets")],
)
def test_settings_that_cannot_be_counted(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    import dataclasses

    with pytest.raises(ValueError, match=message):
        fasttext.train(rows(), dataclasses.replace(CONFIG, **changes), tmp_path / "m.bin", 0)
    assert not list(tmp_path.iterdir())
