"""The funnel: what became of every document, by source and rule, with samples of what each rule dropped."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from data_pipeline import policy
from data_pipeline.document import read_shard, read_table, shard_path
from data_pipeline.packed import PackedDataset
from data_pipeline.policy import COPY_RULE
from data_pipeline.read.units import Plan
from data_pipeline.stage import State, write_atomically

SAMPLES = 5
EXCERPT = 300
LENGTH_BINS = tuple(4**i * 64 for i in range(12))
"""Lower edges of the length histogram, bytes."""


@dataclass(frozen=True)
class Funnel:
    """The contents of funnel.json."""

    sources: dict[str, dict[str, Any]]
    """Source → read, set_aside, dropped by rule, kept, and what was packed."""
    samples: dict[str, list[dict[str, Any]]]
    """Rule → up to five documents that it dropped: id, url, detail, excerpt."""
    not_run: list[str]
    """Stages and rules that judged no document, with the reason."""
    histograms: dict[str, dict[str, dict[str, int]]]
    """Lengths (bytes) and languages of the kept documents, by source."""
    stages: list[dict[str, Any]]
    """Name, seconds and counts of each stage."""
    unknown_files: list[dict[str, str]]
    """Files that no reader takes."""


def account(run_dir: Path, plan: Plan, states: dict[str, State], not_run: list[str]) -> Funnel:
    """Count what became of every document and write `funnel.json`.

    Raises:
        AssertionError: the numbers do not add up; every document that was read must be set aside, dropped by one rule,
            or kept, and every kept one must be packed.
    """
    sources: dict[str, dict[str, Any]] = {}
    dropped: dict[str, Counter[str]] = defaultdict(Counter)
    lowest: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    lengths: dict[str, Counter[str]] = defaultdict(Counter)
    languages: dict[str, Counter[str]] = defaultdict(Counter)
    for unit in plan.units:
        name = unit.source
        row = sources.setdefault(
            name, {"read": 0, "set_aside": 0, "skipped": {}, "dropped": {}, "kept": 0, "kept_bytes": 0}
        )
        counts = orjson.loads((run_dir / "documents" / f"{unit.unit:05d}.json").read_bytes())
        row["read"] += counts["read"]
        row["set_aside"] += counts["set_aside"]
        dropped[name][COPY_RULE] += counts["copies"]
        for key, value in counts.items():
            if key.startswith("skipped: "):
                row["skipped"][key[9:]] = row["skipped"].get(key[9:], 0) + value
        decisions = read_table(shard_path(run_dir, "decisions/final", unit.unit))
        rules, keep = decisions["rule"].to_pylist(), decisions["keep"].to_pylist()
        for i, (identifier, rule) in enumerate(zip(decisions["id"].to_pylist(), rules, strict=True)):
            if not keep[i]:
                dropped[name][rule] += 1
                lowest[rule].append((identifier, unit.unit, i))
        for rule, found in lowest.items():
            lowest[rule] = heapq.nsmallest(SAMPLES, found)
        row["kept"] += sum(keep)
        sizes = read_table(shard_path(run_dir, "signals/stats", unit.unit), ["bytes"])["bytes"].to_pylist()
        documents = read_shard(run_dir, unit.unit, ["language"])
        spoken = policy.languages(run_dir, unit.unit, documents).to_pylist()
        for kept, size, language in zip(keep, sizes, spoken, strict=True):
            if kept:
                row["kept_bytes"] += int(size)
                lengths[name][_bin(size)] += 1
                languages[name][language or "unknown"] += 1
    for name, row in sources.items():
        row["dropped"] = {rule: n for rule, n in dropped[name].most_common() if n}
    _add_packed(run_dir, sources)
    _check(sources)
    stages = [{"name": n, "seconds": round(s.seconds, 2), "counts": s.counts} for n, s in states.items()]
    silent = [
        f"rule {key[9:]}: no value for {value:,} documents"
        for key, value in sorted(states["decide"].counts.items())
        if key.startswith("not run: ")
    ]
    funnel = Funnel(
        sources=sources,
        samples={rule: _samples(run_dir, found) for rule, found in sorted(lowest.items())},
        not_run=not_run + silent,
        histograms={
            "length, bytes": {
                n: dict(sorted(c.items(), key=lambda kv: int(kv[0]))) for n, c in lengths.items()
            },
            "language": {n: dict(c.most_common()) for n, c in languages.items()},
        },
        stages=stages,
        unknown_files=[{"source": s, "file": f, "found": w} for s, f, w in plan.unknown],
    )
    write_atomically(run_dir / "funnel.json", orjson.dumps(funnel, option=orjson.OPT_INDENT_2))
    return funnel


def _bin(size: float) -> str:
    return str(max((edge for edge in LENGTH_BINS if edge <= size), default=0))


def _add_packed(run_dir: Path, sources: dict[str, dict[str, Any]]) -> None:
    if not (run_dir / "packed" / "manifest.json").is_file():
        return
    manifest = PackedDataset(run_dir / "packed").manifest
    for name, row in sources.items():
        row["packed"] = {
            split: {
                key: sum(getattr(s, key) for s in manifest.of_split(split).values() if s.source == name)
                for key in ("documents", "sequences", "tokens", "bytes")
            }
            for split in ("train", "heldout")
        }


def _check(sources: dict[str, dict[str, Any]]) -> None:
    for name, row in sources.items():
        accounted = row["set_aside"] + sum(row["dropped"].values()) + row["kept"]
        assert row["read"] == accounted, f"source {name}: {row['read']} read, but {accounted} accounted for"
        if "packed" in row:
            packed = sum(split["documents"] for split in row["packed"].values())
            assert packed == row["kept"], f"source {name}: {row['kept']} kept, but {packed} packed"


def _samples(run_dir: Path, found: list[tuple[str, int, int]]) -> list[dict[str, Any]]:
    samples = []
    for identifier, shard, i in found:
        row = read_shard(run_dir, shard, ["url", "text"]).slice(i, 1).to_pylist()[0]
        detail = read_table(shard_path(run_dir, "decisions/final", shard), ["detail"])["detail"][i].as_py()
        samples.append(
            {"id": identifier, "url": row["url"], "detail": detail, "excerpt": (row["text"] or "")[:EXCERPT]}
        )
    return samples


def table(funnel: Funnel) -> str:
    """The funnel as a table for the console."""
    names = list(funnel.sources)
    rules = Counter[str]()
    for row in funnel.sources.values():
        rules.update(row["dropped"])
    lines = [("read", [r["read"] for r in funnel.sources.values()])]
    lines.append(("  set aside", [r["set_aside"] for r in funnel.sources.values()]))
    lines += [
        (f"  {rule}", [r["dropped"].get(rule, 0) for r in funnel.sources.values()])
        for rule, _ in rules.most_common()
    ]
    lines.append(("kept", [r["kept"] for r in funnel.sources.values()]))
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
