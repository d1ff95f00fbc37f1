"""The sidecars `stats gopher c4 fineweb refinedweb llama3 hashes` of a shard, and the edits of the line rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline import edits
from data_pipeline.analysis import Batch, batches
from data_pipeline.annotate import c4, fineweb, gopher, hashes, llama3, outliers, refinedweb, stats
from data_pipeline.document import read_shard, shard_path, write_table

SIDECARS: dict[str, tuple[Callable[[Batch], Mapping[str, Any]], tuple[str, ...]]] = {
    "stats": (stats.signals, stats.COLUMNS),
    "gopher": (gopher.signals, gopher.COLUMNS),
    "c4": (c4.signals, c4.COLUMNS),
    "fineweb": (fineweb.signals, fineweb.COLUMNS),
    "refinedweb": (refinedweb.signals, refinedweb.COLUMNS),
    "llama3": (llama3.signals, llama3.COLUMNS),
    "hashes": (hashes.signals, hashes.COLUMNS),
}
EDITS = ("c4_lines", "fineweb_lines", "refinedweb_lines", "llama3_lines")
"""Sets of edits, in the order of the numbers in `analysis.lines`."""
MODULES = ("heuristics", "stopwords", "outliers", *SIDECARS)
"""Modules of this package that the signals depend on."""


def annotate(run_dir: Path, shard: int, languages: Sequence[str | None] | None = None) -> dict[str, int]:
    """Write the sidecars, edits and word counts of a shard; returns the number of documents and bytes.

    Args:
        languages: of each document, for its stop words; without them all count as unknown.
    """
    documents = read_shard(run_dir, shard, ["id", "text"])
    counter = outliers.Counter()
    signals, found = annotate_texts(documents["text"], languages, counter)
    counter.write(run_dir, shard)
    for name, columns in signals.items():
        table = pa.table({"id": documents["id"], **columns})
        write_table(table, shard_path(run_dir, f"signals/{name}", shard))
    for name, spans in found.items():
        table = pa.table([documents["id"], spans], schema=edits.SCHEMA)
        write_table(table, shard_path(run_dir, f"edits/{name}", shard))
    return {"documents": len(documents), "bytes": int(np.sum(signals["stats"]["bytes"].to_numpy()))}


def annotate_texts(
    texts: pa.ChunkedArray,
    languages: Sequence[str | None] | None = None,
    counter: outliers.Counter | None = None,
) -> tuple[dict[str, dict[str, pa.Array]], dict[str, pa.Array]]:
    """Signals by sidecar and column, and edits by set, of a column of texts; their words are added to a counter."""
    found: dict[str, dict[str, list[Any]]] = {
        name: {c: [] for c in columns} for name, (_, columns) in SIDECARS.items()
    }
    spans: list[np.ndarray] = []
    done = 0
    for batch in batches(texts):
        chosen = None if languages is None else languages[done : done + len(batch)]
        for name, (signals, _) in SIDECARS.items():
            values = gopher.signals(batch, chosen) if name == "gopher" else signals(batch)
            for column, value in values.items():
                found[name][column].append(value)
        if counter is not None:
            counter.add(batch, chosen or [None] * len(batch))
        proposed = batch.spans
        proposed[:, 1] += done
        spans.append(proposed)
        done += len(batch)
    arrays = {
        name: {column: _array(values, name == "hashes") for column, values in columns.items()}
        for name, columns in found.items()
    }
    every = np.concatenate(spans) if spans else np.empty((0, 5), np.int32)
    return arrays, {name: _spans(every[every[:, 0] == i], done) for i, name in enumerate(EDITS)}


def _array(values: list[Any], is_text: bool) -> pa.Array:
    if is_text:
        return pa.array([v for part in values for v in part], pa.string())
    numbers = np.concatenate(values).astype(np.float64) if values else np.empty(0)
    return pa.array(numbers, mask=np.isnan(numbers))


def _spans(spans: np.ndarray, n: int) -> pa.Array:
    """Edits of one set as a column for `n` documents."""
    ends = np.cumsum(np.bincount(spans[:, 1], minlength=n))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    text = pa.array(["", "\n"], pa.string()).take(pa.array(spans[:, 4]))
    values = pa.StructArray.from_arrays(
        [pa.array(spans[:, 2]), pa.array(spans[:, 3]), text], fields=list(edits.SPAN)
    )
    return pa.ListArray.from_arrays(pa.array(offsets), values)
