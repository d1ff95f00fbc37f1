"""The steps of `arriero quality`, each a function of the files that the steps before it wrote.

    OUTPUT/config.yaml           what was asked for
    OUTPUT/sample.jsonl .json    the documents, and the strata with the seed
    OUTPUT/answers.jsonl         every answer that a rater gave, by the hash of prompt, model and document
    OUTPUT/labels.jsonl          the rater's labels; labels.failed.jsonl: documents without one
    OUTPUT/repeats.jsonl         labels of some of them by another prompt
    OUTPUT/quality.bin           the fastText classifier, for `quality.classifier.model`; embedding.npz: the linear head
    OUTPUT/train.json measure.json threshold.json
    OUTPUT/scores/00000.parquet  id and scores of all documents, for `signals.extra`

A step is skipped when `NAME.done` names the same settings and the same inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from configs import edge
from configs.schema.data_verbs import QualityRun
from data_pipeline import fingerprint
from data_pipeline.document import read_shard, shard_count, shard_path, write_table
from data_pipeline.packed.files import write_atomically
from data_pipeline.quality import evaluate, label, models, prompt, sample, threshold

STEPS = ("sample", "label", "train", "measure", "threshold", "score", "report")
NEEDS = {
    "sample": (),
    "label": ("sample.jsonl",),
    "train": ("sample.jsonl", "labels.jsonl"),
    "measure": ("sample.jsonl", "labels.jsonl", "repeats.jsonl", "quality.bin", "embedding.npz"),
    "threshold": ("sample.jsonl", "labels.jsonl", "quality.bin", "embedding.npz"),
    "score": ("quality.bin", "embedding.npz"),
    "report": ("sample.json", "labels.jsonl", "train.json", "measure.json", "threshold.json"),
}
"""Files that a step reads."""
CODE = ("quality", "classify", "dedup/embed.py")


def begin(config: QualityRun, step: str) -> tuple[str, bool]:
    """The fingerprint of a step, and whether it has been done with it.

    Raises:
        ValueError: a file that it needs is not there.
    """
    output, plain = Path(config.output), edge.to_dict(config)
    for name in NEEDS[step]:
        if not (output / name).is_file():
            before = next(s for s in STEPS if name in WRITES[s])
            raise ValueError(
                f"{output / name} does not exist; run `arriero quality` with step={before} first, or step=all"
            )
    good = [config.good_share, config.good, prompt.rubric(config.label.rubric).good]
    data = Path(config.data.path)
    if step in ("sample", "score") and not (data / "stages" / "signals.json").is_file():
        raise ValueError(
            f"`data.path`: {data} is no run of `arriero data` whose stage `signals` is done; expected what was its "
            "`output`"
        )
    parts: dict[str, Any] = {
        "sample": [plain["sample"], config.seed, str(Path(config.data.path).absolute())],
        "label": [
            {k: v for k, v in plain["label"].items() if k not in ("timeout", "retries", "concurrency")},
            edge.to_dict(prompt.rubric(config.label.rubric)),
            config.repeats,
            config.seed,
        ],
        "train": [plain["classifier"], good, config.held_out, config.seed],
        "measure": [good, config.seed],
        "score": [config.classifier.max_characters, _stage_fingerprints(Path(config.data.path))],
        "threshold": [plain["retention"], plain["at"], plain["signal"], config.examples, good],
    }
    inputs = [fingerprint.of_content(output / name) for name in NEEDS[step]]
    if step == "sample":
        units = Path(config.data.path) / "units.json"
        inputs = [fingerprint.of_content(units), *_stage_fingerprints(Path(config.data.path))]
    expected = fingerprint.of(step, parts.get(step), inputs, fingerprint.code(CODE))
    done = output / f"{step}.done"
    whole = all((output / name).exists() for name in WRITES[step])
    return expected, whole and done.is_file() and done.read_text() == expected


WRITES = {
    "sample": ("sample.jsonl", "sample.json"),
    "label": ("labels.jsonl", "repeats.jsonl"),
    "train": ("quality.bin", "embedding.npz", "train.json"),
    "measure": ("measure.json",),
    "threshold": ("threshold.json",),
    "score": ("scores",),
    "report": ("report.html",),
}
"""What a step writes."""


def _stage_fingerprints(run_dir: Path) -> list[str]:
    stages = [run_dir / "stages" / f"{name}.json" for name in ("read", "copies", "language", "quality")]
    return [orjson.loads(p.read_bytes())["fingerprint"] for p in stages if p.is_file()]


def _good(config: QualityRun, rows: list[dict[str, Any]]) -> float:
    """The label from which a document counts as good: whole ones are rounded half up."""
    if config.good_share is None:
        return (prompt.rubric(config.label.rubric).good if config.good is None else config.good) - 0.5
    known = sorted((row["label"], row["weight"]) for row in rows if row["label"] is not None)
    labels, weights = np.array(known, np.float64).reshape(-1, 2).T
    if not len(labels):
        raise ValueError("the rater gave no label")
    reached = np.cumsum(weights[::-1]) / weights.sum()
    return float(labels[::-1][min(int(np.searchsorted(reached, config.good_share)), len(labels) - 1)])


def draw(config: QualityRun) -> str:
    """Draw the sample."""
    output, s = Path(config.output), config.sample
    made = sample.draw(Path(config.data.path), s.documents, s.strata, config.seed, output / "sample.jsonl")
    _write(output / "sample.json", made)
    return f"{made['chosen']:,} of {made['documents']:,} documents, {len(made['table'])} strata"


def ask(config: QualityRun, say: Callable[[str], None]) -> str:
    """Ask for labels, and for those of `repeats` documents by another prompt.

    Raises:
        LabelError, ValueError: see `label.ask`.
    """
    output = Path(config.output)
    rows = [(r["id"], r["text"]) for r in sample.read(output / "sample.jsonl")]
    answers = output / "answers.jsonl"
    counts = label.ask(rows, config.label, config.seed, output / "labels.jsonl", say=say, answers=answers)
    repeats = output / "repeats.jsonl"
    if config.repeats:
        again = rows[: config.repeats]
        label.ask(again, config.label, config.seed, repeats, reverse=True, say=say, answers=answers)
    else:
        write_atomically(repeats, b"")
    return f"{counts['labelled']:,} labels ({counts['reused']:,} known before), {counts['failed']:,} without an answer"


def labelled(output: Path) -> list[dict[str, Any]]:
    """Rows of the sample with their `label`, None where the rater gave none."""
    labels = {row["id"]: float(row["score"]) for row in label.read(output / "labels.jsonl")}
    return [row | {"label": labels.get(row["id"])} for row in sample.read(output / "sample.jsonl")]


def _with_labels(config: QualityRun) -> tuple[list[dict[str, Any]], np.ndarray]:
    rows = [row for row in labelled(Path(config.output)) if row["label"] is not None]
    groups = [row["group"] for row in rows]
    parts = models.split(groups, config.seed, config.held_out, config.held_out / 2)
    if not (parts == "train").any() or not (parts == "test").any():
        raise ValueError(
            f"the {len(rows):,} labelled documents are of {len(set(groups)):,} hosts (or groups, without URLs); hosts are "
            "held out whole, which leaves none to train on or none to measure on; label documents of more hosts"
        )
    return rows, parts


def train(config: QualityRun) -> str:
    """Train the classifiers."""
    rows, parts = _with_labels(config)
    output = Path(config.output)
    good = _good(config, rows)
    made = models.train(rows, parts, config.classifier, good, output, config.seed)
    _write(output / "train.json", made)
    counts = ", ".join(f"{n} {part}" for part, n in made["rows"].items())
    return f"{counts} rows; {sum(made['good'].values())} are good, from {good:.3g} on"


def measure(config: QualityRun) -> str:
    """Measure them on hosts that were held out, and the rater against itself."""
    rows, parts = _with_labels(config)
    output, good = Path(config.output), _good(config, rows)
    scores = models.Scorer(output, config.classifier).scores([row["text"] for row in rows])
    together = np.stack([evaluate.ranks(s) for s in scores.values()])
    ensembles = {"mean of ranks": together.mean(axis=0), "highest rank": together.max(axis=0)}
    found: dict[str, Any] = {
        "good": good,
        "models": evaluate.evaluate(rows, scores | ensembles, parts, good, config.seed),
    }
    for name in ensembles:  # a rank is no probability
        found["models"][name] |= {"calibration_error": [None, None, None], "reliability": []}
    first = {row["id"]: row["label"] for row in rows}
    pairs = [
        (first[r["id"]], float(r["score"])) for r in label.read(output / "repeats.jsonl") if r["id"] in first
    ]
    if pairs:
        a, b = np.array(pairs).T
        found["repeat_agreement"] = evaluate.agreement(a, b, good)
    found["disagreements"] = _disagreements(rows, scores, parts)
    found["words"] = models.Scorer(output, config.classifier).words([row["text"] for row in rows])
    _write(output / "measure.json", found)
    lines = [f"{'':<14} {'AUC':>22} {'rank correlation':>22} {'calibration error':>22}"]
    for name, m in found["models"].items():
        values = (m["auc"], m["spearman"], m["calibration_error"])
        lines.append(f"{name:<14} " + " ".join(f"{shown(v):>22}" for v in values))
    if pairs:
        a = found["repeat_agreement"]
        lines.append(
            f"the rater against itself, by another prompt: {a['documents']} documents, equal {a['equal']:.0%}, within 1 "
            f"{a['within_1']:.0%}, rank correlation {a['spearman']:.2f}, kappa {a['kappa']:.2f}"
        )
    return "\n".join([f"{int((parts == 'test').sum())} test rows, intervals of 95% over hosts", *lines])


def shown(value: list[float | None]) -> str:
    """A measure with its interval."""
    middle, low, high = ("—" if v is None else f"{v:.3f}" for v in value)
    return f"{middle} ({low} to {high})"


def _disagreements(
    rows: list[dict[str, Any]], scores: dict[str, np.ndarray], parts: np.ndarray
) -> list[dict[str, Any]]:
    """Test documents on which rater and fastText differ most."""
    distance = np.array([row["label"] / 5 for row in rows]) - evaluate.ranks(scores[models.FASTTEXT])
    distance[parts != "test"] = 0
    worst = np.argsort(-np.abs(distance), kind="stable")[:10]
    return [threshold.example(rows[i], scores[models.FASTTEXT][i]) for i in worst if distance[i] != 0]


def choose(config: QualityRun) -> str:
    """Thresholds, with documents on either side."""
    output = Path(config.output)
    rows = labelled(output)
    scores = models.Scorer(output, config.classifier).scores([row["text"] for row in rows])[config.signal]
    found = threshold.choose(rows, scores, config.retention, config.at, _good(config, rows), config.examples)
    _write(output / "threshold.json", {"signal": config.signal, "thresholds": found})
    lines = [f"{'threshold':>10} {'documents':>10} {'bytes':>7} {'good kept':>10} {'good dropped':>13}"]
    for t in found:
        good = ["—" if v is None else f"{v:.0%}" for v in (t["good_kept"], t["good_dropped"])]
        lines.append(
            f"{t['threshold']:>10.4f} {t['documents']:>10.1%} {t['bytes']:>7.1%} {good[0]:>10} {good[1]:>13}"
        )
    return "\n".join(["of the run, estimated from the sample:", *lines])


def score(config: QualityRun) -> str:
    """Score all documents of the run, a shard at a time; shards that are there are kept."""
    output, data = Path(config.output), Path(config.data.path)
    files = [fingerprint.of_content(output / n) for n in ("quality.bin", "embedding.npz")]
    mark = fingerprint.of(files, config.classifier.max_characters, _stage_fingerprints(data))
    scorer = models.Scorer(output, config.classifier)
    marker = output / "scores" / "_MODEL"
    if not (marker.is_file() and marker.read_text() == mark):
        for old in (output / "scores").glob("*.parquet"):
            old.unlink()
    marker.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(marker, mark)
    documents = size = 0
    for shard in range(shard_count(data)):
        path = shard_path(output, "scores", shard)
        if path.is_file():
            continue
        table = read_shard(data, shard, ["id", "text"])
        texts = [text or "" for text in table["text"].to_pylist()]
        found = scorer.scores(texts)
        empty = np.array([not text for text in texts], bool)
        write_table(
            pa.table({"id": table["id"], **{n: pa.array(s, mask=empty) for n, s in found.items()}}), path
        )
        documents, size = documents + len(table), size + sum(len(t.encode("utf-8", "replace")) for t in texts)
    rates = [f", {name} {size / 1e6 / s:.1f} MB/s" for name, s in scorer.seconds.items() if s]
    return f"{documents:,} documents scored{''.join(rates)}: {output / 'scores'}"


def _write(path: Path, value: dict[str, Any]) -> None:
    write_atomically(path, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
