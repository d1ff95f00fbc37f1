"""MB/s of encoding on one core: gigatoken, tokenizers and the whole tokens stage, and whether all ids are equal.

  python benchmarks/encoding.py tokenizer.model texts.jsonl.zst [more.jsonl.zst …] [--reference-mb 8]

The first argument is what `tokenizer.path` takes; the others are JSONL with `text`. gigatoken is timed with an empty cache
of words and with a full one; tokenizers, which has none, on the first documents only. Processor time, one thread each; the
tokens stage reads Arrow and writes the shard, its sample comparison included.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

os.environ["TOKENIZERS_PARALLELISM"] = "false"


def read(paths: list[str]) -> list[str]:
    """Texts of JSONL files, plain or in zstd."""
    from data_pipeline.zstd import zstd

    texts = []
    for path in paths:
        data = Path(path).read_bytes()
        lines = (zstd.decompress(data) if path.endswith(".zst") else data).split(b"\n")
        texts += [json.loads(line)["text"] for line in lines if line.strip()]
    return texts


def main() -> None:
    from configs.schema.pipeline import TokenizerConfig
    from data_pipeline.document import SCHEMA
    from data_pipeline.tokenize import encode_shard, import_tokenizer
    from data_pipeline.tokenize.encoders import open_encoder

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokenizer")
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--reference-mb", type=float, default=8)
    arguments = parser.parse_args()
    texts = read(arguments.texts)
    sizes = np.array([len(text.encode()) for text in texts])
    total = sizes.sum() / 1e6
    print(f"{len(texts):,} documents, {total:.1f} MB")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Path(folder) / "tokenizer"
        info = import_tokenizer(TokenizerConfig(path=arguments.tokenizer), tokenizer)
        print(f"{arguments.tokenizer}: {info.vocab_size:,} tokens")
        rates = {}
        encoder = open_encoder(tokenizer)
        for name in (f"{encoder.library}, empty cache", f"{encoder.library}, full cache"):
            start = time.process_time()
            values, counts = encoder.encode(texts)
            rates[name] = total / (time.process_time() - start)
        n_reference = int(np.searchsorted(np.cumsum(sizes), arguments.reference_mb * 1e6)) + 1
        start = time.process_time()
        expected = encoder.loaded.encode(texts[:n_reference])
        rates["tokenizers"] = sizes[:n_reference].sum() / 1e6 / (time.process_time() - start)
        parts = np.split(values, np.cumsum(counts)[:-1])
        equal = sum(a.tolist() == b for a, b in zip(parts, expected, strict=False))
        rows = [
            {"id": f"{i:032x}", "source": "s", "group": f"{i}", "text": text} for i, text in enumerate(texts)
        ]
        table = pa.Table.from_pylist(rows, SCHEMA)
        for name in ("tokens stage, first shard", "tokens stage, further shards"):
            start = time.process_time()
            encode_shard(table, tokenizer, Path(folder) / "0.arrow")
            rates[name] = total / (time.process_time() - start)
    for name, rate in rates.items():
        print(f"{name:28s} {rate:8.2f} MB/s {rate / rates['tokenizers']:8.1f} × tokenizers")
    print(
        f"ids equal on {equal:,} of {len(expected):,} documents; {len(values) / len(texts):,.0f} tokens a document"
    )


if __name__ == "__main__":
    main()
