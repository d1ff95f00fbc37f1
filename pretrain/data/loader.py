"""Batches of a rank: a contiguous slice of every global batch, read ahead on a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType

import numpy as np

from data_pipeline.packed import PADDING, SEGMENT_DTYPE, PackedDataset, PackedError, Sequence
from pretrain.data.batch import Batch, collate
from pretrain.data.plan import DataPlan


class Loader:
    """Reads this rank's part of each global batch.

    Rank r of `dp_size` gets sequences [n0 + r·G/dp_size, n0 + (r + 1)·G/dp_size) of the global batch of G sequences
    that begins at global index n0, in micro-batches of `micro_batch_size` sequences. So the global batch, in order, is
    the same for every number of ranks and every micro-batch size.
    """

    def __init__(
        self,
        packed: PackedDataset,
        plan: DataPlan,
        global_batch_size: int,
        micro_batch_size: int,
        dp_rank: int = 0,
        dp_size: int = 1,
        start: int = 0,
    ) -> None:
        """start: global index of the first sequence that `prefetch` reads. ValueError where sizes do not divide."""
        if not 0 <= dp_rank < dp_size:
            raise ValueError(f"dp_rank {dp_rank} is outside [0, {dp_size})")
        if global_batch_size % (dp_size * micro_batch_size):
            raise ValueError(
                f"train.global_batch_size {global_batch_size} must be a multiple of the {dp_size} data-parallel ranks "
                f"× train.micro_batch_size {micro_batch_size} = {dp_size * micro_batch_size}"
            )
        self._packed = packed
        self._plan = plan
        self._global_batch_size = global_batch_size
        self._micro_batch_size = micro_batch_size
        self._first = dp_rank * (global_batch_size // dp_size)
        self._size = global_batch_size // dp_size
        self._start = start

    def step(self, n0: int) -> list[Batch]:
        """This rank's micro-batches of the global batch [n0, n0 + global_batch_size)."""
        first = n0 + self._first
        return [
            self._batch(range(n, n + self._micro_batch_size))
            for n in range(first, first + self._size, self._micro_batch_size)
        ]

    def prefetch(self, steps: int | None = None, depth: int = 4, pin_memory: bool = False) -> Prefetcher:
        """Iterate over `steps` global batches (None: until stopped) from `start`, reading `depth` ahead on a thread.

        pin_memory: return batches in page-locked memory, for CUDA.
        """
        return Prefetcher(self, self._start, self._global_batch_size, steps, depth, pin_memory)

    def _batch(self, indices: range) -> Batch:
        places = [self._plan.locate(n) for n in indices]
        sequences = [self._packed.read(stream, index) for stream, index in places]
        try:
            return collate(sequences, self._packed.vocab_size)
        except PackedError as error:
            named = ", ".join(f"{stream} {index}" for stream, index in places)
            raise PackedError(f"{self._packed.path}: {error} (sequences {named})") from None


class Prefetcher:
    """Iterator of `Loader.step` results, made on a thread.

    An error of the thread is raised by the `next` that would have returned its batch. Use it as a context manager, or
    call `close`: the thread then ends at once.
    """

    def __init__(
        self, loader: Loader, start: int, stride: int, steps: int | None, depth: int, pin_memory: bool
    ) -> None:
        self._queue: queue.Queue[list[Batch] | BaseException | None] = queue.Queue(max(1, depth))
        self._stopped = threading.Event()
        self._finished = False
        self._thread = threading.Thread(
            target=self._work, args=(loader, start, stride, steps, pin_memory), name="loader", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        if self._finished:
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, list):
            return item
        self._finished = True
        self.close()
        if item is None:
            raise StopIteration
        raise item

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._finished = True
        self._stopped.set()
        self._thread.join()

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self, loader: Loader, start: int, stride: int, steps: int | None, pin_memory: bool) -> None:
        n, done = start, 0
        try:
            while (steps is None or done < steps) and not self._stopped.is_set():
                batches = loader.step(n)
                self._put([b.pin_memory() for b in batches] if pin_memory else batches)
                n, done = n + stride, done + 1
            self._put(None)
        # Handed to the consumer, which raises it.
        except BaseException as error:
            self._put(error)

    def _put(self, item: list[Batch] | BaseException | None) -> None:
        while not self._stopped.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
        return None


def heldout_batches(
    packed: PackedDataset,
    stream: str,
    batch_size: int,
    max_sequences: int | None = None,
    dp_rank: int = 0,
    dp_size: int = 1,
) -> Iterator[Batch]:
    """The first `max_sequences` sequences of a stream (all: None), in order, shared between data-parallel ranks.

    Every rank gets the same number of batches of exactly `batch_size` sequences, so collectives of the forward pass
    match; where sequences run out, rows are padding, all of whose labels are ignored. Raises PackedError for a
    damaged sequence or a token id outside the vocabulary.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    total = packed.stream(stream).sequences
    total = total if max_sequences is None else min(total, max_sequences)
    padding = Sequence(
        np.full(packed.sequence_length, packed.manifest.tokenizer.special["pad"], np.uint32),
        -1,
        np.array([(PADDING, 0, 0)], SEGMENT_DTYPE),
    )
    for first in range(0, total, batch_size * dp_size):
        indices = range(first + dp_rank * batch_size, first + (dp_rank + 1) * batch_size)
        rows = [packed.read(stream, i) if i < total else padding for i in indices]
        try:
            yield collate(rows, packed.vocab_size)
        except PackedError as error:
            raise PackedError(f"{packed.path}, {stream}, sequences {indices}: {error}") from None
