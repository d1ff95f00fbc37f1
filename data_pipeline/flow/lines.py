"""Line deduplication: the decision step `lines`, and the edits that it proposes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from configs.schema.pipeline import DataRun
from data_pipeline.dedup import settings
from data_pipeline.document import shard_count
from data_pipeline.flow.context import Context
from data_pipeline.read import units as planning
from data_pipeline.recipes import sources
from data_pipeline.stage import Stage

CODE = (
    "kernels/hashing.py",
    *(
        f"dedup/{name}.py"
        for name in ("lines", "line_hashes", "settings", "arrays", "corpus", "shingles", "kernels")
    ),
    "edits.py",
)


def wanted(config: DataRun) -> bool:
    """Whether lines are compared at all: a source's policy applies the edits `lines`."""
    return config.dedup.lines is not None and bool(_sources(config))


def applied(names: Sequence[str], config: DataRun) -> tuple[str, ...]:
    """The edit sets of a policy, as far as this run writes them: without `lines` where `dedup.lines` is null."""
    return tuple(name for name in names if name != "lines" or config.dedup.lines is not None)


def _sources(config: DataRun) -> list[str]:
    return sorted(s.name for s in sources(config) if "lines" in s.recipe.filter.edits)


def _chosen(run_dir: Path, config: DataRun) -> set[int]:
    names = _sources(config)
    return {u.unit for u in planning.load(run_dir / "units.json") if u.source in names}


def line_hashes(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Hashes of the lines of what is kept so far."""
    from data_pipeline.dedup import lines as dedup

    return dedup.hashes(run_dir, shard, _chosen(run_dir, config), config.dedup)


def line_counts(run_dir: Path, part: int, config: DataRun) -> dict[str, int]:
    """Lines that occur too often."""
    from data_pipeline.dedup import lines as dedup

    return dedup.counts(run_dir, part, shard_count(run_dir), config.dedup)


def lines(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Edits that take them out, and documents of which too little is left."""
    from data_pipeline.dedup import lines as dedup

    return dedup.decide(run_dir, shard, _chosen(run_dir, config), shard_count(run_dir), config.dedup)


def stages(context: Context, before: Sequence[str]) -> Iterator[Stage]:
    """The stages of this step.

    Args:
        before: stages of the decisions before.
    """
    config = context.config.dedup
    settings.check_lines(config)
    counted = [
        config.lines,
        config.line_unit,
        config.line_within,
        config.line_min_length,
        config.line_bucket_documents,
        _sources(context.config),
    ]
    yield Stage(
        "line_hashes",
        line_hashes,
        context.shards,
        outputs=("lines/runs",),
        depends=("decide", *before),
        code=CODE,
        # The size of the runs depends on the memory, what is counted does not.
        config=[*counted, config.line_memory_mb],
    )
    yield Stage(
        "line_counts",
        line_counts,
        settings.line_ranges(context.shards),
        outputs=("lines/repeated",),
        depends=("line_hashes",),
        code=CODE,
        config=[config.line_count],
    )
    yield Stage(
        "lines",
        lines,
        context.shards,
        outputs=("decisions/lines", "edits/lines", "signals/lines"),
        depends=("line_counts",),
        code=CODE,
        config=[config.line_min_characters, config.line_min_share],
    )
