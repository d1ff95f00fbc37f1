"""`arriero classify`: train a fastText classifier on labelled rows, calibrate it, and measure it on a held-out part.

Examples:
    arriero classify input=labelled.jsonl output=models/quality.bin
    arriero classify input=sentences.jsonl.zst label_key=lang output=lid.bin code=true classifier.method=bayes \
classifier.min_char_ngram=1 classifier.max_char_ngram=4 classifier.buckets=131072
    arriero classify input=toxicity.jsonl.zst label_key=toxic output=nsfw.bin test_fraction=0.2 target_recall=0.95

Rows are split by a hash of their text: the model learns from most of them, its probabilities are calibrated and thresholds
chosen on a second part, and everything is measured on the test part, which neither has seen. The measures (precision,
recall, F1, precision-recall curve, reliability, confusions, chosen thresholds) go to `<output>.json`, the calibration to
`<output>.calibration.json`; keep that file beside the model, for it is applied wherever the model scores.
`input=offline:language` and `input=offline:nsfw` take the rows that the demo trains its small classifiers on.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from configs import edge
from configs.edge import ConfigError
from configs.schema.data_verbs import ClassifyRun
from configs.schema.pipeline import ClassifierConfig
from data_pipeline.classify import calibrate, fasttext, measure, offline, rows
from data_pipeline.packed.files import write_atomically

CALIBRATION_FRACTION = 0.1


def fit(
    found: Iterable[rows.Row],
    config: ClassifierConfig,
    output: Path,
    seed: int,
    calibration_fraction: float = CALIBRATION_FRACTION,
    progress: Callable[[float], None] | None = None,
) -> tuple[dict[str, Any], list[rows.Row]]:
    """Train a classifier and calibrate it on rows that it has not seen.

    Args:
        calibration_fraction: share of the rows held out for calibration; 0: all are learnt from, none calibrates.

    Returns:
        What `fasttext.train` returns, with the rows and method of the calibration, and the calibration rows.

    Raises:
        ValueError: as `fasttext.train` and `rows.split`.
    """
    held: list[rows.Row] = []
    if calibration_fraction:
        found, held = rows.split(found, calibration_fraction, seed, "calibration")
    trained = fasttext.train(found, config, output, seed, progress)
    calibration = None
    if held:
        classifier = fasttext.Classifier(output, config.max_characters)
        scores = classifier.scores([text for text, _ in held])
        calibration = calibrate.fit(scores, [label for _, label in held], classifier.labels)
        calibrate.write(calibration, output, trained["sha256"])
    method = calibration.method if calibration else "none"
    return trained | {"calibration_rows": len(held), "calibration": method}, held


def thresholds(
    calibration: tuple[np.ndarray, list[str]],
    test: tuple[np.ndarray, list[str]],
    labels: Sequence[str],
    precision: float | None,
    recall: float | None,
) -> dict[str, Any]:
    """For each label the threshold chosen on the calibration rows, and what it gives there and on the test rows.

    Args:
        calibration: probabilities [n, len(labels)] and right labels.
        test: the same of the test rows.
    """
    chosen: dict[str, Any] = {}
    for k, label in enumerate(labels):
        score, is_label = _of_label(*calibration, k, label)
        point = measure.threshold_for(score, is_label, precision, recall) if is_label.any() else None
        if point is None:
            chosen[label] = None
            continue
        seen = measure.at_threshold(*_of_label(*test, k, label), point["threshold"])
        chosen[label] = {"threshold": point["threshold"], "calibration": point, "test": seen}
    return chosen


def _of_label(scores: np.ndarray, truth: list[str], k: int, label: str) -> tuple[np.ndarray, np.ndarray]:
    return np.nan_to_num(scores[:, k], nan=0.0), np.array([t == label for t in truth], bool)


def run(config: ClassifyRun) -> int:
    """Train, calibrate, measure, write model and measures; print a table."""
    try:
        if config.target_precision is not None and config.target_recall is not None:
            raise ConfigError("give `target_precision` or `target_recall`, not both")
        say = _progress()
        training, test = rows.split(_read(config), config.test_fraction, config.seed)
        output = Path(config.output)
        trained, held = fit(
            training, config.classifier, output, config.seed, config.calibration_fraction, say
        )
        say(1.0)
        classifier = fasttext.Classifier(output, config.classifier.max_characters)
        truth = [label for _, label in test]
        scores = classifier.scores([text for text, _ in test])
        measures = measure.measure(scores, truth, classifier.labels)
        chosen = None
        if held:
            calibration = classifier.scores([text for text, _ in held]), [label for _, label in held]
            targets = config.target_precision, config.target_recall
            chosen = thresholds(calibration, (scores, truth), classifier.labels, *targets)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    report = output.with_suffix(".json")
    content = {"config": edge.to_dict(config), "training": trained, "thresholds": chosen, "test": measures}
    write_atomically(report, orjson.dumps(content, option=orjson.OPT_INDENT_2))
    print(measure.table(measures))
    if chosen is not None:
        print(_threshold_lines(chosen, config))
    print(
        f"model {output} ({trained['bytes'] / 1e6:.1f} MB, {trained['rows']} rows; calibration: "
        f"{trained['calibration']}, {trained['calibration_rows']} rows), measures {report}"
    )
    return 0


def _threshold_lines(chosen: dict[str, Any], config: ClassifyRun, limit: int = 10) -> str:
    if config.target_precision is not None:
        target = f"precision {config.target_precision:g}"
    else:
        target = "the highest F1" if config.target_recall is None else f"recall {config.target_recall:g}"
    lines = [f"thresholds for {target}, chosen on the calibration rows, measured on the test rows:"]
    for label, entry in list(chosen.items())[:limit]:
        if entry is None:
            lines.append(f"  {label}: out of reach")
            continue
        seen = {k: "-" if v is None else f"{v:.3f}" for k, v in entry["test"].items()}
        lines.append(
            f"  {label} >= {entry['threshold']:.4f}: precision {seen['precision']}, recall {seen['recall']}"
        )
    if len(chosen) > limit:
        lines.append(f"  … and {len(chosen) - limit} more labels in the file of measures")
    return "\n".join(lines)


def _progress() -> Callable[[float], None]:
    """Prints how much of the training is done: in place on a terminal, every 15 seconds in a log."""
    start = last = time.monotonic()
    terminal = sys.stderr.isatty()

    def say(share: float) -> None:
        nonlocal last
        now = time.monotonic()
        ended = terminal and share >= 1
        if now - last < (0.2 if terminal else 15.0) and not ended:
            return
        last = now
        text = f"training {share:4.0%}, {now - start:.0f} s"
        print(f"\r{text}" if terminal else text, end="\n" if ended or not terminal else "", file=sys.stderr)
        sys.stderr.flush()

    return say


def _read(config: ClassifyRun) -> Iterable[rows.Row]:
    if config.input == "offline:language":
        return offline.language_rows(config.seed)
    if config.input == "offline:nsfw":
        return offline.nsfw_rows(config.seed)
    found = rows.read(Path(config.input), config.text_key, config.label_key)
    return itertools.chain(found, offline.code_rows(config.seed)) if config.code else found


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return edge.main("classify", ClassifyRun, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
