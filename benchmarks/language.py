"""Language identification: models trained on whole texts, tested on single sentences of other kinds; speed beside fastText.

    ARRIERO_TEST_DATA=DATA python benchmarks/language.py [cld2 | MODEL.bin …]

Trained on lines of declarations of human rights, Bible chapters and Wikipedia articles (nothing of the test sentences), with
source code as `zxx`; tested on `multilingual/sentences.jsonl.zst` (single sentences of newspapers and the web, 75 languages,
of which the training texts lack three). CLD2, the default, is measured first; models that are named (lid.176.bin, GlotLID)
are measured alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parent))
import language_data

from configs import edge
from configs.schema.pipeline import ClassifierConfig, DataRun
from data_pipeline.annotate import cld2
from data_pipeline.annotate.language import Identifier
from data_pipeline.classify import fasttext, measure, offline, train
from data_pipeline.classify.rows import Row

CHARACTERS = {"min_char_ngram": 1, "word_ngrams": 1}
MODELS = {
    "fastText's own training": ClassifierConfig(max_char_ngram=3, **CHARACTERS),
    "n-gram counts (bayes)": ClassifierConfig(method="bayes", max_char_ngram=4, buckets=2**17, **CHARACTERS),
}


def training_rows(data: Path, languages: set[str]) -> list[Row]:
    """Lines of texts of these languages, and code."""
    found = [
        (line, label)
        for text, label in language_data.training(data)
        if label in languages
        for line in text.split("\n")
        if len(line) >= 30
    ]
    return found + offline.code_rows(0)


def f1_of(predicted: list[str | None], truth: list[str]) -> dict[str, float]:
    """F1 by label."""
    said, there = Counter(predicted), Counter(truth)
    hits = Counter(t for p, t in zip(predicted, truth, strict=True) if p == t)
    return {label: 2 * hits[label] / (said[label] + n) for label, n in there.items()}


def show(name: str, path: Path, test: list[Row]) -> None:
    """Print what a model makes of the sentences, with the scripts' help."""
    texts = pa.array([text for text, _ in test], pa.large_string())
    truth = [label for _, label in test]
    packaged = str(path) == cld2.NAME
    classifier = cld2.Cld2(2000) if packaged else fasttext.Classifier(path)
    start = time.process_time()
    scores = classifier.scores(texts)
    own = len(test) / (time.process_time() - start)
    start = time.process_time()
    found = Identifier(path, 2000).table(texts)
    whole = len(test) / (time.process_time() - start)
    predicted, score = found["language"].to_pylist(), np.nan_to_num(found["score"].to_numpy())
    plain = f1_of([classifier.labels[k] for k in np.nan_to_num(scores).argmax(axis=1)], truth)
    f1 = f1_of(predicted, truth)
    learnt = {label for label in f1 if f1[label] > 0}
    known = [i for i, t in enumerate(truth) if t in learnt]
    f1_known = f1_of([predicted[i] for i in known], [truth[i] for i in known])
    right = np.array([p == t for p, t in zip(predicted, truth, strict=True)])
    bins = measure.reliability(score, right)
    error = sum(b["rows"] * abs(b["score"] - b["share"]) for b in bins) / len(test)
    size = "a package" if packaged else f"{path.stat().st_size / 1e6:.0f} MB"
    print(f"\n{name} ({size}), {len(test)} sentences of {len(f1)} languages")
    print(
        f"  macro F1 {np.mean(list(f1.values())):.4f} (without the scripts' help {np.mean(list(plain.values())):.4f}); "
        f"of the {len(learnt)} it can tell, on their sentences, {np.mean(list(f1_known.values())):.4f}; "
        f"accuracy {right.mean():.4f}"
    )
    print(
        f"  {own:,.0f} sentences/s/core scored, {whole:,.0f} with scripts and signals; calibration error {error:.3f}"
    )
    for cut in (0.5, 0.9):
        kept = score >= cut
        print(f"  score >= {cut}: {kept.mean():.3f} of the sentences, {right[kept].mean():.4f} of them right")
    print("  lowest F1: " + ", ".join(f"{k} {v:.2f}" for k, v in sorted(f1.items(), key=lambda x: x[1])[:14]))
    pairs = Counter((t, p) for p, t in zip(predicted, truth, strict=True) if p != t)
    print("  taken for another: " + ", ".join(f"{t} for {p} {n}" for (t, p), n in pairs.most_common(14)))


def beside_fasttext(path: Path, test: list[Row]) -> None:
    """Print the speed and the answers of fastText's own prediction beside ours, without scripts, on the same lines."""
    import fasttext as library

    texts = [text for text, _ in test]
    model = library.load_model(str(path))
    network = fasttext.Classifier(path)
    network.calibration = None
    seconds: dict[str, list[float]] = {"fastText": [], "ours": []}
    for _ in range(3):
        start = time.process_time()
        lines = [fasttext.one_line(text, 2000) + "\n" for text in texts]
        labels, values = model.f.multilinePredict(lines, 1, 0.0, "strict")
        seconds["fastText"].append(time.process_time() - start)
        start = time.process_time()
        scores = network.scores(texts)
        seconds["ours"].append(time.process_time() - start)
    best = scores.argmax(axis=1)
    ours = [network.labels[k] for k in best]
    theirs = [x[0].removeprefix(fasttext.LABEL_PREFIX) for x in labels]
    agree = np.mean([a == b for a, b in zip(ours, theirs, strict=True)])
    off = np.abs(scores[np.arange(len(best)), best] - np.array([float(v[0]) for v in values])).max()
    speed = {name: len(texts) / float(np.median(s)) for name, s in seconds.items()}
    print(
        f"  beside fastText's own prediction: {speed['ours']:,.0f} against {speed['fastText']:,.0f} sentences/s "
        f"({speed['ours'] / speed['fastText']:.1f}×), {agree:.5f} of the labels equal, scores within {off:.1e}"
    )


def main() -> int:
    """Run and print."""
    if "ARRIERO_TEST_DATA" not in os.environ:
        print(
            "skipped: ARRIERO_TEST_DATA is not set; it names the folder that holds multilingual/ and wikipedia/"
        )
        return 0
    data = Path(os.environ["ARRIERO_TEST_DATA"])
    test = language_data.sentences(data)
    for given in sys.argv[1:] or [cld2.NAME]:
        show(Path(given).name, Path(given), test)
    if sys.argv[1:]:
        return 0
    found = training_rows(data, {label for _, label in test})
    with tempfile.TemporaryDirectory() as folder:
        for name, config in MODELS.items():
            path = Path(folder) / f"{config.method}.bin"
            start = time.perf_counter()
            counts, _ = train.fit(found, config, path, 0)
            print(f"\n{name}: trained on {counts['rows']} lines in {time.perf_counter() - start:.1f} s")
            show(name, path, test)
            beside_fasttext(path, test)
        path = Path(folder) / "offline.bin"
        config = edge.load("data", DataRun, ["output=unused"]).languages
        fasttext.train(offline.language_rows(0), config, path, 0)
        show("what the Python environment holds (offline)", path, test)
    return 0


if __name__ == "__main__":
    sys.exit(main())
