"""Signals of your own as stages: one for each file, which is joined by id, and one for each function."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from configs.schema.pipeline import DataRun
from data_pipeline import fingerprint, recipes
from data_pipeline.annotate.own.names import names
from data_pipeline.document import shard_count
from data_pipeline.flow.context import Context
from data_pipeline.flow.names import OWN
from data_pipeline.stage import Stage

CODE = ("annotate/own", "policy.py")


def stage_names(config: DataRun) -> list[str]:
    """Names of the stages that write the signals of a run's own."""
    return [OWN + name for name in names(config.signals)]


def extra(run_dir: Path, task: int, config: DataRun, *, name: str, entry: str) -> dict[str, int]:
    """Join the rows of a file to the documents."""
    from data_pipeline.annotate.own import files

    return files.join(run_dir, shard_count(run_dir), name, entry)


def function(
    run_dir: Path, shard: int, config: DataRun, *, name: str, entry: str, folder: str, version: str
) -> dict[str, int]:
    """What a function says of the documents of a shard."""
    from data_pipeline.annotate.own import functions

    policies = [source.recipe.filter for source in recipes.sources(config)]
    size = config.signals.batch_documents
    return functions.apply(run_dir, shard, name, entry, folder, size, policies, version)


def stages(context: Context) -> Iterator[Stage]:
    """A stage for each file and function of `signals`.

    Raises:
        ConfigError: a file or module that is not there.
    """
    from data_pipeline.annotate.own import files, sources

    config = context.config.signals
    # Workers may start elsewhere, so the folder in which modules are searched goes with the stage.
    folder = str(Path.cwd())
    for name, entry in names(config).items():
        if entry in config.extra:
            path = str(Path(entry).expanduser().absolute())
            yield Stage(
                OWN + name,
                functools.partial(extra, name=name, entry=path),
                1,
                outputs=(f"signals/{name}",),
                depends=("read", "signals"),
                code=CODE,
                inputs=[fingerprint.of_content(file) for file in files.find(path)],
            )
        else:
            version = sources.version(entry, folder)
            yield Stage(
                OWN + name,
                functools.partial(
                    function, name=name, entry=entry, folder=folder, version=fingerprint.of(version)
                ),
                context.shards,
                outputs=(f"signals/{name}",),
                depends=("read", "language"),
                code=CODE,
                inputs=version,
            )
