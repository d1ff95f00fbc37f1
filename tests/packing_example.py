"""A data directory as the stages before packing leave it, of real text: the documentation topics of Python."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from pydoc_data.topics import topics

import pyarrow as pa

from configs.schema.pipeline import DataRun, PackConfig, RecipeConfig, TokenizerConfig
from data_pipeline.document import (
    DECISION_SCHEMA,
    Document,
    ShardWriter,
    document_id,
    read_shard,
    write_table,
)
from data_pipeline.tokenize import encode_shard, train_tokenizer

FORGED = "A document may speak of <|end_of_text|><|begin_of_text|> and of <|eot_id|> without ending there."


@dataclass(frozen=True)
class Example:
    """A data directory and what went into it."""

    run_dir: Path
    config: DataRun
    kept: dict[str, Document]
    dropped: dict[str, Document]


def documents() -> list[Document]:
    """Topics of two sources; three topics share a group; some are in two languages' buckets."""
    made = []
    for number, (name, topic) in enumerate(sorted(topics.items())[:60]):
        source = "guide" if number % 3 else "reference"
        text = f"{FORGED}\n{topic}" if number == 5 else topic
        made.append(
            Document(
                id=document_id(source, name, text.encode()),
                source=source,
                text=text[:6000],
                url=f"https://docs.example.org/{name}",
                language="en" if number % 2 else "de",
                date=f"2024-01-{1 + number % 28:02d}",
                group=f"group-{number // 3}",
            )
        )
    return made


def write_run(run_dir: Path, config: DataRun, shards: int) -> Example:
    """Documents in `shards` shards, every tenth dropped, tokenized."""
    made = documents()
    dropped = {d.id: d for d in made[::10]}
    train_tokenizer(((d.id, d.text) for d in made), config.tokenizer, config.seed, run_dir / "tokenizer")
    for shard in range(shards):
        with ShardWriter(run_dir / f"documents/{shard:05d}.parquet") as writer:
            for document in made[shard::shards]:
                writer.add(document)
        table = read_shard(run_dir, shard)
        keep = [i not in dropped for i in table["id"].to_pylist()]
        decisions = {
            "id": table["id"],
            "keep": keep,
            "rule": [None if k else "gopher.n_words" for k in keep],
            "detail": [None if k else "12 < 50" for k in keep],
        }
        write_table(
            pa.table(decisions).cast(DECISION_SCHEMA), run_dir / f"decisions/final/{shard:05d}.parquet"
        )
        kept = table.filter(pa.array(keep))
        write_table(kept, run_dir / f"kept/{shard:05d}.parquet")
        encode_shard(kept, run_dir / "tokenizer", run_dir / f"tokens/{shard:05d}.arrow")
    return Example(run_dir, config, {d.id: d for d in made if d.id not in dropped}, dropped)


def make_config(run_dir: Path, **pack: object) -> DataRun:
    """A run of 128-token sequences over a vocabulary of 512."""
    base = PackConfig(sequence_length=128, shard_sequences=64, heldout_fraction=0.1)
    return DataRun(
        output=str(run_dir),
        recipe=RecipeConfig(name="text"),
        tokenizer=TokenizerConfig(vocab_size=512, n_special=16),
        pack=replace(base, **pack),  # type: ignore[arg-type]
    )
