"""The sections of the report, top to bottom. Each takes the record and says what is missing where a part is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import yaml

from launch.report import charts
from launch.report.charts import Row
from launch.report.data import data, thresholds
from launch.report.page import Section, absent, chart, details, grid, table, text
from launch.report.read import Record
from launch.report.training import environment, training
from launch.report.words import duration, number, share, short


def all_sections(record: Record) -> list[Section]:
    """Every section, in reading order; those of training only where there is a run."""
    about_data = [data(record), thresholds(record), mixture(record)]
    if record.run_dir is None:
        return [*about_data, environment(record), configuration(record)]
    return [
        training(record),
        heldout(record),
        samples(record),
        *about_data,
        reliability(record),
        environment(record),
        configuration(record),
    ]


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
            others = len(charts.comparable(record.evals)) < len(record.evals)
            note = "Evaluations over the same tokens each time; the table may be of others" if others else ""
            body += chart(shown, "Held-out bits per byte by source", note)
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
    cards = list(dict.fromkeys(cards))  # the same command again makes the same samples
    more = (
        f"<p>{older} older samples are in {text(f'{record.run_dir}/samples.jsonl')}.</p>" if older > 0 else ""
    )
    return Section("samples", "Text samples", more + grid(*cards))


def mixture(record: Record) -> Section:
    """Sources of the packed dataset, their planned shares, and what training has consumed of them."""
    streams = record.manifest.get("streams")
    if not isinstance(streams, dict) or not streams:
        why = record.missing.get("manifest", "The manifest of the packed dataset names no stream.")
        return Section("mixture", "Mixture", absent(why) + kept_mixture(record))
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


def kept_mixture(record: Record) -> str:
    """Shares of the sources in what a data run kept, where nothing was packed; empty where the funnel is missing too."""
    sources = {n: r for n, r in (record.funnel.get("sources") or {}).items() if isinstance(r, dict)}
    if not sources:
        return ""
    sizes = {name: float(row.get("kept_bytes") or 0) for name, row in sources.items()}
    documents = {name: float(row.get("kept_documents") or 0) for name, row in sources.items()}
    bars = {"kept documents": documents, "kept text": sizes}
    parts = {
        name: [round(100 * bar[name] / max(sum(bar.values()), 1), 2) for bar in bars.values()]
        for name in sources
    }
    rows = [
        [
            name,
            number(documents[name]),
            share(documents[name], sum(documents.values())),
            number(sizes[name]),
            share(sizes[name], sum(sizes.values())),
        ]
        for name in sources
    ]
    head = ["source", "kept documents", "share", "bytes of text", "share of the text"]
    return chart(charts.stacked(list(bars), parts, "%", True), "Shares of the sources") + table(head, rows)


def plan(record: Record) -> tuple[dict[str, float], dict[str, int], str]:
    """Planned share and consumed sequences by source, and why they are unknown where they are."""
    from configs.edge import ConfigError, build
    from configs.schema.train import TrainRun
    from data_pipeline.packed import PackedError
    from data_pipeline.packed.format import read_manifest
    from pretrain.data.plan import DataPlan, PlanError
    from pretrain.data.ramp import Ramp

    if record.run_dir is None:
        weights = (record.manifest.get("mixture") or {}).get("weights") or {}
        return {name: float(w) for name, w in weights.items() if charts.is_step(w)}, {}, ""
    if not record.config or record.packed is None:
        return (
            {},
            {},
            record.missing.get("config", "The run names no packed dataset, so it has no data plan."),
        )
    try:
        config = build(TrainRun, record.config)
        manifest = read_manifest(record.packed)
        data_plan = DataPlan(manifest, config.data.phases, config.seed)
        ramp = Ramp(config.data.phases, config.train.global_batch_size, manifest.sequence_length)
        steps = int(record.metrics[-1]["step"]) if record.metrics else 0
        consumed = data_plan.consumed(ramp.used(steps))
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
    start = min((float(r["time"]) for r in record.ledger if charts.is_step(r.get("time"))), default=0.0)
    events = [r for r in record.ledger if r.get("event") != "step_range"]
    rows = [
        [
            duration(float(r["time"]) - start) if charts.is_step(r.get("time")) else "—",
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
        if charts.is_step(r.get("time"))
        and "event" in r
        and (
            r["event"] != "step_range"
            or (all(charts.is_step(r.get(k)) for k in ranges) and r["last_step"] >= r["first_step"])
        )
    ]
    if not any(r["event"] == "step_range" for r in usable):
        return {}
    return goodput(usable)


def configuration(record: Record) -> Section:
    """The resolved configurations, as they were used."""
    body = ""
    parts = [("Training run", record.config, "config")] if record.run_dir is not None else []
    for title, config, part in [*parts, ("Data run", record.data_config, "data_config")]:
        if config:
            dumped = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100)
            body += details(title, f"<pre>{text(dumped)}</pre>")
        else:
            body += absent(record.missing.get(part, f"{title}: the configuration is empty."))
    return Section("configuration", "Configuration", body)
