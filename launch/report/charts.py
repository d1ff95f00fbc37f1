"""Charts of the report: plain data in, plotly figures out. Labels that come from data are escaped here."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from launch.report.read import is_step

Row = Mapping[str, Any]

INK, MUTED, GRID, PAPER = "#22262e", "#6d7480", "#ece8e1", "#ffffff"
ACCENT = "#b4532a"
COLOURS = ("#2f5d8a", "#c8703c", "#5a8f69", "#b3912f", "#7d6099", "#3c97a5", "#a84d6d", "#7b818b")
KEPT, LOST, BAD = "#5a8f69", "#d8d2c7", "#b3261e"
FONT = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
MAX_POINTS = 1500


STEP = "step"
"""Title of an x-axis that counts steps."""
SMALL = 1e-2
"""Largest value of an axis below which its numbers are written with an exponent, in the place of `µ` and `m`."""


def label(text: object, limit: int = 32) -> str:
    """Text from data, safe inside plotly's labels (which understand some HTML), and not wider than a chart can hold."""
    plain = str(text)
    return html.escape(plain if len(plain) <= limit else plain[: limit - 1] + "…")


def figure(height: int, x_title: str = "", y_title: str = "", log_y: bool = False) -> go.Figure:
    """An empty figure in the page's style."""
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True}
    return go.Figure(
        layout={
            "height": height,
            "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
            "paper_bgcolor": PAPER,
            "plot_bgcolor": PAPER,
            "font": {"family": FONT, "size": 12, "color": INK},
            "hoverlabel": {"font": {"family": FONT, "size": 12}},
            "hovermode": "closest",
            # The page can put tokens or time in the place of steps.
            "meta": {"switch": x_title == STEP},
            "showlegend": False,  # the page draws legends itself, because they must wrap on narrow screens
            # Level labels: ones that turn change the margin, and with it whether they must turn.
            "xaxis": axis
            | ({"tickangle": 0, "nticks": 6} if x_title == STEP else {})
            | {"title": {"text": x_title, "font": {"color": MUTED, "size": 11}}},
            "yaxis": axis
            | ({"type": "log"} if log_y else {})
            | {"title": {"text": y_title, "font": {"color": MUTED, "size": 11}}},
        }
    )


def column(rows: Sequence[Row], key: str) -> np.ndarray:
    """float64 values of one key; NaN where it is absent or not a number."""
    values = (row.get(key) for row in rows)
    return np.array(
        [v if isinstance(v, (int, float)) and not isinstance(v, bool) else math.nan for v in values],
        np.float64,
    )


def thin(x: np.ndarray, y: np.ndarray, limit: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `limit` of the points, keeping the lowest and highest of each stretch, so that no spike disappears."""
    if len(x) <= limit:
        return x, y
    keep: set[int] = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), max(1, limit // 2 - 1)):
        finite = part[np.isfinite(y[part])]
        if len(finite):
            keep |= {int(finite[np.argmin(y[finite])]), int(finite[np.argmax(y[finite])])}
        else:
            keep.add(int(part[0]))
    index = np.array(sorted(keep))
    return x[index], y[index]


def smooth(y: np.ndarray, window: int) -> np.ndarray:
    """Mean of the finite ones among `window` values around each point."""
    finite = np.isfinite(y)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, y, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    low = np.maximum(np.arange(len(y)) - window // 2, 0)
    high = np.minimum(np.arange(len(y)) + (window + 1) // 2, len(y))
    n = count[high] - count[low]
    return np.where(n > 0, (total[high] - total[low]) / np.maximum(n, 1), math.nan)


def isolated(y: np.ndarray) -> np.ndarray:
    """Which finite values have no finite neighbour, bool: a line does not show them."""
    finite = np.isfinite(y)
    return finite & ~np.append(False, finite[:-1]) & ~np.append(finite[1:], False)


def _line(
    x: np.ndarray,
    y: np.ndarray,
    name: str,
    colour: str,
    width: float = 1.6,
    opacity: float = 1.0,
    run: int = 0,
) -> go.Scatter:
    """A line over steps; values that stand alone are points.

    Args:
        name: for the legend, escaped.
        run: index of the run whose tokens and times go with the steps.
    """
    x, y = thin(x, y)
    alone = isolated(y)
    return go.Scatter(
        x=x.tolist(),  # a list, because the page computes with it
        y=np.where(np.isfinite(y), y, math.nan),
        name=name,
        mode="lines+markers" if alone.any() else "lines",
        line={"color": colour, "width": width},
        marker={"color": colour, "size": np.where(alone, 7, 0).tolist() if alone.any() else 0},
        opacity=opacity,
        meta={"run": run},
        hovertemplate="%{x:,}<br>%{y:.4g}<extra>" + name + "</extra>",
    )


def _points(
    x: np.ndarray, y: np.ndarray, name: str, colour: str, run: int = 0, dash: str = "solid"
) -> go.Scatter:
    """Few values over steps: a line with every point."""
    return go.Scatter(
        x=x.tolist(),
        y=y,
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": dash},
        marker={"size": 7, "color": colour},
        meta={"run": run},
        hovertemplate="%{x:,}<br>%{y:.4f}<extra>" + name + "</extra>",
    )


def comparable(evals: Sequence[Row]) -> list[Row]:
    """Evaluations that may stand on one line: of each source those over the number of tokens that most steps have.

    A training evaluates a part of the split, `arriero evaluate` all of it: the second is no step in the curve of the first.
    Where no two steps have a number of tokens in common, all rows of the source.
    """

    def tokens(row: Row) -> float:
        value = row.get("tokens")
        return value if isinstance(value, (int, float)) else -1

    steps: dict[str, dict[float, set[int]]] = {}
    for r in evals:
        if is_step(r.get("step")):
            steps.setdefault(str(r.get("source")), {}).setdefault(tokens(r), set()).add(int(r["step"]))
    most = {source: max(found, key=lambda n: (len(found[n]), n)) for source, found in steps.items()}
    curves = {source for source, found in steps.items() if len(found[most[source]]) > 1}
    return [r for r in evals if (s := str(r.get("source"))) not in curves or tokens(r) == most[s]]


def by_step(evals: Sequence[Row]) -> dict[int, list[Row]]:
    """Held-out rows of single sources by step, ascending; the last row written of a step and source wins."""
    last = {
        (int(r["step"]), str(r.get("source"))): r
        for r in evals
        if is_step(r.get("step")) and r.get("split", "heldout") == "heldout" and r.get("source") != "all"
    }
    steps: dict[int, list[Row]] = {}
    for step, source in sorted(last):
        steps.setdefault(step, []).append(last[step, source])
    return steps


def pool(rows: Sequence[Row]) -> dict[str, Any]:
    """One row for all sources: total loss over all tokens, and over all bytes; not a mean of means."""
    tokens, n_bytes = column(rows, "tokens"), column(rows, "bytes")
    nats, bits = column(rows, "nats_per_token"), column(rows, "bits_per_byte")
    return {
        "step": rows[0].get("step"),
        "source": "all",
        "split": "heldout",
        "nats_per_token": float((nats * tokens).sum() / tokens.sum()) if tokens.sum() > 0 else math.nan,
        "bits_per_byte": float((bits * n_bytes).sum() / n_bytes.sum()) if n_bytes.sum() > 0 else math.nan,
        "tokens": float(tokens.sum()),
        "bytes": float(n_bytes.sum()),
    }


def training_loss(rows: Sequence[Row], evals: Sequence[Row]) -> go.Figure:
    """Training loss with its running mean, and held-out loss pooled over sources where it was measured."""
    x, y = column(rows, "step"), column(rows, "loss")
    window = max(1, min(100, len(x) // 20))
    shown = figure(360, STEP, "nats per token")
    shown.add_trace(_line(x, y, "loss", COLOURS[0], 1, 0.35 if window > 1 else 1))
    if window > 1:
        shown.add_trace(_line(x, smooth(y, window), f"mean of {window} steps", COLOURS[0], 2.2))
    heldout = [pool(rows) for rows in by_step(comparable(evals)).values()]
    if heldout:
        steps, values = column(heldout, "step"), column(heldout, "nats_per_token")
        shown.add_trace(_points(steps, values, "held-out, all sources", ACCENT))
    finite = y[np.isfinite(y)]
    if len(finite) > 50:  # the first steps would flatten the rest
        low, high = float(finite.min()), float(np.quantile(finite[len(finite) // 50 :], 0.995))
        shown.update_yaxes(range=[low - 0.05 * (high - low), high + 0.15 * (high - low)])
    if len(odd := x[~np.isfinite(y)]):
        floor = float(finite.min()) if len(finite) else 0.0
        shown.add_trace(
            go.Scatter(
                x=thin(odd, odd)[0].tolist(),
                y=[floor] * len(thin(odd, odd)[0]),
                name="loss is not finite",
                mode="markers",
                line={"color": BAD},
                marker={"symbol": "x", "size": 9, "color": BAD},
                meta={"run": 0},
                hovertemplate="%{x:,}<extra>loss is not finite</extra>",
            )
        )
    return shown


def series(
    rows: Sequence[Row],
    key: str,
    unit: str,
    scale: float = 1.0,
    log_y: bool = False,
    colour: str = COLOURS[0],
) -> go.Figure | None:
    """One metric over steps; None where no row has it."""
    x, y = column(rows, "step"), column(rows, key) * scale
    y[~np.isfinite(y)] = math.nan
    if not np.isfinite(y).any():
        return None
    shown = figure(220, STEP, unit, log_y and bool(np.nanmin(y) > 0))
    # A value that is measured now and then is a point, with lines between.
    measured = np.isfinite(y)
    if measured.mean() < 0.5:
        shown.add_trace(_points(x[measured], y[measured], key, colour))
    else:
        shown.add_trace(_line(x, y, key, colour))
    if shown.layout.yaxis.type == "log":
        shown.update_yaxes(dtick="D2", tickformat="~g")
    else:
        shown.update_yaxes(rangemode="tozero", tickformat=".1e" if np.nanmax(np.abs(y)) < SMALL else "")
    return shown


def several_series(
    rows: Sequence[Row], names: Mapping[str, str], unit: str, scale: float = 1.0
) -> go.Figure | None:
    """Metrics of one unit over steps in one chart, by key and name; None where no row has any."""
    x, shown = column(rows, "step"), figure(220, STEP, unit)
    for i, (key, name) in enumerate(names.items()):
        y = column(rows, key) * scale
        y[~np.isfinite(y)] = math.nan
        if np.isfinite(y).any():
            shown.add_trace(_line(x, y, name, COLOURS[i % len(COLOURS)]))
    shown.update_yaxes(rangemode="tozero")
    return shown if shown.data else None


def axes(rows: Sequence[Row]) -> dict[str, list[float]]:
    """What the page needs to put tokens or time in the place of steps: at most `MAX_POINTS` steps, and up to each of them
    the tokens trained on and the seconds of all steps (what lies between steps, and stops, are not counted)."""
    tokens = np.nancumsum(np.nan_to_num(column(rows, "tokens"), posinf=0.0, neginf=0.0))
    seconds = np.nancumsum(np.nan_to_num(column(rows, "step_seconds"), posinf=0.0, neginf=0.0))
    index = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_POINTS)).astype(int))
    return {
        "step": column(rows, "step")[index].tolist(),
        "tokens": tokens[index].tolist(),
        "seconds": [round(s, 3) for s in seconds[index].tolist()],
    }


def overlaid(
    runs: Sequence[tuple[str, Sequence[Row]]], key: str, unit: str, height: int = 360, scale: float = 1.0
) -> go.Figure | None:
    """One metric of several runs over steps, smoothed over a twentieth of each; None where no run has it."""
    shown, largest = figure(height, STEP, unit), 0.0
    for i, (name, rows) in enumerate(runs):
        y = column(rows, key) * scale
        y[~np.isfinite(y)] = math.nan
        if np.isfinite(y).any():
            y = smooth(y, max(1, min(100, len(y) // 20)))
            shown.add_trace(_line(column(rows, "step"), y, label(name), COLOURS[i % len(COLOURS)], 2, run=i))
            largest = max(largest, float(np.nanmax(np.abs(y))))
    if largest < SMALL:
        shown.update_yaxes(tickformat=".1e")
    return shown if shown.data else None


def overlaid_heldout(runs: Sequence[tuple[str, Sequence[Row]]]) -> go.Figure | None:
    """Held-out bits per byte of several runs, pooled over sources, over steps."""
    shown = figure(300, STEP, "bits per byte")
    for i, (name, evals) in enumerate(runs):
        rows = [pool(rows) for rows in by_step(comparable(evals)).values()]
        if rows:
            steps, values = column(rows, "step"), column(rows, "bits_per_byte")
            shown.add_trace(_points(steps, values, label(name), COLOURS[i % len(COLOURS)], run=i))
    return shown if shown.data else None


def heldout_by_source(evals: Sequence[Row]) -> go.Figure | None:
    """Held-out bits per byte of each source over steps; None with fewer than two evaluated steps."""
    steps = by_step(comparable(evals))
    if len(steps) < 2:
        return None
    shown = figure(300, STEP, "bits per byte")
    for i, source in enumerate(sorted({str(r.get("source")) for rows in steps.values() for r in rows})):
        own = [r for rows in steps.values() for r in rows if str(r.get("source")) == source]
        values = column(own, "bits_per_byte")
        shown.add_trace(_points(column(own, "step"), values, label(source), COLOURS[i % len(COLOURS)]))
    return shown


def stacked(
    names: Sequence[str], parts: Mapping[str, Sequence[float]], unit: str, share: bool = False
) -> go.Figure:
    """Horizontal bars, one a name, split into parts. With `share`, every bar is drawn as 100 %."""
    shown = figure(64 + 44 * len(names), unit if not share else "share (%)")
    totals = [max(sum(values), 1e-30) for values in zip(*parts.values(), strict=True)]
    colours = iter([c for c in COLOURS if c != KEPT] * 4)
    for part, values in parts.items():
        width = [100 * v / t for v, t in zip(values, totals, strict=True)] if share else list(values)
        shown.add_trace(
            go.Bar(
                y=[label(n) for n in names],
                x=width,
                name=label(part),
                orientation="h",
                marker={"color": KEPT if part == "kept" else next(colours), "line": {"width": 0}},
                customdata=list(values),
                hovertemplate="%{y}: %{customdata:,} " + unit + "<extra>" + label(part) + "</extra>",
            )
        )
    shown.update_layout(barmode="stack", bargap=0.35)
    if share:
        shown.update_xaxes(range=[0, 100])
    shown.update_yaxes(autorange="reversed", showgrid=False)
    return shown


def grouped(names: Sequence[str], parts: Mapping[str, Sequence[float]], unit: str) -> go.Figure:
    """Vertical bars, one group a name."""
    shown = figure(300, "", unit)
    for i, (part, values) in enumerate(parts.items()):
        shown.add_trace(
            go.Bar(
                x=[label(n) for n in names],
                y=list(values),
                name=label(part),
                marker={"color": COLOURS[i % len(COLOURS)]},
                hovertemplate="%{x}: %{y:.4g} " + unit + "<extra>" + label(part) + "</extra>",
            )
        )
    shown.update_layout(barmode="group", bargap=0.35)
    return shown


def histogram(
    series_by_name: Mapping[str, Mapping[str, float]],
    x_title: str,
    order: Sequence[str],
    title: Callable[[str], str] = str,
    unit: str = "documents",
) -> go.Figure:
    """Counts in bins that were made earlier, one series a source, stacked; `order` is the bins left to right."""
    shown = figure(300, x_title, unit)
    for i, (name, bins) in enumerate(series_by_name.items()):
        shown.add_trace(
            go.Bar(
                x=[label(title(b), 14) for b in order],
                y=[bins.get(b, 0) for b in order],
                name=label(name),
                marker={"color": COLOURS[i % len(COLOURS)]},
                hovertemplate="%{x}: %{y:,}<extra>" + label(name) + "</extra>",
            )
        )
    shown.update_layout(barmode="stack", bargap=0.12)
    shown.update_xaxes(type="category")
    return shown


def threshold(tried: Sequence[float], kept: Sequence[int], documents: int, current: float) -> go.Figure:
    """Share of documents that a policy keeps, over one threshold; the present one is marked."""
    shown = figure(180, "threshold", "% kept")
    shares = [100 * k / max(documents, 1) for k in kept]
    hover = "%{x:.4g}: %{y:.1f} % kept<extra></extra>"
    shown.add_trace(
        go.Scatter(
            x=list(tried),
            y=shares,
            mode="lines+markers",
            line={"color": COLOURS[0], "width": 1.6},
            marker={"size": 5},
            hovertemplate=hover,
        )
    )
    now = [(x, y) for x, y in zip(tried, shares, strict=True) if x == current]
    shown.add_trace(
        go.Scatter(
            x=[x for x, _ in now],
            y=[y for _, y in now],
            mode="markers",
            marker={"size": 11, "symbol": "diamond", "color": ACCENT},
            hovertemplate="now " + hover,
        )
    )
    if len(tried) > 1 and tried[0] > 0 and tried[-1] / tried[0] > 30:
        shown.update_xaxes(type="log")
    return shown


EVENT_COLOURS = {
    "launched": COLOURS[7],
    "started": COLOURS[5],
    "restored": COLOURS[3],
    "saved": KEPT,
    "evaluated": COLOURS[0],
    "skipped": COLOURS[1],
    "failed": BAD,
    "hung": BAD,
    "preempted": COLOURS[4],
    "restarting": COLOURS[1],
    "stopped": COLOURS[7],
    "finished": INK,
}


def _stretches(timed: Sequence[Row]) -> list[tuple[float, float, str]]:
    """Stretches of training from `step_range` events: (begin, end, steps), where neighbours are joined."""
    joined: list[tuple[float, float, int, int]] = []
    for row in timed:
        if row.get("event") != "step_range" or not is_step(row.get("seconds")):
            continue
        first, last = int(row.get("first_step") or 0), int(row.get("last_step") or row.get("step") or 0)
        begin, end = float(row["time"]) - float(row["seconds"]), float(row["time"])
        if joined and joined[-1][3] + 1 == first and begin - joined[-1][1] < 1.0:
            joined[-1] = (joined[-1][0], end, joined[-1][2], last)
        else:
            joined.append((begin, end, first, last))
    return [(begin, end, f"steps {first:,} to {last:,}") for begin, end, first, last in joined]


def timeline(ledger: Sequence[Row]) -> go.Figure | None:
    """The ledger over wall time: one lane an event, and stretches of training where steps were computed."""
    timed = [r for r in ledger if is_step(r.get("time"))]
    if not timed:
        return None
    start = min(r["time"] - (float(r["seconds"]) if is_step(r.get("seconds")) else 0.0) for r in timed)
    span = max(r["time"] for r in timed) - start
    unit, divisor = (
        ("seconds", 1.0) if span < 600 else ("minutes", 60.0) if span < 36_000 else ("hours", 3600.0)
    )
    present = {str(r.get("event")) for r in timed} - {"step_range"}
    lanes = [e for e in EVENT_COLOURS if e in present] + sorted(present - set(EVENT_COLOURS))
    shown = figure(110 + 26 * (len(lanes) + 1), f"{unit} since the first event")
    stretches = _stretches(timed)
    shown.add_trace(
        go.Bar(
            y=["training"] * len(stretches),
            x=[(end - begin) / divisor for begin, end, _ in stretches],
            base=[(begin - start) / divisor for begin, _, _ in stretches],
            orientation="h",
            width=0.6,
            marker={"color": "#bcd3c3", "line": {"color": KEPT, "width": 0.5}},
            text=[steps for _, _, steps in stretches],
            textposition="none",
            hovertemplate="%{text}<extra>training</extra>",
            showlegend=False,
        )
    )
    for event in lanes:
        own = [r for r in timed if str(r.get("event")) == event]
        shown.add_trace(
            go.Scatter(
                x=[(r["time"] - start) / divisor for r in own],
                y=[label(event)] * len(own),
                mode="markers",
                marker={"size": 10, "symbol": "diamond", "color": EVENT_COLOURS.get(event, MUTED)},
                text=[label(f"step {r['step']}" if r.get("step") is not None else "") for r in own],
                hovertemplate="%{x:.1f} " + unit + " %{text}<extra>" + label(event) + "</extra>",
                showlegend=False,
            )
        )
    shown.update_layout(barmode="overlay")
    shown.update_yaxes(
        categoryorder="array", categoryarray=[*reversed([label(e) for e in lanes]), "training"]
    )
    return shown
