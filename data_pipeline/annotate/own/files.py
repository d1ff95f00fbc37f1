"""Parquet files of signals, joined to the documents by id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.edge import ConfigError
from data_pipeline.annotate.own.names import Columns, as_signal, columns, stored
from data_pipeline.document import read_shard, read_table, shard_path, write_table

ID_CHARACTERS = 32


def find(entry: str) -> list[Path]:
    """The Parquet file, or those of the folder.

    Raises:
        ConfigError: there is none.
    """
    path = Path(entry).expanduser()
    found = sorted(path.glob("*.parquet")) if path.is_dir() else [path] if path.is_file() else []
    if not found:
        raise ConfigError(f"`signals.extra`: {path} is no Parquet file and no folder of them")
    return found


def check(entry: str) -> Columns:
    """The signals of a file or folder.

    Raises:
        ConfigError: a file that is no Parquet, has no column `id` of strings or nothing beside it, or columns that cannot be
            signals.
    """
    found: Columns = {}
    for file in find(entry):
        try:
            schema = pq.read_schema(file)
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"`signals.extra`: {file} cannot be read as Parquet ({error})") from None
        if "id" not in schema.names or stored(schema.field("id").type) != pa.string():
            raise ConfigError(
                f"`signals.extra`: {file} has no column `id` of document ids (32 hexadecimal digits, as in the `id` of "
                f"documents/*.parquet and kept/*.parquet); its columns: {', '.join(schema.names)}"
            )
        for field in schema:
            if field.name != "id" and (stored(field.type) is None or "." in field.name):
                raise ConfigError(
                    f"`signals.extra`: {file}: column `{field.name}` holds {field.type}; expected numbers, booleans or "
                    "strings, under a name without a dot"
                )
        found |= columns(schema)
    if not found:
        raise ConfigError(
            f"`signals.extra`: {entry} has no column but `id`; expected a column for each signal"
        )
    return found


def join(run_dir: Path, shards: int, name: str, entry: str) -> dict[str, int]:
    """Write `signals/NAME` for every shard from the rows of a file. The rows are held in memory.

    Returns:
        Counts: `matched` documents; `missing`, documents with text that have no row (their signal is null); `surplus`, rows
        without a document.

    Raises:
        ValueError: an id that is no document id or stands in two rows, or files whose columns differ in kind.
    """
    try:
        table = pa.concat_tables([read_table(f) for f in find(entry)], promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(f"{entry}: its files do not have the same columns ({error})") from None
    signals = {c: as_signal(table[c], f"{entry}: column `{c}`") for c in table.column_names if c != "id"}
    keys = _keys(table["id"], entry)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        first, second = order[twice[0]], order[twice[0] + 1]
        raise ValueError(
            f"{entry}: the id {ordered[twice[0]].decode()} stands in rows {first} and {second}; expected one row a "
            f"document ({len(twice):,} rows repeat an id)"
        )
    used = np.zeros(len(keys), bool)
    missing = 0
    for shard in range(shards):
        ids = read_shard(run_dir, shard, ["id"])["id"]
        documents = _keys(ids, str(shard_path(run_dir, "documents", shard)))
        row, hit = _rows(ordered, order, documents)
        used[row[hit]] = True
        # Documents without text are dropped whatever a signal says of them.
        sizes = read_table(shard_path(run_dir, "signals/stats", shard), ["bytes"])["bytes"]
        missing += int((~hit & (sizes.to_numpy() > 0)).sum())
        rows = pa.array(row, mask=~hit)
        joined = {c: pc.take(values, rows) for c, values in signals.items()}
        write_table(pa.table({"id": ids, **joined}), shard_path(run_dir, f"signals/{name}", shard))
    return {"matched": int(used.sum()), "missing": missing, "surplus": int((~used).sum())}


def _rows(ordered: np.ndarray, order: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row of the table of each wanted key, whether there is one), int64 and bool [n]."""
    if not len(ordered):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    place = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return order[place], ordered[place] == wanted


def _keys(ids: pa.ChunkedArray, where: str) -> np.ndarray:
    """Ids as bytes, S32 [n]."""
    lowered = pc.utf8_lower(ids.cast(pa.large_string()))
    right = pc.fill_null(pc.match_substring_regex(lowered, f"^[0-9a-f]{{{ID_CHARACTERS}}}$"), False)
    if not pc.all(right, min_count=0).as_py():
        row = pc.index(right, False).as_py()
        raise ValueError(
            f"{where}, row {row}: {ids[row].as_py()!r} is no document id; expected {ID_CHARACTERS} hexadecimal digits"
        )
    return np.array(lowered.to_pylist(), f"S{ID_CHARACTERS}")
