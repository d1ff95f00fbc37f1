"""One page an address: the decision step `url`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from configs.schema.pipeline import DataRun
from data_pipeline.document import shard_count
from data_pipeline.flow.context import Context
from data_pipeline.read import units as planning
from data_pipeline.recipes import sources
from data_pipeline.stage import Stage


def url(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Captures of one canonical URL."""
    from data_pipeline.dedup import url as dedup

    wanted = {s.name for s in sources(config) if s.recipe.one_per_url}
    chosen = [u.unit for u in planning.load(run_dir / "units.json") if u.source in wanted]
    return dedup.decide(run_dir, list(range(shard_count(run_dir))), chosen, config.dedup)


def stages(context: Context) -> Iterator[Stage]:
    """The stage of this step."""
    yield Stage(
        "url",
        url,
        1,
        outputs=("decisions/url",),
        depends=("url_signals", "decide"),
        code=("dedup/url.py", "dedup/corpus.py"),
        config=[context.config.dedup.keep, sorted(s.name for s in context.sources if s.recipe.one_per_url)],
    )
