"""The kept documents: decisions joined, edits applied, one Parquet shard (and on wish one JSONL) each unit."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline import edits, policy
from data_pipeline.document import read_shard, read_table, shard_path, write_table
from data_pipeline.packed.files import write_atomically
from data_pipeline.zstd import zstd

EMPTY_RULE = "edits.empty"
"""Rule that drops a document of which the edits leave nothing."""


def finish(
    run_dir: Path, shard: int, steps: Sequence[str], names: Sequence[str], jsonl: bool
) -> dict[str, int]:
    """Write `decisions/final` and `kept` of a shard.

    Args:
        steps: decision steps, in order; the first that drops a document names the rule.
        names: edit sets of the policy.
        jsonl: write `kept/*.jsonl.zst` beside the Parquet file.

    Returns:
        Counts: `kept`, `dropped`, `edited`, and `removed_characters` of the edited ones.
    """
    decisions = policy.combine(run_dir, shard, list(steps))
    keep = decisions["keep"].to_numpy(zero_copy_only=False).astype(bool)
    documents = read_shard(run_dir, shard)
    counts = {"kept": 0, "dropped": 0, "edited": 0, "removed_characters": 0}
    changed: dict[int, str] = {}
    for row, sets in edits.read(run_dir, names, shard, documents["id"]).items() if names else ():
        if keep[row]:
            text = documents["text"][row].as_py()
            changed[row] = edits.apply(text, sets).strip()
            counts["edited"] += 1
            counts["removed_characters"] += max(len(text) - len(changed[row]), 0)
    empty = [row for row, text in changed.items() if not text]
    if empty:
        decisions = policy.drop(decisions, empty, EMPTY_RULE)
        keep[empty] = False
    write_table(decisions, shard_path(run_dir, "decisions/final", shard))
    documents = documents.set_column(
        documents.schema.get_field_index("language"), "language", policy.languages(run_dir, shard, documents)
    )
    table = _flagged(run_dir, shard, documents).filter(pa.array(keep))
    if changed:
        texts = table["text"].to_pylist()
        position = np.cumsum(keep) - 1
        for row, text in changed.items():
            if keep[row]:
                texts[position[row]] = text
        table = table.set_column(table.schema.get_field_index("text"), "text", pa.array(texts, pa.string()))
    if jsonl:
        _write_jsonl(table, shard_path(run_dir, "kept", shard).with_suffix(".jsonl.zst"))
    write_table(table, shard_path(run_dir, "kept", shard))
    return {**counts, "kept": int(keep.sum()), "dropped": int((~keep).sum())}


def _flagged(run_dir: Path, shard: int, documents: pa.Table) -> pa.Table:
    """Documents whose metadata name the rules that flag them."""
    flags = read_table(shard_path(run_dir, "flags", shard), ["flags"])["flags"]
    rows = pc.indices_nonzero(pc.greater(pc.list_value_length(flags), 0)).to_pylist()
    if not rows:
        return documents
    metadata = documents["metadata"].to_pylist()
    for row in rows:
        noted = orjson.loads(metadata[row]) | {"flags": flags[row].as_py()}
        metadata[row] = orjson.dumps(noted, option=orjson.OPT_SORT_KEYS).decode()
    index = documents.schema.get_field_index("metadata")
    return documents.set_column(index, "metadata", pa.array(metadata, pa.string()))


def texts(run_dir: Path, shards: int) -> Iterator[tuple[str, str]]:
    """(id, text) of all kept documents, in shard order."""
    for shard in range(shards):
        with pq.ParquetFile(shard_path(run_dir, "kept", shard)) as file:
            for batch in file.iter_batches(batch_size=2048, columns=["id", "text"]):
                yield from zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True)


def _write_jsonl(table: pa.Table, path: Path) -> None:
    """One JSON object a line: the columns of the table that are not null, `metadata` as an object."""
    lines = io.BytesIO()
    for batch in table.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            row["metadata"] = orjson.loads(row["metadata"])
            lines.write(orjson.dumps({k: v for k, v in row.items() if v is not None}) + b"\n")
    write_atomically(path, zstd.compress(lines.getvalue(), 3))
