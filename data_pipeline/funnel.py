"""The funnel: what became of every document, by source and rule, with samples of what each rule dropped.

`docs/run-directory.md` documents every field of `funnel.json`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline import policy
from data_pipeline.collect import REMOVED
from data_pipeline.document import read_shard, read_table, shard_path
from data_pipeline.packed import Manifest, PackedDataset
from data_pipeline.packed.files import write_atomically
from data_pipeline.policy import ASKED, COPY_RULE, NOT_RUN
from data_pipeline.read.units import Plan

if TYPE_CHECKING:
    from data_pipeline.stage import State

FORMAT, FORMAT_VERSION = "arriero-funnel", 2
"""Version 2: names of fields carry their units, and numbers are numbers."""
SAMPLES = 5
EXCERPT = 300
LENGTH_BINS = tuple(4**i * 64 for i in range(12))
"""Lower edges of the length histogram, bytes."""
SHOWN_DOMAINS = 200
KEPT_DOMAINS = 100_000
"""Domains counted at a time: beyond twice as many the rarest are forgotten, so the table's memory is bounded."""
SHOWN_CLUSTERS = 20
CLUSTERED = {"exact": "exact", "minhash": "near", "semantic": "semantic"}
"""Decision steps that keep one document of a cluster, and what their clusters are called."""


@dataclass(frozen=True)
class Funnel:
    """The contents of funnel.json."""

    format: str
    format_version: int
    sources: dict[str, dict[str, Any]]
    """Source → documents read, set aside, dropped by rule, kept, flagged by rule (of the kept ones), and what was packed."""
    samples: dict[str, list[dict[str, Any]]]
    """Rule → up to five documents that it dropped: id, url, excerpt, and the value that failed or the document kept."""
    not_run: list[dict[str, Any]]
    """Stages and rules that judged no document, with the reason."""
    ran_in_part: list[dict[str, Any]]
    """Stages and rules that judged some documents only, with the reason."""
    kept_lengths: dict[str, list[dict[str, int]]]
    """Histogram of the lengths of the kept documents, by source."""
    kept_languages: dict[str, dict[str, int]]
    """Kept documents by language, by source."""
    languages: list[dict[str, Any]]
    """Language, documents with text, kept documents, bytes of those; the most frequent first."""
    domains: list[dict[str, Any]]
    """Domain, documents, kept documents, the rule that dropped most of them; the most frequent first."""
    clusters: dict[str, dict[str, Any]]
    """Kind (exact, near, semantic) → `sizes` (clusters by their number of documents) and the `largest` ones."""
    stages: list[dict[str, Any]]
    """Name, seconds and counts of each stage."""
    unknown_files: list[dict[str, str]]
    """Files that no reader takes."""


class _Tables:
    """Counts over all shards, added one shard at a time.

    Args:
        gone: ids of documents that were taken out of the packed dataset, or left out of it for that reason.
    """

    def __init__(self, gone: pa.Array) -> None:
        self.gone = gone
        self.dropped: dict[str, Counter[str]] = defaultdict(Counter)
        self.lowest: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
        self.flagged: dict[str, Counter[str]] = defaultdict(Counter)
        self.lengths: dict[str, Counter[int]] = defaultdict(Counter)
        self.spoken: dict[str, Counter[str]] = defaultdict(Counter)
        self.languages: Counter[tuple[str, str]] = Counter()
        self.domains: dict[str, Counter[str]] = defaultdict(Counter)
        self.sizes: dict[str, Counter[int]] = defaultdict(Counter)
        self.largest: dict[str, list[tuple[int, str, int, int]]] = defaultdict(list)

    def add(self, run_dir: Path, source: str, shard: int, row: dict[str, Any]) -> None:
        """Count a shard; `row` is the source's line of the funnel."""
        decisions = read_table(shard_path(run_dir, "decisions/final", shard), ["id", "keep", "rule"])
        keep = decisions["keep"].to_numpy(zero_copy_only=False).astype(bool)
        self._samples(decisions, keep, source, shard)
        sizes = read_table(shard_path(run_dir, "signals/stats", shard), ["bytes"])["bytes"].to_numpy()
        row["kept_documents"] += int(keep.sum())
        row["removed_documents"] += int(keep[pc.is_in(decisions["id"], self.gone).to_numpy()].sum())
        row["kept_bytes"] += int(sizes[keep].sum())
        flags = read_table(shard_path(run_dir, "flags", shard), ["flags"])["flags"]
        self.flagged[source].update(dict(_counts(pc.list_flatten(flags.filter(pa.array(keep))))))
        edges = np.array((0, *LENGTH_BINS))
        bins = edges[np.searchsorted(edges, sizes[keep], side="right") - 1]
        self.lengths[source].update(
            dict(zip(*map(np.ndarray.tolist, np.unique(bins, return_counts=True)), strict=True))
        )
        found = policy.languages(run_dir, shard, read_shard(run_dir, shard, ["language"]))
        self._languages(found.fill_null("unknown"), keep, sizes, source)
        self._domains(run_dir, shard, keep, decisions["rule"])
        for step, kind in CLUSTERED.items():
            self._clusters(run_dir, shard, step, kind)

    def _samples(self, decisions: pa.Table, keep: np.ndarray, source: str, shard: int) -> None:
        rows = np.flatnonzero(~keep)
        gone = decisions.select(["id", "rule"]).take(pa.array(rows)).append_column("row", pa.array(rows))
        for rule, n in _counts(gone["rule"]):
            self.dropped[source][rule] += n
            few = gone.filter(pc.equal(gone["rule"], rule))
            few = few.take(pc.select_k_unstable(few, k=SAMPLES, sort_keys=[("id", "ascending")]))
            found = [
                (i, shard, r) for i, r in zip(few["id"].to_pylist(), few["row"].to_pylist(), strict=True)
            ]
            self.lowest[rule] = sorted(self.lowest[rule] + found)[:SAMPLES]

    def _languages(self, found: pa.ChunkedArray, keep: np.ndarray, sizes: np.ndarray, source: str) -> None:
        table = pa.table({"language": found, "keep": keep, "bytes": sizes}).filter(pa.array(sizes > 0))
        grouped = table.group_by(["language", "keep"]).aggregate([("bytes", "sum"), ("bytes", "count")])
        for g in grouped.to_pylist():
            name, n = g["language"], int(g["bytes_count"])
            self.languages[name, "documents"] += n
            if g["keep"]:
                self.spoken[source][name] += n
                self.languages[name, "kept"] += n
                self.languages[name, "bytes"] += int(g["bytes_sum"])

    def _domains(self, run_dir: Path, shard: int, keep: np.ndarray, rules: pa.ChunkedArray) -> None:
        path = shard_path(run_dir, "signals/url", shard)
        if not path.is_file():
            return
        what = pc.if_else(pa.array(keep), "", rules)
        table = pa.table({"domain": read_table(path, ["domain"])["domain"], "what": what})
        counted = (
            table.filter(pc.is_valid(table["domain"]))
            .group_by(["domain", "what"])
            .aggregate([([], "count_all")])
        )
        for g in counted.to_pylist():
            self.domains[g["domain"]][g["what"]] += g["count_all"]
        if len(self.domains) > 2 * KEPT_DOMAINS:
            rarest = sorted(self.domains, key=lambda d: (-self.domains[d].total(), d))[KEPT_DOMAINS:]
            for domain in rarest:
                del self.domains[domain]

    def _clusters(self, run_dir: Path, shard: int, step: str, kind: str) -> None:
        path = shard_path(run_dir, f"decisions/{step}", shard)
        if not path.is_file():
            return
        table = read_table(path, ["id", "keep", "detail"])
        size = pc.extract_regex(table["detail"], r"^(?P<n>[0-9]+) documents$")
        rows = pc.indices_nonzero(pc.and_(table["keep"], pc.fill_null(pc.is_valid(size), False)))
        if not len(rows):
            return
        numbers = pc.cast(pc.struct_field(size.take(rows), "n"), pa.int64()).to_numpy()
        self.sizes[kind].update(
            dict(zip(*map(np.ndarray.tolist, np.unique(numbers, return_counts=True)), strict=True))
        )
        top = np.argsort(-numbers, kind="stable")[:SHOWN_CLUSTERS]
        ids = table["id"].take(rows).take(pa.array(top)).to_pylist()
        places = rows.take(pa.array(top)).to_pylist()
        found = [(-int(n), i, shard, r) for n, i, r in zip(numbers[top], ids, places, strict=True)]
        self.largest[kind] = sorted(self.largest[kind] + found)[:SHOWN_CLUSTERS]


def account(
    run_dir: Path, plan: Plan, states: dict[str, State], not_run: list[str], reduced: list[str]
) -> Funnel:
    """Count what became of every document and write `funnel.json`.

    Args:
        not_run: what has no model or list and judges no document, as `NAME: REASON`.
        reduced: what judges some documents only, in the same form.

    Raises:
        AssertionError: the numbers do not add up; every document that was read must be set aside, dropped by one rule,
            or kept, and every kept one must be packed, or have been taken out by `arriero remove`.
    """
    sources: dict[str, dict[str, Any]] = {}
    is_packed = (run_dir / "packed" / "manifest.json").is_file()
    manifest = PackedDataset(run_dir / "packed").manifest if is_packed else None
    removals = () if manifest is None else manifest.removals
    tables = _Tables(pa.array([i for removal in removals for i in removal.documents], pa.string()))
    for unit in plan.units:
        name = unit.source
        row = sources.setdefault(
            name,
            {
                "read_documents": 0,
                "set_aside_documents": 0,
                "skipped_records": {},
                "dropped_documents": {},
                "kept_documents": 0,
                "kept_bytes": 0,
                "removed_documents": 0,
            },
        )
        counts = orjson.loads((run_dir / "documents" / f"{unit.unit:05d}.json").read_bytes())
        row["read_documents"] += counts["read"]
        row["set_aside_documents"] += counts["set_aside"]
        tables.dropped[name][COPY_RULE] += counts["copies"]
        for key, value in counts.items():
            if key.startswith("skipped: "):
                row["skipped_records"][key[9:]] = row["skipped_records"].get(key[9:], 0) + value
            elif key.startswith(REMOVED):
                kinds = row.setdefault("removed_elements", {})
                kind = key.removeprefix(REMOVED)
                kinds[kind] = kinds.get(kind, 0) + value
        tables.add(run_dir, name, unit.unit, row)
    for name, row in sources.items():
        row["flagged_documents"] = {rule: n for rule, n in tables.flagged[name].most_common() if n}
        row["dropped_documents"] = {rule: n for rule, n in tables.dropped[name].most_common() if n}
    if manifest is not None:
        _add_packed(manifest, sources)
    _check(sources)
    silent, partial = _without_value(states["decide"].counts)
    shown = [(shard, row) for found in tables.lowest.values() for _, shard, row in found]
    shown += [(shard, row) for found in tables.largest.values() for *_, shard, row in found]
    excerpts = _excerpts(run_dir, shown)
    funnel = Funnel(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        sources=sources,
        samples={
            rule: [
                {
                    "id": identifier,
                    "url": (told := excerpts[shard, row])["url"],
                    **_why(told["detail"]),
                    "excerpt": told["excerpt"],
                }
                for identifier, shard, row in found
            ]
            for rule, found in sorted(tables.lowest.items())
        },
        not_run=[*map(_reason, not_run), *silent],
        ran_in_part=[*map(_reason, reduced), *partial],
        kept_lengths={
            n: [{"from_bytes": int(k), "documents": v} for k, v in sorted(c.items())]
            for n, c in tables.lengths.items()
        },
        kept_languages={n: _ordered(c) for n, c in tables.spoken.items()},
        languages=_languages(tables.languages),
        domains=_domains(tables.domains),
        clusters={
            kind: {
                "sizes": [{"documents": int(k), "clusters": v} for k, v in sorted(sizes.items())],
                "largest": [
                    {
                        "documents": -size,
                        "id": identifier,
                        "url": excerpts[shard, row]["url"],
                        "excerpt": excerpts[shard, row]["excerpt"],
                    }
                    for size, identifier, shard, row in tables.largest[kind]
                ],
            }
            for kind, sizes in tables.sizes.items()
        },
        stages=[{"name": n, "seconds": round(s.seconds, 2), "counts": _shown(s)} for n, s in states.items()],
        unknown_files=[{"source": s, "file": f, "found": w} for s, f, w in plan.unknown],
    )
    write_atomically(run_dir / "funnel.json", orjson.dumps(funnel, option=orjson.OPT_INDENT_2))
    return funnel


def _shown(state: State) -> dict[str, int]:
    return {name: n for name, n in state.counts.items() if not name.startswith((ASKED, NOT_RUN))}


def _reason(sentence: str) -> dict[str, Any]:
    name, _, reason = sentence.partition(": ")
    return {"name": name, "reason": reason}


def _without_value(counts: dict[str, int]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rules whose signal had no value: for every document that they were asked about, and for some only."""
    silent: list[dict[str, Any]] = []
    partial: list[dict[str, Any]] = []
    for key, missing in sorted(counts.items()):
        if key.startswith(NOT_RUN):
            name = key.removeprefix(NOT_RUN)
            asked = counts[f"{ASKED}{name}"]
            row = {
                "name": name,
                "reason": "its signal has no value",
                "documents": missing,
                "of_documents": asked,
            }
            (silent if missing == asked else partial).append(row)
    return silent, partial


def _counts(values: pa.ChunkedArray) -> list[tuple[str, int]]:
    """(value, how often), in the order of the values."""
    return sorted((c["values"], c["counts"]) for c in pc.value_counts(values).to_pylist())


def _ordered(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda kv: (-kv[1], kv[0])))


def _languages(counts: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    names = sorted({name for name, _ in counts}, key=lambda n: (-counts[n, "documents"], n))
    return [
        {
            "language": n,
            "documents": counts[n, "documents"],
            "kept_documents": counts[n, "kept"],
            "kept_bytes": counts[n, "bytes"],
        }
        for n in names
    ]


def _domains(counts: dict[str, Counter[str]]) -> list[dict[str, Any]]:
    names = sorted(counts, key=lambda d: (-counts[d].total(), d))[:SHOWN_DOMAINS]
    rows = []
    for name in names:
        rules = {rule: n for rule, n in counts[name].items() if rule}
        most = min(rules, key=lambda r: (-rules[r], r)) if rules else None
        rows.append(
            {
                "domain": name,
                "documents": counts[name].total(),
                "kept_documents": counts[name][""],
                "most_dropped_by": most,
            }
        )
    return rows


def _excerpts(run_dir: Path, places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], dict[str, Any]]:
    """`url`, `excerpt` and `detail` of documents by (shard, row); only their row groups are read, each once."""
    by_shard: dict[int, set[int]] = {}
    for shard, row in places:
        by_shard.setdefault(shard, set()).add(row)
    found = {}
    for shard, rows in sorted(by_shard.items()):
        detail = read_table(shard_path(run_dir, "decisions/final", shard), ["detail"])["detail"]
        with pq.ParquetFile(shard_path(run_dir, "documents", shard)) as file:
            first = 0
            for group in range(file.num_row_groups):
                end = first + file.metadata.row_group(group).num_rows
                inside = sorted(row for row in rows if first <= row < end)
                if inside:
                    table = file.read_row_group(group, ["url", "text"]).take([row - first for row in inside])
                    for row, document in zip(inside, table.to_pylist(), strict=True):
                        found[shard, row] = {
                            "url": document["url"],
                            "excerpt": (document["text"] or "")[:EXCERPT],
                            "detail": detail[row].as_py(),
                        }
                first = end
    return found


def _why(detail: str | None) -> dict[str, Any]:
    """A decision's `detail` in parts: the document that was kept and the similarity to it, or the value that failed."""
    if detail is None:
        return {}
    if duplicate := re.fullmatch(r"([0-9a-f]{32}) ([0-9.]+)", detail):
        return {"kept_id": duplicate[1], "similarity": float(duplicate[2])}
    try:
        return {"value": float(detail)}
    except ValueError:
        return {"value": detail}


def _add_packed(manifest: Manifest, sources: dict[str, dict[str, Any]]) -> None:
    for name, row in sources.items():
        row["packed"] = {}
        for split in ("train", "heldout"):
            streams = [s for s in manifest.of_split(split).values() if s.source == name]
            counts = {key: sum(getattr(s, key) for s in streams) for key in ("sequences", "tokens", "bytes")}
            row["packed"][split] = {"documents": sum(s.documents - s.removed for s in streams), **counts}


def _check(sources: dict[str, dict[str, Any]]) -> None:
    for name, row in sources.items():
        accounted = (
            row["set_aside_documents"] + sum(row["dropped_documents"].values()) + row["kept_documents"]
        )
        read, kept = row["read_documents"], row["kept_documents"]
        assert read == accounted, f"source {name}: {read} read, but {accounted} accounted for"
        if "packed" in row:
            packed = sum(split["documents"] for split in row["packed"].values())
            removed = row["removed_documents"]
            assert packed + removed == kept, (
                f"source {name}: {kept} kept, but {packed} packed and {removed} removed"
            )


def table(funnel: Funnel) -> str:
    """The funnel as a table for the console."""
    names = list(funnel.sources)
    rules = Counter[str]()
    for row in funnel.sources.values():
        rules.update(row["dropped_documents"])
    lines = [("read", [r["read_documents"] for r in funnel.sources.values()])]
    lines.append(("  set aside", [r["set_aside_documents"] for r in funnel.sources.values()]))
    lines += [
        (f"  {rule}", [r["dropped_documents"].get(rule, 0) for r in funnel.sources.values()])
        for rule, _ in rules.most_common()
    ]
    lines.append(("kept", [r["kept_documents"] for r in funnel.sources.values()]))
    if any(r["removed_documents"] for r in funnel.sources.values()):
        lines.append(("  removed", [r["removed_documents"] for r in funnel.sources.values()]))
    flags = Counter[str]()
    for row in funnel.sources.values():
        flags.update(row["flagged_documents"])
    lines += [
        (f"  flagged {rule}", [r["flagged_documents"].get(rule, 0) for r in funnel.sources.values()])
        for rule, _ in flags.most_common()
    ]
    for split in ("train", "heldout"):
        if any("packed" in r for r in funnel.sources.values()):
            lines.append(
                (f"  tokens {split}", [r["packed"][split]["tokens"] for r in funnel.sources.values()])
            )
    width = max(len(title) for title, _ in lines)
    columns = [max(12, len(n) + 2) for n in (*names, "all")]
    text = [" " * width + "".join(f"{n:>{w}}" for n, w in zip((*names, "all"), columns, strict=True))]
    for title, values in lines:
        cells = [f"{v:,}" if v else "·" for v in (*values, sum(values))]
        text.append(f"{title:<{width}}" + "".join(f"{c:>{w}}" for c, w in zip(cells, columns, strict=True)))
    return "\n".join(text)
