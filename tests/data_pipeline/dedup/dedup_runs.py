"""A data run's directory with documents in shards, as the deduplication steps find it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = Sequence[tuple[str, str]]


def identifier(name: object) -> str:
    """A document id from any name."""
    return hashlib.md5(str(name).encode()).hexdigest()


def write_run(
    run: Path,
    shards: Sequence[Rows],
    quality: dict[str, float | None] | None = None,
    dropped: set[str] | None = None,
    dates: dict[str, str] | None = None,
) -> Path:
    """Write shards of (id, text) rows, with quality scores, dates and the ids that policy A dropped."""
    for number, rows in enumerate(shards):
        ids = [i for i, _ in rows]
        tables: dict[str, dict[str, Any]] = {
            "documents": {
                "text": pa.array([t for _, t in rows], pa.string()),
                "date": pa.array([(dates or {}).get(i) for i in ids], pa.string()),
            }
        }
        if quality is not None:
            tables["signals/quality"] = {"score": pa.array([quality.get(i) for i in ids], pa.float32())}
        if dropped is not None:
            tables["decisions/a"] = {"keep": pa.array([i not in dropped for i in ids], pa.bool_())}
        for folder, columns in tables.items():
            (run / folder).mkdir(parents=True, exist_ok=True)
            table = pa.table({"id": pa.array(ids, pa.string())} | columns)
            pq.write_table(table, run / folder / f"{number:05d}.parquet")
    return run


def decisions(run: Path, step: str) -> dict[str, dict[str, Any]]:
    """id → row of a step's decisions, which must be row-aligned with the documents."""
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted((run / "decisions" / step).glob("*.parquet")):
        assert pq.read_table(path)["id"].equals(pq.read_table(run / "documents" / path.name)["id"])
        rows |= {row["id"]: row for row in pq.read_table(path).to_pylist()}
    return rows


def kept(run: Path, step: str) -> set[str]:
    """Ids that a step keeps."""
    return {i for i, row in decisions(run, step).items() if row["keep"]}
