"""Edits: spans of a document that a stage proposes to replace or delete, and what a policy makes of them.

A stage writes `edits/NAME/00000.parquet`, row-aligned with its shard: `id`, and `spans`, a list of (start, end, text).
Offsets count code points of the document's text. A policy names the sets that it applies (`FilterConfig.edits`); texts
are changed once, when the kept documents are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.document import read_table, shard_path, write_table

SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("text", pa.string())])
SCHEMA = pa.schema([("id", pa.string()), ("spans", pa.list_(SPAN))])


class Span(NamedTuple):
    """Characters `start` to `end` of a text, replaced by `text`; an empty `text` deletes them."""

    start: int
    end: int
    text: str = ""


def write(
    run_dir: Path, name: str, shard: int, ids: pa.ChunkedArray, spans: Sequence[Sequence[Span]]
) -> None:
    """Write the proposals of one stage for a shard: for each of its documents, in order, a list of spans."""
    column = pa.array([[tuple(s) for s in found] for found in spans], pa.list_(SPAN))
    write_table(pa.table([ids, column], schema=SCHEMA), shard_path(run_dir, f"edits/{name}", shard))


def read(
    run_dir: Path, names: Sequence[str], shard: int, ids: pa.ChunkedArray
) -> dict[int, list[list[Span]]]:
    """Row → spans of each set, in the order of `names`; only rows with at least one span.

    Raises:
        ValueError: a set was not written, or is not aligned with the shard.
    """
    found: dict[int, list[list[Span]]] = {}
    for position, name in enumerate(names):
        path = shard_path(run_dir, f"edits/{name}", shard)
        if not path.is_file():
            have = sorted(p.name for p in (run_dir / "edits").glob("*")) or ["none"]
            raise ValueError(
                f"the policy applies edits `{name}`, but no stage wrote them; there are: {', '.join(have)}"
            )
        table = read_table(path)
        if not table["id"].equals(ids):
            raise ValueError(
                f"{path} does not belong to its shard: the ids differ; remove it and run the same command again"
            )
        rows = pc.indices_nonzero(pc.greater(pc.list_value_length(table["spans"]), 0))
        for row, spans in zip(rows.to_pylist(), table["spans"].take(rows).to_pylist(), strict=True):
            sets = found.setdefault(row, [[] for _ in names])
            sets[position] = [Span(**s) for s in spans]
    return found


def apply(text: str, sets: Sequence[Sequence[Span]]) -> str:
    """The text after the edits of several sets.

    Deletions of all sets are joined. A replacement that they cover is void, as is one that overlaps a replacement of an
    earlier set; one of which they leave a part stands whole, so that nothing of what it masks is left.

    Raises:
        ValueError: a span lies outside the text.
    """
    deletions: list[Span] = []
    for span in sorted(s for spans in sets for s in spans if not s.text):
        if not 0 <= span.start <= span.end <= len(text):
            raise ValueError(f"edit {span.start}–{span.end} lies outside a text of {len(text)} characters")
        if deletions and span.start <= deletions[-1].end:
            last = deletions.pop()
            deletions.append(Span(last.start, max(last.end, span.end)))
        else:
            deletions.append(span)
    replaced: list[Span] = []
    for spans in sets:
        added = _not_covered(sorted((s for s in spans if s.text), key=lambda s: s[:2]), deletions)
        replaced = _without_overlaps(replaced, added, len(text))
    parts, at = [], 0
    for span in sorted([*_outside(deletions, replaced), *replaced], key=lambda s: s[:2]):
        parts += [text[at : span.start], span.text]
        at = span.end
    return "".join([*parts, text[at:]])


def _not_covered(spans: Sequence[Span], deletions: Sequence[Span]) -> list[Span]:
    """Those of sorted spans that no deletion (sorted, apart) covers."""
    found, i = [], 0
    for span in spans:
        while i < len(deletions) and deletions[i].end < span.start:
            i += 1
        j = i
        while j < len(deletions) and deletions[j].end < span.end:
            j += 1
        if j == len(deletions) or deletions[j].start > span.start:
            found.append(span)
    return found


def _outside(deletions: Sequence[Span], replaced: Sequence[Span]) -> Iterator[Span]:
    """What replacements (sorted, apart) leave of deletions."""
    i = 0
    for first, end, _ in deletions:
        while i < len(replaced) and replaced[i].end <= first:
            i += 1
        start, j = first, i
        while j < len(replaced) and replaced[j].start < end:
            if replaced[j].start > start:
                yield Span(start, replaced[j].start)
            start = max(start, replaced[j].end)
            j += 1
        if start < end:
            yield Span(start, end)


def _without_overlaps(taken: list[Span], added: list[Span], length: int) -> list[Span]:
    """Sorted spans: those taken already, and of `added` those that touch none of them and no earlier one of their own."""
    merged = sorted([(s, 0) for s in taken] + [(s, 1) for s in added], key=lambda pair: pair[0][:2])
    kept: list[tuple[Span, int]] = []
    for span, order in merged:
        if not 0 <= span.start <= span.end <= length:
            raise ValueError(f"edit {span.start}–{span.end} lies outside a text of {length} characters")
        if kept and span.start < kept[-1][0].end:
            if kept[-1][1] <= order:
                continue
            kept.pop()  # it cannot overlap what lies before: that would have voided it
        kept.append((span, order))
    return [span for span, _ in kept]
