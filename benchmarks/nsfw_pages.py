"""NSFW at page level: precision at 95% recall on a labelled page set, false positives with their text.

    ARRIERO_TEST_DATA=DATA python benchmarks/nsfw_pages.py [--fit] [--shown 12]

`nsfw_page_set.py` says how the set is built and split. A classifier is trained as `arriero classify` trains it, on labelled
rows of one source and on real pages of the training side; `--fit` fits the weights of `annotate/nsfw_page.json` on training
pages that the classifier has not seen. Everything printed is of the test side: other hosts, other sources of toxic rows,
other languages, other templates. URLs play no part: a listed host is dropped by its rule alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nsfw_page_set as page_set
import numpy as np
import orjson
import pyarrow as pa

from configs import edge
from configs.schema.pipeline import DataRun, NsfwConfig
from data_pipeline.annotate import nsfw, nsfw_page
from data_pipeline.classify import measure, train

RECALL = 0.95
SHARE = 0.1
"""Share of positive pages that the probabilities are meant for."""


def table(pages: list[page_set.Page]) -> pa.Table:
    """Pages as the pipeline holds them."""
    return pa.table(
        {
            "id": [f"{i:032x}" for i in range(len(pages))],
            "language": pa.array([p.language for p in pages], pa.string()),
            "text": pa.array([p.text for p in pages], pa.string()),
        }
    )


def fit(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, used: np.ndarray, ridge: float = 1.0
) -> list[float]:
    """Weights of logistic regression with a ridge, by Newton's method; 0 for features that are not used."""
    columns = np.concatenate([x[:, used], np.ones((len(x), 1))], axis=1)
    w = np.zeros(columns.shape[1])
    penalty = np.diag([ridge] * int(used.sum()) + [0.0])
    for _ in range(60):
        p = 0.5 * (1 + np.tanh(0.5 * columns @ w))
        gradient = columns.T @ (weight * (p - y)) + penalty @ w
        curvature = (columns * (weight * p * (1 - p))[:, None]).T @ columns + penalty + 1e-6 * np.eye(len(w))
        w = w - np.linalg.solve(curvature, gradient)
    full = np.zeros(len(used) + 1)
    full[:-1][used], full[-1] = w[:-1], w[-1]
    return [round(v, 4) for v in full.tolist()]


def balanced(pages: list[page_set.Page]) -> np.ndarray:
    """Weight of each page: kinds of a label count alike, positive ones `SHARE` of all; mean 1."""
    kinds = [p.kind for p in pages]
    size = {k: kinds.count(k) for k in kinds}
    several = {
        True: len({p.kind for p in pages if p.positive}),
        False: len({p.kind for p in pages if not p.positive}),
    }
    share = {True: SHARE, False: 1 - SHARE}
    weight = np.array([share[p.positive] / (size[p.kind] * several[p.positive]) for p in pages])
    return weight * len(pages) / weight.sum()


def report(name: str, score: np.ndarray, truth: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Print precision at the recall of the bar, and return the threshold."""
    point = measure.threshold_for(score, truth, recall=RECALL)
    best = measure.threshold_for(score, truth)
    assert point is not None and best is not None
    f1 = 2 * best["precision"] * best["recall"] / (best["precision"] + best["recall"])
    bins = measure.reliability(score, truth)
    error = sum(b["rows"] * abs(b["score"] - b["share"]) for b in bins) / len(truth)
    print(
        f"{name:<46} {point['precision']:9.3f} {point['recall']:7.3f} {point['threshold']:10.3f} {f1:8.3f} "
        f"{measure._average_precision(score, truth):6.3f} {error:6.3f}"
    )
    return float(point["threshold"])


def main() -> int:
    """Run and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--fit", action="store_true", help="fit the weights and write them")
    options.add_argument("--shown", type=int, default=12, help="false positives shown")
    chosen = options.parse_args()
    if "ARRIERO_TEST_DATA" not in os.environ:
        print(
            "skipped: ARRIERO_TEST_DATA is not set; it names the folder that holds nsfw/, web/, wikipedia/, books/"
        )
        return 0
    data = Path(os.environ["ARRIERO_TEST_DATA"])
    pages = sorted(page_set.build(data), key=lambda p: p.kind == page_set.UNJUDGED)
    documents = table(pages)
    config = edge.load("data", DataRun, ["output=unused"]).nsfw
    config = NsfwConfig(word_lists=(str(data / "nsfw" / "badwords_ldnoobw"),), classifier=config.classifier)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "nsfw.bin"
        trained, _ = train.fit(page_set.learning_rows(data, pages), config.classifier, model, 0)
        began = time.process_time()
        signals = nsfw.annotate(documents, config, model)
        seconds = time.process_time() - began
    counts = nsfw.count(
        pa.chunked_array([documents["text"].combine_chunks().cast(pa.large_string())]),
        documents["language"].to_pylist(),
        config,
    )
    x = nsfw_page.features(counts, signals["classifier"].to_numpy())
    truth = np.array([p.positive for p in pages])
    judged = np.array([p.kind != page_set.UNJUDGED for p in pages])
    test = np.array([p.test for p in pages]) & judged
    if chosen.fit:
        rows = np.array([not p.test and not page_set.learnt(p.group) for p in pages])
        rows |= np.array([not p.test and (p.positive or p.kind in ("dictionary", "health")) for p in pages])
        rows &= judged
        weight = balanced([p for p, r in zip(pages, rows, strict=True) if r])
        found = {
            nsfw_page.key(*has): fit(x[rows], truth[rows], weight, nsfw_page.used(*has))
            for has in ((False, False), (True, False), (False, True), (True, True))
        }
        lines = ",\n".join(
            f"  {orjson.dumps(k).decode()}: {orjson.dumps(v).decode()}" for k, v in found.items()
        )
        nsfw_page.WEIGHTS.write_text("{\n" + lines + "\n}\n")
        nsfw_page.weights.cache_clear()
        print(
            f"fitted on {int(rows.sum())} pages; weights of {', '.join(nsfw_page.FEATURES)}, constant:\n{lines}\n"
        )
    size = sum(len(p.text.encode()) for p in pages) / 1e6
    kinds = sorted({p.kind for p in pages})
    print(
        f"{len(pages)} pages, {size:.1f} MB; classifier: {trained['rows']} rows; all signals {size / seconds:.1f} MB/s"
    )
    print("test side: " + ", ".join(f"{sum(p.test and p.kind == k for p in pages)} {k}" for k in kinds))
    print(
        f"\n{'score':<46} {'precision':>9} {'recall':>7} {'threshold':>10} {'best F1':>8} {'AP':>6} {'ECE':>6}"
    )
    density, classifier = (
        np.nan_to_num(signals[c].to_numpy(zero_copy_only=False)) for c in ("word_density", "classifier")
    )
    report("density of listed words alone", density[test], truth[test])
    report("classifier alone", classifier[test], truth[test])
    for has in ((False, False), (True, False), (False, True), (True, True)):
        score = nsfw_page.score(x, *has).astype(np.float64)
        threshold = report(f"nsfw.score, {nsfw_page.key(*has)}", score[test], truth[test])
    print(f"\nshare of pages at and above a threshold of nsfw.score, {nsfw_page.key(True, True)}")
    steps = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
    print(f"{'':<12}" + "".join(f"{t:>7}" for t in steps))
    for kind in (*page_set.POSITIVE, *(k for k in kinds if k not in page_set.POSITIVE)):
        of_kind = np.array([p.test and p.kind == kind for p in pages])
        if of_kind.any():
            print(f"{kind:<12}" + "".join(f"{(score[of_kind] >= t).mean():7.3f}" for t in steps))
    for t in steps:
        seen = measure.at_threshold(score[test], truth[test], t)
        print(f"  >= {t}: precision {seen['precision'] or 0:.3f}, recall {seen['recall']:.3f}")
    wrong = [i for i in np.argsort(-score) if test[i] and not truth[i] and score[i] >= threshold]
    print(f"\n{len(wrong)} false positives at recall {RECALL}; the first {chosen.shown}:")
    for i in wrong[: chosen.shown]:
        row = signals.slice(int(i), 1).to_pylist()[0]
        print(
            f"  {score[i]:.3f} {pages[i].group} (density {row['word_density']:.3f}, {row['distinct']} distinct, adult "
            f"{row['adult']:.3f}, reference {row['reference']:.3f}, classifier {row['classifier']:.3f}): "
            f"{' '.join(pages[i].text.split())[:240]!r}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
