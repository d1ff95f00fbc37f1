"""`arriero tokenizer`: train a byte-level BPE tokenizer with Llama 3's pre-tokenization and special tokens.

Examples:
  arriero tokenizer input=books/ output=tok tokenizer.vocab_size=32000
  arriero tokenizer recipe=prose input='data/*.jsonl.zst' output=tok tokenizer=small
  arriero tokenizer input=books/ output=tok tokenizer.path=/models/Llama-3.2-1B     # import instead of training
  arriero tokenizer input=books/ output=tok tokenizer.path=llama3/tokenizer.model   # tiktoken or SentencePiece
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from configs import edge
from configs.schema.data_verbs import TokenizerRun
from data_pipeline.document import document_id
from data_pipeline.extract import Unreadable, extract, set_aside
from data_pipeline.read import Record, SetAside, records
from data_pipeline.read.units import Source, plan
from data_pipeline.tokenize.bpe import train_tokenizer
from data_pipeline.tokenize.make import make_tokenizer

__all__ = ["main", "make_tokenizer", "run", "train_tokenizer"]

UNIT_BYTES = 64 * 2**20


def run(config: TokenizerRun) -> int:
    """Train or import the tokenizer and print what came out."""
    output = Path(config.output)
    processes = os.cpu_count() or 1
    info = make_tokenizer(_input_texts(config), config.tokenizer, config.seed, output, processes)
    print(f"tokenizer {info.hash[:12]} · {info.vocab_size:,} tokens · {output}")
    return 0


def _input_texts(config: TokenizerRun) -> Iterator[tuple[str, str]]:
    """(id, text) of every document of the input; what cannot be read is counted and said."""
    unread: list[SetAside] = []
    for unit in plan([Source(config.recipe.name, config.recipe, config.input)], UNIT_BYTES).units:
        for record in records(unit, config.recipe):
            if isinstance(record, SetAside):
                unread.append(record)
            elif isinstance(record, Record):
                try:
                    text = extract(record, config.recipe.keep_abstract).text
                except Unreadable as error:
                    unread.append(set_aside(record, error))
                    continue
                if text:
                    yield document_id(unit.source, record.given, record.payload), text
    if unread:
        first = unread[0]
        print(
            f"tokenizer: {len(unread)} records could not be read and were left out; the first is record "
            f"{first.record} of {first.file}: {first.reason}, expected {first.expected}",
            file=sys.stderr,
        )


def main(argv: list[str] | None = None) -> int:
    """Entry point of the verb."""
    return edge.main("tokenizer", TokenizerRun, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
