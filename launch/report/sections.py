"""The sections of the report, top to bottom. Each takes the record and says what is missing where a part is."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from launch.report import charts
from launch.report.charts import Row
from launch.report.page import Section, absent, chart, details, grid, table, text
from launch.report.read import Record

MOST_FREQUENT = 10
"""Bars of a histogram that has names and no order, such as that of languages; the others are added up."""
OTHERS = "others"


def all_sections(record: Record) -> list[Section]:
    """Every section, in reading order."""
    return [
        training(record),
        heldout(record),
        samples(record),
        data(record),
        mixture(record),
        reliability(record),
        configuration(record),
    ]


def number(value: object, digits: int = 0) -> str:
    """A number for people: thousands separated; an em dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return "—"
    return f"{value:,.{digits}f}"


def short(value: object) -> str:
    """A number with three significant digits and a unit prefix: 12.3 M."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return "—"
    for limit, prefix in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{prefix}"
    return f"{value:.3g}"


def duration(seconds: object) -> str:
    """Seconds for people: 3 h 12 min."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return "—"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24} d {hours % 24} h" if hours >= 48 else f"{hours} h {minutes} min"


def share(part: float, whole: float) -> str:
    """A share in percent."""
    return f"{100 * part / whole:.1f} %" if whole else "—"


def training(record: Record) -> Section:
    """Loss, gradient norm, learning rate, speed, memory."""
    if not record.metrics:
        return Section("training", "Training", absent(record.missing["metrics"]))
    rows = record.metrics
    note = record.missing.get("metrics", "")
    body = chart(
        charts.training_loss(rows, record.evals),
        "Loss",
        "Cross-entropy per token of each step" + (f". {note}" if note else ""),
    )

    def card(key: str, title: str, unit: str, scale: float, log_y: bool, colour: int) -> str:
        return chart(
            charts.series(rows, key, unit, scale, log_y, charts.COLOURS[colour]),
            title,
            missing=f"No row of metrics.jsonl has a number in `{key}`.",
        )

    body += grid(
        card("grad_norm", "Gradient norm", "norm before clipping", 1, True, 1),
        card("lr", "Learning rate", "learning rate", 1, False, 4),
        card("tokens_per_second", "Throughput", "tokens per second", 1, False, 0),
        card("mfu", "Model FLOPs utilisation", "% of the peak", 100, False, 2),
        card("memory", "Memory high-water mark", "GiB a rank", 2**-30, False, 5),
        card("data_wait", "Wait for data", "ms a step", 1000, False, 3),
    )
    return Section("training", "Training", body)


def latest(evals: Sequence[Row]) -> list[Row]:
    """Held-out rows of the last evaluated step, by source, and their total where there are several."""
    steps = charts.by_step(evals)
    if not steps:
        return []
    rows = steps[max(steps)]
    return [*rows, charts.pool(rows)] if len(rows) > 1 else rows


def heldout(record: Record) -> Section:
    """Held-out loss by source, and the comparison with a compressor where one was made."""
    rows = latest(record.evals)
    if not rows:
        body = absent(record.missing.get("evals", "eval.jsonl holds no evaluation with a step."))
    else:
        step = text(number(rows[0]["step"]))
        body = f"<p>Checkpoint of step {step}. Every token is predicted once, the end of text too.</p>"
        body += table(
            ["source", "split", "nats per token", "bits per byte", "tokens", "bytes"],
            [
                [
                    "all sources, pooled" if r.get("source") == "all" else r.get("source"),
                    r.get("split", "heldout"),
                    number(r.get("nats_per_token"), 4),
                    number(r.get("bits_per_byte"), 4),
                    number(r.get("tokens")),
                    number(r.get("bytes")),
                ]
                for r in rows
            ],
            numeric_from=2,
        )
        shown = charts.heldout_by_source(record.evals)
        if shown is not None:
            body += chart(shown, "Held-out bits per byte by source")
    sources = record.compression.get("sources")
    if isinstance(sources, dict) and sources:
        body += "<h3>Beside a compressor</h3>" + compressor(sources)
    elif "compression" in record.missing:
        body += absent(record.missing["compression"])
    return Section("heldout", "Held-out loss", body)


def compressor(sources: Mapping[str, Row]) -> str:
    """Bits per byte of the model and of `xz -9` on the same documents."""
    keys = {"model": "model", "xz_each": "xz -9, each document alone", "xz_all": "xz -9, all at once"}
    return chart(
        charts.grouped(
            list(sources),
            {title: [float(r.get(key) or math.nan) for r in sources.values()] for key, title in keys.items()},
            "bits per byte",
        ),
        "Bits per byte on held-out documents, pooled over bytes",
        "Lower is better",
    ) + table(
        ["source", "documents", "bytes", *keys.values()],
        [
            [name, number(r.get("documents")), number(r.get("bytes")), *(number(r.get(k), 3) for k in keys)]
            for name, r in sources.items()
        ],
    )


def samples(record: Record) -> Section:
    """Text that the model wrote; the newest first, thirty at the most."""
    if not record.samples:
        return Section("samples", "Text samples", absent(record.missing["samples"]))
    cards = []
    for row in reversed(record.samples[-30:]):
        how = ", ".join(
            f"{key.replace('_', '-')} {row.get(key)}" for key in ("temperature", "top_k", "top_p", "seed")
        )
        ended = {"stop": "ended by itself", "length": "cut at the length limit"}.get(
            str(row.get("finish")), ""
        )
        note = " · ".join(
            n for n in (f"step {row.get('step')}", how, f"{row.get('tokens')} tokens", ended) if n
        )
        cards.append(
            f"<div class='card sample'><p class=note>{text(note)}</p>"
            f"<pre><mark>{text(row.get('prompt', ''))}</mark>{text(row.get('text', ''))}</pre></div>"
        )
    older = len(record.samples) - len(cards)
    more = (
        f"<p>{older} older samples are in {text(record.run_dir / 'samples.jsonl')}.</p>" if older > 0 else ""
    )
    return Section("samples", "Text samples", more + grid(*cards))


def data(record: Record) -> Section:
    """The funnel: what became of every document, by source and rule."""
    funnel = record.funnel
    sources = funnel.get("sources")
    if not isinstance(sources, dict) or not sources:
        why = record.missing.get("funnel", "funnel.json names no source.")
        return Section("data", "Data", absent(why))
    body = "<p>What became of every document that was read; a dropped one counts under the first rule that dropped it.</p>"
    body += not_run(funnel.get("not_run"))
    stages = {name: by_stage(row) for name, row in sources.items()}
    parts = list(dict.fromkeys(stage for row in stages.values() for stage in row))
    body += chart(
        charts.stacked(
            list(sources), {p: [row.get(p, 0) for row in stages.values()] for p in parts}, "documents", True
        ),
        "Funnel by source",
        "Share of the documents read",
    )
    body += funnel_table(sources)
    body += dropped_samples(funnel, sources)
    body += histograms(funnel.get("histograms"))
    body += work(funnel)
    return Section("data", "Data", body)


def work(funnel: Row) -> str:
    """Time of each stage, and the files that no reader took."""
    body = ""
    stages = [s for s in funnel.get("stages") or [] if isinstance(s, dict)]
    if stages:
        counts = [", ".join(f"{k} {number(v)}" for k, v in (s.get("counts") or {}).items()) for s in stages]
        rows = [[s.get("name"), duration(s.get("seconds")), c] for s, c in zip(stages, counts, strict=True)]
        body += details("Stages of the data run", table(["stage", "time", "counts"], rows, numeric_from=9))
    unknown = [f for f in funnel.get("unknown_files") or [] if isinstance(f, dict)]
    if unknown:
        rows = [[f.get("source"), f.get("file"), f.get("found")] for f in unknown[:200]]
        title = f"Files that no reader takes: {len(unknown):,}" + (
            ", the first 200" if len(unknown) > 200 else ""
        )
        body += details(title, table(["source", "file", "found"], rows, numeric_from=9))
    return body


def not_run(names: Any) -> str:
    """A warning about stages that did not run, with their reasons."""
    if not names:
        return ""
    entries = names.items() if isinstance(names, dict) else [(n, "") for n in names]
    items = "".join(
        f"<li>{text(_entry(name))}{text(': ' + str(why)) if why else ''}</li>" for name, why in entries
    )
    return f"<div class=warn><b>Not run.</b> These stages judged no document:<ul>{items}</ul></div>"


def _entry(name: Any) -> str:
    if isinstance(name, dict):
        return ": ".join(str(v) for v in name.values())
    return ": ".join(map(str, name)) if isinstance(name, (list, tuple)) else str(name)


GROUPS = {
    "extract": "extraction",
    "exact": "exact duplicates",
    "minhash": "near-duplicates",
    "semantic": "semantic duplicates",
}


def by_stage(row: Row) -> dict[str, int]:
    """Documents of one source by what happened to them: kept, set aside, or the stage that dropped them."""
    counts = {"kept": int(row.get("kept") or 0), "set aside at reading": int(row.get("set_aside") or 0)}
    for rule, n in (row.get("dropped") or {}).items():
        group = GROUPS.get(str(rule).split(".")[0], "policy")
        counts[group] = counts.get(group, 0) + int(n)
    return {name: n for name, n in counts.items() if n or name == "kept"}


def funnel_table(sources: Mapping[str, Row]) -> str:
    """Documents by rule (rows) and source (columns)."""
    rules: dict[str, int] = {}
    for row in sources.values():
        for rule, n in (row.get("dropped") or {}).items():
            rules[str(rule)] = rules.get(str(rule), 0) + int(n)
    total = sum(int(r.get("read") or 0) for r in sources.values())

    def line(title: str, values: Sequence[Any]) -> list[object]:
        known = [int(v or 0) for v in values]
        return [
            title,
            *(number(v) if v else "·" for v in known),
            number(sum(known)),
            share(sum(known), total),
        ]

    rows = [line("read", [r.get("read") for r in sources.values()])]
    rows.append(line("set aside at reading", [r.get("set_aside") for r in sources.values()]))
    for rule in sorted(rules, key=lambda r: -rules[r]):
        rows.append(line(rule, [(r.get("dropped") or {}).get(rule) for r in sources.values()]))
    rows.append(line("kept", [r.get("kept") for r in sources.values()]))
    return table(["documents", *sources, "all", "share of read"], rows)


def dropped_samples(funnel: Row, sources: Mapping[str, Row]) -> str:
    """Samples of what each rule dropped."""
    shown = funnel.get("samples")
    if not isinstance(shown, dict) or not shown:
        return "<h3>What the rules dropped</h3>" + absent(
            "funnel.json holds no samples: no rule dropped a document."
        )
    body = "<h3>What the rules dropped</h3>"

    def dropped(rule: str) -> int:
        return sum(int((r.get("dropped") or {}).get(rule) or 0) for r in sources.values())

    for rule, examples in sorted(shown.items(), key=lambda item: (-dropped(item[0]), str(item[0]))):
        n = dropped(rule)
        quotes = "".join(_quote(e) for e in examples or [])
        body += details(
            f"{rule}: {number(n)} dropped" if n else str(rule), quotes or absent("No sample was kept.")
        )
    return body


def _quote(example: Any) -> str:
    if not isinstance(example, dict):
        return f"<blockquote><p>{text(example)}</p></blockquote>"
    body = example.get("excerpt", example.get("text", ""))
    facts = {k: v for k, v in example.items() if k not in {"excerpt", "text"} and v not in (None, "")}
    if kept := re.fullmatch(r"([0-9a-f]{32}) ([0-9.]+)", str(facts.get("detail"))):
        del facts["detail"]
        facts |= {"like": kept[1], "similarity": kept[2]}
    cite = " · ".join(f"{k}: {v}" for k, v in facts.items())
    return f"<blockquote><cite>{text(cite)}</cite><p>{text(body) or '<em>no text</em>'}</p></blockquote>"


def histograms(bins_by_name: Any) -> str:
    """Length and language histograms of the kept documents."""
    body = "<h3>Kept documents</h3>"
    if not isinstance(bins_by_name, dict) or not bins_by_name:
        return body + absent("funnel.json holds no histograms.")
    cards = []
    for name, by_source in bins_by_name.items():
        if not isinstance(by_source, dict) or not by_source:
            continue
        if not all(isinstance(v, dict) for v in by_source.values()):
            by_source = {"all sources": by_source}
        totals: dict[str, float] = {}
        for bins in by_source.values():
            for b, n in bins.items():
                totals[b] = totals.get(b, 0) + n
        edges = {b: e for b in totals if (e := _bin_edge(b)) is not None}
        order = sorted(edges, key=edges.__getitem__) if len(edges) == len(totals) else []
        note = ""
        if not order:
            order = sorted(totals, key=lambda b: -totals[b])
            if len(order) > MOST_FREQUENT:
                note = f"The {MOST_FREQUENT} most frequent of {len(order)}"
                by_source = {s: with_others(bins, order[MOST_FREQUENT:]) for s, bins in by_source.items()}
                order = [*order[:MOST_FREQUENT], OTHERS]
        if "zxx" in order:
            note = " · ".join(filter(None, (note, "zxx: no language, such as code")))
        sizes = bool(order) and not note and "bytes" in str(name)
        shown = charts.histogram(by_source, "from … on" if sizes else "", order, binary if sizes else str)
        cards.append(chart(shown, str(name).capitalize(), note))
    return body + grid(*cards)


def with_others(bins: Mapping[str, float], rare: Sequence[str]) -> dict[str, float]:
    """The bins with the rare ones added up in one."""
    shown = {b: n for b, n in bins.items() if b not in rare}
    return {**shown, OTHERS: sum(bins.get(b, 0) for b in rare)}


def binary(edge: str) -> str:
    """A number of bytes for people: 64 KiB."""
    value, units = float(edge), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:g} {unit}"


def _bin_edge(name: str) -> float | None:
    """Lower edge of a bin whose name starts with a number."""
    head = name.replace(",", "").replace("≥", "").replace("<", "").split("-")[0].split("–")[0].strip()
    try:
        return float(head)
    except ValueError:
        return None


def mixture(record: Record) -> Section:
    """Sources of the packed dataset, their planned shares, and what training has consumed of them."""
    streams = record.manifest.get("streams")
    if not isinstance(streams, dict) or not streams:
        why = record.missing.get("manifest", "The manifest of the packed dataset names no stream.")
        return Section("mixture", "Mixture", absent(why))
    held: dict[str, dict[str, dict[str, int]]] = {}
    for info in streams.values():
        counts = held.setdefault(str(info["source"]), {}).setdefault(str(info["split"]), {})
        for key in ("sequences", "tokens", "documents", "bytes"):
            counts[key] = counts.get(key, 0) + int(info[key])
    planned, consumed, why = plan(record)
    length, total = int(record.manifest.get("sequence_length") or 0), sum(consumed.values())
    rows = []
    for source, splits in sorted(held.items()):
        train, heldout, used = splits.get("train", {}), splits.get("heldout", {}), consumed.get(source, 0)
        rows.append(
            [
                source,
                number(train.get("documents", 0)),
                short(train.get("tokens", 0)),
                share(planned[source], 1) if source in planned else "—",
                share(used, total) if total else "—",
                short(used * length) if total else "—",
                f"{used / train['sequences']:.2f}" if total and train.get("sequences") else "—",
                number(heldout.get("documents", 0)),
                short(heldout.get("bytes", 0)),
            ]
        )
    body = f"<p>Sequences of {length:,} tokens. Shares are of sequences; held-out documents are never trained on.</p>"
    body += absent(why) if why else ""
    if planned:
        size = sum(s.get("train", {}).get("sequences", 0) for s in held.values())
        there = {
            s: splits.get("train", {}).get("sequences", 0) / max(size, 1)
            for s, splits in sorted(held.items())
        }
        bars = {"planned": planned, "in the data": there}
        if total:
            bars = {
                "planned": planned,
                "consumed": {s: n / total for s, n in consumed.items()},
                "in the data": there,
            }
        parts = {source: [round(100 * bar.get(source, 0), 2) for bar in bars.values()] for source in there}
        body += chart(charts.stacked(list(bars), parts, "% of sequences", True), "Shares of the sources")
    head = [
        "source",
        "documents",
        "tokens",
        "planned",
        "consumed",
        "tokens consumed",
        "epochs",
        "held-out documents",
    ]
    return Section("mixture", "Mixture", body + table([*head, "held-out bytes"], rows))


def plan(record: Record) -> tuple[dict[str, float], dict[str, int], str]:
    """Planned share and consumed sequences by source, and why they are unknown where they are."""
    from configs.edge import ConfigError, build
    from configs.schema.train import TrainRun
    from data_pipeline.packed import PackedError
    from data_pipeline.packed.format import read_manifest
    from pretrain.data.plan import DataPlan, PlanError

    if not record.config or record.packed is None:
        return (
            {},
            {},
            record.missing.get("config", "The run names no packed dataset, so it has no data plan."),
        )
    try:
        config = build(TrainRun, record.config)
        data_plan = DataPlan(read_manifest(record.packed), config.data.phases, config.seed)
        steps = int(record.metrics[-1]["step"]) if record.metrics else 0
        consumed = data_plan.consumed(steps * config.train.global_batch_size)
    except (ConfigError, PackedError, PlanError) as error:
        return {}, {}, f"The data plan cannot be made again: {error}."
    return (
        data_plan.weights(),
        consumed,
        "" if steps else "No step has been finished, so nothing is consumed.",
    )


CAUSES = {
    "productive": "steps that count",
    "checkpoint": "waiting for checkpoints",
    "startup": "start-up",
    "recomputed": "steps computed again",
    "downtime": "down",
    "other": "evaluation and the rest",
}


def reliability(record: Record) -> Section:
    """Goodput by cause of loss, the timeline of the ledger, and its events."""
    if not record.ledger:
        return Section("reliability", "Reliability", absent(record.missing["ledger"]))
    spent = spent_time(record.ledger)
    body = f"<p>{text(record.missing['ledger'])}</p>" if "ledger" in record.missing else ""
    if spent:
        body += chart(
            charts.stacked(
                ["wall time"],
                {title: [spent[key]] for key, title in CAUSES.items() if spent[key]},
                "seconds",
                True,
            ),
            "Where the time went",
            f"{share(spent['goodput'], 1)} of {duration(spent['wall'])} went into steps that count in the final model; "
            f"{number(spent['restarts'])} restart{'' if spent['restarts'] == 1 else 's'}, "
            f"{number(spent['recomputed_steps'])} step{'' if spent['recomputed_steps'] == 1 else 's'} computed again",
        )
    else:
        body += absent(
            "Goodput needs `step_range` events with step numbers and seconds; the ledger has none yet."
        )
    body += chart(
        charts.timeline(record.ledger), "Timeline of the ledger", missing="No event of the ledger has a time."
    )
    start = record.ledger[0].get("time") or 0.0
    events = [r for r in record.ledger if r.get("event") != "step_range"]
    rows = [
        [
            duration(float(r.get("time") or start) - start),
            r.get("event"),
            number(r.get("step")),
            ", ".join(f"{k}={v}" for k, v in r.items() if k not in {"event", "time", "step"}),
        ]
        for r in events[-500:]
    ]
    head = f"{len(events):,} events" + (", the last 500" if len(events) > 500 else "")
    body += details(head, table(["after", "event", "step", "details"], rows, numeric_from=9))
    return Section("reliability", "Reliability", body)


def spent_time(ledger: Sequence[Row]) -> dict[str, float]:
    """Goodput of the ledger's well-formed events; empty where no step is recorded."""
    from launch.goodput import goodput

    ranges = ("first_step", "last_step", "seconds")
    usable = [
        r
        for r in ledger
        if isinstance(r.get("time"), (int, float))
        and "event" in r
        and (
            r["event"] != "step_range"
            or (all(isinstance(r.get(k), (int, float)) for k in ranges) and r["last_step"] >= r["first_step"])
        )
    ]
    if not any(r["event"] == "step_range" for r in usable):
        return {}
    return goodput(usable)


def configuration(record: Record) -> Section:
    """The resolved configurations, as they were used."""
    body = ""
    for title, config, part in (
        ("Training run", record.config, "config"),
        ("Data run", record.data_config, "data_config"),
    ):
        if config:
            dumped = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100)
            body += details(title, f"<pre>{text(dumped)}</pre>")
        else:
            body += absent(record.missing.get(part, f"{title}: the configuration is empty."))
    return Section("configuration", "Configuration", body)
