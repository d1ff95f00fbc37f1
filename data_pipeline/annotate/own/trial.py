"""Functions are tried on two documents before a run begins, in a process of their own.

    python -m data_pipeline.annotate.own.trial MODULE:FUNCTION FOLDER

prints one line of JSON. A process of its own, because the driver must not hold what a user's module loads.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from configs import children
from configs.edge import ConfigError
from configs.schema.pipeline import SignalsConfig
from data_pipeline import fingerprint
from data_pipeline.annotate.own import files, functions, sources
from data_pipeline.annotate.own.names import Columns, columns, names
from data_pipeline.document import SCHEMA, shard_path

DOCUMENTS = pa.table(
    {
        "id": ["0" * 32, "1" * 32],
        "source": ["trial", "trial"],
        "url": ["https://example.org/", None],
        "language": ["en", None],
        "licence": pa.nulls(2, pa.string()),
        "date": ["2024-05-01", None],
        "group": ["0" * 32, "1" * 32],
        "text": ["A bridge of stone crosses the river. It was built in 1620.\n\nIt has four arches.", "x"],
        "metadata": ["{}", "{}"],
    },
    schema=SCHEMA,
)
"""What a function is tried on: a document as pages are, and one with nothing but a letter."""


def known(config: SignalsConfig, run_dir: Path) -> tuple[dict[str, Columns | None], list[str]]:
    """Sidecar → its columns before the run begins, and what there is to be said about functions that were tried.

    None for the columns of a function that raised for the documents of the trial: those of the run may have what it needs.

    Raises:
        ConfigError: a file or function that cannot be used.
    """
    found: dict[str, Columns | None] = {}
    notes = []
    for name, entry in names(config).items():
        if entry in config.extra:
            found[name] = files.check(entry)
            continue
        version = fingerprint.of(sources.version(entry, str(Path.cwd())))
        made = shard_path(run_dir, f"signals/{name}", 0)
        schema = pq.read_schema(made) if made.is_file() else pa.schema([])
        if (schema.metadata or {}).get(b"function") == version.encode():
            found[name] = columns(schema) or None
            continue
        found[name], note = _try(entry)
        notes += [note] if note else []
    return found, notes


def _try(entry: str) -> tuple[Columns | None, str]:
    done = subprocess.run(
        children.command("data_pipeline.annotate.own.trial", entry, str(Path.cwd())),
        stdout=subprocess.PIPE,
        env=children.environment(),
        check=False,
    )
    try:
        said = orjson.loads(done.stdout.splitlines()[-1])
    except (IndexError, orjson.JSONDecodeError):
        raise ConfigError(
            f"`signals.functions`: {entry} ended its process with status {done.returncode} when it was tried on two "
            "documents; its own error is above"
        ) from None
    if "error" in said:
        raise ConfigError(said["error"])
    if "raised" in said:
        return None, f"{said['raised']}; it goes on with those of the run"
    return said["columns"], ""


def main(argv: Sequence[str] | None = None) -> int:
    """Try a function; the line of JSON holds `columns`, `error` or `raised`."""
    entry, folder = sys.argv[1:] if argv is None else argv
    # What the user's code prints must not stand between the driver and the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        made = functions.call(functions.load(entry, folder), entry, DOCUMENTS)
        said: dict[str, Any] = {"columns": columns(pa.table(made).schema)}
    except functions.Raised as error:
        said = {"raised": f"when tried on two documents of ours, {error}"}
    except (ConfigError, functions.Mismatch) as error:
        said = {"error": f"{error}"}
    sys.stdout.flush()
    os.write(answer, b"\n" + orjson.dumps(said) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
