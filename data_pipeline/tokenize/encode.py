"""Token shards: the kept documents of one document shard, each with the ids around it, in one memory-mapped Arrow file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from configs.schema.pipeline import TokenizerConfig
from data_pipeline.keyed import rank
from data_pipeline.packed import token_dtype
from data_pipeline.packed.files import atomic_file
from data_pipeline.tokenize.coverage import lost_characters
from data_pipeline.tokenize.encoders import Encoder, open_encoder

BATCH_BYTES = 1 << 20
"""Bytes of text encoded at once by the reference, whose result objects take about a hundred bytes a token."""
FAST_BATCH_BYTES = 1 << 24
"""The same for gigatoken, which gives arrays."""
SAMPLE_SHARE = 1 / 512
"""Share of the text of a shard that is encoded by the reference too."""
SAMPLE_DOCUMENTS = 4
"""Documents of a shard that are compared at least."""
SAMPLE_CHARACTERS = 16_384
"""Characters of a document that are compared at most."""
COLUMNS = ("id", "source", "language", "group", "date", "url", "text")


def encode_shard(
    documents: pa.Table,
    tokenizer_dir: Path,
    output: Path,
    config: TokenizerConfig | None = None,
    seed: int = 0,
) -> dict[str, int]:
    """Encode documents (rows of kept/*.parquet) into `output`, by atomic rename; returns documents, tokens and bytes.

    Text that contains the strings of special tokens is encoded as ordinary text, so no document can forge a boundary.

    Args:
        config: names the library that encodes; its result is compared with the reference on a sample.
        seed: of that sample.

    Raises:
        ValueError: the library encodes a text otherwise than the reference.
    """
    encoder = open_encoder(tokenizer_dir, (config or TokenizerConfig()).encoder)
    info = encoder.loaded.info
    table = documents.select(COLUMNS)
    texts = table["text"].to_pylist()
    ids = table["id"].to_pylist()
    sizes = pc.binary_length(table["text"].cast(pa.large_binary())).to_numpy().astype(np.int64)
    _compare_sample(encoder, ids, texts, sizes, seed)
    values, offsets = _tokens(texts, sizes, encoder, token_dtype(info.vocab_size))
    columns = {
        "id": pa.array([bytes.fromhex(i) for i in ids], pa.binary(16)),
        "source": table["source"],
        "language": table["language"],
        "group": table["group"],
        "date": table["date"],
        "url_hash": pa.array([url_hash(url) for url in table["url"].to_pylist()], pa.uint64()),
        "bytes": pa.array(sizes, pa.uint64()),
        "tokens": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values)),
    }
    metadata = {"tokenizer": info.hash, "vocab_size": str(info.vocab_size)}
    shard = pa.table(columns).combine_chunks().replace_schema_metadata(metadata)
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_file(output) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, shard.schema) as writer,
    ):
        writer.write_table(shard)
    counts = {"documents": len(texts), "tokens": len(values), "bytes": int(sizes.sum())}
    if lost := lost_characters(encoder.loaded, texts):
        counts["lost_characters"] = lost
    return counts


def url_hash(url: str | None) -> int:
    """xxh3-64 of a URL; 0 for none."""
    return xxhash.xxh3_64_intdigest(url.encode()) if url else 0


def _compare_sample(encoder: Encoder, ids: list[str], texts: list[str], sizes: np.ndarray, seed: int) -> None:
    """Compare the encoder with the reference on the documents of smallest hash of (seed, id)."""
    if encoder.library == "tokenizers" or not texts:
        return
    order = sorted(range(len(texts)), key=lambda row: rank("encoding", seed, ids[row]))
    compared = np.cumsum(np.minimum(sizes[order], SAMPLE_CHARACTERS))
    count = int(np.searchsorted(compared, sizes.sum() * SAMPLE_SHARE)) + 1
    rows = order[: max(count, SAMPLE_DOCUMENTS)]
    encoder.compare(
        [texts[row][:SAMPLE_CHARACTERS] for row in rows], [f"document {ids[row]}" for row in rows]
    )


def _tokens(
    texts: list[str], sizes: np.ndarray, encoder: Encoder, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of all documents, with those around each, and where each begins (int64 [documents + 1])."""
    begin, end = encoder.loaded.info.begin, encoder.loaded.info.end
    limit = BATCH_BYTES if encoder.library == "tokenizers" else FAST_BATCH_BYTES
    parts, lengths, first = [np.zeros(0, dtype)], [np.zeros(0, np.int64)], 0
    while first < len(texts):
        last, size = first, 0
        while last < len(texts) and (last == first or size + int(sizes[last]) <= limit):
            size += int(sizes[last])
            last += 1
        values, counts = encoder.encode(texts[first:last])
        lengths.append(counts + len(begin) + len(end))
        stops = np.cumsum(lengths[-1])
        starts = stops - lengths[-1]
        whole = np.empty(int(lengths[-1].sum()), dtype)
        inside = np.ones(len(whole), bool)
        for place, index in enumerate(begin):
            whole[starts + place], inside[starts + place] = index, False
        for place, index in enumerate(reversed(end), 1):
            whole[stops - place], inside[stops - place] = index, False
        whole[inside] = values
        parts.append(whole)
        first = last
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(lengths), dtype=np.int64)])
    return np.concatenate(parts), offsets


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
        """int64 [documents]: tokens of each, those around its text included."""
        return np.diff(self._offsets)

    def tokens(self, row: int) -> np.ndarray:
        """Tokens of a document; a view of the memory map."""
        return self._values[self._offsets[row] : self._offsets[row + 1]]
