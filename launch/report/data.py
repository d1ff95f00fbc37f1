"""The sections about the data: funnel, what rules dropped, thresholds, duplicates, domains, languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.flow.names import does
from launch.report import charts
from launch.report.charts import Row
from launch.report.packing import packing
from launch.report.page import Section, absent, chart, details, grid, table, text
from launch.report.read import Record
from launch.report.words import duration, number, share

MOST_FREQUENT = 10
"""Bars of a histogram that has names and no order, such as that of languages; the others are added up."""
OTHERS = "others"
CURVES = 12
"""Threshold curves drawn for one source: those of the rules that alone drop most."""


def data(record: Record) -> Section:
    """The funnel: what became of every document, by source and rule."""
    funnel = record.funnel
    sources = funnel.get("sources")
    if not isinstance(sources, dict) or not sources:
        why = record.missing.get("funnel", "funnel.json names no source.")
        return Section("data", "Data", absent(why))
    body = "<p>What became of every document that was read; a dropped one counts under the first rule that dropped it.</p>"
    body += not_run(funnel)
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
    body += histograms(funnel.get("kept_lengths"), funnel.get("kept_languages"))
    body += languages(funnel.get("languages"))
    body += domains(funnel.get("domains"))
    body += clusters(funnel.get("clusters"))
    body += packing(record)
    body += work(funnel)
    return Section("data", "Data", body)


def work(funnel: Row) -> str:
    """Time of each stage, and the files that no reader took."""
    body = ""
    stages = [s for s in funnel.get("stages") or [] if isinstance(s, dict)]
    if stages:
        counts = [", ".join(f"{k} {number(v)}" for k, v in (s.get("counts") or {}).items()) for s in stages]
        rows = [
            [s.get("name"), does(str(s.get("name"))), duration(s.get("seconds")), c]
            for s, c in zip(stages, counts, strict=True)
        ]
        head = ["stage", "what it does", "time", "counts"]
        body += details("Stages of the data run", table(head, rows, numeric_from=9))
    unknown = [f for f in funnel.get("unknown_files") or [] if isinstance(f, dict)]
    if unknown:
        rows = [[f.get("source"), f.get("file"), f.get("found")] for f in unknown[:200]]
        title = f"Files that no reader takes: {len(unknown):,}" + (
            ", the first 200" if len(unknown) > 200 else ""
        )
        body += details(title, table(["source", "file", "found"], rows, numeric_from=9))
    return body


def not_run(funnel: Row) -> str:
    """What judged no document, and what judged only some, with the reasons."""
    body = ""
    for key, title, note in (
        ("not_run", "Not run.", "These judged no document:"),
        ("ran_in_part", "Run in part.", "These judged only some documents:"),
    ):
        rows = [r for r in funnel.get(key) or [] if isinstance(r, dict)]
        items = "".join(f"<li><b>{text(r.get('name'))}</b>: {text(_because(r))}</li>" for r in rows)
        kind = "warn" if key == "not_run" else "hint"
        body += f"<div class={kind}><b>{title}</b> {note}<ul>{items}</ul></div>" if rows else ""
    return body


def _because(row: Row) -> str:
    reason, n, of = str(row.get("reason")), row.get("documents"), row.get("of_documents")
    if n is None:
        return reason
    return f"{reason} for " + (
        f"all {number(n)} documents" if n == of else f"{number(n)} of {number(of)} documents"
    )


GROUPS = {
    "extract": "extraction",
    "url": "captures of one address",
    "exact": "exact duplicates",
    "minhash": "near-duplicates",
    "lines": "too little left without repeated lines",
    "semantic": "semantic duplicates",
}


def by_stage(row: Row) -> dict[str, int]:
    """Documents of one source by what happened to them: kept, set aside, or the stage that dropped them."""
    counts = {
        "kept": int(row.get("kept_documents") or 0),
        "set aside at reading": int(row.get("set_aside_documents") or 0),
    }
    for rule, n in (row.get("dropped_documents") or {}).items():
        group = GROUPS.get(str(rule).split(".")[0], "policy")
        counts[group] = counts.get(group, 0) + int(n)
    return {name: n for name, n in counts.items() if n or name == "kept"}


def funnel_table(sources: Mapping[str, Row]) -> str:
    """Documents by rule (rows) and source (columns)."""
    rules: dict[str, int] = {}
    for row in sources.values():
        for rule, n in (row.get("dropped_documents") or {}).items():
            rules[str(rule)] = rules.get(str(rule), 0) + int(n)
    total = sum(int(r.get("read_documents") or 0) for r in sources.values())

    def line(title: str, values: Sequence[Any]) -> list[object]:
        known = [int(v or 0) for v in values]
        return [
            title,
            *(number(v) if v else "·" for v in known),
            number(sum(known)),
            share(sum(known), total),
        ]

    rows = [line("read", [r.get("read_documents") for r in sources.values()])]
    rows.append(line("set aside at reading", [r.get("set_aside_documents") for r in sources.values()]))
    for rule in sorted(rules, key=lambda r: -rules[r]):
        rows.append(line(rule, [(r.get("dropped_documents") or {}).get(rule) for r in sources.values()]))
    rows.append(line("kept", [r.get("kept_documents") for r in sources.values()]))
    flags = dict.fromkeys(str(rule) for r in sources.values() for rule in r.get("flagged_documents") or {})
    for rule in flags:
        rows.append(
            line(
                f"of these flagged by {rule}",
                [(r.get("flagged_documents") or {}).get(rule) for r in sources.values()],
            )
        )
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
        return sum(int((r.get("dropped_documents") or {}).get(rule) or 0) for r in sources.values())

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
    cite = " · ".join(f"{k}: {v}" for k, v in facts.items())
    return f"<blockquote><cite>{text(cite)}</cite><p>{text(body) or '<em>no text</em>'}</p></blockquote>"


def histograms(lengths: Any, languages: Any) -> str:
    """Length and language histograms of the kept documents, by source."""
    cards = []
    if isinstance(lengths, dict) and lengths:
        by_source = {
            source: {str(b["from_bytes"]): b["documents"] for b in bins} for source, bins in lengths.items()
        }
        order = sorted({b for bins in by_source.values() for b in bins}, key=int)
        cards.append(chart(charts.histogram(by_source, "from … on", order, binary), "Length"))
    if isinstance(languages, dict) and languages:
        totals: dict[str, float] = {}
        for bins in languages.values():
            for name, n in bins.items():
                totals[name] = totals.get(name, 0) + n
        order, notes = sorted(totals, key=lambda b: -totals[b]), []
        if len(order) > MOST_FREQUENT:
            notes.append(f"The {MOST_FREQUENT} most frequent of {len(order)}")
            languages = {s: with_others(bins, order[MOST_FREQUENT:]) for s, bins in languages.items()}
            order = [*order[:MOST_FREQUENT], OTHERS]
        if "zxx" in order:
            notes.append("zxx: no language, such as code")
        cards.append(chart(charts.histogram(languages, "", order), "Language", " · ".join(notes)))
    body = "<h3>Kept documents</h3>"
    return body + (grid(*cards) if cards else absent("funnel.json holds no histograms."))


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


def languages(rows: Any) -> str:
    """Documents, kept documents and their text by language."""
    known = [r for r in rows or [] if isinstance(r, dict)]
    if not known:
        return ""
    cells = [
        [
            r.get("language"),
            number(r.get("documents")),
            number(r.get("kept_documents")),
            share(float(r.get("kept_documents") or 0), float(r.get("documents") or 0)),
            number(r.get("kept_bytes")),
        ]
        for r in known
    ]
    head = ["language", "documents with text", "kept", "share kept", "bytes kept"]
    return "<h3>Languages</h3>" + _folded(f"{len(known)} languages", head, cells, numeric_from=1)


def domains(rows: Any) -> str:
    """The domains with most documents, and the rule that drops most of each."""
    known = [r for r in rows or [] if isinstance(r, dict)]
    if not known:
        return ""
    cells = [
        [
            r.get("domain"),
            number(r.get("documents")),
            number(r.get("kept_documents")),
            share(float(r.get("kept_documents") or 0), float(r.get("documents") or 0)),
            r.get("most_dropped_by") or "—",
        ]
        for r in known
    ]
    head = ["domain", "documents", "kept", "share kept", "dropped most by"]
    return "<h3>Domains</h3>" + _folded(f"{len(known)} domains with most documents", head, cells, 1)


def _folded(title: str, head: Sequence[str], rows: Sequence[Sequence[object]], numeric_from: int) -> str:
    """The first ten rows, and all of them on a click."""
    body = table(head, rows[:10], numeric_from)
    return body + (details(f"All {title}", table(head, rows, numeric_from)) if len(rows) > 10 else "")


CLUSTERS = {"exact": "Exact duplicates", "near": "Near-duplicates", "semantic": "Semantic duplicates"}


def clusters(kinds: Any) -> str:
    """Sizes of duplicate clusters, and the largest ones with the document that stays."""
    if not isinstance(kinds, dict) or not any(k.get("sizes") for k in kinds.values()):
        return ""
    sizes: dict[str, dict[str, float]] = {}
    lists = ""
    edges: set[int] = set()
    for kind, found in kinds.items():
        bins: dict[str, float] = {}
        for row in found.get("sizes") or []:
            edge = 1 << (int(row["documents"]).bit_length() - 1)
            bins[str(edge)] = bins.get(str(edge), 0) + row["clusters"]
            edges.add(edge)
        title = CLUSTERS.get(str(kind), str(kind))
        sizes[title] = bins
        quotes = "".join(_quote(c) for c in found.get("largest") or [])
        lists += details(f"{title}: the largest clusters, and the document of each that stays", quotes)
    order = [str(e) for e in sorted(edges)]
    shown = charts.histogram(sizes, "documents in the cluster, from … on", order, str, unit="clusters")
    return "<h3>Duplicate clusters</h3>" + grid(chart(shown, "Sizes of clusters")) + lists


def thresholds(record: Record) -> Section:
    """What each policy would keep at other thresholds, from the signals of the data run."""
    title = "Thresholds"
    if record.data_dir is None or not record.data_config:
        return Section(
            "thresholds", title, absent(record.missing.get("data_config", "There is no data run."))
        )
    try:
        found = _curves(record)
    except (ImportError, OSError, ValueError) as error:
        return Section("thresholds", title, absent(f"The signals cannot be read again: {error}."))
    body = (
        "<p>What the whole policy would keep if one threshold were another, before deduplication. "
        "<code>arriero whatif</code> shows documents that change sides.</p>"
    )
    for source, (totals, rules) in found.items():
        kept = share(totals.kept, totals.documents)
        body += f"<h3>{text(source)}: {kept} of {number(totals.documents)} documents with text</h3>"
        drawn = sorted((c for c in rules if c.bound and c.only), key=lambda c: (-c.only, c.name))[:CURVES]
        body += grid(
            *(
                chart(
                    charts.threshold(c.thresholds, c.kept, totals.documents, c.current or 0.0),
                    c.name,
                    f"{c.signal}, {c.bound}",
                )
                for c in drawn
            )
        )
        rows = [
            [
                c.name,
                f"{c.bound}\u00a0{c.current:g}" if c.bound else "list",
                number(c.failed),
                number(c.only),
                share(totals.kept + c.only, totals.documents),
            ]
            for c in sorted(rules, key=lambda c: (-c.only, -c.failed, c.name))
        ]
        head = ["rule", "keeps", "fails", "only it drops", "kept without it"]
        body += _folded(f"{len(rows)} rules", head, rows, 2) if rows else absent("The policy has no rules.")
    return Section("thresholds", title, body)


def _curves(record: Record) -> dict[str, tuple[Any, list[Any]]]:
    """Source → totals and curves of its policy."""
    from configs.edge import build
    from configs.schema.pipeline import DataRun
    from data_pipeline import recipes, threshold_curves
    from data_pipeline.read import units

    assert record.data_dir is not None
    config = build(DataRun, record.data_config)
    planned = units.load(record.data_dir / "units.json")
    return {
        source.name: threshold_curves.curves(
            record.data_dir, [u.unit for u in planned if u.source == source.name], source.recipe.filter
        )
        for source in recipes.sources(config)
    }
