"""Writing a packed dataset: streamed in bounded memory, visible only when whole."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from data_pipeline.packed.files import atomic_folder
from data_pipeline.packed.format import (
    DOCUMENT_DTYPE,
    PADDING,
    SEGMENT_DTYPE,
    Manifest,
    PackedError,
    Removal,
    ShardInfo,
    StreamInfo,
    TokenizerInfo,
    file_digest,
    sequence_crc,
    stream_name,
    token_dtype,
)


class StreamWriter:
    """Writes the documents and sequences of one stream; made by `PackedWriter.stream`."""

    def __init__(
        self,
        directory: Path,
        split: str,
        source: str,
        language: str | None,
        sequence_length: int,
        vocab_size: int,
        shard_sequences: int,
    ) -> None:
        self.directory = directory
        self.split, self.source, self.language = split, source, language
        self._length = sequence_length
        self._vocab_size = vocab_size
        self._dtype = token_dtype(vocab_size)
        self._shard_sequences = shard_sequences
        self._shards: list[ShardInfo] = []
        self._sequences = self._tokens = self._bytes = self._documents = 0
        self._placed = 0
        self._cut = 0
        self._next: list[int] = []
        self._crc: list[int] = []
        self._segments: list[np.ndarray] = []
        self._tokens_file: BinaryIO | None = None
        directory.mkdir(parents=True)
        self._documents_file = (directory / "documents.npy").open("wb")
        _npy_header(self._documents_file, DOCUMENT_DTYPE, 0)

    @property
    def count(self) -> int:
        """Sequences written so far."""
        return self._sequences

    def document(self, id: bytes, url_hash: int, tokens: int, n_bytes: int) -> int:
        """Add a document; returns its row. id: 16 bytes; url_hash: xxh3-64 or 0; tokens with those around its text."""
        if len(id) != 16:
            raise PackedError(f"document id has {len(id)} bytes, expected 16: {id.hex()}")
        if self._documents >= PADDING:
            raise PackedError(
                f"{self.directory} holds {self._documents} documents, the most one stream can hold"
            )
        row = np.zeros(1, DOCUMENT_DTYPE)
        row["id"], row["url_hash"], row["tokens"], row["bytes"] = np.void(id), url_hash, tokens, n_bytes
        self._documents_file.write(row.tobytes())
        self._documents += 1
        self._tokens += tokens
        self._bytes += n_bytes
        return self._documents - 1

    def sequence(self, tokens: np.ndarray, next_token: int, segments: np.ndarray) -> None:
        """Add a sequence.

        tokens: [T], any integer dtype; next_token: the token after the last where its document continues in another
        sequence, else -1; segments: [m] of SEGMENT_DTYPE. Raises PackedError where the sequence breaks the format.
        """
        self._check(tokens, next_token, segments)
        stored = np.ascontiguousarray(tokens, self._dtype)
        if self._tokens_file is None:
            self._tokens_file = self._path("tokens", "bin").open("wb")
        self._tokens_file.write(stored.data)
        self._next.append(next_token)
        self._crc.append(sequence_crc(stored, next_token, segments))
        self._segments.append(segments)
        padding = self._length - int(segments["start"][-1]) if segments["document"][-1] == PADDING else 0
        # The first part of a document that goes on in another sequence.
        self._cut += next_token >= 0 and int(segments["offset"][-1]) == 0
        self._placed += self._length - padding
        self._sequences += 1
        if len(self._next) == self._shard_sequences:
            self._close_shard()

    def _check(self, tokens: np.ndarray, next_token: int, segments: np.ndarray) -> None:
        where = f"{self.directory.parent.name}/{self.directory.name}, sequence {self._sequences}"
        if tokens.shape != (self._length,):
            raise PackedError(f"{where} has shape {tokens.shape}, expected ({self._length},)")
        if int(tokens.max()) >= self._vocab_size or int(tokens.min()) < 0:
            bad = int(tokens.max()) if int(tokens.max()) >= self._vocab_size else int(tokens.min())
            raise PackedError(f"{where} holds token {bad}, outside the vocabulary of {self._vocab_size}")
        if not -1 <= next_token < self._vocab_size:
            raise PackedError(
                f"{where} has next token {next_token}, outside the vocabulary of {self._vocab_size}"
            )
        starts = segments["start"]
        if segments.dtype != SEGMENT_DTYPE or len(segments) == 0 or starts[0] != 0:
            raise PackedError(f"{where}: segments must be SEGMENT_DTYPE and begin at position 0")
        if np.any(np.diff(starts.astype(np.int64)) <= 0) or starts[-1] >= self._length:
            raise PackedError(
                f"{where}: segment starts must rise and stay below {self._length}: {starts.tolist()}"
            )
        documents = segments["document"]
        if np.any(documents[:-1] == PADDING) or np.any(documents[documents != PADDING] >= self._documents):
            raise PackedError(f"{where}: segments must name documents already added; padding comes last")
        if documents[-1] == PADDING and next_token != -1:
            raise PackedError(f"{where} ends in padding but has next token {next_token}, expected -1")

    def finish(self) -> StreamInfo:
        """Close the files and return what the manifest says of the stream."""
        if self._next:
            self._close_shard()
        if self._placed != self._tokens:
            raise PackedError(
                f"{self.directory} has documents of {self._tokens} tokens but sequences of {self._placed}; "
                "every token must stand in exactly one sequence"
            )
        self._documents_file.seek(0)
        _npy_header(self._documents_file, DOCUMENT_DTYPE, self._documents)
        self._documents_file.close()
        return StreamInfo(
            split=self.split,
            source=self.source,
            language=self.language,
            sequences=self._sequences,
            tokens=self._tokens,
            documents=self._documents,
            bytes=self._bytes,
            shards=tuple(self._shards),
            documents_file=file_digest(self.directory / "documents.npy"),
            cut=self._cut,
        )

    def close(self) -> None:
        """Close the files of a stream that will not be finished."""
        self._documents_file.close()
        if self._tokens_file is not None:
            self._tokens_file.close()

    def _path(self, kind: str, suffix: str) -> Path:
        return self.directory / f"{kind}-{len(self._shards):05d}.{suffix}"

    def _close_shard(self) -> None:
        assert self._tokens_file is not None
        self._tokens_file.close()
        self._tokens_file = None
        counts = np.array([len(s) for s in self._segments], np.int64)
        arrays = {
            "next": np.array(self._next, "<i4"),
            "crc": np.array(self._crc, "<u4"),
            "segments": np.concatenate(self._segments),
            "offsets": np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]).astype("<i8"),
        }
        paths = [self._path("tokens", "bin")]
        for kind, array in arrays.items():
            paths.append(self._path(kind, "npy"))
            with paths[-1].open("wb") as file:
                np.save(file, array, allow_pickle=False)
        self._shards.append(
            ShardInfo(len(counts), int(counts.sum()), {path.name: file_digest(path) for path in paths})
        )
        self._next, self._crc, self._segments = [], [], []


class PackedWriter:
    """Writes a packed dataset into `directory`, atomically.

    It takes the place of an earlier one at the end of the `with` block, after `finish` gave the manifest's remaining
    fields and everything is on disk; an error or a killed process leaves `directory` as it was. Memory: one
    sequence of tokens and the boundaries of one shard for each open stream.
    """

    def __init__(
        self,
        directory: Path | str,
        tokenizer: TokenizerInfo,
        sequence_length: int,
        shard_sequences: int = 16_384,
        method: str = "concat",
    ) -> None:
        if sequence_length < 2:
            raise PackedError(f"sequence_length is {sequence_length}, expected at least 2")
        if shard_sequences < 1:
            raise PackedError(f"shard_sequences is {shard_sequences}, expected at least 1")
        self.directory = Path(directory)
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length
        self._method = method
        self._shard_sequences = shard_sequences
        self._folder = atomic_folder(self.directory, durable=True, replace=True)
        self._partial = Path()
        self._streams: dict[str, StreamWriter] = {}
        self._manifest: Manifest | None = None

    def __enter__(self) -> PackedWriter:
        self._partial = self._folder.__enter__()
        return self

    def stream(self, split: str, source: str, language: str | None = None) -> StreamWriter:
        """A new stream; PackedError if it exists."""
        name = stream_name(split, source, language)
        if name in self._streams:
            raise PackedError(f"stream {name} is written already")
        self._streams[name] = StreamWriter(
            self._partial / name,
            split,
            source,
            language,
            self.sequence_length,
            self.tokenizer.vocab_size,
            self._shard_sequences,
        )
        return self._streams[name]

    def sequences(self, split: str) -> dict[str, int]:
        """Sequences written so far of each source of a split."""
        counts: dict[str, int] = {}
        for stream in self._streams.values():
            if stream.split == split:
                counts[stream.source] = counts.get(stream.source, 0) + stream.count
        return counts

    def finish(
        self,
        tokenizer_directory: Path,
        mixture: dict[str, dict[str, float]],
        cutoff: dict[str, str | None],
        recipe_fingerprint: str = "",
        data_run: str | None = None,
        seed: int = 0,
        removals: tuple[Removal, ...] = (),
    ) -> Manifest:
        """Close all streams, copy the tokenizer and write the manifest; the rename follows at the block's end."""
        streams = {name: stream.finish() for name, stream in sorted(self._streams.items())}
        # Hidden files are what an interrupted save leaves behind.
        hidden = shutil.ignore_patterns(".*")
        target = self._partial / "tokenizer"
        shutil.copytree(tokenizer_directory, target, ignore=hidden, copy_function=shutil.copyfile)
        digest = file_digest(self._partial / "tokenizer/tokenizer.json")["sha256"]
        if digest != self.tokenizer.hash:
            raise PackedError(
                f"{tokenizer_directory}/tokenizer.json has SHA-256 {digest}, but the tokens were made by "
                f"{self.tokenizer.hash}; tokenize again"
            )
        self._manifest = Manifest(
            tokenizer=self.tokenizer,
            sequence_length=self.sequence_length,
            dtype=token_dtype(self.tokenizer.vocab_size).name,
            method=self._method,
            streams=streams,
            cutoff=cutoff,
            mixture=mixture,
            recipe_fingerprint=recipe_fingerprint,
            data_run=data_run,
            seed=seed,
            removals=removals,
        )
        (self._partial / "manifest.json").write_bytes(self._manifest.to_json())
        return self._manifest

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._manifest is None:
            error = PackedError(f"{self.directory} was not finished: PackedWriter.finish was not called")
        if error is not None:
            for stream in self._streams.values():
                # Closing flushes, which fails again on a full disk.
                with contextlib.suppress(OSError):
                    stream.close()
            self._folder.__exit__(type(error), error, trace)
            if kind is None:
                raise error
            if isinstance(error, OSError) and error.filename is None:
                # A failed write knows its reason (disk full, quota) but not its file.
                raise PackedError(
                    f"{self.directory} could not be written: {error.strerror or error}; nothing of it was kept. "
                    "Make room, then run the same command again"
                ) from error
            return
        self._folder.__exit__(None, None, None)


def _npy_header(file: BinaryIO, dtype: np.dtype, rows: int) -> None:
    # NumPy pads the header for a growing first axis, so the header of 0 rows can be replaced in place later.
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows,)}
    np.lib.format.write_array_header_1_0(file, header)
