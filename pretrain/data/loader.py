"""Batches of a rank: a contiguous slice of every global batch, read ahead on a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType

import numpy as np

from data_pipeline.packed import PADDING, SEGMENT_DTYPE, PackedDataset, PackedError, Sequence
from pretrain.data.batch import Batch, collate
from pretrain.data.plan import DataPlan
from pretrain.data.ramp import Span


class Loader:
    """Reads this rank's part of each global batch.

    Rank r of `dp_size` gets sequences [n + r·G/dp_size, n + (r + 1)·G/dp_size) of the global batch of G sequences that
    begins at global index n, in micro-batches of `micro_batch_size` packed sequences. So the global batch, in order, is
    the same for every number of ranks and every micro-batch size. Where a step cuts sequences into shorter rows, a
    micro-batch has more of them and as many tokens.
    """

    def __init__(
        self,
        packed: PackedDataset,
        plan: DataPlan,
        micro_batch_size: int,
        dp_rank: int = 0,
        dp_size: int = 1,
    ) -> None:
        if not 0 <= dp_rank < dp_size:
            raise ValueError(f"dp_rank {dp_rank} is outside [0, {dp_size})")
        self._packed = packed
        self._plan = plan
        self._micro_batch_size = micro_batch_size
        self._dp_rank, self._dp_size = dp_rank, dp_size

    def step(self, span: Span) -> list[Batch]:
        """This rank's micro-batches of a global batch. ValueError where sizes do not divide."""
        unit = self._dp_size * self._micro_batch_size
        if span.size % unit:
            raise ValueError(
                f"a global batch of {span.size} sequences must be a multiple of the {self._dp_size} data-parallel ranks "
                f"× train.micro_batch_size {self._micro_batch_size} = {unit}"
            )
        share = span.size // self._dp_size
        first = span.n + self._dp_rank * share
        return [
            self._batch(range(n, n + self._micro_batch_size), span.length)
            for n in range(first, first + share, self._micro_batch_size)
        ]

    def prefetch(self, spans: Iterable[Span], depth: int = 4, pin_memory: bool = False) -> Prefetcher:
        """Iterate over global batches, reading `depth` ahead on a thread.

        pin_memory: return batches in page-locked memory, for CUDA.
        """
        return Prefetcher(self, spans, depth, pin_memory)

    def _batch(self, indices: range, length: int) -> Batch:
        places = [self._plan.locate(n) for n in indices]
        sequences = [self._packed.read(stream, index) for stream, index in places]
        try:
            return collate(sequences, self._packed.vocab_size, length)
        except PackedError as error:
            named = ", ".join(f"{stream} {index}" for stream, index in places)
            raise PackedError(f"{self._packed.path}: {error} (sequences {named})") from None


class Prefetcher:
    """Iterator of `Loader.step` results, made on a thread.

    An error of the thread is raised by the `next` that would have returned its batch. Use it as a context manager, or
    call `close`: the thread then ends at once.
    """

    def __init__(self, loader: Loader, spans: Iterable[Span], depth: int, pin_memory: bool) -> None:
        self._queue: queue.Queue[list[Batch] | BaseException | None] = queue.Queue(max(1, depth))
        self._stopped = threading.Event()
        self._finished = False
        self._thread = threading.Thread(
            target=self._work, args=(loader, spans, pin_memory), name="loader", daemon=True
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

    def _work(self, loader: Loader, spans: Iterable[Span], pin_memory: bool) -> None:
        try:
            for span in spans:
                if self._stopped.is_set():
                    return
                batches = loader.step(span)
                self._put([b.pin_memory() for b in batches] if pin_memory else batches)
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
