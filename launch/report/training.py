"""The section about training: loss, rates, speed, where the time of a step goes, memory; and what the run ran with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from launch.report import charts
from launch.report.charts import Row, column
from launch.report.page import Section, absent, chart, details, grid, table, text
from launch.report.read import Record
from launch.report.words import number, share, size

PARTS = {
    "data_wait_seconds": "waiting for data",
    "forward_backward_seconds": "forward and backward",
    "optimizer_seconds": "clipping and update",
}
REST = "agreement of ranks and the rest"


def training(record: Record) -> Section:
    """Loss, gradient norm, learning rate, speed, memory."""
    if not record.metrics:
        return Section("training", "Training", absent(record.missing["metrics"]))
    rows = record.metrics
    notes = ["Cross-entropy per token of each step", not_finite(rows), record.missing.get("metrics", "")]
    body = controls([rows]) + chart(
        charts.training_loss(rows, record.evals), "Loss", ". ".join(n.rstrip(".") for n in notes if n)
    )

    def card(key: str, title: str, unit: str, scale: float, log_y: bool, colour: int) -> str:
        return chart(
            charts.series(rows, key, unit, scale, log_y, charts.COLOURS[colour]),
            title,
            missing=f"No row of metrics.jsonl has a finite number in `{key}`.",
        )

    def several(names: Mapping[str, str], title: str, unit: str, scale: float) -> str:
        return chart(
            charts.several_series(rows, names, unit, scale),
            title,
            missing=f"No row of metrics.jsonl has a finite number in {', '.join(f'`{n}`' for n in names)}.",
        )

    measured = any(isinstance(r.get("comm_share"), float) for r in rows)
    communication = chart(
        charts.series(rows, "comm_share", "% of the step", 100, colour=charts.COLOURS[6]),
        "Waiting for communication",
        "Time in which rank 0 did nothing but communicate, at the steps that were traced",
    )
    body += parts_of_a_step(rows)
    body += grid(
        card("grad_norm", "Gradient norm", "norm before clipping", 1, True, 1),
        card("lr", "Learning rate", "learning rate", 1, False, 4),
        card("tokens_per_second", "Throughput", "tokens per second", 1, False, 0),
        card("tokens_per_second_per_device", "Throughput of a device", "tokens per second", 1, False, 0),
        card("tflop_per_second_per_device", "Useful arithmetic of a device", "TFLOP/s", 1, False, 2),
        several(
            {"mfu": "document-aware", "mfu_full": "full attention (PaLM)"},
            "Model FLOPs utilisation",
            "% of the peak",
            100,
        ),
        several(PARTS, "Parts of a step", "ms a step", 1000),
        several(
            {
                "memory_peak_bytes": "highest so far",
                "memory_interval_peak_bytes": "highest since the row before",
                "memory_resident_bytes": "resident",
            },
            "Memory of rank 0",
            "GiB",
            2**-30,
        ),
        *([communication] if measured else []),
    )
    for name, summary in record.profiles:
        body += details(f"Traced: {name}", f"<pre>{text(summary)}</pre>")
    return Section("training", "Training", body)


def not_finite(rows: Sequence[Row]) -> str:
    """Which steps have a loss that is no finite number; empty where all are finite."""
    steps = column(rows, "step")[~np.isfinite(column(rows, "loss"))].astype(int).tolist()
    if not steps:
        return ""
    named = ", ".join(f"{s:,}" for s in steps[:8]) + (", …" if len(steps) > 8 else "")
    return f"The loss of {len(steps):,} step{'s' if len(steps) > 1 else ''} is not finite: {named}"


def controls(runs: Sequence[Sequence[Row]]) -> str:
    """Buttons that put steps, tokens or time on the x-axis of all training charts, or draw them logarithmically.

    Args:
        runs: rows of metrics.jsonl of each run whose charts the page has.
    """
    data = json.dumps([charts.axes(rows) for rows in runs])
    options = (("step", "steps"), ("tokens", "tokens"), ("seconds", "time"))
    buttons = "".join(
        f'<label><input type=radio name=x value="{value}"{" checked" if value == "step" else ""}>{name}</label>'
        for value, name in options
    )
    return (
        f"<form class=controls autocomplete=off><fieldset><legend>x-axis</legend>{buttons}</fieldset>"
        "<fieldset><legend>logarithmic</legend><label><input type=checkbox name=logx>x</label>"
        "<label><input type=checkbox name=logy>y</label></fieldset>"
        f'<script type="application/json" id=axes>{data}</script></form>'
    )


def parts_of_a_step(rows: Sequence[Row]) -> str:
    """Where the time of all steps went, as one bar."""
    known = [r for r in rows if all(charts.is_step(r.get(k)) for k in (*PARTS, "step_seconds"))]
    if not known:
        return chart(
            None,
            "Where the time of a step goes",
            missing="No row of metrics.jsonl has the parts of its step.",
        )
    whole = float(column(known, "step_seconds").sum())
    seconds = {title: float(column(known, key).sum()) for key, title in PARTS.items()}
    seconds[REST] = max(0.0, whole - sum(seconds.values()))
    shares = ", ".join(f"{title} {share(s, whole)}" for title, s in seconds.items())
    return chart(
        charts.stacked(["all steps"], {t: [round(s, 3)] for t, s in seconds.items()}, "seconds", True),
        "Where the time of a step goes",
        f"On rank 0, over {len(known):,} steps of {number(whole / len(known), 3)} s on average: {shares}",
    )


FACTS = {
    "python": "Python",
    "hardware.host": "host",
    "hardware.system": "system",
    "hardware.processor": "processor",
    "hardware.processor_cores": "cores",
    "hardware.memory_bytes": "memory",
    "hardware.device": "device",
    "hardware.device_memory_bytes": "memory of a device",
    "hardware.devices": "devices",
}


def facts(line: Row) -> dict[str, str]:
    """A line of environment.jsonl as names and values for people."""
    code = line.get("arriero") or {}
    commit = code.get("git_commit")
    version = str(code.get("version") or "unknown")
    if commit:
        version += f", commit {str(commit)[:12]}" + (" with changes" if code.get("git_dirty") else "")
    shown = {"arriero": version}
    libraries = line.get("libraries") or {}
    if "torch" in libraries:
        shown["torch"] = str(libraries["torch"])
    for key, name in FACTS.items():
        value: object = line
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            shown[name] = size(value) if key.endswith("_bytes") else str(value)
    return shown


def environment(record: Record) -> Section:
    """Code, libraries, hardware and command of the last start, and what differs from the starts before it."""
    starts = record.environment
    if not starts:
        return Section("environment", "Environment", absent(record.missing["environment"]))
    last = starts[-1]
    body = table(["", ""], list(facts(last).items()), numeric_from=9)
    above = last.get("started_by")
    commands = [*(above if isinstance(above, list) else []), last.get("command")]
    body += details(
        "Command",
        f"<pre>cd {text(last.get('directory'))}\n{text(chr(10).join(map(str, commands)))}</pre>",
        True,
    )
    versions = sorted((last.get("libraries") or {}).items())
    body += details(f"Libraries: {len(versions)}", table(["library", "version"], versions, numeric_from=9))
    changes = []
    for i in range(1, len(starts)):
        before, after = facts(starts[i - 1]), facts(starts[i])
        for name in {**before, **after}:
            if before.get(name) != after.get(name):
                changes.append([f"{i + 1}", name, before.get(name, "—"), after.get(name, "—")])
    if len(starts) > 1:
        body += f"<p>The run was started {len(starts):,} times.</p>"
    if changes:
        body += table(["start", "what changed", "before", "from then on"], changes[-100:], numeric_from=9)
    return Section("environment", "Environment", body)
