"""Saving: stage, write in the background, commit.

1. *Stage* (training waits): every chunk is copied into memory that stays from one checkpoint to the next. A chunk that
   several ranks hold is written by one of them.
2. *Write* (training goes on): a process serialises the copies into `checkpoints/step-N/__RANK_0.distcp`, with the CRC-32
   of each.
3. *Commit* (all ranks, between two steps): `manifest.json`, DCP's `.metadata`, and last `COMMITTED`, by atomic rename.

The files are those of torch.distributed.checkpoint, so its own tools read them
(`python -m torch.distributed.checkpoint.format_utils dcp_to_torch …`).
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from data_pipeline.packed.files import disk_full_message, is_disk_full, write_atomically
from pretrain.checkpoint.chunks import Chunk, local_chunks
from pretrain.checkpoint.staging import Staging
from pretrain.checkpoint_folders import (
    committed,
    discard,
    make_empty,
    remove_surplus,
    remove_uncommitted,
    step_path,
)
from pretrain.distributed import agreed, on_rank0, together
from pretrain.ledger import Ledger
from pretrain.manifest import FORMAT


@dataclass(frozen=True)
class Stored:
    """One chunk in a file: where it lies and what its bytes must be."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    at: int
    length: int
    crc32: int


@dataclass
class _Pending:
    step: int
    path: Path
    state: dict[str, Any]
    writing: Future[list[Stored]]
    started: float
    stall_seconds: float


class Checkpointer:
    """Saves the state of all ranks; every method but `busy` is collective.

    Args:
        keep: committed checkpoints that stay; 0: all.
        asynchronous: write while training goes on.
        warn: takes, on rank 0, what is wrong but need not end the run: an old checkpoint that cannot be removed.
    """

    def __init__(
        self,
        run_dir: Path,
        keep: int,
        asynchronous: bool,
        ledger: Ledger | None,
        warn: Callable[[str], None] = lambda text: print(f"warning: {text}", file=sys.stderr, flush=True),
    ):
        self.run_dir = run_dir
        self.keep = keep
        self.asynchronous = asynchronous
        self.ledger = ledger
        self.warn = warn
        # It waits for the process that writes.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._staging = Staging()
        self._pending: _Pending | None = None
        self._staged_bytes: int | None = None
        """Bytes of the newest checkpoint's tensors on this rank."""
        self._plan_key: list[tuple[Chunk, ...]] | None = None
        self._mine: frozenset[tuple[str, tuple[int, ...]]] = frozenset()

    @property
    def open(self) -> bool:
        """A checkpoint was started and is not committed yet; equal on all ranks."""
        return self._pending is not None

    @property
    def busy(self) -> bool:
        """This rank is still writing."""
        return self._pending is not None and not self._pending.writing.done()

    def start(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Stage the tensors and begin to write them; a checkpoint still open is committed first.

        Args:
            tensors: tensors and DTensors of this rank by name; equal chunks of several ranks are stored once.
            state: what JSON can hold; that of rank 0 counts.

        Raises:
            OSError: an earlier or this checkpoint could not be written (a full disk).
        """
        self.finish()
        started = time.time()
        path = step_path(self.run_dir, step)
        chunks = list(local_chunks(tensors))
        self._assign([chunk for chunk, _ in chunks])
        try:
            on_rank0(lambda: self._make_room(path))
            mine = [(chunk, local) for chunk, local in chunks if (chunk.name, chunk.offsets) in self._mine]
            job = together(lambda: self._staging.copy([local for _, local in mine]))
            self._staged_bytes = sum(local.nbytes for _, local in mine)
        except OSError as error:
            raise self._failed(path, error) from error
        target = path / f"__{dist.get_rank()}_0.distcp"
        kinds = [(chunk, _dtype(local)) for chunk, local in mine]
        writing = self._thread.submit(_write, self._staging, target, kinds, job)
        self._pending = _Pending(step, path, state, writing, started, time.time() - started)
        if not self.asynchronous:
            self.finish()

    def finish(self) -> None:
        """Wait until the open checkpoint, if any, is written, and commit it."""
        if self._pending is None:
            return
        waited = time.time()
        try:
            self._pending.writing.exception()
        finally:
            self._pending.stall_seconds += time.time() - waited
        self.commit()

    def commit(self) -> None:
        """Make the open checkpoint whole; every rank must have written its part.

        Raises:
            OSError: some rank could not write; what there is of the checkpoint has been removed.
        """
        pending, began = self._pending, time.time()
        assert pending is not None and pending.writing.done()
        self._pending = None
        rank, world_size = dist.get_rank(), dist.get_world_size()
        try:
            stored = together(pending.writing.result)
            parts: list[list[Stored]] | None = [stored] * world_size if rank == 0 else None
            if world_size > 1:
                dist.gather_object(stored, parts, dst=0)
            on_rank0(lambda: _seal(pending.path, pending.state, parts or []))
        except OSError as error:
            raise self._failed(pending.path, error) from error
        if rank == 0:
            for problem in remove_surplus(self.run_dir, self.keep):
                self.warn(problem)
            if self.ledger is not None:
                self.ledger.event(
                    "saved",
                    pending.step,
                    path=pending.path.name,
                    bytes=sum(s.length for part in parts or [] for s in part),
                    stall_seconds=pending.stall_seconds + time.time() - began,
                    seconds=time.time() - pending.started,
                )

    def close(self) -> None:
        """Stop the thread and give its memory back; not collective."""
        self._thread.shutdown()
        self._staging.close()

    def _make_room(self, path: Path) -> None:
        """Make the folder, after what may go has made room: on a full disk that decides whether the next one fits."""
        for problem in remove_uncommitted(self.run_dir) + remove_surplus(self.run_dir, self.keep, spare=path):
            self.warn(problem)
        make_empty(path)

    def _failed(self, path: Path, error: OSError) -> OSError:
        """Remove what there is of a checkpoint; the error that says so."""
        if dist.get_rank() == 0:
            discard(path)
        whole = committed(self.run_dir)
        newest = f"the newest whole checkpoint is {whole[0]}" if whole else "there is no earlier checkpoint"
        reason, advice = f"checkpoint {path} could not be written: {error}", "start the run again"
        # Errors of other ranks come as text alone.
        if is_disk_full(error) or os.strerror(errno.ENOSPC) in str(error):
            needed = None if self._staged_bytes is None else self._staged_bytes * dist.get_world_size()
            reason = f"checkpoint {path} could not be written: {disk_full_message(path, needed)}"
            advice = "A lower checkpoint.keep needs less space"
        return agreed(OSError(f"{reason}; {newest}. {advice}"))

    def _assign(self, chunks: list[Chunk]) -> None:
        """Decide which of the chunks this rank writes; asked of the others only when its own have changed."""
        world_size, rank = dist.get_world_size(), dist.get_rank()
        everyone: list[tuple[Chunk, ...]] = [tuple(chunks)] * world_size
        if world_size > 1:
            known = self._plan_key is not None and self._plan_key[rank] == tuple(chunks)
            unknown = torch.tensor([0 if known else 1])
            dist.all_reduce(unknown)
            if not unknown.item():
                return
            dist.all_gather_object(everyone, tuple(chunks))
        holders: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for holder, held in enumerate(everyone):
            for chunk in held:
                holders.setdefault((chunk.name, chunk.offsets), []).append(holder)
        self._plan_key = everyone
        self._mine = frozenset(
            key
            for key, ranks in holders.items()
            if ranks[zlib.crc32(repr(key).encode()) % len(ranks)] == rank
        )


def write_checkpoint(path: Path, chunks: Iterable[tuple[Chunk, Tensor]], state: dict[str, Any]) -> None:
    """Write a checkpoint from chunks that come one by one, in this process alone; one of them is in memory at a time.

    Raises:
        OSError: it could not be written (a full disk); then nothing is committed.
    """
    path.mkdir(parents=True)
    stored: list[Stored] = []
    with (path / "__0_0.distcp").open("wb") as file:
        for chunk, local in chunks:
            data, entry = _serialise(chunk, local, "__0_0.distcp", file.tell())
            file.write(data)
            stored.append(entry)
        file.flush()
        os.fsync(file.fileno())
    _seal(path, state, [stored])


def _serialise(chunk: Chunk, local: Tensor, file: str, at: int) -> tuple[memoryview, Stored]:
    """The bytes of a chunk, and what the manifest says of them at byte `at` of `file`."""
    buffer = io.BytesIO()
    # The copy has a storage of its own: a shard may be a view into a larger one, which would be saved whole.
    torch.save(local.to("cpu", copy=True).contiguous(), buffer)
    data = buffer.getbuffer()
    where = (chunk.shape, chunk.offsets, chunk.sizes, file, at, len(data), zlib.crc32(data))
    return data, Stored(chunk.name, _dtype(local), *where)


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _write(
    staging: Staging, target: Path, chunks: list[tuple[Chunk, str]], job: list[dict[str, Any]]
) -> list[Stored]:
    """Write what was staged; what the manifest says of it."""
    return [
        Stored(chunk.name, dtype, chunk.shape, chunk.offsets, chunk.sizes, target.name, at, length, crc32)
        for (chunk, dtype), (at, length, crc32) in zip(chunks, staging.write(target, job), strict=True)
    ]


def _seal(path: Path, state: dict[str, Any], parts: list[list[Stored]]) -> None:
    stored = [s for part in parts for s in part]
    manifest = orjson.dumps({"format": FORMAT, "state": state, "chunks": [asdict(s) for s in stored]})
    metadata = pickle.dumps(_dcp_metadata(stored))
    write_atomically(path / "manifest.json", manifest, durable=True)
    write_atomically(path / ".metadata", metadata, durable=True)
    sums = {"manifest.json": zlib.crc32(manifest), ".metadata": zlib.crc32(metadata), "time": time.time()}
    write_atomically(path / "COMMITTED", orjson.dumps(sums), durable=True)


def _dcp_metadata(stored: list[Stored]) -> Metadata:
    tensors: dict[str, TensorStorageMetadata] = {}
    storage = {}
    for s in stored:
        properties = TensorProperties(dtype=getattr(torch, s.dtype))
        entry = tensors.setdefault(s.name, TensorStorageMetadata(properties, torch.Size(s.shape), []))
        index = MetadataIndex(s.name, s.offsets, len(entry.chunks))
        entry.chunks.append(ChunkStorageMetadata(torch.Size(s.offsets), torch.Size(s.sizes)))
        storage[index] = _StorageInfo(s.file, s.at, s.length)
    return Metadata(dict(tensors), storage_data=storage, storage_meta=StorageMeta(), version="1.0.0")
