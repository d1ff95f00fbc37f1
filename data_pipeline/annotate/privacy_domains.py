"""Domains with dense personal data: different finds of all their pages, per 1,000 characters.

A contact that stands on every page of a site counts once; a directory of people counts with every person.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.document import read_table, shard_path, write_table

COLUMNS = ("documents", "found", "per_1k_chars")
SCHEMA = pa.schema(
    [
        ("domain", pa.string()),
        ("documents", pa.int64()),
        ("chars", pa.int64()),
        ("found", pa.int64()),
        ("per_1k_chars", pa.float32()),
    ]
)
PRIOR_CHARS = 10_000
"""Empty characters that every domain is given: one short page with an address makes no dense domain."""


def aggregate(run_dir: Path, shards: int) -> dict[str, int]:
    """Write `privacy_domains.parquet` and the sidecar `privacy_domain` of every shard.

    The table has a row for every registered domain, the densest first. Memory: two numbers for every different find and
    four for every domain.
    """
    total: pa.Table | None = None
    pairs = np.zeros((0, 2), np.uint64)
    names: dict[str, int] = {}
    for table in _shards(run_dir, shards):
        grouped = table.group_by("domain").aggregate([("chars", "sum"), ([], "count_all")])
        grouped = pa.table(
            {"domain": grouped["domain"], "chars": grouped["chars_sum"], "documents": grouped["count_all"]}
        )
        both = grouped if total is None else pa.concat_tables([total, grouped])
        sums = both.group_by("domain").aggregate([("chars", "sum"), ("documents", "sum")])
        total = pa.table(
            {"domain": sums["domain"], "chars": sums["chars_sum"], "documents": sums["documents_sum"]}
        )
        lists = table["values"].combine_chunks()
        rows = pc.list_parent_indices(lists)
        if len(rows):
            numbers = [names.setdefault(d, len(names)) for d in table["domain"].take(rows).to_pylist()]
            new = np.stack([np.array(numbers, np.uint64), lists.flatten().to_numpy()], axis=1)
            pairs = np.unique(np.concatenate([pairs, new]), axis=0)
    found = dict(
        zip(names, np.bincount(pairs[:, 0].astype(np.int64), minlength=len(names)).tolist(), strict=True)
    )
    result = _densest(total, found)
    write_table(result, run_dir / "privacy_domains.parquet")
    for shard in range(shards):
        _annotate(run_dir, shard, result)
    return {"domains": len(result), "different finds": len(pairs)}


def _shards(run_dir: Path, shards: int) -> Iterator[pa.Table]:
    for shard in range(shards):
        found = read_table(shard_path(run_dir, "signals/privacy", shard), ["chars", "values"])
        domains = read_table(shard_path(run_dir, "signals/url", shard), ["domain"])["domain"]
        yield found.append_column("domain", domains).filter(pc.is_valid(domains))


def _densest(total: pa.Table | None, found: dict[str, int]) -> pa.Table:
    if total is None:
        return SCHEMA.empty_table()
    values = np.array([found.get(d, 0) for d in total["domain"].to_pylist()], np.int64)
    chars = total["chars"].to_numpy()
    rate = (1000 * values / (chars + PRIOR_CHARS)).astype(np.float32)
    table = pa.table([total["domain"], total["documents"], total["chars"], values, rate], schema=SCHEMA)
    return table.sort_by([("per_1k_chars", "descending"), ("domain", "ascending")])


def _annotate(run_dir: Path, shard: int, result: pa.Table) -> None:
    """The sidecar of one shard; null for documents without a domain."""
    url = read_table(shard_path(run_dir, "signals/url", shard), ["id", "domain"])
    at = pc.index_in(url["domain"], pc.if_else(pc.is_valid(result["domain"]), result["domain"], ""))
    columns = {name: result[name].take(at) for name in COLUMNS}
    write_table(pa.table({"id": url["id"], **columns}), shard_path(run_dir, "signals/privacy_domain", shard))
