"""Finishing: decisions and edits → kept documents → tokens → packed dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from configs import edge
from configs.schema.pipeline import DataRun
from data_pipeline import fingerprint, kept, workers
from data_pipeline.document import read_table, shard_count, shard_path
from data_pipeline.flow import lines
from data_pipeline.flow.context import Context, recipe_of
from data_pipeline.flow.deduplicating import MINHASH_CODE, SKETCHES_CODE, index, sketches, steps
from data_pipeline.stage import Stage


def final(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Join the decisions, apply the edits, write the kept documents."""
    _, recipe = recipe_of(run_dir, shard, config)
    names = lines.applied(recipe.filter.edits, config)
    return kept.finish(run_dir, shard, steps(config), names, config.jsonl)


def tokenizer(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Train the tokenizer on the kept documents, or copy the given one."""
    from data_pipeline.tokenize import make_tokenizer

    texts = kept.texts(run_dir, shard_count(run_dir))
    processes = workers.number(config) if config.executor.kind == "local" else 1
    info = make_tokenizer(texts, config.tokenizer, config.seed, run_dir / "tokenizer", processes)
    return {"vocab_size": info.vocab_size}


def tokens(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Encode the kept documents."""
    from data_pipeline.tokenize import encode_shard

    documents = read_table(shard_path(run_dir, "kept", shard))
    output = run_dir / "tokens" / f"{shard:05d}.arrow"
    return encode_shard(documents, run_dir / "tokenizer", output, config.tokenizer, config.seed)


def pack(run_dir: Path, shard: int, config: DataRun) -> dict[str, int]:
    """Pack tokens into sequences."""
    from data_pipeline.pack import pack as pack_run

    # The fingerprint names the data and not the way to it: code versions would make equal datasets differ.
    manifest = pack_run(run_dir, config, (run_dir / "stages" / "pack.started").read_text())
    streams = manifest.streams.values()
    sequences = sum(s.sequences for s in streams)
    return {
        "streams": len(streams),
        "sequences": sequences,
        "documents": sum(s.documents for s in streams),
        "cut_documents": sum(s.cut or 0 for s in streams),
        "padding_tokens": sequences * manifest.sequence_length - sum(s.tokens for s in streams),
    }


def stages(context: Context) -> Iterator[Stage]:
    """The stages of finishing."""
    config, plain = context.config, edge.to_dict
    yield Stage(
        "final",
        final,
        context.shards,
        outputs=("decisions/final", "kept"),
        depends=("decide", *steps(config)),
        code=("kept.py", "edits.py", "policy.py"),
        config=[steps(config), {s.name: s.recipe.filter.edits for s in context.sources}, config.jsonl],
    )
    if config.dedup.minhash:
        yield Stage(
            "index",
            index,
            context.shards,
            outputs=("index",),
            depends=("sign", "final"),
            code=MINHASH_CODE,
        )
    if config.dedup.sketches:
        from data_pipeline.dedup import stored

        stored.check(config.dedup)
        yield Stage(
            "sketches",
            sketches,
            context.shards,
            outputs=("sketches",),
            depends=("final",),
            code=SKETCHES_CODE,
            config=stored.parameters(config.dedup),
        )
    yield Stage(
        "tokenizer",
        tokenizer,
        1,
        outputs=("tokenizer",),
        depends=("final",),
        code=(
            "tokenize",
            "kernels/hashing.py",
            "pretokenize.py",
            "keyed.py",
            "packed/format.py",
            "packed/template.py",
        ),
        # The library that encodes changes no id.
        config=[{k: v for k, v in plain(config.tokenizer).items() if k != "encoder"}, config.seed],
        inputs=fingerprint.of_paths(
            [config.tokenizer.path] if config.tokenizer.path else [], "tokenizer.path"
        ),
        libraries=("tokenizers",),
    )
    yield Stage(
        "tokens",
        tokens,
        context.shards,
        outputs=("tokens",),
        depends=("final", "tokenizer"),
        code=(
            "tokenize/coverage.py",
            "tokenize/encode.py",
            "tokenize/encoders.py",
            "tokenize/folder.py",
            "packed/format.py",
            "packed/template.py",
        ),
    )
    yield Stage(
        "pack",
        pack,
        1,
        outputs=("packed",),
        depends=("tokens",),
        code=("pack", "packed", "mixture.py", "keyed.py", "remove.py"),
        config=[plain(config.pack), plain(config.mixture), config.seed, config.cutoff],
    )
