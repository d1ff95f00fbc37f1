"""Language identification: the small offline model, and one trained on labelled sentences.

    ARRIERO_TEST_DATA=DATA python benchmarks/language.py [MODEL.bin]

Reads `multilingual/sentences.jsonl.zst` (single sentences, 75 languages) and `multilingual/udhr.jsonl.zst` (whole
documents). With a model (such as lid.176.bin) that one is measured as well.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from configs import edge
from configs.schema.pipeline import DataRun
from data_pipeline.classify import fasttext, measure, offline, rows

SHOWN = 20


def show(name: str, classifier: fasttext.Classifier, labelled: list[rows.Row]) -> None:
    """Print measures over the rows whose language the model knows."""
    known = [row for row in labelled if row[1] in classifier.labels]
    start = time.perf_counter()
    scores = classifier.scores([text for text, _ in known])
    seconds = time.perf_counter() - start
    print(
        f"\n{name}: {len(known)} of {len(labelled)} texts are of its {len(classifier.labels)} languages, "
        f"{len(known) / seconds:.0f} texts/s"
    )
    print(measure.table(measure.measure(scores, [label for _, label in known], classifier.labels), SHOWN))


def main() -> int:
    """Run and print."""
    if "ARRIERO_TEST_DATA" not in os.environ:
        print(
            "skipped: ARRIERO_TEST_DATA is not set; it names the folder that holds multilingual/",
        )
        return 0
    data = Path(os.environ["ARRIERO_TEST_DATA"]) / "multilingual"
    sentences = list(rows.read(data / "sentences.jsonl.zst", label_key="lang"))
    documents = list(rows.read(data / "udhr.jsonl.zst", label_key="lang"))
    config = edge.load("data", DataRun, ["output=unused"]).languages
    training, test = rows.split(sentences, 0.3, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        small, supervised = Path(folder) / "offline.bin", Path(folder) / "sentences.bin"
        start = time.perf_counter()
        fasttext.train(offline.language_rows(0), config, small, 0)
        print(f"offline model: rows and training {time.perf_counter() - start:.1f} s")
        start = time.perf_counter()
        fasttext.train(training, config, supervised, 0)
        print(f"model of {len(training)} labelled sentences: training {time.perf_counter() - start:.1f} s")
        models = {"offline": small, "trained on sentences": supervised}
        models |= {Path(path).name: Path(path) for path in sys.argv[1:]}
        for name, path in models.items():
            classifier = fasttext.Classifier(path)
            show(f"{name}, held-out sentences", classifier, test)
            show(f"{name}, declarations of human rights", classifier, documents)
    return 0


if __name__ == "__main__":
    sys.exit(main())
