"""What `arriero compare` shows of several runs: figures side by side, differences, and common charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.report import charts
from launch.report.page import Figure, Section, absent, chart, grid, page, table
from launch.report.read import Record, read
from launch.report.sections import latest, spent_time
from launch.report.summary import count_parameters, final_loss, median
from launch.report.training import controls, facts
from launch.report.words import duration, number, short, size

Lines = list[list[str]]
"""Rows of a table: a name, then a cell a run."""
UNSET = "—"


@dataclass(frozen=True)
class Comparison:
    """Several runs, and tables of one column a run."""

    names: list[str]
    """Short names of the runs, all different."""
    records: list[Record]
    results: Lines
    losses: Lines
    """Held-out bits per byte by source, at the last evaluation of each run."""
    configuration: Lines
    """Keys that differ."""
    environment: Lines
    """What of code, libraries and hardware differs."""


def compare(folders: Sequence[Path]) -> Comparison:
    """Read runs and compare them.

    Args:
        folders: run directories.
    """
    records = [read(folder, None) for folder in folders]
    return Comparison(
        short_names(folders),
        records,
        results(records),
        losses(records),
        differences([flat(r.config) for r in records], skip=("run.dir", "run.name")),
        differences([_environment(r) for r in records]),
    )


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as make them differ."""
    parts = [folder.resolve().parts for folder in folders]
    for n in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-n:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """A configuration as dotted keys and their values as text."""
    if isinstance(value, Mapping) and value:
        found: dict[str, str] = {}
        for key, inner in value.items():
            found |= flat(inner, f"{prefix}{key}.")
        return found
    return {prefix.rstrip("."): "null" if value is None else str(value)}


def differences(sides: Sequence[Mapping[str, str]], skip: Sequence[str] = ()) -> Lines:
    """Keys whose values are not the same on all sides, with the value of each."""
    keys = dict.fromkeys(key for side in sides for key in side)
    rows = [[key, *(side.get(key, UNSET) for side in sides)] for key in keys if key not in skip]
    return [row for row in rows if len(set(row[1:])) > 1]


def _environment(record: Record) -> dict[str, str]:
    if not record.environment:
        return {}
    last = record.environment[-1]
    libraries = last.get("libraries")
    return {
        **facts(last),
        **({str(k): str(v) for k, v in libraries.items()} if isinstance(libraries, dict) else {}),
    }


def results(records: Sequence[Record]) -> Lines:
    """Length, loss, speed and goodput of each run."""
    columns = [_figures(record) for record in records]
    names = dict.fromkeys(name for column in columns for name in column)
    return [[name, *(column.get(name, UNSET) for column in columns)] for name in names]


def _figures(record: Record) -> dict[str, str]:
    rows = record.metrics
    shown = {"parameters": short(count_parameters(record) or None)}
    shown["steps"] = number(rows[-1]["step"]) if rows else UNSET
    progress = charts.axes(rows) if rows else {"tokens": [math.nan], "seconds": [math.nan]}
    shown["tokens trained on"] = short(progress["tokens"][-1]) if rows else UNSET
    loss, _ = final_loss(rows)
    shown["training loss, last steps (nats per token)"] = number(loss, 4) if loss is not None else UNSET
    evals = latest(record.evals)
    shown["held-out bits per byte"] = number(evals[-1].get("bits_per_byte"), 4) if evals else UNSET
    shown["held-out nats per token"] = number(evals[-1].get("nats_per_token"), 4) if evals else UNSET
    # Losses over other parts of the held-out split, or over other data, do not compare.
    shown["held-out tokens evaluated"] = number(evals[-1].get("tokens")) if evals else UNSET
    shown["tokens per second, median"] = short(median(rows, "tokens_per_second"))
    shown["step, median"] = duration(median(rows, "step_seconds"))
    mfu = median(rows, "mfu")
    shown["MFU, median"] = f"{100 * mfu:.1f} %" if mfu is not None else UNSET
    peak = charts.column(rows, "memory_peak_bytes")
    peak = peak[peak == peak]
    shown["memory of rank 0, peak"] = size(float(peak.max())) if len(peak) else UNSET
    shown["time in steps"] = duration(progress["seconds"][-1]) if rows else UNSET
    spent = spent_time(record.ledger)
    if spent:
        shown["wall time"] = duration(spent["wall"])
        shown["goodput"] = f"{100 * spent['goodput']:.1f} %"
        shown["restarts"] = number(spent["restarts"])
    return shown


def losses(records: Sequence[Record]) -> Lines:
    """Held-out bits per byte by source at the last evaluation of each run, the total last."""
    columns = [
        {str(r.get("source")): r.get("bits_per_byte") for r in latest(record.evals)} for record in records
    ]
    sources = sorted({source for column in columns for source in column} - {"all"})
    pooled = ["all"] if any("all" in column for column in columns) else []
    return [
        [
            "all sources, pooled" if source == "all" else source,
            *(number(column[source], 4) if source in column else UNSET for column in columns),
        ]
        for source in (*sources, *pooled)
    ]


def text_of(found: Comparison) -> str:
    """The comparison as text for a terminal."""
    parts = [
        ("", found.results),
        ("Held-out bits per byte", found.losses),
        ("Configuration that differs", found.configuration or [["nothing", *[""] * len(found.names)]]),
        ("Environment that differs", found.environment or [["nothing", *[""] * len(found.names)]]),
    ]
    every = [row for _, rows in parts for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(["", *found.names], *every, strict=True)]
    widths = [min(width, 48) for width in widths]

    def line(cells: Sequence[str]) -> str:
        shown = [c if len(c) <= w else c[: w - 1] + "…" for c, w in zip(cells, widths, strict=True)]
        padded = [c.rjust(w) for c, w in zip(shown[1:], widths[1:], strict=True)]
        return "  ".join([shown[0].ljust(widths[0]), *padded]).rstrip()

    lines = [line(["", *found.names])]
    for title, rows in parts:
        lines += [*(["", title] if title and rows else []), *map(line, rows)]
    return "\n".join(lines)


def page_of(found: Comparison) -> str:
    """The comparison as one HTML document."""
    from plotly.offline import get_plotlyjs

    metrics = [(name, r.metrics) for name, r in zip(found.names, found.records, strict=True)]
    head = ["", *found.names]
    missing = [
        absent(f"{name}: {r.missing['metrics']}")
        for name, r in zip(found.names, found.records, strict=True)
        if "metrics" in r.missing
    ]

    def card(key: str, title: str, unit: str, scale: float = 1.0) -> str:
        nothing = f"No run has a finite number in `{key}`."
        return chart(charts.overlaid(metrics, key, unit, 240, scale), title, missing=nothing)

    curves = "".join(missing) + controls([rows for _, rows in metrics])
    curves += chart(
        charts.overlaid(metrics, "loss", "nats per token"),
        "Training loss",
        "Each curve smoothed over a twentieth of its run, at most 100 steps",
        "No run has a finite loss.",
    )
    evals = [(name, r.evals) for name, r in zip(found.names, found.records, strict=True)]
    curves += chart(
        charts.overlaid_heldout(evals),
        "Held-out bits per byte",
        "All sources, pooled",
        "No run was evaluated.",
    )
    curves += grid(
        card("tokens_per_second", "Throughput", "tokens per second"),
        card("grad_norm", "Gradient norm", "norm before clipping"),
        card("lr", "Learning rate", "learning rate"),
        card("memory_interval_peak_bytes", "Memory of rank 0", "GiB", 2**-30),
    )
    nothing = absent("Nothing differs.")
    sections = [
        Section("results", "Results", table(head, found.results)),
        Section(
            "losses",
            "Final losses by source",
            table(["held-out bits per byte", *found.names], found.losses)
            if found.losses
            else absent("No run was evaluated: run `arriero evaluate run.dir=…`."),
        ),
        Section("curves", "Curves", curves),
        Section(
            "configuration",
            "Configuration that differs",
            table(head, found.configuration, 9) if found.configuration else nothing,
        ),
        Section(
            "environment",
            "Environment that differs",
            table(head, found.environment, 9) if found.environment else nothing,
        ),
    ]
    figures = [
        Figure(losses_of, name, "held-out bits per byte")
        for name, losses_of in zip(found.names, _row(found, "held-out bits per byte"), strict=True)
    ]
    where = " · ".join(str(r.run_dir) for r in found.records)
    return page(" and ".join(found.names), where, figures, sections, get_plotlyjs(), "comparison of runs")


def _row(found: Comparison, name: str) -> list[str]:
    return next(row[1:] for row in found.results if row[0] == name)
