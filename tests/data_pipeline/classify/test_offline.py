from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from configs import edge
from configs.schema.pipeline import ClassifierConfig, DataRun
from data_pipeline.classify import fasttext, offline, rows

SENTENCES = {
    "en": "The committee has decided that the new bridge will be built next to the old railway station.",
    "de": "Der Ausschuss hat beschlossen, dass die neue Brücke neben dem alten Bahnhof gebaut werden soll.",
    "fr": "Le comité a décidé que le nouveau pont sera construit à côté de l'ancienne gare de la ville.",
    "es": "El comité ha decidido que el nuevo puente se construirá al lado de la antigua estación de tren.",
    "ru": "Комитет решил, что новый мост будет построен рядом со старым железнодорожным вокзалом.",
    "el": "Η επιτροπή αποφάσισε ότι η νέα γέφυρα θα κατασκευαστεί δίπλα στον παλιό σιδηροδρομικό σταθμό.",
    "ar": "قررت اللجنة أن الجسر الجديد سيتم بناؤه بجوار محطة القطار القديمة في المدينة.",
    "zh": "委员会决定新桥将建在旧火车站旁边，工程将于明年开始。",
    "ko": "위원회는 새로운 다리를 오래된 기차역 옆에 건설하기로 결정했다.",
    offline.NO_LANGUAGE: "for i, row in enumerate(rows):\n    if row[key] != value:\n        total += weights[i]\n"
    "        index = self._table.get(key, None)\n    return total / max(1, count)",
}


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> fasttext.Classifier:
    path = tmp_path_factory.mktemp("lid") / "lid.bin"
    config: ClassifierConfig = edge.load("data", DataRun, ["output=unused"]).languages
    fasttext.train(offline.language_rows(0), config, path, 0)
    return fasttext.Classifier(path)


def test_rows_are_equal_for_equal_seeds() -> None:
    first = offline.language_rows(0)
    assert first == offline.language_rows(0)
    assert first != offline.language_rows(1)
    counts = Counter(label for _, label in first)
    assert len(counts) > 60
    assert counts["en"] >= 1000
    assert counts[offline.NO_LANGUAGE] >= 500


def test_common_languages_and_code_are_told_apart(language_model: fasttext.Classifier) -> None:
    found, _ = language_model.best(list(SENTENCES.values()))
    assert dict(zip(SENTENCES, found, strict=True)) == {k: k for k in SENTENCES}


def test_nsfw_rows_take_further_words(tmp_path: Path) -> None:
    found = offline.nsfw_rows(0, words=["flurbish"])
    assert any("flurbish" in text for text, label in found if label == "nsfw")
    assert found == offline.nsfw_rows(0, words=["flurbish"])
    fasttext.train(found, ClassifierConfig(buckets=5000), tmp_path / "n.bin", 0)
    classifier = fasttext.Classifier(tmp_path / "n.bin")
    texts = [SENTENCES["en"], "hot nude webcam girls, free xxx videos online now"]
    safe, flagged = classifier.scores(texts)[:, classifier.column("nsfw")]
    assert safe < 0.2
    assert flagged > 0.8


@pytest.mark.skipif("ARRIERO_TEST_DATA" not in os.environ, reason="ARRIERO_TEST_DATA is not set")
def test_accuracy_on_labelled_sentences(language_model: fasttext.Classifier) -> None:
    path = Path(os.environ["ARRIERO_TEST_DATA"]) / "multilingual" / "sentences.jsonl.zst"
    known = [row for n, row in enumerate(rows.read(path, label_key="lang")) if n % 20 == 0]
    known = [(text, label) for text, label in known if label in language_model.labels]
    found, _ = language_model.best([text for text, _ in known])
    right = sum(a == b for a, (_, b) in zip(found, known, strict=True))
    assert right / len(known) > 0.75
