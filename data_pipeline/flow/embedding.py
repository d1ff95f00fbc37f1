"""Semantic deduplication as stages: prepare, embed by shard, cluster, neighbours by clusters, decide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from configs.schema.pipeline import DataRun
from data_pipeline import fingerprint
from data_pipeline.dedup import settings
from data_pipeline.document import shard_count
from data_pipeline.flow.context import Context
from data_pipeline.stage import Stage

CODE = (
    "wordhash.py",
    "kernels/hashing.py",
    *(
        f"dedup/{name}.py"
        for name in ("semantic", "settings", "embed", "coverage", "corpus", "arrays", "shingles", "kernels")
    ),
)


def prepare(run_dir: Path, task: int, config: DataRun) -> dict[str, int]:
    """Order of preference, and the projection of the default embedder."""
    from data_pipeline.dedup import semantic as dedup

    return dedup.prepare(run_dir, list(range(shard_count(run_dir))), config.dedup)


def embed(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Embeddings of what is left."""
    from data_pipeline.dedup import semantic as dedup

    return dedup.embed_shard(run_dir, shard, config.dedup)


def cluster(run_dir: Path, task: int, config: DataRun) -> dict[str, int]:
    """Clusters of embeddings."""
    from data_pipeline.dedup import semantic as dedup

    return dedup.cluster(run_dir, config.dedup)


def neighbours(run_dir: Path, part: int, config: DataRun) -> dict[str, int]:
    """Near neighbours in a part of the clusters."""
    from data_pipeline.dedup import semantic as dedup

    return dedup.neighbours(run_dir, part, shard_count(run_dir), config.dedup)


def semantic(run_dir: Path, task: int, config: DataRun) -> dict[str, int]:
    """Decisions about semantic duplicates."""
    from data_pipeline.dedup import semantic as dedup

    return dedup.decide(run_dir, config.dedup)


def stages(context: Context) -> Iterator[Stage]:
    """The stages of semantic deduplication.

    Raises:
        ConfigError: a parameter that cannot be used.
    """
    config, shards = context.config.dedup, context.shards
    settings.check_semantic(config)
    hashed = config.embedder == settings.HASHED
    given = [config.embedder] if not hashed and Path(config.embedder).exists() else None
    model = None if given is None else fingerprint.of_paths(given, "dedup.embedder")
    kept = config.semantic_keep or config.keep
    yield Stage(
        "semantic_prepare",
        prepare,
        1,
        outputs=("semantic/documents.arrays", *(("semantic/projection.npz",) if hashed else ())),
        depends=("signals", "quality", "decide", "url", "exact", "minhash", "lines"),
        code=CODE,
        config=[kept, config.embedder, config.semantic_dim if hashed else None],
        libraries=("scipy", "numpy"),
    )
    yield Stage(
        "semantic_embed",
        embed,
        shards,
        outputs=("semantic/vectors",),
        depends=("semantic_prepare",),
        code=CODE,
        config=config.semantic_coverage > 0,
        inputs=model,
        libraries=() if hashed else ("sentence-transformers",),
    )
    yield Stage(
        "semantic_clusters",
        cluster,
        1,
        outputs=("semantic/clusters.arrays",),
        depends=("semantic_embed",),
        code=CODE,
        config=config.semantic_clusters,
        libraries=("faiss-cpu",),
    )
    yield Stage(
        "semantic_neighbours",
        neighbours,
        shards,
        outputs=("semantic/neighbours",),
        depends=("semantic_clusters",),
        code=CODE,
        config=[config.semantic_similarity, config.semantic_coverage, kept],
    )
    yield Stage(
        "semantic",
        semantic,
        1,
        outputs=("decisions/semantic", "signals/semantic"),
        depends=("semantic_neighbours",),
        code=CODE,
    )
