"""Deciding: policy A, then the deduplication steps, each over what the steps before it kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from configs.schema.pipeline import DataRun
from data_pipeline import policy
from data_pipeline.document import shard_count
from data_pipeline.flow import addresses, embedding, lines, own
from data_pipeline.flow.context import Context, recipe_of
from data_pipeline.stage import Stage


def decide(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Policy A."""
    _, recipe = recipe_of(run_dir, shard, config)
    return policy.decide(run_dir, shard, recipe.filter)


def exact(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Exact duplicates."""
    from data_pipeline.dedup import exact as dedup

    return dedup.decide(run_dir, list(range(shard_count(run_dir))), config.dedup)


def sign(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """MinHash signatures of what is kept so far."""
    from data_pipeline.dedup import signatures as dedup

    return dedup.sign(run_dir, shard, config.dedup, "minhash")


def bands(run_dir: Path, band: int, config: DataRun) -> dict[str, int]:
    """Documents that agree in a band of their signatures."""
    from data_pipeline.dedup import bands as dedup

    return dedup.join(run_dir, shard_count(run_dir), band, config.dedup)


def clusters(run_dir: Path, task: int, config: DataRun) -> dict[str, int]:
    """What bands connect."""
    from data_pipeline.dedup import bands as dedup

    return dedup.cluster(run_dir, shard_count(run_dir), config.dedup)


def sets(run_dir: Path, part: int, config: DataRun) -> dict[str, int]:
    """Shingle sets of candidates."""
    from data_pipeline.dedup import sets as dedup

    return dedup.gather(run_dir, shard_count(run_dir), part, config.dedup)


def verify(run_dir: Path, task: int, config: DataRun) -> dict[str, int]:
    """Near-duplicates among candidates."""
    from data_pipeline.dedup import verify as dedup

    return dedup.verify(run_dir, shard_count(run_dir), task, config.dedup)


def minhash(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Decisions about near-duplicates."""
    from data_pipeline.dedup import minhash as dedup

    return dedup.decide(run_dir, shard_count(run_dir), shard, config.dedup)


def index(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """What later runs deduplicate against."""
    from data_pipeline.dedup import index as dedup

    return dedup.write(run_dir, shard_count(run_dir), shard, config.dedup)


def sketches(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """MinHash sketches of what was kept, for datasketch."""
    from data_pipeline.dedup import sketches as dedup

    return dedup.write(run_dir, shard, config.dedup)


def steps(config: DataRun) -> list[str]:
    """Decision steps of a run, in order."""
    dedup = config.dedup
    chosen = {
        "a": True,
        "url": dedup.url,
        "exact": dedup.exact,
        "minhash": dedup.minhash,
        "lines": lines.wanted(config),
        "semantic": dedup.semantic,
    }
    return [name for name, wanted in chosen.items() if wanted]


def stages(context: Context) -> Iterator[Stage]:
    """The stages of deciding."""
    dedup = context.config.dedup
    yield Stage(
        "decide",
        decide,
        context.shards,
        outputs=("decisions/a", "flags"),
        depends=(
            "signals",
            "copies",
            "language",
            "url_signals",
            "nsfw",
            "privacy_domains",
            "quality",
            "contamination",
            *own.stage_names(context.config),
        ),
        code=("policy.py",),
        config=context.filters,
    )
    if dedup.url:
        yield from addresses.stages(context)
    if dedup.exact:
        yield Stage(
            "exact",
            exact,
            1,
            outputs=("decisions/exact",),
            depends=("decide", "url"),
            code=("dedup/exact.py", "dedup/corpus.py", "analysis", "kernels"),
            config=[dedup.keep],
        )
    if dedup.minhash:
        yield from _minhash(context)
    if lines.wanted(context.config):
        yield from lines.stages(context, ("url", "exact", "minhash"))
    if dedup.semantic:
        yield from embedding.stages(context)


SKETCHES_CODE = (
    "kernels/hashing.py",
    *(f"dedup/{name}.py" for name in ("corpus", "kernels", "shingles", "signatures", "sketches", "stored")),
)
MINHASH_CODE = (
    "kernels/hashing.py",
    *(
        f"dedup/{name}.py"
        for name in (
            "arrays",
            "bands",
            "corpus",
            "index",
            "kernels",
            "minhash",
            "sets",
            "shingles",
            "signatures",
            "stored",
            "verify",
        )
    ),
)


def _minhash(context: Context) -> Iterator[Stage]:
    from data_pipeline.dedup import index as indexes
    from data_pipeline.dedup import stored

    config, run_dir, shards = context.config.dedup, context.run_dir, context.shards
    stored.check(config)
    found = indexes.check(run_dir, config)
    # What follows `clusters` shares one fingerprint: sets are removed once they have been used.
    pairs = [config.jaccard, config.keep, config.memory_mb]
    yield Stage(
        "sign",
        sign,
        shards,
        outputs=("minhash/signatures",),
        depends=("decide", "url", "exact"),
        code=MINHASH_CODE,
        config=stored.parameters(config),
    )
    yield Stage(
        "bands",
        bands,
        config.bands,
        outputs=("minhash/edges",),
        depends=("sign",),
        code=MINHASH_CODE,
        config=config.memory_mb,
        inputs=found,
    )
    yield Stage(
        "clusters",
        clusters,
        1,
        outputs=("minhash/clusters.arrays",),
        depends=("bands",),
        code=MINHASH_CODE,
    )
    yield Stage(
        "sets",
        sets,
        shards + len(found),
        outputs=("minhash/sets",),
        depends=("signals", "quality", "clusters"),
        code=MINHASH_CODE,
        config=pairs,
    )
    yield Stage(
        "verify",
        verify,
        stored.tasks(shards),
        outputs=("minhash/verified",),
        depends=("sets",),
        code=MINHASH_CODE,
        config=pairs,
    )
    yield Stage(
        "minhash",
        minhash,
        shards,
        outputs=("decisions/minhash", "signals/minhash"),
        depends=("verify",),
        code=MINHASH_CODE,
    )
