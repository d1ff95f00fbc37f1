"""Token shards: the kept documents of one document shard as `BOS text EOS`, in one memory-mapped Arrow file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from data_pipeline.packed import token_dtype
from data_pipeline.packed.files import atomic_file
from data_pipeline.tokenize.folder import LoadedTokenizer, load_tokenizer

BATCH_BYTES = 1 << 20
"""Bytes of text encoded at once; the library's result objects take about a hundred bytes a token."""
COLUMNS = ("id", "source", "language", "group", "date", "url", "text")


def encode_shard(documents: pa.Table, tokenizer_dir: Path, output: Path) -> dict[str, int]:
    """Encode documents (rows of kept/*.parquet) into `output`, by atomic rename; returns documents, tokens and bytes.

    Text that contains the strings of special tokens is encoded as ordinary text, so no document can forge a boundary.
    """
    loaded = load_tokenizer(tokenizer_dir)
    table = documents.select(COLUMNS)
    dtype = token_dtype(loaded.info.vocab_size)
    texts = table["text"].to_pylist()
    sizes = np.array([len(text.encode()) for text in texts], np.uint64)
    tokens = list(_tokens(texts, sizes, loaded, dtype))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(t) for t in tokens], dtype=np.int64)])
    values = np.concatenate(tokens) if tokens else np.zeros(0, dtype)
    urls = table["url"].to_pylist()
    columns = {
        "id": pa.array([bytes.fromhex(i) for i in table["id"].to_pylist()], pa.binary(16)),
        "source": table["source"],
        "language": table["language"],
        "group": table["group"],
        "date": table["date"],
        "url_hash": pa.array([url_hash(url) for url in urls], pa.uint64()),
        "bytes": pa.array(sizes, pa.uint64()),
        "tokens": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values)),
    }
    metadata = {"tokenizer": loaded.info.hash, "vocab_size": str(loaded.info.vocab_size)}
    shard = pa.table(columns).combine_chunks().replace_schema_metadata(metadata)
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_file(output) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, shard.schema) as writer,
    ):
        writer.write_table(shard)
    return {"documents": len(texts), "tokens": len(values), "bytes": int(sizes.sum())}


def url_hash(url: str | None) -> int:
    """xxh3-64 of a URL; 0 for none."""
    return xxhash.xxh3_64_intdigest(url.encode()) if url else 0


def _tokens(
    texts: list[str], sizes: np.ndarray, loaded: LoadedTokenizer, dtype: np.dtype
) -> Iterator[np.ndarray]:
    bos, eos = loaded.info.special["bos"], loaded.info.special["eos"]
    first = 0
    while first < len(texts):
        last, size = first, 0
        while last < len(texts) and (last == first or size + int(sizes[last]) <= BATCH_BYTES):
            size += int(sizes[last])
            last += 1
        for ids in loaded.encode(texts[first:last]):
            yield np.array([bos, *ids, eos], dtype)
        first = last


class TokenShard:
    """A token shard, memory-mapped."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError, naming the file, where it is not a whole token shard."""
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all().combine_chunks()
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is not a whole token shard ({error}); tokenize again") from None
        self.table = table
        self.tokenizer_hash = table.schema.metadata[b"tokenizer"].decode()
        if table.num_rows == 0:
            self._offsets, self._values = np.zeros(1, np.int64), np.zeros(0, np.uint16)
            return
        column = table["tokens"].chunk(0)
        self._offsets = column.offsets.to_numpy()
        self._values = column.values.to_numpy()

    @property
    def lengths(self) -> np.ndarray:
        """int64 [documents]: tokens of each, BOS and EOS included."""
        return np.diff(self._offsets)

    def tokens(self, row: int) -> np.ndarray:
        """Tokens of a document; a view of the memory map."""
        return self._values[self._offsets[row] : self._offsets[row + 1]]
