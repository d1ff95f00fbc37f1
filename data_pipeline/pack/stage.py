"""The pack stage: `DIR/tokens/*.arrow` and `DIR/tokenizer` → `DIR/packed`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from configs.schema.pipeline import DataRun
from data_pipeline.keyed import rank
from data_pipeline.mixture import resolve_mixture
from data_pipeline.pack.fit import Piece, best_fit, concat
from data_pipeline.pack.heldout import heldout_groups, sizes_by_group
from data_pipeline.packed import PADDING, SEGMENT_DTYPE, Manifest, PackedWriter, Removal, StreamWriter
from data_pipeline.remove import removed
from data_pipeline.tokenize.encode import TokenShard
from data_pipeline.tokenize.folder import load_tokenizer

PACKINGS: dict[str, Callable[[np.ndarray, int], Iterator[list[Piece]]]] = {
    "concat": lambda lengths, size: concat(lengths.tolist(), size),
    "best_fit": best_fit,
}
INDEX_DTYPE = np.dtype(
    [
        ("order", "<u8"),
        ("id", "S16"),
        ("stream", "<u4"),
        ("shard", "<u4"),
        ("row", "<u4"),
        ("tokens", "<u8"),
        ("bytes", "<u8"),
        ("url_hash", "<u8"),
    ]
)
ISO_DATE = re.compile(r"\d{4}(-\d\d(-\d\d.*)?)?")


@dataclass(frozen=True)
class _Index:
    """What is kept in memory of every document: 60 bytes, and names of streams."""

    rows: np.ndarray
    """[documents] of INDEX_DTYPE, by stream and then by hash of (seed, id)."""
    streams: list[tuple[str, str, str | None]]
    """(split, source, language) of each stream number."""
    cutoff: dict[str, str | None]
    """Source → newest date of its training documents."""


def pack(run_dir: Path, config: DataRun, fingerprint: str = "") -> Manifest:
    """Pack the token shards of a data directory into `run_dir/packed`, atomically.

    fingerprint: of everything the data came from; stored as `recipe_fingerprint`. The output depends on the documents,
    the configuration and the seed, not on how documents are divided into shards. Documents of equal id are one. What
    `arriero remove` took out before stays out, and the split of the others is what it was.
    Raises ValueError where there is nothing to pack, the shards are of another tokenizer, or the mixture does not fit.
    """
    tokenizer = load_tokenizer(run_dir / "tokenizer").info
    paths = sorted((run_dir / "tokens").glob("*.arrow"))
    shards = [TokenShard(path) for path in paths]
    for path, shard in zip(paths, shards, strict=True):
        if shard.tokenizer_hash != tokenizer.hash:
            raise ValueError(
                f"{path} was made by tokenizer {shard.tokenizer_hash[:12]}, but {run_dir / 'tokenizer'} is "
                f"{tokenizer.hash[:12]}; remove {path.parent} and tokenize again"
            )
    index = _index(shards, config)
    index, removals = _without(index, run_dir)
    if len(index.rows) == 0:
        raise ValueError(
            f"nothing to pack: no document was kept in {run_dir}; its funnel.json says which rules dropped them"
        )
    method, length = config.pack.method, config.pack.sequence_length
    target = run_dir / "packed"
    with PackedWriter(target, tokenizer, length, config.pack.shard_sequences, method) as writer:
        for number, (split, source, language) in enumerate(index.streams):
            rows = index.rows[index.rows["stream"] == number]
            if len(rows) == 0:
                continue
            stream = writer.stream(split, source, language)
            for layout in _documents_first(
                rows, stream, PACKINGS[method](rows["tokens"].astype(np.int64), length)
            ):
                stream.sequence(*_assemble(layout, rows, shards, length, tokenizer.special["pad"]))
        sizes = writer.sequences("train")
        return writer.finish(
            run_dir / "tokenizer",
            mixture=resolve_mixture(config.mixture, sizes),
            cutoff={s: config.cutoff or date for s, date in sorted(index.cutoff.items())},
            recipe_fingerprint=fingerprint,
            data_run=os.path.relpath(run_dir, target),
            seed=config.seed,
            removals=removals,
        )


def _without(index: _Index, run_dir: Path) -> tuple[_Index, tuple[Removal, ...]]:
    """The index without documents that were removed, and the removals."""
    gone = removed(run_dir)
    if not gone:
        return index, ()
    ids = np.array([bytes.fromhex(i) for i in gone], "S16")
    out = np.isin(index.rows["id"], ids)
    hashes = {bytes(row["id"]).ljust(16, b"\0").hex(): int(row["url_hash"]) for row in index.rows[out]}
    grouped: dict[tuple[str, str], list[str]] = {}
    for row in gone.values():
        grouped.setdefault((row["date"], row["reason"]), []).append(row["id"])
    removals = tuple(
        Removal(date, reason, tuple(found), tuple(hashes.get(i, 0) for i in found))
        for (date, reason), found in grouped.items()
    )
    return replace(index, rows=index.rows[~out]), removals


def _index(shards: list[TokenShard], config: DataRun) -> _Index:
    columns = [shard.table.select(["source", "group", "bytes"]).to_pydict() for shard in shards]
    sizes = sizes_by_group(
        row for c in columns for row in zip(c["source"], c["group"], c["bytes"], strict=True)
    )
    held = heldout_groups(sizes, config.pack.heldout_fraction, config.pack.heldout_min_bytes, config.seed)
    numbers: dict[tuple[str, str, str | None], int] = {}
    newest: dict[str, str | None] = {}
    parts = []
    for number, shard in enumerate(shards):
        table = shard.table
        part = np.zeros(table.num_rows, INDEX_DTYPE)
        part["shard"], part["row"] = number, np.arange(table.num_rows)
        part["tokens"] = shard.lengths
        part["bytes"], part["url_hash"] = table["bytes"].to_numpy(), table["url_hash"].to_numpy()
        ids = [value.hex() for value in table["id"].to_pylist()]
        part["id"] = [bytes.fromhex(i) for i in ids]
        part["order"] = [rank("pack", config.seed, i) for i in ids]
        rows = table.select(["source", "language", "group", "date"]).to_pydict()
        for i, (source, language, group, date) in enumerate(zip(*rows.values(), strict=True)):
            split = "heldout" if group in held else "train"
            key = (split, source, (language or "und") if config.pack.by_language else None)
            part["stream"][i] = numbers.setdefault(key, len(numbers))
            newest.setdefault(source, None)
            if split == "train" and date and ISO_DATE.fullmatch(date):
                newest[source] = max(newest[source] or "", date[:10])
        parts.append(part)
    index = np.concatenate(parts) if parts else np.zeros(0, INDEX_DTYPE)
    # An empty text between no ids at all.
    index = index[index["tokens"] > 0]
    # Streams in name order, documents by hash; ids break ties of the hash, and equal ids are one document.
    streams = sorted(numbers, key=lambda k: (k[0], k[1], k[2] or ""))
    renumber = np.zeros(max(len(streams), 1), np.uint32)
    renumber[[numbers[key] for key in streams]] = np.arange(len(streams))
    index["stream"] = renumber[index["stream"]]
    index = index[np.lexsort((index["id"], index["order"], index["stream"]))]
    if len(index):
        repeated = (index["id"][1:] == index["id"][:-1]) & (index["stream"][1:] == index["stream"][:-1])
        index = index[np.concatenate([[True], ~repeated])]
    return _Index(index, streams, newest)


def _documents_first(
    rows: np.ndarray, stream: StreamWriter, layouts: Iterator[list[Piece]]
) -> Iterator[list[Piece]]:
    """Add every document to the stream before the first sequence that names it."""
    added = 0
    for layout in layouts:
        for document in range(added, max(piece[0] for piece in layout) + 1):
            row = rows[document]
            # NumPy's S dtype drops trailing zero bytes.
            identifier = bytes(row["id"]).ljust(16, b"\0")
            stream.document(identifier, int(row["url_hash"]), int(row["tokens"]), int(row["bytes"]))
            added = document + 1
        yield layout


def _assemble(
    layout: list[Piece], rows: np.ndarray, shards: list[TokenShard], length: int, pad: int
) -> tuple[np.ndarray, int, np.ndarray]:
    """Tokens, next token and segments of a sequence."""
    parts, segments, start, following = [], [], 0, -1
    for document, offset, taken in layout:
        row = rows[document]
        tokens = shards[row["shard"]].tokens(int(row["row"]))
        parts.append(tokens[offset : offset + taken])
        segments.append((document, start, offset))
        start += taken
        following = int(tokens[offset + taken]) if offset + taken < len(tokens) else -1
    if start < length:
        parts.append(np.full(length - start, pad, parts[0].dtype))
        segments.append((PADDING, start, 0))
    return np.concatenate(parts), following, np.array(segments, SEGMENT_DTYPE)
