"""Records that were set aside: why, how many, and one example of each reason."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import orjson

from data_pipeline.read import Record, SetAside, Unit, records
from data_pipeline.read.units import Source

PROBE_RECORDS = 1000
"""Records of a source that are looked at before the first stage."""
MAX_ROWS = 100_000
"""Rejected records that the summary reads."""
_ROWS_WITH_FIELDS = ("jsonl", "parquet", "csv", "arrow", "json")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Reason:
    """One kind of reason."""

    count: int
    """Records set aside for it."""
    example: SetAside
    """The first of them."""

    def __str__(self) -> str:
        e = self.example
        return f"{self.count:,} × {e.reason} (such as {e.file}, record {e.record}; expected {e.expected})"


def reasons(run_dir: Path) -> list[Reason]:
    """Reasons of a run's rejected records, the most frequent first; numbers in them do not tell reasons apart."""
    rows = (
        orjson.loads(line)
        for path in sorted((run_dir / "rejected").glob("*.jsonl"))
        for line in path.open("rb")
    )
    return _grouped(SetAside(**row) for row in islice(rows, MAX_ROWS))


def _grouped(items: Iterable[SetAside]) -> list[Reason]:
    counts: dict[str, Reason] = {}
    for item in items:
        key = _NUMBER.sub("0", item.reason)
        earlier = counts.get(key)
        counts[key] = Reason(1, item) if earlier is None else Reason(earlier.count + 1, earlier.example)
    return sorted(counts.values(), key=lambda reason: -reason.count)


def check_keys(sources: Iterable[Source], units: Iterable[Unit]) -> None:
    """Raise ValueError where no record at the beginning of a source has the field that should hold its text."""
    first: dict[str, Unit] = {}
    for unit in units:
        first.setdefault(unit.source, unit)
    for source in sources:
        begin = first.get(source.name)
        if begin is None or begin.kind not in _ROWS_WITH_FIELDS:
            continue
        looked_at = list(islice(records(begin, source.recipe), PROBE_RECORDS))
        aside = [item for item in looked_at if isinstance(item, SetAside)]
        if any(isinstance(item, Record) for item in looked_at) or not aside:
            continue
        most = _grouped(aside)[0].example
        if "no such field" in most.reason or most.reason.startswith("no column"):
            raise ValueError(
                f"source `{source.name}`: none of its first {len(looked_at):,} records can be read; {most.file}, record "
                f"{most.record}: {most.reason}; expected {most.expected}"
            )
