"""Threshold curves: what policies with other thresholds would keep, from stored signals."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from configs.schema.pipeline import FilterConfig, RuleConfig
from data_pipeline import policy
from data_pipeline.document import read_shard, read_table, shard_path

FACTORS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
"""Thresholds that are tried, as multiples of the present one."""
AROUND_ZERO = (0.0, 1.0, 2.0, 5.0, 10.0)
"""Thresholds that are tried where the present one is 0."""
EXCERPT = 160

Bound = Literal["min", "max"]


@dataclass
class Curve:
    """One bound of a rule at several thresholds; counts are of documents that had text, by all rules of the policy."""

    name: str
    """Name of the rule."""
    signal: str
    """Signal it looks at."""
    bound: Bound | None
    """Which bound is varied; None for rules over strings, which have no threshold."""
    current: float | None
    """The present threshold."""
    thresholds: list[float]
    """Thresholds, ascending; the present one among them."""
    failed: int = 0
    """Documents outside the present bound."""
    only: int = 0
    """Documents that this rule drops and no other would."""
    only_bytes: int = 0
    """Bytes of text of those."""
    kept: list[int] = field(default_factory=list)
    """Documents that the whole policy keeps, by threshold."""
    kept_bytes: list[int] = field(default_factory=list)
    """Bytes of text of those."""
    changed: dict[float, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    """Threshold → documents that would change sides there."""


@dataclass(frozen=True, order=True)
class Sample:
    """A document that would change sides."""

    id: str
    gained: bool
    """Kept then, and dropped now; false: the other way round."""
    value: str
    """Its signal."""
    url: str | None
    excerpt: str


@dataclass(frozen=True)
class Shard:
    """What policies say of one shard."""

    documents: pa.Table
    """Columns id, url, language, text of documents that had text and were no copies; language as detected."""
    rows: np.ndarray
    """Their rows in the shard."""
    sizes: np.ndarray
    """Bytes of their texts."""
    verdicts: tuple[policy.Verdict, ...]
    """Verdict of each rule on them."""
    failed: np.ndarray
    """bool [rules, documents]."""


@dataclass(frozen=True)
class Totals:
    """Documents and bytes of a source before and after its policy."""

    documents: int
    bytes: int
    kept: int
    kept_bytes: int


def look(run_dir: Path, shard: int, config: FilterConfig) -> Shard:
    """Verdicts of a policy on a shard, whatever its run decided.

    Raises:
        ValueError: a signal is missing or does not belong to its shard.
    """
    documents = read_shard(run_dir, shard, ["id", "url", "language", "text", "metadata"])
    there = np.array([rule is None for rule in policy.dropped_before(run_dir, shard, documents)], bool)
    spoken = policy.languages(run_dir, shard, documents)
    documents = documents.set_column(documents.schema.get_field_index("language"), "language", spoken)
    sizes = read_table(shard_path(run_dir, "signals/stats", shard), ["bytes"])["bytes"].to_numpy()
    mask = pa.array(there)
    found = tuple(
        policy.Verdict(v.name, v.rule, v.values.filter(mask), v.failed[there], v.null[there])
        for v in policy.verdicts(run_dir, shard, config, documents)
    )
    matrix = np.array([v.failed for v in found], bool).reshape(len(found), int(there.sum()))
    kept = documents.drop_columns(["metadata"]).filter(mask)
    return Shard(kept, np.flatnonzero(there), sizes[there], found, matrix)


def thresholds(current: float, at: Sequence[float] = ()) -> list[float]:
    """Thresholds to try: those given, or multiples of the present one; the present one is always among them."""
    tried = at or (AROUND_ZERO if current == 0 else [current * f for f in FACTORS])
    if not at and 0 < current <= 1:  # a share, as far as one can see
        tried = [t for t in tried if t <= 1]
    if not at and current >= 10 and current == int(current):
        tried = [round(t) for t in tried]
    return sorted({round(t, 6) for t in tried} | {current})


def curves(
    run_dir: Path,
    shards: Sequence[int],
    config: FilterConfig,
    rules: Sequence[str] | None = None,
    at: Sequence[float] = (),
    samples: int = 0,
) -> tuple[Totals, list[Curve]]:
    """Curves of the rules of a policy over some shards, in one pass; memory is one shard.

    Args:
        rules: names of rules; null: all.
        at: thresholds to try.
        samples: documents to show at each threshold, those of the smallest ids.
    """
    found = {
        (name, bound): Curve(
            name, rule.signal, bound, current, tried, 0, 0, 0, [0] * len(tried), [0] * len(tried)
        )
        for name, rule in config.rules.items()
        if rule is not None and rule.level == "drop" and (rules is None or name in rules)
        for bound, current, tried in _bounds(rule, at)
    }
    n = n_bytes = kept = kept_bytes = 0
    for shard in shards:
        looked = look(run_dir, shard, config)
        fails = looked.failed.sum(axis=0)
        good = fails == 0
        n, n_bytes = n + len(good), n_bytes + int(looked.sizes.sum())
        kept, kept_bytes = kept + int(good.sum()), kept_bytes + int(looked.sizes[good].sum())
        spoken = looked.documents["language"].to_pylist()
        for i, verdict in enumerate(looked.verdicts):
            others = fails - looked.failed[i] == 0
            for bound in ("min", "max", None):
                curve = found.get((verdict.name, bound))
                if curve is None:
                    continue
                only = others & verdict.failed
                curve.failed += int(verdict.failed.sum())
                curve.only += int(only.sum())
                curve.only_bytes += int(looked.sizes[only].sum())
                for k, threshold in enumerate(curve.thresholds):
                    changed = {"min": threshold} if bound == "min" else {"max": threshold}
                    rule = dataclasses.replace(verdict.rule, **changed)  # type: ignore[arg-type]
                    passes = others & ~policy.judge(verdict.name, rule, verdict.values, spoken).failed
                    curve.kept[k] += int(passes.sum())
                    curve.kept_bytes[k] += int(looked.sizes[passes].sum())
                    if samples and threshold != curve.current:
                        _add_samples(
                            curve.changed[threshold], looked, verdict, good != passes, passes, samples
                        )
    return Totals(n, n_bytes, kept, kept_bytes), list(found.values())


def _bounds(
    rule: RuleConfig, at: Sequence[float]
) -> Iterator[tuple[Bound | None, float | None, list[float]]]:
    if rule.min is not None:
        yield "min", rule.min, thresholds(rule.min, at)
    if rule.max is not None:
        yield "max", rule.max, thresholds(rule.max, at)
    if rule.min is None and rule.max is None:
        yield None, None, []


def _add_samples(
    into: list[Sample],
    looked: Shard,
    verdict: policy.Verdict,
    changed: np.ndarray,
    kept: np.ndarray,
    limit: int,
) -> None:
    """Add documents that change sides; `changed` and `kept` (as it would be) are bool [documents]."""
    rows = np.flatnonzero(changed)
    ids = looked.documents["id"].take(pa.array(rows)).to_pylist()
    for k in np.argsort(np.array(ids, object), kind="stable")[:limit].tolist():
        row = int(rows[k])
        document = looked.documents.slice(row, 1).to_pylist()[0]
        text = " ".join((document["text"] or "")[: 4 * EXCERPT].split())[:EXCERPT]
        value = policy.shown(verdict.values[row].as_py())
        into.append(Sample(ids[k], bool(kept[row]), value, document["url"], text))
    into.sort()
    del into[limit:]


@dataclass(frozen=True)
class Comparison:
    """Two policies on the same documents."""

    both: int
    neither: int
    gained: dict[str, int]
    """Documents that only the other policy keeps, by the present rule that drops them."""
    lost: dict[str, int]
    """Documents that only the present policy keeps, by the other's rule that drops them."""
    samples: dict[tuple[str, bool], list[Sample]]
    """(rule, gained) → documents."""


def compare(
    run_dir: Path, shards: Sequence[int], present: FilterConfig, other: FilterConfig, samples: int
) -> Comparison:
    """What another policy would keep and drop, beside the present one."""
    both = neither = 0
    counts: dict[bool, dict[str, int]] = {True: defaultdict(int), False: defaultdict(int)}
    shown: dict[tuple[str, bool], list[Sample]] = defaultdict(list)
    for shard in shards:
        sides = look(run_dir, shard, present), look(run_dir, shard, other)
        good = [np.logical_not(s.failed.any(axis=0)) for s in sides]
        both += int((good[0] & good[1]).sum())
        neither += int((~good[0] & ~good[1]).sum())
        for gained, side in ((True, sides[0]), (False, sides[1])):
            changed = good[1] & ~good[0] if gained else good[0] & ~good[1]
            for i in np.unique(side.failed[:, changed].argmax(axis=0)) if changed.any() else ():
                first: np.ndarray = changed & side.failed[i] & ~side.failed[:i].any(axis=0)
                verdict = side.verdicts[i]
                counts[gained][verdict.name] += int(first.sum())
                _add_samples(shown[verdict.name, gained], side, verdict, first, good[1], samples)
    return Comparison(both, neither, dict(counts[True]), dict(counts[False]), dict(shown))
