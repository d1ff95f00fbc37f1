"""Policies: signals → decisions. Stages before only annotate; here a document is kept, or dropped by a named rule."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs import options
from configs.build import nearest
from configs.edge import ConfigError
from configs.schema.pipeline import BoundsConfig, FilterConfig, RuleConfig
from data_pipeline.annotate import codes
from data_pipeline.document import DECISION_SCHEMA, read_shard, read_table, shard_path, write_table

NOT_RUN, ASKED = "not run: ", "asked: "
"""Beginnings of the names of counts: documents without a value for a rule, and documents that reached the rule."""
COPY_RULE = "identity.copy"
FLAGS_SCHEMA = pa.schema([("id", pa.string()), ("flags", pa.list_(pa.string()))])
OTHER = "other"
"""Stands for the languages that bounds do not list."""
TEXT_SIGNALS = (
    "language.language",
    "language.second",
    "language.script",
    "hashes.content_hash",
    "url.listed",
    "url.domain",
)
"""Signals that are strings."""


def columns() -> dict[str, tuple[str, ...]]:
    """Signals that policies may look at, by sidecar."""
    from data_pipeline.annotate import outliers, privacy, privacy_domains, schemas, url
    from data_pipeline.heuristics.schema import SIDECARS

    return {
        **SIDECARS,
        "language": tuple(schemas.LANGUAGE.names[1:]),
        "url": url.COLUMNS,
        "nsfw": tuple(schemas.NSFW.names[1:]),
        "privacy": privacy.COLUMNS,
        "privacy_domain": privacy_domains.COLUMNS,
        "quality": ("score",),
        "outliers": outliers.COLUMNS,
        "contamination": ("matches", "overlap", "context", "run"),
    }


def check(config: FilterConfig, own: Mapping[str, Mapping[str, bool] | None] | None = None) -> None:
    """Refuse rules that could never work.

    Args:
        own: the user's own signals: sidecar → column → whether it holds strings; None for a sidecar whose columns are not
            known yet, whose rules are only checked for their bounds.

    Raises:
        ConfigError: a signal that does not exist (with the nearest), a rule without a bound, or the wrong kind of bound;
            a rule that is disabled and does not exist.
    """
    own = own or {}
    known = [f"{sidecar}.{column}" for sidecar, names in columns().items() for column in names]
    known += [f"{sidecar}.{column}" for sidecar, names in own.items() for column in names or ()]
    strings = {
        f"{sidecar}.{c}" for sidecar, names in own.items() for c, is_text in (names or {}).items() if is_text
    }
    if None in config.rules.values():
        _check_disabled(config)
    for name, rule in config.rules.items():
        if rule is None:
            continue
        where = f"filter `{config.name}`, rule `{name}`"
        sidecar, _, column = rule.signal.partition(".")
        unknown = sidecar in own and own[sidecar] is None and column.isidentifier()
        if rule.signal not in known and not unknown:
            close = difflib.get_close_matches(rule.signal, known, n=1, cutoff=0.4)
            hint = f"did you mean `{close[0]}`?" if close else f"signals: {', '.join(known)}"
            raise ConfigError(f"{where}: there is no signal `{rule.signal}`; {hint}")
        is_text = (
            rule.signal in TEXT_SIGNALS or rule.signal in strings or (unknown and rule.allow is not None)
        )
        if is_text and (rule.allow is None or rule.min is not None or rule.max is not None):
            raise ConfigError(f"{where}: `{rule.signal}` is a string; give `allow`, not `min` or `max`")
        if not is_text and (rule.allow is not None or (rule.min is None and rule.max is None)):
            raise ConfigError(f"{where}: `{rule.signal}` is a number; give `min` or `max`, not `allow`")
        if rule.min is not None and rule.max is not None and rule.min > rule.max:
            raise ConfigError(f"{where}: min {rule.min} is above max {rule.max}, so nothing could be kept")
        if is_text and any(b is not None for b in rule.by_language.values()):
            raise ConfigError(f"{where}: `{rule.signal}` is a string, so `by_language` can only be null")
        for code, bounds in with_bounds(config, name, rule).by_language.items():
            low, high = (
                (getattr(bounds, k) if getattr(bounds, k, None) is not None else getattr(rule, k))
                for k in ("min", "max")
            )
            if low is not None and high is not None and low > high:
                raise ConfigError(f"{where}, language `{code}`: min {low} is above max {high}")
    for code, rules in config.bounds.items():
        for name in rules:
            if name not in config.rules:
                close = difflib.get_close_matches(name, list(config.rules), n=1, cutoff=0.4)
                hint = f"did you mean `{close[0]}`?" if close else f"rules: {', '.join(config.rules)}"
                raise ConfigError(
                    f"filter `{config.name}`, bounds of `{code}`: there is no rule `{name}`; {hint}"
                )


def _check_disabled(config: FilterConfig) -> None:
    """Refuse rules that are disabled (null) and that no policy or recipe has: their names are mistyped."""
    named = [
        *(options.settings("filter", option).get("filter", {}) for option in options.names("filter")),
        *(
            options.settings("recipe", option).get("recipe", {}).get("filter", {})
            for option in options.names("recipe")
        ),
    ]
    known = {name for policy in named if isinstance(policy, dict) for name in policy.get("rules") or {}}
    for name, rule in config.rules.items():
        if rule is None and name not in known:
            rules = [other for other, it in config.rules.items() if it is not None]
            raise ConfigError(
                f"filter `{config.name}`: there is no rule `{name}` to disable{nearest(name, rules)}"
            )


def languages(run_dir: Path, shard: int, documents: pa.Table) -> pa.ChunkedArray:
    """Language of each document: the one its source states, or else the detected one; null where neither is known.

    A detected language that is less likely than not (score below `codes.SURE`) is `und`: stop words and bounds of a
    wrong language would drop what is only rare.
    """
    path = shard_path(run_dir, "signals/language", shard)
    stated = documents["language"]
    if not path.is_file():
        return stated
    found = read_table(path, ["language", "score"])
    unsure = pc.fill_null(pc.less(found["score"], codes.SURE), False)
    return pc.coalesce(stated, pc.if_else(unsure, codes.UNKNOWN, found["language"]))


@dataclass(frozen=True)
class Verdict:
    """What one rule says of the n documents of a shard, whatever other rules say."""

    name: str
    """Name of the rule."""
    rule: RuleConfig
    """The rule."""
    values: pa.ChunkedArray
    """The signal, [n]."""
    failed: np.ndarray
    """bool [n]: outside the rule's bounds."""
    null: np.ndarray
    """bool [n]: the rule applies, but there is no value."""


def verdicts(
    run_dir: Path,
    shard: int,
    config: FilterConfig,
    documents: pa.Table,
    levels: tuple[str, ...] = ("drop",),
) -> Iterator[Verdict]:
    """The verdict of every rule of a policy, in order.

    Args:
        documents: columns `id` and `language` of the shard, with the languages that `languages` finds.
        levels: levels of the rules that are asked.

    Raises:
        ValueError: a sidecar does not belong to the shard.
    """
    spoken = documents["language"].to_pylist()
    rules = {name: rule for name, rule in config.rules.items() if rule is not None and rule.level in levels}
    wanted: dict[str, list[str]] = {}
    for rule in rules.values():
        sidecar, column = rule.signal.split(".")
        wanted.setdefault(sidecar, ["id"])
        if column not in wanted[sidecar]:
            wanted[sidecar].append(column)
    tables = {}
    for sidecar, columns in wanted.items():
        path = shard_path(run_dir, f"signals/{sidecar}", shard)
        if not path.is_file():
            raise ValueError(
                f"{path} does not exist: this run has not computed the signals `{sidecar}`; run `arriero data` again"
            )
        tables[sidecar] = read_table(path, columns)
        if not tables[sidecar]["id"].equals(documents["id"]):
            raise ValueError(
                f"{path} does not belong to its shard: the ids differ; remove it and run the same command again"
            )
    for name, rule in rules.items():
        sidecar, column = rule.signal.split(".")
        if column not in tables[sidecar].column_names:
            there = ", ".join(pq.read_schema(shard_path(run_dir, f"signals/{sidecar}", shard)).names[1:])
            raise ValueError(
                f"policy `{config.name}`, rule `{name}`: the signals `{sidecar}` have no column `{column}`; "
                f"they have: {there or 'none'}"
            )
        yield judge(name, with_bounds(config, name, rule), tables[sidecar][column], spoken)


def with_bounds(config: FilterConfig, name: str, rule: RuleConfig) -> RuleConfig:
    """A rule of a policy with the bounds that the policy has for it by language."""
    if not config.bounds:
        return rule
    found = {
        code: rules.get(name, BoundsConfig())
        for code, rules in config.bounds.items()
        if code != OTHER or name in rules
    }
    return dataclasses.replace(rule, by_language=found | rule.by_language)


def judge(name: str, rule: RuleConfig, values: pa.ChunkedArray, spoken: list[str | None]) -> Verdict:
    """The verdict of one rule on documents with these values and languages."""
    failed, null = _failed(rule, values)
    if rule.by_language:
        other = rule.by_language.get(OTHER, BoundsConfig())
        codes = np.array([x or "" for x in spoken], np.str_)
        for code in set(spoken) - {None}:
            bounds = rule.by_language.get(str(code), other)
            theirs = codes == code
            if bounds is None:
                failed, null = failed & ~theirs, null & ~theirs
            elif bounds.min is not None or bounds.max is not None:
                low = rule.min if bounds.min is None else bounds.min
                high = rule.max if bounds.max is None else bounds.max
                own = dataclasses.replace(rule, min=low, max=high)
                failed = np.where(theirs, _failed(own, values)[0], failed)
    if rule.languages is not None:
        applies = np.array([x is None or x in rule.languages for x in spoken], bool)
        failed, null = failed & applies, null & applies
    return Verdict(name, rule, values, failed, null)


def dropped_before(run_dir: Path, shard: int, documents: pa.Table) -> np.ndarray:
    """object [n]: the rule that drops a document before any rule of a policy looks at it; None for all others.

    Nothing was extracted, or another shard holds the same record.

    Args:
        documents: columns `text` and `metadata` of the shard.
    """
    rules = np.full(len(documents), None, object)
    copies = read_table(shard_path(run_dir, "signals/copies", shard), ["first"])["first"]
    rules[~copies.to_numpy(zero_copy_only=False).astype(bool)] = COPY_RULE
    empty = pc.equal(pc.fill_null(pc.binary_length(documents["text"]), 0), 0)
    for i in pc.indices_nonzero(empty).to_pylist():
        rules[i] = orjson.loads(documents["metadata"][i].as_py()).get("drop") or "extract.empty"
    return rules


def decide(run_dir: Path, shard: int, config: FilterConfig) -> dict[str, int]:
    """Policy A of a shard: write `decisions/a` and `flags`.

    The first rule that fails names the drop, its `detail` holds the value. A null signal drops nothing: a stage that
    could not run must not empty the data set, and the funnel says that it did not run. Rules of level `flag` are noted of
    every document that they fail.

    Returns:
        Counts: `kept`, `dropped`, and by rule `asked: RULE`, the documents that no earlier rule had dropped, and of these
        `not run: RULE`, whose signal was null.
    """
    documents = read_shard(run_dir, shard, ["id", "language", "text", "metadata"])
    n = len(documents)
    rules = dropped_before(run_dir, shard, documents)
    keep = np.array([rule is None for rule in rules], bool)
    details = np.full(n, None, object)
    flags: list[list[str]] = [[] for _ in range(n)]
    counts: dict[str, int] = {}
    found = documents.select(["id"]).append_column("language", languages(run_dir, shard, documents))
    for verdict in verdicts(run_dir, shard, config, found, ("drop", "flag")):
        counts[f"{ASKED}{verdict.name}"] = int(keep.sum())
        if missing := int((verdict.null & keep).sum()):
            counts[f"{NOT_RUN}{verdict.name}"] = missing
        if verdict.rule.level == "flag":
            for row in np.flatnonzero(verdict.failed).tolist():
                flags[row].append(verdict.name)
            continue
        chosen = np.flatnonzero(verdict.failed & keep)
        rules[chosen] = verdict.name
        details[chosen] = [shown(v) for v in verdict.values.take(pa.array(chosen)).to_pylist()]
        keep[chosen] = False
    table = pa.table(
        [
            documents["id"],
            pa.array(keep),
            pa.array(rules.tolist(), pa.string()),
            pa.array(details.tolist(), pa.string()),
        ],
        schema=DECISION_SCHEMA,
    )
    write_table(table, shard_path(run_dir, "decisions/a", shard))
    write_table(pa.table([documents["id"], flags], schema=FLAGS_SCHEMA), shard_path(run_dir, "flags", shard))
    return {"kept": int(keep.sum()), "dropped": int(n - keep.sum()), **counts}


def _failed(rule: RuleConfig, values: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(documents outside the rule's bounds, documents without a value), bool [n] each."""
    null = values.is_null().to_numpy(zero_copy_only=False).astype(bool)
    if rule.allow is not None:
        return np.array([v is not None and v not in rule.allow for v in values.to_pylist()], bool), null
    numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    failed = np.zeros(len(numbers), bool)
    with np.errstate(invalid="ignore"):
        if rule.min is not None:
            failed |= numbers < rule.min
        if rule.max is not None:
            failed |= numbers > rule.max
    return failed & ~null, null


def shown(value: object) -> str:
    """A signal's value as a person reads it."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def copies(run_dir: Path, shards: int) -> dict[str, int]:
    """Mark records that other shards hold too: write `signals/copies` (id, first) for every shard.

    The first shard in the order of units keeps the document; within a shard the read stage has merged them already.
    """
    seen: set[bytes] = set()
    found = 0
    for shard in range(shards):
        ids = read_shard(run_dir, shard, ["id"])["id"]
        first = []
        for value in ids.to_pylist():
            key = bytes.fromhex(value)
            first.append(key not in seen)
            seen.add(key)
        found += len(first) - sum(first)
        write_table(
            pa.table({"id": ids, "first": pa.array(first, pa.bool_())}),
            shard_path(run_dir, "signals/copies", shard),
        )
    return {"copies": found}


def combine(run_dir: Path, shard: int, steps: list[str]) -> pa.Table:
    """The decisions of all steps for a shard, joined: the first step that drops a document names the rule.

    Returns:
        A table of DECISION_SCHEMA, row-aligned with the shard.
    """
    ids = read_shard(run_dir, shard, ["id"])["id"]
    keep = np.ones(len(ids), bool)
    rules = np.full(len(ids), None, object)
    details = np.full(len(ids), None, object)
    for step in steps:
        path = shard_path(run_dir, f"decisions/{step}", shard)
        table = read_table(path)
        if not table["id"].equals(ids):
            raise ValueError(
                f"{path} does not belong to its shard: the ids differ; remove it and run the same command again"
            )
        kept = table["keep"].to_numpy(zero_copy_only=False).astype(bool)
        first = np.flatnonzero(keep & ~kept)
        chosen = table.select(["rule", "detail"]).take(pa.array(first))
        rules[first] = [rule or step for rule in chosen["rule"].to_pylist()]
        details[first] = chosen["detail"].to_pylist()
        keep &= kept
    return pa.table(
        [ids, pa.array(keep), pa.array(rules, pa.string()), pa.array(details, pa.string())],
        schema=DECISION_SCHEMA,
    )


def drop(decisions: pa.Table, rows: list[int], rule: str) -> pa.Table:
    """Decisions in which these rows are dropped by a rule."""
    keep = decisions["keep"].to_numpy(zero_copy_only=False).astype(bool)
    rules = decisions["rule"].to_numpy(zero_copy_only=False).copy()
    keep[rows], rules[rows] = False, rule
    return decisions.set_column(1, "keep", pa.array(keep)).set_column(2, "rule", pa.array(rules, pa.string()))
