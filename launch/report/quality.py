"""The page of `arriero quality`: what the rater said, how well classifiers foresee it, what a threshold keeps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from data_pipeline.packed.files import write_atomically
from data_pipeline.quality import loop
from data_pipeline.quality.models import NAMES
from launch.report import charts
from launch.report.page import Figure, Section, absent, chart, details, grid, page, table, text
from launch.report.words import number

SHOWN = 4
"""Documents shown of each score."""
EXCERPT = 400
DIAGONAL = "#9a9a9a"


def write(output: Path) -> Path:
    """Write `report.html` from the files of the loop; its path.

    Raises:
        ValueError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ValueError("the report needs plotly: pip install 'arriero[report]'") from None

    rows = loop.labelled(output)
    made = {
        name: orjson.loads((output / f"{name}.json").read_bytes())
        for name in ("sample", "measure", "threshold")
    }
    measured = made["measure"]
    best = measured["models"]["fasttext"]
    figures = [
        Figure(number(sum(row["label"] is not None for row in rows)), "labels"),
        Figure(number(best["rows"]), "held-out labels", "of hosts that no classifier has seen"),
        Figure(_short(best["auc"]), "AUC of fastText", _interval(best["auc"])),
        Figure(_short(best["calibration_error"]), "calibration error", _interval(best["calibration_error"])),
    ]
    sections = [
        Section("rater", "The rater", _rater(rows, made["sample"], measured)),
        Section("classifiers", "The classifiers", _classifiers(measured)),
        Section("threshold", "Thresholds", _thresholds(made["threshold"])),
        Section("documents", "Documents at each score", _documents(rows)),
        Section("disagreements", "What rater and classifier disagree on", _disagreements(measured)),
        Section("words", "Words that weigh most", _words(measured["words"])),
    ]
    path = output / "report.html"
    html = page(
        str(output.absolute()), _subtitle(rows, output), figures, sections, get_plotlyjs(), "quality report"
    )
    write_atomically(path, html)
    return path


def _subtitle(rows: Sequence[Mapping[str, Any]], output: Path) -> str:
    raters = sorted({r["model"] for r in loop.label.read(output / "labels.jsonl")})
    return f"rated by {', '.join(raters) or 'nobody'} · {number(len(rows))} documents"


def _short(value: Sequence[float | None]) -> str:
    return "—" if value[0] is None else f"{value[0]:.3f}"


def _interval(value: Sequence[float | None]) -> str:
    return "" if value[1] is None or value[2] is None else f"95%: {value[1]:.3f} to {value[2]:.3f}"


def _rater(rows: Sequence[Mapping[str, Any]], sample: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for row in rows:
        if row["label"] is not None:
            counts[str(row["source"])][int(row["label"] + 0.5)] += 1
    names = [str(k) for k in range(6)]
    parts = {source: [float(c[k]) for k in range(6)] for source, c in counts.items()}
    body = chart(
        charts.grouped(names, parts, "documents"), "Labels", "Documents by score, rounded, and source"
    )
    if (repeat := measured.get("repeat_agreement")) is not None:
        head = ["documents", "equal", "within 1", "rank correlation", "F1 of good", "kappa"]
        values = [repeat[k] for k in ("documents", "equal", "within_1", "spearman", "good_f1", "kappa")]
        body += (
            "<h3>Against itself</h3><p>The same documents, by a prompt that names the best level first.</p>"
        )
        body += table(head, [["—" if v is None else f"{v:.3g}" for v in values]], 0)
    strata = [[r["stratum"], number(r["documents"]), number(r["chosen"])] for r in sample["table"]]
    title = f"Strata of the sample ({', '.join(sample['strata'])}), seed {sample['seed']}"
    return body + details(title, table(["stratum", "documents", "chosen"], strata))


def _classifiers(measured: Mapping[str, Any]) -> str:
    models = measured["models"]
    rows = [
        [name, *(_whole(m[k]) for k in ("auc", "spearman", "calibration_error"))]
        for name, m in models.items()
    ]
    good = measured["good"]
    body = (
        f"<p>On labels of hosts that were held out; good is a label of {good:.3g} and more. Intervals are of resampled "
        "hosts. Ensembles combine the ranks of both scores.</p>"
    )
    body += table(["classifier", "AUC", "rank correlation with the label", "calibration error"], rows)
    parts = {name: [float((t["f1"] or [0])[0] or 0) for t in m["thresholds"]] for name, m in models.items()}
    body += grid(
        chart(charts.grouped([f"≥ {k}" for k in range(1, 6)], parts, "F1"), "F1 at each label"),
        chart(
            _reliability(models),
            "Calibration",
            "Share of good documents over the score; on the diagonal both are equal",
        ),
    )
    for name in NAMES:
        m = models[name]
        points = [
            [f"≥ {t['label']}", t["rows"], "—" if t["cut"] is None else f"{t['cut']:.4f}", _whole(t["f1"])]
            for t in m["thresholds"]
        ]
        inside = table(["label", "rows that reach it", "cut of the score", "F1"], points)
        confusion = [[c["label"], c["poor"], c["good"]] for c in m["confusion"]]
        inside += table(["label", "classified poor", "classified good"], confusion)
        for key in ("source", "language"):
            lines = [
                [r[key], r["rows"], r["right"], r["wrongly_good"], r["wrongly_poor"]] for r in m[f"by_{key}"]
            ]
            inside += table([key, "rows", "right", "wrongly good", "wrongly poor"], lines)
        body += details(f"{name}: F1, confusion, by source and language", inside)
    return body


def _whole(value: Sequence[float | None] | None) -> str:
    """A measure with its interval."""
    return "—" if value is None or value[0] is None else f"{_short(value)} ({_interval(value)})"


def _reliability(models: Mapping[str, Any]) -> Any:
    import plotly.graph_objects as go

    shown = charts.figure(300, "score", "share good")
    line = {"color": DIAGONAL, "dash": "dot"}
    shown.add_trace(go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line=line, showlegend=False, name=""))
    for i, (name, m) in enumerate(models.items()):
        bins = m["reliability"]
        if bins:
            x, y = [b["score"] for b in bins], [b["share"] for b in bins]
            colour = charts.COLOURS[i % len(charts.COLOURS)]
            shown.add_trace(go.Scatter(x=x, y=y, mode="lines+markers", name=name, line={"color": colour}))
    return shown


def _thresholds(found: Mapping[str, Any]) -> str:
    def percent(value: float | None) -> str:
        return "—" if value is None else f"{100 * value:.1f}%"

    rows = [
        [
            f"{t['threshold']:.4f}",
            *(percent(t[k]) for k in ("target", "documents", "bytes", "good_kept", "good_dropped")),
        ]
        for t in found["thresholds"]
    ]
    head = ["threshold", "asked for", "documents kept", "bytes kept", "good among kept", "good among dropped"]
    body = f"<p>Of the score {text(found['signal'])}, estimated for the whole run from the sample and its weights.</p>"
    body += table(head, rows)
    for t in found["thresholds"]:
        sides = "".join(
            f"<h4>{title}</h4>{''.join(map(_quote, t[side])) or absent('none')}"
            for side, title in (("above", "just above: kept"), ("below", "just below: dropped"))
        )
        body += details(f"Documents around {t['threshold']:.4f}", sides)
    return body


def _documents(rows: Sequence[Mapping[str, Any]]) -> str:
    at: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        if row["label"] is not None and len(at[score := int(row["label"] + 0.5)]) < SHOWN:
            excerpt = " ".join(row["text"][: 4 * EXCERPT].split())[:EXCERPT]
            at[score].append(_quote({**row, "excerpt": excerpt}))
    return "".join(
        details(f"score {k}", "".join(at[k]) or absent("The rater gave this score to no document."))
        for k in range(5, -1, -1)
    )


def _disagreements(measured: Mapping[str, Any]) -> str:
    quotes = "".join(map(_quote, measured["disagreements"]))
    return quotes or absent("No held-out document is judged differently.")


def _quote(row: Mapping[str, Any]) -> str:
    label = "no label" if row["label"] is None else f"label {row['label']:.2g}"
    score = f" · fastText {row['score']:.3f}" if isinstance(row.get("score"), float) else ""
    where = row.get("url") or row["id"]
    return f"<blockquote><cite>{text(label + score)} · {text(where)}</cite><p>{text(row['excerpt'])}</p></blockquote>"


def _words(words: Mapping[str, Sequence[str]]) -> str:
    rows = [[kind, " ".join(found) or "—"] for kind, found in words.items()]
    return "<p>Words of at least 5 documents that alone make a text good, or poor, for fastText.</p>" + table(
        ["side", "words"], rows, 9
    )
