"""Parquet: one document a row, read by row groups."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema.pipeline import RecipeConfig
from data_pipeline.read import Item, SetAside, Unit
from data_pipeline.read.jsonl import KNOWN_KEYS, from_row

BATCH_ROWS = 1000


def read(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """Records of a Parquet file, or of the unit's row groups of it; offsets are row numbers."""
    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            wanted = {recipe.text_key, recipe.id_key, recipe.url_key, *KNOWN_KEYS}
            if recipe.text_key not in names:
                yield SetAside(
                    file,
                    0,
                    0,
                    f"no column `{recipe.text_key}`",
                    f"a column of text; columns found: {', '.join(names)[:200]}; set `recipe.text_key`",
                )
                return
            stop = parquet.num_row_groups if unit.end is None else unit.end
            number = sum(parquet.metadata.row_group(i).num_rows for i in range(unit.begin))
            for group in range(unit.begin, stop):
                after = number + parquet.metadata.row_group(group).num_rows
                try:
                    for batch in parquet.iter_batches(
                        BATCH_ROWS, row_groups=[group], columns=[n for n in names if n in wanted]
                    ):
                        for row in batch.to_pylist():
                            if len(row[recipe.text_key] or "") > recipe.max_record_bytes:
                                yield SetAside(
                                    file,
                                    number,
                                    number,
                                    f"text longer than {recipe.max_record_bytes} bytes",
                                    "raise `recipe.max_record_bytes` to read it",
                                )
                            else:
                                yield from_row(row, file, number, number, recipe, "")
                            number += 1
                except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                    yield SetAside(
                        file,
                        number,
                        number,
                        f"damaged row group {group}: {error}",
                        f"readable rows up to {after}; the rest of the row group is lost",
                    )
                    number = after
    except (pa.ArrowException, OSError) as error:
        yield SetAside(file, number, 0, f"not readable as Parquet: {error}", "a Parquet file")
