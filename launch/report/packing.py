"""What packing made of the documents: padding, cut documents, and bytes a token by source and language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch.report.charts import Row
from launch.report.page import details, table
from launch.report.read import Record
from launch.report.words import number, share

SHOWN = 10


def packing(record: Record) -> str:
    """Tables by stream and, where there are token shards, by source and language; empty without a manifest."""
    streams = record.manifest.get("streams")
    length = record.manifest.get("sequence_length")
    if not isinstance(streams, dict) or not streams or not length:
        return ""
    rows = [_stream(name, info, int(length)) for name, info in sorted(streams.items())]
    head = [
        "stream",
        "documents",
        "tokens",
        "bytes a token",
        "documents a sequence",
        "padding",
        "cut documents",
    ]
    body = "<h3>Packing</h3>" + table(head, rows, 1)
    shards = sorted((record.packed.resolve().parent / "tokens").glob("*.arrow")) if record.packed else []
    if shards:
        rows = by_language(shards)
        head = ["source", "language", "documents", "tokens", "bytes a token"]
        body += "<h3>Tokens by language</h3>" + table(head, rows[:SHOWN], 2)
        if len(rows) > SHOWN:
            body += details(f"All {len(rows)} sources and languages", table(head, rows, 2))
    return body


def _stream(name: str, info: Row, length: int) -> list[Any]:
    sequences, tokens, documents = (int(info.get(key) or 0) for key in ("sequences", "tokens", "documents"))
    cut = info.get("cut")
    return [
        name,
        number(documents),
        number(tokens),
        _ratio(int(info.get("bytes") or 0), tokens),
        _ratio(documents, sequences),
        share(float(sequences * length - tokens), float(sequences * length)),
        "—" if cut is None else f"{number(cut)} ({share(float(cut), float(documents))})",
    ]


def by_language(shards: list[Path]) -> list[list[Any]]:
    """Rows of documents, tokens and bytes a token by (source, language), most tokens first; reads no token."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = []
    for path in shards:
        with pa.memory_map(str(path)) as source:
            shard = pa.ipc.open_file(source).read_all()
            columns = {
                "source": shard["source"],
                "language": shard["language"],
                "bytes": shard["bytes"],
                "tokens": pc.list_value_length(shard["tokens"]),
            }
            sums = [("bytes", "sum"), ("tokens", "sum"), ("tokens", "count")]
            parts.append(pa.table(columns).group_by(["source", "language"]).aggregate(sums))
    totals: dict[tuple[str, str], list[int]] = {}
    for row in pa.concat_tables(parts, promote_options="permissive").to_pylist():
        total = totals.setdefault((row["source"], row["language"] or "und"), [0, 0, 0])
        for place, key in enumerate(("tokens_sum", "bytes_sum", "tokens_count")):
            total[place] += row[key] or 0
    return [
        [source, language, number(documents), number(tokens), _ratio(size, tokens)]
        for (source, language), (tokens, size, documents) in sorted(totals.items(), key=lambda t: -t[1][0])
    ]


def _ratio(a: int, b: int) -> str:
    return f"{a / b:.2f}" if b else "—"
