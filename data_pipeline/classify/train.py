"""`arriero classify`: train a fastText classifier on labelled rows and measure it on a held-out part.

Examples:
    arriero classify input=labelled.jsonl output=models/quality.bin
    arriero classify input=sentences.jsonl.zst label_key=lang output=lid.bin classifier.max_char_ngram=3 \
classifier.min_char_ngram=1
    arriero classify input=toxicity.jsonl.zst label_key=toxic output=nsfw.bin test_fraction=0.2

The measures (precision, recall, F1, precision-recall curve, calibration) go to `<output>.json`. The model is trained on
the training part only, so the measures are those of the file that is written. `input=offline:language` and
`input=offline:nsfw` take the rows that the demo trains its small classifiers on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson

from configs import edge
from configs.edge import ConfigError
from configs.schema.pipeline import ClassifyRun
from data_pipeline.classify import fasttext, measure, offline, rows


def run(config: ClassifyRun) -> int:
    """Train, measure, write model and measures; print a table."""
    try:
        training, test = rows.split(_read(config), config.test_fraction, config.seed)
        output = Path(config.output)
        trained = fasttext.train(training, config.classifier, output, config.seed)
        classifier = fasttext.Classifier(output, config.classifier.max_characters)
        measures = measure.measure(
            classifier.scores([text for text, _ in test]), [label for _, label in test], classifier.labels
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    report = output.with_suffix(".json")
    content = {"config": edge.to_dict(config), "training": trained, "test": measures}
    temporary = report.with_name(report.name + ".tmp")
    temporary.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    temporary.replace(report)
    print(measure.table(measures))
    print(f"model {output} ({trained['bytes'] / 1e6:.1f} MB, {trained['rows']} rows), measures {report}")
    return 0


def _read(config: ClassifyRun) -> Iterable[rows.Row]:
    if config.input == "offline:language":
        return offline.language_rows(config.seed)
    if config.input == "offline:nsfw":
        return offline.nsfw_rows(config.seed)
    return rows.read(Path(config.input), config.text_key, config.label_key)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return edge.main("classify", ClassifyRun, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
