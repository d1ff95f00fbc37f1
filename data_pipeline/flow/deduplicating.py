"""Deciding: policy A, then the deduplication steps, each over what the steps before it kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from configs import edge
from configs.schema.pipeline import DataRun, DedupConfig
from data_pipeline import policy
from data_pipeline.document import read_shard, read_table, shard_count, shard_path, write_table
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
    """MinHash signatures of what is kept so far; stored, so that changing policy B does not compute them again."""
    from data_pipeline.dedup import minhash as dedup

    step = "exact" if config.dedup.exact else "a"
    documents = read_shard(run_dir, shard, ["id", "text"])
    keep = read_table(shard_path(run_dir, f"decisions/{step}", shard), ["keep"])["keep"]
    table = dedup.sign(documents, keep, config.dedup)
    write_table(table, shard_path(run_dir, "signals/minhash", shard))
    return {"documents": len(table)}


def minhash(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Near-duplicates."""
    from data_pipeline.dedup import minhash as dedup

    return dedup.decide(run_dir, list(range(shard_count(run_dir))), config.dedup)


def semantic(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Semantic duplicates."""
    from data_pipeline.dedup import semantic as dedup

    return dedup.decide(run_dir, list(range(shard_count(run_dir))), config.dedup)


def steps(dedup: DedupConfig) -> list[str]:
    """Decision steps of a run, in order."""
    chosen = {"a": True, "exact": dedup.exact, "minhash": dedup.minhash, "semantic": dedup.semantic}
    return [name for name, wanted in chosen.items() if wanted]


def stages(context: Context) -> Iterator[Stage]:
    """The stages of deciding."""
    dedup, plain = context.config.dedup, edge.to_dict
    yield Stage(
        "decide",
        decide,
        context.shards,
        outputs=("decisions/a",),
        depends=("signals", "copies", "language", "url", "nsfw", "quality"),
        code=("policy.py",),
        config=context.filters,
    )
    if dedup.exact:
        yield Stage(
            "exact",
            exact,
            1,
            outputs=("decisions/exact",),
            depends=("decide",),
            code=("dedup/exact.py", "dedup/corpus.py", "analysis"),
            config=[dedup.keep],
        )
    if dedup.minhash:
        code = ("dedup/minhash.py", "dedup/corpus.py", "dedup/shingles.py")
        yield Stage(
            "sign",
            sign,
            context.shards,
            outputs=("signals/minhash",),
            depends=("decide", "exact"),
            code=code,
            config=[dedup.ngram, dedup.permutations, dedup.exact],
        )
        yield Stage(
            "minhash",
            minhash,
            1,
            outputs=("decisions/minhash",),
            depends=("sign",),
            code=code,
            config=plain(dedup),
        )
    if dedup.semantic:
        yield Stage(
            "semantic",
            semantic,
            1,
            outputs=("decisions/semantic",),
            depends=("decide", "exact", "minhash"),
            code=("dedup/semantic.py", "dedup/corpus.py", "dedup/shingles.py"),
            config=plain(dedup),
            libraries=("faiss-cpu",),
        )
