"""Reading: raw input → documents."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from configs.schema.pipeline import DataRun
from data_pipeline import collect, policy
from data_pipeline.document import shard_count
from data_pipeline.flow.context import Context, recipe_of
from data_pipeline.stage import Stage


def read(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Raw input → documents."""
    unit, recipe = recipe_of(run_dir, shard, config)
    return collect.read_unit(run_dir, unit, recipe, config.sample, config.seed)


def copies(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Documents that several shards hold."""
    return policy.copies(run_dir, shard_count(run_dir))


def stages(context: Context) -> Iterator[Stage]:
    """The stages of reading."""
    config = context.config
    yield Stage(
        "read",
        read,
        context.shards,
        outputs=("documents", "rejected"),
        code=("collect.py", "keyed.py", "read", "extract", "annotate/codes.py"),
        config=[
            context.recipes,
            [dataclasses.asdict(u) for u in context.plan.units],
            [config.sample, config.seed] if config.sample < 1 else None,
        ],
        inputs=context.plan.inputs,
        libraries=("charset-normalizer", "lxml"),
    )
    yield Stage("copies", copies, 1, outputs=("signals/copies",), depends=("read",), code=("policy.py",))
