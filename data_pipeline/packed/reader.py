"""Reading a packed dataset: any sequence in O(1), its checksum verified when it is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path

import numpy as np

from data_pipeline.packed.format import (
    DOCUMENT_DTYPE,
    PADDING,
    SEGMENT_DTYPE,
    Manifest,
    PackedError,
    StreamInfo,
    file_digest,
    read_manifest,
    sequence_crc,
    token_dtype,
)

OPEN_SHARDS = 128
"""Shards that stay open: each takes five file descriptors, and a process often may have 1,024."""


@dataclass(frozen=True)
class Sequence:
    """One sequence as stored."""

    tokens: np.ndarray
    """[T], uint16 or uint32; read-only."""
    next: int
    """The token after the last one, where its document continues in another sequence; else -1."""
    segments: np.ndarray
    """[m] of SEGMENT_DTYPE: document (0xFFFFFFFF: padding), start, offset."""


@dataclass(frozen=True)
class _Shard:
    path: Path
    tokens: FileIO
    """Closed with the last reference to the shard."""
    next: np.ndarray
    crc: np.ndarray
    segments: np.ndarray
    offsets: np.ndarray


class PackedDataset:
    """A packed dataset, opened for reading.

    Opening reads the manifest and compares the size of every file; shards are mapped when first read. Raises
    PackedError, naming the file, for anything absent, truncated or damaged.
    """

    def __init__(self, path: Path | str, verify: bool = True) -> None:
        """verify: check the CRC of each sequence when it is read."""
        self.path = Path(path)
        self.manifest: Manifest = read_manifest(self.path)
        self._verify = verify
        self._shard = lru_cache(OPEN_SHARDS)(self._open_shard)
        self._documents: dict[str, np.ndarray] = {}
        for name, info in self.manifest.streams.items():
            self._check_files(name, info)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.manifest.tokenizer.vocab_size

    @property
    def tokenizer_hash(self) -> str:
        """SHA-256 of tokenizer.json."""
        return self.manifest.tokenizer.hash

    @property
    def sequence_length(self) -> int:
        """Tokens of a sequence."""
        return self.manifest.sequence_length

    @property
    def tokenizer_path(self) -> Path:
        """Folder of the tokenizer."""
        return self.path / "tokenizer"

    def streams(self, split: str) -> dict[str, StreamInfo]:
        """Streams of a split (`train` or `heldout`) by name, in name order."""
        return self.manifest.of_split(split)

    def stream(self, name: str) -> StreamInfo:
        """What the manifest says of a stream; PackedError if there is none of that name."""
        try:
            return self.manifest.streams[name]
        except KeyError:
            known = ", ".join(sorted(self.manifest.streams)) or "none"
            raise PackedError(f"{self.path} has no stream {name!r}; it has: {known}") from None

    def read(self, stream: str, index: int) -> Sequence:
        """Sequence `index` of a stream; PackedError where its CRC does not match, IndexError outside the stream."""
        info = self.stream(stream)
        if not 0 <= index < info.sequences:
            raise IndexError(f"stream {stream} has {info.sequences} sequences; there is no sequence {index}")
        number, row = divmod(index, info.shards[0].sequences)
        shard = self._shard(stream, number)
        first, last = int(shard.offsets[row]), int(shard.offsets[row + 1])
        tokens, following = self._tokens(shard, row), int(shard.next[row])
        where = f"{shard.path}: sequence {row} of the shard (sequence {index} of {stream}) is damaged"
        if not 0 <= first < last <= len(shard.segments):
            raise PackedError(
                f"{where}: its offsets are {first} and {last}, but the shard has {len(shard.segments)} segments; "
                "restore the dataset or pack it again"
            )
        segments = shard.segments[first:last]
        if self._verify:
            expected, found = int(shard.crc[row]), sequence_crc(tokens, following, segments)
            if expected != found:
                raise PackedError(
                    f"{where}: CRC-32 {found:08x}, expected {expected:08x}; restore the dataset or pack it again"
                )
        return Sequence(tokens, following, segments)

    def documents(self, stream: str) -> np.ndarray:
        """[documents] of DOCUMENT_DTYPE, memory-mapped; the file's SHA-256 is checked at the first call."""
        if stream not in self._documents:
            info = self.stream(stream)
            path = self.path / stream / "documents.npy"
            if self._verify and file_digest(path)["sha256"] != info.documents_file["sha256"]:
                raise PackedError(f"{path} is damaged: its SHA-256 is not that of the manifest; pack again")
            self._documents[stream] = _load(path, DOCUMENT_DTYPE, info.documents)
        return self._documents[stream]

    def locations(self, stream: str, document: int) -> list[tuple[int, int, int, int]]:
        """Where a document (a row of `documents`) stands: (sequence, start, length, offset in the document).

        In document order; lengths and offsets in tokens. Looks through the stream's segments, so it takes time
        linear in their number.
        """
        info = self.stream(stream)
        found, base = [], 0
        for number, shard_info in enumerate(info.shards):
            shard = self._shard(stream, number)
            for segment in np.flatnonzero(shard.segments["document"] == document):
                row = int(np.searchsorted(shard.offsets, segment, side="right")) - 1
                start = int(shard.segments["start"][segment])
                last = segment + 1 == shard.offsets[row + 1]
                end = self.sequence_length if last else int(shard.segments["start"][segment + 1])
                found.append((base + row, start, end - start, int(shard.segments["offset"][segment])))
            base += shard_info.sequences
        return sorted(found, key=lambda location: location[3])

    def covered_bytes(self, stream: str, sequences: int | None = None) -> float:
        """Bytes of text in the first `sequences` of a stream (all: None), a split document counted by its tokens."""
        info = self.stream(stream)
        if sequences is None or sequences >= info.sequences:
            return float(info.bytes)
        documents, total = self.documents(stream), 0.0
        for index in range(sequences):
            segments = self.read(stream, index).segments
            lengths = np.diff(np.append(segments["start"].astype(np.int64), self.sequence_length))
            real = segments["document"] != PADDING
            rows = documents[segments["document"][real]]
            total += float((lengths[real] * (rows["bytes"] / rows["tokens"])).sum())
        return total

    def verify(self) -> None:
        """Compare the SHA-256 of every file with the manifest; PackedError names the first that differs."""
        for name, info in self.manifest.streams.items():
            files = {"documents.npy": info.documents_file}
            for shard in info.shards:
                files.update(shard.files)
            for file, expected in files.items():
                path = self.path / name / file
                if file_digest(path)["sha256"] != expected["sha256"]:
                    raise PackedError(
                        f"{path} is damaged: its SHA-256 is not that of the manifest; pack again"
                    )
        tokenizer = self.tokenizer_path / "tokenizer.json"
        if not tokenizer.is_file() or file_digest(tokenizer)["sha256"] != self.tokenizer_hash:
            raise PackedError(
                f"{tokenizer} is absent or is not the tokenizer that made the tokens; pack again"
            )

    def _tokens(self, shard: _Shard, row: int) -> np.ndarray:
        """[T]. Read, not mapped: a file that is cut off or cannot be read any more is then an error, not a SIGBUS."""
        dtype = token_dtype(self.vocab_size)
        size = self.sequence_length * dtype.itemsize
        data = os.pread(shard.tokens.fileno(), size, row * size)
        if len(data) != size:
            raise PackedError(
                f"{shard.path} was cut off while it was open: sequence {row} of the shard has {len(data)} of {size} bytes; "
                "restore the dataset or pack it again"
            )
        return np.frombuffer(data, dtype)

    def _check_files(self, name: str, info: StreamInfo) -> None:
        files = {"documents.npy": info.documents_file}
        for shard in info.shards:
            files.update(shard.files)
        for file, expected in files.items():
            path = self.path / name / file
            if not path.is_file():
                raise PackedError(f"{path} is missing; the manifest lists it with {expected['bytes']} bytes")
            if (size := path.stat().st_size) != expected["bytes"]:
                raise PackedError(
                    f"{path} has {size} bytes, expected {expected['bytes']}: it is "
                    f"{'empty' if size == 0 else 'truncated' if size < expected['bytes'] else 'too long'}; "
                    "restore the dataset or pack it again"
                )

    def _open_shard(self, stream: str, number: int) -> _Shard:
        info, folder = self.stream(stream).shards[number], self.path / stream
        path = folder / f"tokens-{number:05d}.bin"
        return _Shard(
            path,
            FileIO(path),
            _load(folder / f"next-{number:05d}.npy", np.dtype("<i4"), info.sequences),
            _load(folder / f"crc-{number:05d}.npy", np.dtype("<u4"), info.sequences),
            _load(folder / f"segments-{number:05d}.npy", SEGMENT_DTYPE, info.segments),
            _load(folder / f"offsets-{number:05d}.npy", np.dtype("<i8"), info.sequences + 1),
        )


def _load(path: Path, dtype: np.dtype, rows: int) -> np.ndarray:
    try:
        # An empty array cannot be mapped.
        array = np.load(path, mmap_mode="r" if rows else None, allow_pickle=False)
    except (ValueError, SyntaxError, EOFError) as error:
        raise PackedError(
            f"{path} is not a NumPy file ({error}); restore the dataset or pack it again"
        ) from None
    if array.dtype != dtype or array.shape != (rows,):
        raise PackedError(
            f"{path} has dtype {array.dtype} and shape {array.shape}, expected {dtype} and ({rows},); "
            "restore the dataset or pack it again"
        )
    return array.view(np.ndarray)
