"""Decontamination as stages: index the evaluation sets, compare each shard, report what matched which item."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from configs import edge
from configs.schema.pipeline import DataRun
from data_pipeline import edits, fingerprint
from data_pipeline.document import read_shard, shard_count, shard_path, write_table
from data_pipeline.flow.context import Context
from data_pipeline.packed.files import write_atomically
from data_pipeline.stage import Stage

if TYPE_CHECKING:
    from data_pipeline.annotate.evalsets import Index

INDEX = "models/evaluation_sets.arrays"
MATCHES, REPORT = "contamination.jsonl", "contamination.json"
CODE = (
    "wordhash.py",
    "kernels/hashing.py",
    "edits.py",
    "dedup/arrays.py",
    "read/streams.py",
    "annotate/contamination.py",
    "annotate/evalsets.py",
    "flow/decontaminating.py",
)


def index(run_dir: Path, task: int, config: DataRun) -> dict[str, int]:
    """The index of the evaluation sets."""
    from data_pipeline.annotate import evalsets

    found = evalsets.load(config.decontaminate)
    found.save(run_dir / INDEX)
    return {"items": len(found.items), "checkable": sum(map(found.checkable, found.items))}


def compare(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Signals, matches and proposed edits of a shard."""
    from data_pipeline.annotate import contamination

    documents = read_shard(run_dir, shard, ["id", "url", "text"])
    found = None
    if config.decontaminate.sets:
        stamp = (run_dir / INDEX).stat()
        found = _index(run_dir / INDEX, (stamp.st_ino, stamp.st_mtime_ns))
    table, rows, spans = contamination.annotate(documents, found, config.decontaminate)
    write_table(table, shard_path(run_dir, "signals/contamination", shard))
    edits.write(run_dir, "contamination", shard, documents["id"], spans)
    if found is not None:
        write_atomically(run_dir / "contamination" / f"{shard:05d}.jsonl", _lines(rows))
    hit = len({row["document"] for row in rows if row["counts"]})
    return {"documents": len(documents), "contaminated": hit}


@functools.lru_cache(maxsize=1)
def _index(path: Path, stamp: tuple[int, int]) -> Index:
    """The index, read once by each process."""
    from data_pipeline.annotate.evalsets import Index

    return Index.read(path)


def report(run_dir: Path, task: int, config: DataRun) -> dict[str, int]:
    """Every match in the order of the sets, and a table by set."""
    from data_pipeline.annotate import contamination, evalsets

    rows: list[dict[str, Any]] = []
    for shard in range(shard_count(run_dir)):
        with (run_dir / "contamination" / f"{shard:05d}.jsonl").open("rb") as file:
            rows += map(orjson.loads, file)
    rows.sort(key=lambda r: (r["set"], r["item"], r["document"], r["start"], r["part"], r["field"], r["end"]))
    # A record that two files hold stands in the shards of both.
    rows = [row for i, row in enumerate(rows) if i == 0 or row != rows[i - 1]]
    summary = contamination.summary(evalsets.Index.read(run_dir / INDEX), rows)
    write_atomically(run_dir / MATCHES, _lines(rows))
    write_atomically(run_dir / REPORT, orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    return {name: sum(entry[name] for entry in summary.values()) for name in ("items", "items_found")}


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def stages(context: Context) -> Iterator[Stage]:
    """The stages of decontamination; without evaluation sets the signals are null.

    Raises:
        ConfigError: a set is missing, or a parameter cannot be used.
    """
    config, shards = context.config.decontaminate, context.shards
    outputs: tuple[str, ...] = ("signals/contamination", "edits/contamination")
    if config.sets:
        from data_pipeline.annotate import contamination, evalsets

        contamination.check(config)
        files = evalsets.files(config.sets)
        yield Stage(
            "evaluation_sets",
            index,
            1,
            outputs=(INDEX,),
            code=CODE,
            # Sets are named after their files, or these and their folders.
            config=[config.fields, [(path.parent.name, path.name) for path in files]],
            inputs=fingerprint.of_paths(map(str, files), "decontaminate.sets"),
        )
        outputs = (*outputs, "contamination")
    else:
        context.not_run.append("contamination: no evaluation sets; set decontaminate.sets=[FILE|DIR]")
    yield Stage(
        "contamination",
        compare,
        shards,
        outputs=outputs,
        depends=("read", "evaluation_sets"),
        code=CODE,
        config=edge.to_dict(config) if config.sets else None,
    )
    if config.sets:
        yield Stage(
            "contamination_report",
            report,
            1,
            outputs=(MATCHES, REPORT),
            depends=("contamination",),
            code=CODE,
        )
