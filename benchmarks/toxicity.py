"""NSFW signals on labelled toxic and normal texts: word lists, a trained classifier, the offline classifier.

    ARRIERO_TEST_DATA=DATA python benchmarks/toxicity.py

Reads `nsfw/toxicity_labelled.jsonl.zst` and the word lists beside it. The labels are of offensive speech in short posts:
the nearest thing to NSFW pages that is labelled, and harder, as most of it is meant and not said. The offline
classifier knows words of adult advertising only, and is shown to be blind to this.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from configs.schema.pipeline import ClassifierConfig
from data_pipeline.annotate import nsfw
from data_pipeline.classify import fasttext, measure, offline, rows


def show(name: str, scores: np.ndarray, truth: list[str]) -> None:
    """Print measures of scores of label `nsfw`."""
    both = np.stack([scores, 1 - scores], axis=1)
    print(f"\n{name}")
    print(measure.table(measure.measure(both, truth, ("nsfw", "safe"))))


def main() -> int:
    """Run and print."""
    if "ARRIERO_TEST_DATA" not in os.environ:
        print("skipped: ARRIERO_TEST_DATA is not set; it names the folder that holds nsfw/")
        return 0
    data = Path(os.environ["ARRIERO_TEST_DATA"]) / "nsfw"
    labelled = [
        (text, "nsfw" if label == "1" else "safe")
        for text, label in rows.read(data / "toxicity_labelled.jsonl.zst", label_key="toxic")
    ]
    training, test = rows.split(labelled, 0.2, seed=0)
    texts, truth = [text for text, _ in test], [label for _, label in test]
    words = nsfw.word_lists((str(data / "badwords_ldnoobw"),))
    density = np.array([words.density(text, "en") for text in texts])
    show("any listed English word", (density > 0).astype(np.float64), truth)
    with tempfile.TemporaryDirectory() as folder:
        for name, found in (
            ("classifier trained on the other 80%", training),
            ("offline classifier", offline.nsfw_rows(0)),
        ):
            model = Path(folder) / f"{len(found)}.bin"
            fasttext.train(found, ClassifierConfig(), model, 0)
            classifier = fasttext.Classifier(model)
            scores = np.nan_to_num(classifier.scores(texts)[:, classifier.column("nsfw")])
            show(name, scores, truth)
    return 0


if __name__ == "__main__":
    sys.exit(main())
