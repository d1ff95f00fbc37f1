"""Parquet: one document a row, read by row groups, in bounded memory whatever the rows hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema.pipeline import RecipeConfig
from data_pipeline.read import Item, SetAside, Unit, storage
from data_pipeline.read.jsonl import KNOWN_KEYS, from_row

BATCH_ROWS = 1000
BATCH_BYTES = 16 * 2**20
"""Bytes of a batch, by what the file says about its rows."""
MAX_GROUP_BYTES = 1 * 2**30
"""Bytes of text of a row group: the library holds a page whole, and a group may be one page."""
DAMAGE = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, OverflowError, MemoryError)
"""What the library raises on damaged files."""
LIMITS = {"thrift_string_size_limit": 2**26, "thrift_container_size_limit": 2**22}
"""What a damaged footer may make the library allocate."""


def read(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Records of a Parquet file, or of the unit's row groups of it; offsets are row numbers."""
    number = 0
    try:
        with storage.open_binary(file) as raw, open_parquet(raw) as parquet:
            schema = parquet.schema_arrow
            columns = wanted_columns(schema, recipe)
            if found := without_text(schema, recipe):
                yield SetAside(file, 0, 0, *found)
                return
            stop = parquet.num_row_groups if unit.end is None else unit.end
            number = sum(parquet.metadata.row_group(i).num_rows for i in range(unit.begin))
            for group in range(unit.begin, stop):
                after = number + parquet.metadata.row_group(group).num_rows
                if (size := _text_bytes(parquet, group, recipe.text_key)) > MAX_GROUP_BYTES:
                    yield SetAside(
                        file,
                        number,
                        number,
                        f"row group {group} holds {size} bytes of text",
                        f"at most {MAX_GROUP_BYTES}: a page of it may be one string; write smaller row groups",
                    )
                    number = after
                    continue
                try:
                    for row in _rows(parquet, group, columns, recipe):
                        yield item_of(row, file, number, recipe)
                        number += 1
                except DAMAGE as error:
                    yield SetAside(
                        file,
                        number,
                        number,
                        f"damaged row group {group}: {str(error)[:300]}",
                        f"readable rows up to {after}; the rest of the row group is lost",
                    )
                number = after
    except DAMAGE as error:
        yield SetAside(file, number, 0, f"not readable as Parquet: {str(error)[:300]}", "a Parquet file")


def open_parquet(raw: Any) -> pq.ParquetFile:
    """A Parquet file whose columns are streamed instead of read whole."""
    # Text stays as a dictionary where the file stores one: a long string that a thousand rows share is held once.
    with pq.ParquetFile(raw, **LIMITS) as described:
        dictionaries = _dictionary_columns(described.metadata, described.schema_arrow)
    raw.seek(0)
    return pq.ParquetFile(raw, buffer_size=2**20, read_dictionary=dictionaries, **LIMITS)


def _dictionary_columns(metadata: pq.FileMetaData, schema: pa.Schema) -> list[str]:
    """Flat text columns that are stored as dictionaries and plain pages alone: Arrow reads no others as dictionaries."""
    text = {f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_binary(f.type)}
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for i in range(row_group.num_columns):
            column = row_group.column(i)
            if not set(column.encodings) <= _DICTIONARY_ENCODINGS:
                text.discard(column.path_in_schema)
    return sorted(text)


_DICTIONARY_ENCODINGS = {"PLAIN", "RLE", "RLE_DICTIONARY", "PLAIN_DICTIONARY", "BIT_PACKED"}


def _text_bytes(parquet: pq.ParquetFile, group: int, text_key: str) -> int:
    described = parquet.metadata.row_group(group)
    columns = (described.column(i) for i in range(described.num_columns))
    return sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == text_key)


def _rows(
    parquet: pq.ParquetFile, group: int, columns: list[str], recipe: RecipeConfig
) -> Iterator[dict[str, Any]]:
    """Rows of a row group; the text as bytes where it is text, so that one bad row is one bad row."""
    described = parquet.metadata.row_group(group)
    per_row = described.total_byte_size // max(described.num_rows, 1) + 1
    rows = max(1, min(BATCH_ROWS, BATCH_BYTES // per_row))
    for batch in parquet.iter_batches(rows, row_groups=[group], columns=columns):
        yield from raw_rows(batch, recipe)


def raw_rows(batch: pa.RecordBatch, recipe: RecipeConfig) -> Iterator[dict[str, Any]]:
    """Rows of a batch with the columns that records have; text as bytes, so that one bad row is one bad row."""
    arrays, binary = {}, set()
    for name in wanted_columns(batch.schema, recipe):
        array = batch.column(batch.schema.get_field_index(name))
        # Of what is nested only an id is of use, as the text of it, like `{"$oid": …}` of MongoDB.
        if name == recipe.id_key or not pa.types.is_nested(array.type):
            arrays[name] = _readable(array)
            if _is_binary(array.type):
                binary.add(name)
    for i in range(batch.num_rows):
        row = {name: _value(array[i]) for name, array in arrays.items()}
        if (
            recipe.id_key in binary
            and isinstance(given := row[recipe.id_key], bytes)
            and not _printable(given)
        ):
            row[recipe.id_key] = given.hex()  # a hash or a number
        yield row


def without_text(schema: pa.Schema, recipe: RecipeConfig) -> tuple[str, str] | None:
    """Why a table has no text, and what is expected; None where it has."""
    names, key = schema.names, recipe.text_key
    expected = (
        f"a column of text; columns found: {', '.join(names)[:200]}; set `recipe.text_key`, or `text_key` of the source in "
        "`sources`"
    )
    if names.count(key) != 1:
        return f"{names.count(key) or 'no'} column{'s' * (key in names)} `{key}`", expected
    kind = schema.field(key).type
    return (
        (f"column `{key}` is not text: it is {str(kind)[:100]}", expected)
        if pa.types.is_nested(kind)
        else None
    )


def _value(scalar: pa.Scalar) -> Any:
    """A value as Python's; None for dates and times that Python cannot hold, such as the year 20000."""
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return None


def _is_binary(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in tests)


def _printable(value: bytes) -> bool:
    try:
        return value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def wanted_columns(schema: pa.Schema, recipe: RecipeConfig) -> list[str]:
    """Columns that become fields of a record; a name that two columns have is nobody's."""
    wanted = {recipe.text_key, recipe.id_key, recipe.url_key, recipe.date_key, *KNOWN_KEYS}
    return [n for n in dict.fromkeys(schema.names) if n in wanted and schema.names.count(n) == 1]


def _readable(array: pa.Array) -> pa.Array:
    """Strings as bytes, without a look at whether they are UTF-8; times to the second."""
    if pa.types.is_timestamp(array.type):
        # Python's times end at microseconds, and those with nanoseconds, which pandas writes, would be errors.
        return array.cast(pa.timestamp("s", array.type.tz), safe=False)
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.large_binary())
    if isinstance(array, pa.DictionaryArray):
        return pa.DictionaryArray.from_arrays(array.indices, _readable(array.dictionary))
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return array.view(pa.binary() if pa.types.is_string(array.type) else pa.large_binary())
    return array


def item_of(row: dict[str, Any], file: str, number: int, recipe: RecipeConfig) -> Item:
    """A record from the raw fields of a row, or the reason why there is none."""
    text = row.get(recipe.text_key)
    if isinstance(text, bytes) and len(text) > recipe.max_record_bytes:
        expected = "raise `recipe.max_record_bytes` to read it"
        return SetAside(file, number, number, f"text longer than {recipe.max_record_bytes} bytes", expected)
    decoded: dict[str, Any] = {}
    for key, value in row.items():
        if not isinstance(value, bytes):
            decoded[key] = value
            continue
        try:
            decoded[key] = value.decode()
        except UnicodeDecodeError as error:
            if key == recipe.text_key:
                return SetAside(
                    file, number, number, f"invalid UTF-8 at byte {error.start} of a field", "UTF-8"
                )
            if key == recipe.id_key:
                decoded[key] = value.hex()
    return from_row(decoded, file, number, number, recipe, "")
