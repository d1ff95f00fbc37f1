"""`arriero convert`: packed dataset ↔ token files of datatrove, nanotron, Megatron-LM, OLMo-core and Hugging Face datasets.

A packed dataset (its folder, the one above, or its manifest.json) is exported: one file for each stream (`train/web.ds`),
its documents whole and in order, the ids that stand around them included. Anything else is imported: every file becomes a
stream and is packed; files below `train/` and `heldout/` keep their split and name, others are `train` and `source_name`.
The direction back gives the same documents, id for id. Tokens are streamed; what is kept in memory is some 100 bytes a
document.

Examples:
  arriero convert input=out/packed output=out/datatrove format=datatrove      # nanotron's Nanosets read it too
  arriero convert input=out/packed output=out/megatron format=megatron
  arriero convert input=corpus/ output=data/packed format=olmo tokenizer_path=tok pack.sequence_length=8192
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import xxhash

from configs import edge
from configs.edge import ConfigError
from configs.fields import packed_folder
from configs.schema.data_verbs import ConvertRun
from configs.schema.pipeline import MixtureConfig
from data_pipeline.convert.formats import SUFFIXES, Tokens, Writer, files, open_tokens
from data_pipeline.mixture import resolve_mixture
from data_pipeline.pack.stage import PACKINGS
from data_pipeline.packed import PADDING, SEGMENT_DTYPE, PackedDataset, PackedWriter, token_dtype
from data_pipeline.packed.files import atomic_folder, scratch_folder
from data_pipeline.packed.format import SPLITS
from data_pipeline.packed.vocabulary import token_bytes
from data_pipeline.tokenize.folder import load_tokenizer

CACHED = 64
"""Sequences that are kept after reading; parts of several documents stand in one."""


def run(config: ConvertRun) -> int:
    """Export or import; returns the exit status."""
    source, output = Path(config.input), Path(config.output)
    if not source.exists():
        raise ConfigError(
            f"`input={source}` does not exist; give a packed dataset, or a folder of token files"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"`output={output}` exists and is not an empty folder; choose another")
    packed = Path(packed_folder(config.input))
    if (packed / "manifest.json").is_file():
        rows = export(PackedDataset(packed), output, config.format)
    else:
        rows = import_tokens(source, output, config)
    for name, documents, tokens in rows:
        print(f"{name}: {documents:,} documents, {tokens:,} tokens")
    print(f"made {output}")
    return 0


def export(packed: PackedDataset, output: Path, kind: str) -> list[tuple[str, int, int]]:
    """Write every stream of a packed dataset as one file; returns (name, documents, tokens) of each."""
    dtype = token_dtype(packed.vocab_size)
    rows = []
    with atomic_folder(output, durable=True) as partial:
        for name in packed.manifest.streams:
            writer = Writer(partial / name, kind, dtype, str(packed.tokenizer_path.resolve()))
            documents = tokens = 0
            for identifier, ids in documents_of(packed, name):
                writer.write(ids, identifier)
                documents, tokens = documents + 1, tokens + len(ids)
            writer.close()
            rows.append((f"{name}{SUFFIXES[kind]}", documents, tokens))
    return rows


def documents_of(packed: PackedDataset, stream: str) -> Iterator[tuple[str, np.ndarray]]:
    """(id, tokens) of every document of a stream in the order of documents.npy; removed ones are left out."""
    table, length = packed.documents(stream), packed.sequence_length
    parts = []
    for index in range(packed.stream(stream).sequences):
        segments = packed.read(stream, index).segments
        part = np.zeros((len(segments), 5), np.int64)
        part[:, 0], part[:, 1] = segments["document"], segments["offset"]
        part[:, 2], part[:, 3] = index, segments["start"]
        part[:, 4] = np.append(segments["start"][1:].astype(np.int64), length)
        parts.append(part[segments["document"] != PADDING])
    places = np.concatenate(parts) if parts else np.zeros((0, 5), np.int64)
    places = places[np.lexsort((places[:, 1], places[:, 0]))]
    bounds = np.searchsorted(places[:, 0], np.arange(len(table) + 1))
    cache: dict[int, np.ndarray] = {}
    for document in range(len(table)):
        pieces = []
        for _, _, index, start, stop in places[bounds[document] : bounds[document + 1]].tolist():
            if index not in cache:
                if len(cache) == CACHED:
                    cache.pop(next(iter(cache)))
                cache[index] = packed.read(stream, index).tokens
            pieces.append(cache[index][start:stop])
        if pieces:
            yield table["id"][document].tobytes().hex(), np.concatenate(pieces)


def import_tokens(source: Path, output: Path, config: ConvertRun) -> list[tuple[str, int, int]]:
    """Pack token files; returns (name, documents, tokens) of each stream.

    Raises:
        ConfigError: no tokenizer is named, or there are no files of the format.
        ValueError: a file is damaged, or holds ids outside the vocabulary.
    """
    if config.tokenizer_path is None:
        raise ConfigError("`tokenizer_path` is missing: give the folder of the tokenizer that made the ids")
    folder = Path(config.tokenizer_path)
    info = load_tokenizer(folder).info
    paths = files(source, config.format)
    if not paths:
        raise ConfigError(
            f"`input={source}` holds no *{SUFFIXES[config.format]} file of format={config.format}"
        )
    width = config.token_bytes or token_dtype(info.vocab_size).itemsize
    sizes = token_bytes(folder / "tokenizer.json", info.vocab_size)
    with (
        scratch_folder(output.with_name(output.name + "-ids")) as scratch,
        PackedWriter(
            output, info, config.pack.sequence_length, config.pack.shard_sequences, config.pack.method
        ) as writer,
    ):
        opened = [
            (path, open_tokens(path, config.format, width, info.special.get("eos"), scratch))
            for path in paths
        ]
        begin, end = (
            _around(info.begin, [t for _, t in opened]),
            _around(info.end, [t for _, t in opened], True),
        )
        writer.tokenizer = replace(info, begin=begin, end=end)
        rows = []
        for path, tokens in opened:
            split, name = _stream_of(path, source, config.source_name)
            rows.append(_pack(writer, split, name, tokens, sizes, info.special["pad"], config))
        mixture = resolve_mixture(MixtureConfig(), writer.sequences("train"))
        writer.finish(folder, mixture, dict.fromkeys(writer.sequences("train")), seed=0)
    return rows


def _around(ids: tuple[int, ...], opened: list[Tokens], after: bool = False) -> tuple[int, ...]:
    """The ids of the tokenizer around documents, where all documents have them; else none."""
    for tokens in opened:
        if len(tokens.lengths) and int(tokens.lengths.min()) < len(ids):
            return ()
        edges = tokens.starts + tokens.lengths - len(ids) if after else tokens.starts
        for place, index in enumerate(ids):
            if np.any(tokens.at(edges + place) != index):
                return ()
    return ids


def _stream_of(path: Path, source: Path, name: str) -> tuple[str, str]:
    """(split, source) of a file: those of its folder and name where an export wrote it."""
    parts = path.relative_to(source).parts if path != source else (path.name,)
    stem = parts[-1].removesuffix(path.suffix)
    if len(parts) == 2 and parts[0] in SPLITS:
        return parts[0], stem
    return "train", name if len(parts) == 1 and path == source else f"{name}-{stem}"


def _pack(
    writer: PackedWriter,
    split: str,
    name: str,
    tokens: Tokens,
    sizes: np.ndarray,
    pad: int,
    config: ConvertRun,
) -> tuple[str, int, int]:
    source, _, language = name.partition(".")
    stream = writer.stream(split, source, language or None)
    length, added = config.pack.sequence_length, 0
    rows = np.flatnonzero(tokens.lengths)
    for layout in PACKINGS[config.pack.method](tokens.lengths[rows], length):
        for document in range(added, max(piece[0] for piece in layout) + 1):
            ids = tokens.read(int(rows[document]))
            if int(ids.max()) >= len(sizes) or int(ids.min()) < 0:
                raise ValueError(
                    f"document {int(rows[document])} of {split}/{name} holds id {int(ids.max())}, but the tokenizer has "
                    f"{len(sizes):,}; give the one that made the ids, or token_bytes=2 or 4"
                )
            identifier = xxhash.xxh3_128_digest(f"{split}/{name}\x1f{rows[document]}".encode())
            stream.document(identifier, 0, len(ids), int(sizes[ids].sum()))
        added = max(added, max(piece[0] for piece in layout) + 1)
        parts, segments, start, following = [], [], 0, -1
        for document, offset, taken in layout:
            row = int(rows[document])
            parts.append(tokens.read(row, offset, taken))
            segments.append((document, start, offset))
            start += taken
            goes_on = offset + taken < tokens.lengths[row]
            following = int(tokens.read(row, offset + taken, 1)[0]) if goes_on else -1
        if start < length:
            parts.append(np.full(length - start, pad, parts[0].dtype))
            segments.append((PADDING, start, 0))
        stream.sequence(np.concatenate(parts), following, np.array(segments, SEGMENT_DTYPE))
    return f"{split}/{name}", len(rows), int(tokens.lengths.sum())


def main(argv: list[str] | None = None) -> int:
    """Entry point of the verb."""
    return edge.main("convert", ConvertRun, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
