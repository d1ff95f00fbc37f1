"""Functions of a batch of documents to columns of signals."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.edge import ConfigError
from configs.schema.pipeline import FilterConfig, RuleConfig
from data_pipeline import policy
from data_pipeline.annotate.own.names import as_signal, columns
from data_pipeline.document import SCHEMA, read_shard, shard_path, write_table

Function = Callable[[pa.Table], Mapping[str, Any]]
"""From n documents (the columns of `document.SCHEMA`) to columns of n numbers, booleans or strings."""


class Raised(ValueError):
    """The function itself raised an error."""


class Mismatch(ValueError):
    """What a function returned is not what it must return."""


def load(entry: str, folder: str) -> Function:
    """A function by `module:function`; modules are searched in `folder` after Python's own path.

    Raises:
        ConfigError: no such module or function, or an error while it is imported.
    """
    if folder not in sys.path:
        sys.path.append(folder)
    module_name, _, name = entry.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module raises
        raise ConfigError(
            f"`signals.functions`: `{module_name}` of `{entry}` cannot be imported "
            f"({type(error).__name__}: {error}); searched Python's path and {folder}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        defined = ", ".join(n for n, v in vars(module).items() if inspect.isfunction(v)) or "none"
        raise ConfigError(
            f"`signals.functions`: {module.__file__} has no function `{name}`; it has: {defined}"
        )
    return function  # type: ignore[no-any-return]


def apply(
    run_dir: Path,
    shard: int,
    name: str,
    entry: str,
    folder: str,
    batch_documents: int,
    policies: Sequence[FilterConfig],
    version: str = "",
) -> dict[str, int]:
    """Write `signals/NAME` of a shard with what a function says of its documents, batch by batch.

    The function sees documents with text only, with the language that policies see; for others the signals are null.

    Args:
        policies: policies whose rules must find their columns.
        version: hash of the function, kept in the sidecar, so that the next run knows its columns without calling it.

    Raises:
        ValueError: the function raised, or did not return what it must; the message names function and document.
    """
    function = load(entry, folder)
    scored = 0
    made: list[pa.Table] = []
    for documents in batches(run_dir, shard, batch_documents):
        mask = _has_text(documents["text"])
        read = documents if mask.all() else documents.filter(pa.array(mask))
        if not len(read):
            made.append(pa.table({"id": documents["id"]}))
            continue
        found = call(function, entry, read)
        if not mask.all():
            rows = pa.array(np.cumsum(mask) - 1, mask=~mask)
            found = {c: v.take(rows) for c, v in found.items()}
        made.append(pa.table({"id": documents["id"], **found}))
        scored += len(read)
    table = _joined(made, entry)
    if scored:
        check_rules(name, entry, table.schema, policies)
    table = table.replace_schema_metadata({b"function": version.encode()})
    write_table(table, shard_path(run_dir, f"signals/{name}", shard))
    return {"documents": len(table), "scored": scored}


def _joined(made: Sequence[pa.Table], entry: str) -> pa.Table:
    """The batches of a shard as one table; batches without text have no columns, and empty ones no type."""
    if not made:
        return pa.table({"id": pa.array([], pa.string())})
    given = [m for m in made if len(m.column_names) > 1]
    for table in given[1:]:
        if set(table.column_names) != set(given[0].column_names):
            raise Mismatch(
                f"{entry} returned the columns {', '.join(table.column_names[1:])} for the documents from "
                f"{table['id'][0].as_py()} on, and {', '.join(given[0].column_names[1:])} for others; expected the same "
                "columns for every batch"
            )
    try:
        table = pa.concat_tables(made, promote_options="permissive")
    except pa.ArrowException as error:
        raise Mismatch(
            f"{entry} returned columns of one name that hold numbers for some documents and strings for others ({error})"
        ) from None
    fields = [f.with_type(pa.float64()) if pa.types.is_null(f.type) else f for f in table.schema]
    return table.cast(pa.schema(fields))


def batches(run_dir: Path, shard: int, size: int) -> Iterator[pa.Table]:
    """The documents of a shard, `size` at a time, with detected languages; memory is one row group."""
    path = shard_path(run_dir, "documents", shard)
    spoken = policy.languages(run_dir, shard, read_shard(run_dir, shard, ["language"]))
    at = 0
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(size, use_threads=False):
            table = pa.Table.from_batches([batch])
            language = spoken.slice(at, len(table))
            at += len(table)
            yield table.set_column(SCHEMA.get_field_index("language"), "language", language)


def call(function: Function, entry: str, documents: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns that a function returns for documents.

    Raises:
        Raised: the function raised; the message names it and a document.
        Mismatch: it did not return what it must.
    """
    try:
        result: Any = function(documents)
    except Exception as error:  # whatever a user's function raises
        alone = _first_alone(function, documents)
        where = (
            f"document {alone} of source {documents['source'][0].as_py()}"
            if alone
            else f"the {len(documents)} documents from {documents['id'][0].as_py()} on (no single one makes it fail)"
        )
        raise Raised(f"{entry} raised {type(error).__name__}: {error}, for {where}") from error
    if isinstance(result, (pa.Table, pa.RecordBatch)):
        result = {c: result[c] for c in result.column_names if c != "id"}
    if not isinstance(result, Mapping) or not result:
        raise Mismatch(
            f"{entry} returned {type(result).__name__}; expected a mapping of column names to one value a document"
        )
    return {str(column): _column(column, values, entry, documents) for column, values in result.items()}


def _column(column: Any, values: Any, entry: str, documents: pa.Table) -> pa.ChunkedArray:
    what = f"{entry}: column `{column}`"
    if not isinstance(column, str) or not re.fullmatch(r"[A-Za-z_]\w*", column) or column == "id":
        raise Mismatch(f"{what}: expected a name of letters, digits and _ that is not `id`")
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise Mismatch(f"{what} is one {type(values).__name__}; expected one value a document")
    if len(values) != len(documents):
        first, last = documents["id"][0].as_py(), documents["id"][-1].as_py()
        raise Mismatch(
            f"{what} holds {len(values)} values for {len(documents)} documents ({first} to {last}); expected one a document"
        )
    try:
        array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise Mismatch(f"{what} is no column of numbers, booleans or strings: {error}") from None
    try:
        return as_signal(array, what)
    except ValueError as error:
        raise Mismatch(str(error)) from None


def _first_alone(function: Function, documents: pa.Table) -> str | None:
    """Id of the first document for which the function fails by itself."""
    for i in range(len(documents)):
        try:
            function(documents.slice(i, 1))
        except Exception:  # that is what is looked for
            return str(documents["id"][i].as_py())
    return None


def check_rules(name: str, entry: str, schema: pa.Schema, policies: Sequence[FilterConfig]) -> None:
    """Refuse rules about columns that the function did not return.

    Raises:
        Mismatch: such a rule.
    """
    returned = columns(schema)
    for config in policies:
        rules: dict[str, RuleConfig | None] = {
            k: r for k, r in config.rules.items() if r is not None and r.signal.split(".")[0] == name
        }
        try:
            policy.check(FilterConfig(name=config.name, rules=rules), {name: returned})
        except ConfigError as error:
            raise Mismatch(f"{error} ({entry} returned: {', '.join(returned)})") from None


def _has_text(texts: pa.ChunkedArray) -> np.ndarray:
    """bool [n]: documents of which something was extracted."""
    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)
    return np.asarray(sizes > 0)
