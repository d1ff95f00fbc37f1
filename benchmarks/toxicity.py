"""Toxicity of short texts: word lists, the trained classifier, the offline classifier; also by held-out source.

    ARRIERO_TEST_DATA=DATA python benchmarks/toxicity.py

Reads `nsfw/toxicity_labelled.jsonl.zst` and the word lists beside it. The classifier is trained and calibrated as
`arriero classify` does it, with the settings of `arriero data`; F1 is taken at the threshold chosen on its calibration
rows. Two splits: a fifth of the rows by hash; and each source of rows in turn, none of it seen in training. The labels
are of offensive speech in short posts, much of it meant and not said.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from configs import edge
from configs.schema.pipeline import DataRun, NsfwConfig
from data_pipeline.annotate import listed_words, nsfw
from data_pipeline.classify import fasttext, measure, offline, rows, train

LABELS = ("nsfw", "safe")


def listed(data: Path, texts: list[str]) -> np.ndarray:
    """Counts of listed English words of every text: int64 [n, 5] (`listed_words.COUNTS`)."""
    config = NsfwConfig(word_lists=(str(data / "badwords_ldnoobw"),))
    return nsfw.count(pa.chunked_array([pa.array(texts, pa.large_string())]), ["en"] * len(texts), config)[
        :, 0
    ]


def show(name: str, score: np.ndarray, truth: list[str], threshold: float, curve: bool = False) -> float:
    """Print measures of a score of label `nsfw`; returns F1 at the threshold."""
    is_label = np.array([t == "nsfw" for t in truth])
    measures = measure.measure(np.stack([score, 1 - score], axis=1), truth, LABELS)["labels"]["nsfw"]
    at = measure.at_threshold(score, is_label, threshold)
    bins = measure.reliability(score, is_label)
    error = sum(b["rows"] * abs(b["score"] - b["share"]) for b in bins) / len(truth)
    precision, recall = ("-" if at[k] is None else f"{at[k]:.3f}" for k in ("precision", "recall"))
    print(
        f"{name:<44} {is_label.sum():6} of {len(truth):6} {at['f1']:7.3f} {precision:>9} {recall:>7} "
        f"{measures['average_precision']:7.3f} {error:7.3f}"
    )
    if curve:
        points = {k: v for k, v in measures["operating_points"].items() if v is not None}
        print(
            "  precision-recall: "
            + ", ".join(
                f"{v['precision']:.3f}/{v['recall']:.3f} at {v['threshold']:.3f}" for v in points.values()
            )
        )
        print(
            "  score → share that is toxic: " + ", ".join(f"{b['score']:.2f}→{b['share']:.2f}" for b in bins)
        )
    return float(at["f1"])


def fitted(labelled: list[rows.Row], model: Path) -> tuple[fasttext.Classifier, float]:
    """A classifier, and the threshold of the highest F1 on its calibration rows."""
    config = edge.load("data", DataRun, ["output=unused"]).nsfw.classifier
    _, held = train.fit(labelled, config, model, 0)
    classifier = fasttext.Classifier(model, config.max_characters)
    point = measure.threshold_for(scored(classifier, held), np.array([label == "nsfw" for _, label in held]))
    return classifier, point["threshold"] if point else 0.5


def scored(classifier: fasttext.Classifier, labelled: list[rows.Row]) -> np.ndarray:
    """P(nsfw) of rows; 0 where the model knows nothing."""
    return np.nan_to_num(classifier.scores([text for text, _ in labelled])[:, classifier.column("nsfw")])


def main() -> int:
    """Run and print."""
    if "ARRIERO_TEST_DATA" not in os.environ:
        print("skipped: ARRIERO_TEST_DATA is not set; it names the folder that holds nsfw/")
        return 0
    data = Path(os.environ["ARRIERO_TEST_DATA"]) / "nsfw"
    path = data / "toxicity_labelled.jsonl.zst"
    labelled = [(t, "nsfw" if label == "1" else "safe") for t, label in rows.read(path, label_key="toxic")]
    source = dict(rows.read(path, label_key="source"))
    training, test = rows.split(labelled, 0.2, seed=0)
    truth = [label for _, label in test]
    print(f"{'':<44} {'toxic rows':>16} {'F1':>7} {'precision':>9} {'recall':>7} {'AP':>7} {'ECE':>7}")
    counts = listed(data, [text for text, _ in test])
    density = counts[:, listed_words.COUNTS.index("covered")] / np.maximum(counts[:, 0], 1)
    words = show("any listed word", np.minimum(density, 1).astype(np.float64), truth, 1e-9)
    with tempfile.TemporaryDirectory() as folder:
        classifier, threshold = fitted(training, Path(folder) / "trained.bin")
        began = time.process_time()
        score = scored(classifier, test)
        seconds = time.process_time() - began
        f1 = show("classifier, trained on the other 80%", score, truth, threshold, curve=True)
        print(
            f"  {f1 - words:+.3f} over word lists; {sum(len(t.encode()) for t, _ in test) / 1e6 / seconds:.1f} MB/s"
        )
        parts: dict[str, list[int]] = {}
        for i, (text, _) in enumerate(test):
            parts.setdefault(source[text], []).append(i)
        for name, at in sorted(parts.items()):
            show(f"  of {name}", score[at], [truth[i] for i in at], threshold)
        print("source held out, trained on all others")
        for name in sorted(set(source.values())):
            held = [row for row in labelled if source[row[0]] == name]
            other = [row for row in labelled if source[row[0]] != name]
            classifier, threshold = fitted(other, Path(folder) / "other.bin")
            found = listed(data, [text for text, _ in held])
            density = np.minimum(found[:, 1] / np.maximum(found[:, 0], 1), 1).astype(np.float64)
            show(f"  {name}, any listed word", density, [label for _, label in held], 1e-9)
            show(f"  {name}, classifier", scored(classifier, held), [label for _, label in held], threshold)
        model = Path(folder) / "offline.bin"
        fasttext.train(
            offline.nsfw_rows(0), edge.load("data", DataRun, ["output=unused"]).nsfw.classifier, model, 0
        )
        show(
            "offline classifier (words of advertising)", scored(fasttext.Classifier(model), test), truth, 0.5
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
