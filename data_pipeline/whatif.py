"""`arriero whatif`: what other thresholds, or another policy, would keep; from stored signals, in seconds.

Without `rule`, a line for each rule: how many documents it fails, how many only it drops, and what would be kept without it.
With `rule`, what the whole policy would keep at other thresholds, with documents that change sides. Deduplication comes
later and is not repeated: figures are of policy A.

Examples:
  arriero whatif data.path=data/web
  arriero whatif data.path=data/web rule=gopher.short at=[20,50,100,200]
  arriero whatif data.path=data/web filter=fineweb
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs import edge
from configs.edge import ConfigError
from configs.schema.data_verbs import WhatifRun
from configs.schema.pipeline import DataRun, FilterConfig

if TYPE_CHECKING:
    from data_pipeline.threshold_curves import Comparison, Curve, Sample, Totals


def run(config: WhatifRun) -> int:
    """Print the tables; exit status 0."""
    run_dir = Path(config.data.path).expanduser().absolute()
    print(f"whatif: reading the signals of {run_dir}", flush=True)
    # What takes a large part of a second to import, after the first line.
    from data_pipeline import policy, recipes
    from data_pipeline.annotate.own.names import written
    from data_pipeline.read import units as planning
    from data_pipeline.threshold_curves import compare, curves

    made = edge.read(run_dir / "config.yaml", DataRun)
    units = planning.load(run_dir / "units.json")
    if config.at and config.rule is None:
        raise ConfigError("`at` needs `rule`: which rule shall have these thresholds?")
    found = [s for s in recipes.sources(made) if config.source in (None, s.name)]
    if not found:
        names = ", ".join(s.name for s in recipes.sources(made))
        raise ConfigError(f"`source={config.source}`: the run has no such source; it has {names}")
    if config.filter is not None:
        policy.check(config.filter, written(made.signals, run_dir))
    for source in found:
        shards = [u.unit for u in units if u.source == source.name]
        present = source.recipe.filter
        if config.filter is not None:
            comparison = compare(run_dir, shards, present, config.filter, config.samples)
            _print_comparison(source.name, present.name, config.filter.name, comparison)
            continue
        _check_rule(config.rule, present)
        chosen = None if config.rule is None else [config.rule]
        totals, rules = curves(run_dir, shards, present, chosen, config.at, config.samples if chosen else 0)
        head = (
            f"{source.name}: policy `{present.name}` keeps {totals.kept:,} of {totals.documents:,} documents"
        )
        print(
            f"{head} ({_share(totals.kept, totals.documents)}; {_share(totals.kept_bytes, totals.bytes)} of the bytes)"
        )
        if config.rule is None:
            _print_rules(totals, rules)
        else:
            for curve in rules:
                _print_curve(totals, curve)
    return 0


def _check_rule(name: str | None, config: FilterConfig) -> None:
    rules = [n for n, rule in config.rules.items() if rule is not None and rule.level == "drop"]
    if name is None or name in rules:
        return
    close = difflib.get_close_matches(name, rules, n=1, cutoff=0.4)
    hint = f"rules: {', '.join(rules)}" if rules else "no rule of it drops anything"
    hint = f"did you mean `{close[0]}`?" if close else hint
    raise ConfigError(f"policy `{config.name}` has no rule `{name}`; {hint}")


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "—"


def _print_rules(totals: Totals, rules: list[Curve]) -> None:
    rows = [("rule", "threshold", "fails", "only it drops", "kept without it")]
    for c in sorted(rules, key=lambda c: -c.only):
        bound = "list" if c.bound is None else f"{c.bound} {_shown(c.current)}"
        without = _share(totals.kept + c.only, totals.documents)
        rows.append((c.name, bound, f"{c.failed:,}", f"{c.only:,}", without))
    _print_table(rows)


def _print_curve(totals: Totals, curve: Curve) -> None:
    if curve.bound is None:
        print(
            f"{curve.name} has a list, not a threshold: it fails {curve.failed:,}, only it drops {curve.only:,}"
        )
        return
    rows = [(f"{curve.signal} {curve.bound}", "kept", "documents", "bytes", "change")]
    for t, kept, size in zip(curve.thresholds, curve.kept, curve.kept_bytes, strict=True):
        now = "← now" if t == curve.current else f"{kept - totals.kept:+,}"
        rows.append((_shown(t), f"{kept:,}", _share(kept, totals.documents), _share(size, totals.bytes), now))
    _print_table(rows)
    for threshold in curve.thresholds:
        for sample in curve.changed.get(threshold, ()):
            _print_sample(f"at {_shown(threshold)} ", sample)


def _print_comparison(source: str, present: str, other: str, c: Comparison) -> None:
    gained, lost = sum(c.gained.values()), sum(c.lost.values())
    total = c.both + c.neither + gained + lost
    print(
        f"{source}: `{present}` keeps {_share(c.both + lost, total)} of {total:,} documents, `{other}` "
        f"{_share(c.both + gained, total)}; both {c.both:,}, only `{present}` {lost:,}, only `{other}` {gained:,}"
    )
    for counts, kept, by in ((c.gained, other, present), (c.lost, present, other)):
        for rule, n in sorted(counts.items(), key=lambda kv: (-kv[1], kv[0])):
            print(f"  {n:,} kept by `{kept}`, dropped by {rule} of `{by}`")
            for sample in c.samples.get((rule, counts is c.gained), ()):
                _print_sample("  ", sample)


def _shown(value: object) -> str:
    from data_pipeline.policy import shown  # after the first line, as in `run`

    return shown(value)


def _print_sample(where: str, sample: Sample) -> None:
    side = "kept" if sample.gained else "dropped"
    print(f"  {where}{side}: {sample.value} · {sample.url or sample.id}\n      {sample.excerpt}")


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        print("  " + "  ".join(cells))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb."""
    return edge.main("whatif", WhatifRun, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
