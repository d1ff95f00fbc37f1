"""What your own signals are called, and the columns that they have."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.edge import ConfigError
from configs.schema.pipeline import SignalsConfig
from data_pipeline import policy
from data_pipeline.document import shard_path

OF_STAGES = ("copies", "minhash", "semantic")
"""Sidecars that no policy reads, but stages do."""

Columns = dict[str, bool]
"""Column → whether it holds strings."""


def names(config: SignalsConfig) -> dict[str, str]:
    """Sidecar → the file or function that it comes from.

    Raises:
        ConfigError: two of one name, a built-in signal's name, or a function not written `module:function`.
    """
    found: dict[str, str] = {}
    for key, entries in (("extra", config.extra), ("functions", config.functions)):
        for entry in entries:
            if key == "functions" and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", entry):
                raise ConfigError(f"`signals.functions`: `{entry}` must be written `module:function`")
            name = entry.split(":")[1] if key == "functions" else re.sub(r"\W", "_", Path(entry).stem)
            if name in policy.columns() or name in OF_STAGES:
                raise ConfigError(
                    f"`signals.{key}`: `{entry}` would be the signal `{name}`, which is built in; rename it"
                )
            if name in found:
                raise ConfigError(
                    f"`signals.{key}`: `{entry}` and `{found[name]}` would both be the signal `{name}`; rename one"
                )
            found[name] = entry
    return found


def written(config: SignalsConfig, run_dir: Path) -> dict[str, Columns | None]:
    """Sidecar → its columns, of a finished run; None for a sidecar that the run has not written."""
    found: dict[str, Columns | None] = {}
    for name in names(config):
        path = shard_path(run_dir, f"signals/{name}", 0)
        found[name] = columns(pq.read_schema(path)) if path.is_file() else None
    return found


def columns(schema: pa.Schema) -> Columns:
    """The signals of a table."""
    return {f.name: stored(f.type) == pa.string() for f in schema if f.name != "id"}


def stored(kind: pa.DataType) -> pa.DataType | None:
    """The type that values of a type are stored as: float64, int64, bool or string; None: they cannot be signals."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_floating(kind) or pa.types.is_null(kind) or pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_boolean(kind):
        return kind
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return None


def as_signal(values: pa.Array | pa.ChunkedArray, what: str) -> pa.Array | pa.ChunkedArray:
    """A column as signals are stored; NaN is null, and a column of nulls keeps its type.

    Raises:
        ValueError: values that cannot be signals; `what` names the column.
    """
    kind = stored(values.type)
    if kind is None:
        raise ValueError(f"{what} holds {values.type}; expected numbers, booleans or strings")
    if pa.types.is_null(values.type):
        return values
    try:
        values = values.cast(kind)
    except pa.ArrowException as error:
        raise ValueError(f"{what} does not fit {kind}: {error}") from None
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values)
    return values
