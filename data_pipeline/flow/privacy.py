"""Privacy: what is found and masked in each document, and which domains hold much of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from configs import edge
from configs.schema.pipeline import DataRun
from data_pipeline.annotate import privacy as annotator
from data_pipeline.document import read_shard, shard_count, shard_path, write_table
from data_pipeline.flow.context import Context
from data_pipeline.stage import Stage


def privacy(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Privacy signals and masks of each document."""
    documents = read_shard(run_dir, shard, ["id", "text"])
    signals, masks = annotator.annotate(documents, config.privacy)
    write_table(signals, shard_path(run_dir, "signals/privacy", shard))
    write_table(masks, shard_path(run_dir, "edits/privacy", shard))
    return {"documents": len(documents)}


def privacy_domains(run_dir: Path, task: int, config: DataRun) -> dict[str, int]:
    """Finds by registered domain."""
    from data_pipeline.annotate import privacy_domains as domains

    return domains.aggregate(run_dir, shard_count(run_dir))


def stages(context: Context) -> Iterator[Stage]:
    """The stages of privacy."""
    yield Stage(
        "privacy",
        privacy,
        context.shards,
        outputs=("signals/privacy", "edits/privacy"),
        depends=("read",),
        code=("edits.py", "kernels", *(f"annotate/{name}.py" for name in annotator.MODULES)),
        config=edge.to_dict(context.config.privacy),
    )
    yield Stage(
        "privacy_domains",
        privacy_domains,
        1,
        outputs=("privacy_domains.parquet", "signals/privacy_domain"),
        depends=("privacy", "url_signals"),
        code=("annotate/privacy_domains.py",),
    )
