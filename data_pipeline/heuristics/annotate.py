"""The heuristic signals of a shard (`schema.SIDECARS`), and the edits that the line rules propose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline import edits
from data_pipeline.analysis import Batch, batches
from data_pipeline.annotate import outliers
from data_pipeline.document import read_shard, shard_path, write_table
from data_pipeline.heuristics.schema import EDITS, SIDECARS


def annotate(run_dir: Path, shard: int, languages: Sequence[str | None] | None = None) -> dict[str, int]:
    """Write the sidecars, edits and word counts of a shard; returns the number of documents and bytes.

    Args:
        languages: of each document, for its stop words; without them all count as unknown.
    """
    documents = read_shard(run_dir, shard, ["id", "text"])
    counter = outliers.Counter()
    columns_of, edits_of = annotate_texts(documents["text"], languages, counter)
    counter.write(run_dir, shard)
    for name, columns in columns_of.items():
        table = pa.table({"id": documents["id"], **columns})
        write_table(table, shard_path(run_dir, f"signals/{name}", shard))
    for name, spans in edits_of.items():
        table = pa.table([documents["id"], spans], schema=edits.SCHEMA)
        write_table(table, shard_path(run_dir, f"edits/{name}", shard))
    return {"documents": len(documents), "bytes": int(np.sum(columns_of["stats"]["bytes"].to_numpy()))}


def annotate_texts(
    texts: pa.ChunkedArray,
    languages: Sequence[str | None] | None = None,
    counter: outliers.Counter | None = None,
) -> tuple[dict[str, dict[str, pa.Array]], dict[str, pa.Array]]:
    """Signals by sidecar and column, and edits by set, of a column of texts; their words are added to a counter."""
    parts: dict[str, dict[str, list[Any]]] = {
        name: {column: [] for column in columns} for name, columns in SIDECARS.items()
    }
    deletions: list[np.ndarray] = []
    n_documents = 0
    for batch in batches(texts):
        batch_languages = None
        if languages is not None:
            batch_languages = languages[n_documents : n_documents + len(batch)]
        values_of, proposed = signals(batch, batch_languages)
        for name, values in values_of.items():
            for column, value in values.items():
                parts[name][column].append(value)
        if counter is not None:
            counter.add(batch, batch_languages or [None] * len(batch))
        proposed["document"] += n_documents
        deletions.append(proposed)
        n_documents += len(batch)
    arrays = {
        name: {
            column: _strings(values) if name == "hashes" else _numbers(values)
            for column, values in columns.items()
        }
        for name, columns in parts.items()
    }
    if not deletions:
        return arrays, {name: pa.array([], pa.list_(edits.SPAN)) for name in EDITS}
    every = np.concatenate(deletions)
    return arrays, {name: _spans(every[every["edit_set"] == i], n_documents) for i, name in enumerate(EDITS)}


def signals(
    batch: Batch, languages: Sequence[str | None] | None = None
) -> tuple[dict[str, Mapping[str, Any]], np.ndarray]:
    """Signals of a batch by sidecar and column, [d] each, and the deletions that the line rules propose."""
    from data_pipeline.heuristics import c4, fineweb, gopher, lines, llama3, refinedweb, stats

    counts, deletions = lines.judge(batch)
    return {
        "stats": stats.signals(batch),
        "gopher": gopher.signals(batch, languages),
        "c4": c4.signals(batch, counts.c4),
        "fineweb": fineweb.signals(batch, counts.fineweb),
        "refinedweb": refinedweb.signals(batch, counts.refinedweb),
        "llama3": llama3.signals(batch, counts.llama3),
        "hashes": {"content_hash": batch.content_hashes},
    }, deletions


def _strings(parts: Iterable[list[str]]) -> pa.Array:
    return pa.array([value for part in parts for value in part], pa.string())


def _numbers(parts: Sequence[np.ndarray]) -> pa.Array:
    values = np.concatenate(parts).astype(np.float64) if parts else np.empty(0)
    return pa.array(values, mask=np.isnan(values))


def _spans(deletions: np.ndarray, n_documents: int) -> pa.Array:
    """Deletions of one set as a column of edits."""
    ends = np.cumsum(np.bincount(deletions["document"], minlength=n_documents))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    replacement = pa.array(["", "\n"], pa.string()).take(pa.array(deletions["leaves_line_feed"]))
    values = pa.StructArray.from_arrays(
        [pa.array(deletions["begin"]), pa.array(deletions["end"]), replacement], fields=list(edits.SPAN)
    )
    return pa.ListArray.from_arrays(pa.array(offsets), values)
