"""The sidecars `stats gopher c4 hashes` of a shard, from one analysis of each document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa

from data_pipeline.analysis import Analysis
from data_pipeline.annotate import c4, gopher, hashes, stats
from data_pipeline.document import read_shard, shard_path, write_table

SIDECARS: dict[str, tuple[Callable[[Analysis], Mapping[str, float | str]], tuple[str, ...]]] = {
    "stats": (stats.signals, stats.COLUMNS),
    "gopher": (gopher.signals, gopher.COLUMNS),
    "c4": (c4.signals, c4.COLUMNS),
    "hashes": (hashes.signals, hashes.COLUMNS),
}


def annotate(run_dir: Path, shard: int) -> dict[str, int]:
    """Write the four sidecars of a shard; returns the number of documents and bytes."""
    documents = read_shard(run_dir, shard, ["id", "text"])
    columns: dict[str, dict[str, list[float | str]]] = {
        name: {column: [] for column in names} for name, (_, names) in SIDECARS.items()
    }
    n_bytes = 0
    for value in documents["text"]:
        document = Analysis(value.as_py() or "")
        n_bytes += document.n_bytes
        for name, (signals, _) in SIDECARS.items():
            for column, signal in signals(document).items():
                columns[name][column].append(signal)
    for name, values in columns.items():
        kind = pa.string() if name == "hashes" else pa.float64()
        arrays = {column: pa.array(v, kind) for column, v in values.items()}
        write_table(
            pa.table({"id": documents["id"], **arrays}), shard_path(run_dir, f"signals/{name}", shard)
        )
    return {"documents": len(documents), "bytes": n_bytes}
