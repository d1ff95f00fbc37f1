"""A batch of packed sequences as tensors. Shapes: B sequences, T tokens, M boundaries."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_pipeline.packed import PADDING, PackedError, Sequence

IGNORE = -100
"""Label that takes no part in the loss."""


@dataclass(frozen=True)
class Batch:
    """Sequences with labels and document boundaries."""

    tokens: Tensor
    """int64 [B, T]."""
    labels: Tensor
    """int64 [B, T]; -100 where a document ends and in padding."""
    positions: Tensor
    """int64 [B, T]; restart at 0 in every segment."""
    cu_seqlens: Tensor
    """int32 [B, M]; boundaries of each row's segments: 0, …, T, then T again."""

    @property
    def n_valid(self) -> Tensor:
        """int64 scalar: labels that take part in the loss."""
        return (self.labels != IGNORE).sum()

    @property
    def longest(self) -> int | None:
        """Tokens of the longest segment; None where only the device knows."""
        return None if self.cu_seqlens.is_cuda else int(np.diff(self.cu_seqlens.numpy()).max())

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device; asynchronous from pinned memory."""
        return Batch(
            self.tokens.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.positions.to(device, non_blocking=True),
            self.cu_seqlens.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, for asynchronous copies to CUDA."""
        return Batch(
            self.tokens.pin_memory(),
            self.labels.pin_memory(),
            self.positions.pin_memory(),
            self.cu_seqlens.pin_memory(),
        )


def collate(sequences: Rows[Sequence], vocab_size: int, row_length: int | None = None) -> Batch:
    """Stack sequences of equal length into a Batch; PackedError for a token id outside the vocabulary.

    `labels[i] = tokens[i + 1]` inside a segment; at the last position `next` where the segment goes on in another
    sequence; -100 where a document ends and in padding.

    Args:
        row_length: cut each sequence of T tokens into T / row_length rows (None: T). A segment begins anew at a cut:
            positions restart, and attention ends there; the label before the cut still is the token after it.
    """
    size, length = len(sequences), len(sequences[0].tokens)
    row_length = length if row_length is None else row_length
    tokens = np.empty((size, length), np.int64)
    labels = np.empty((size, length), np.int64)
    positions = np.empty((size, length), np.int64)
    cuts, along = np.arange(0, length, row_length), np.arange(length)
    begins: list[np.ndarray] = []
    """Of each row, where its segments begin."""
    for row, sequence in enumerate(sequences):
        starts = sequence.segments["start"].astype(np.int64)
        tokens[row] = sequence.tokens
        labels[row, :-1] = tokens[row, 1:]
        labels[row, starts[1:] - 1] = IGNORE
        labels[row, -1] = sequence.next if sequence.next >= 0 else IGNORE
        lengths = np.diff(np.append(starts, length))
        # At the end of a stream, and where documents were taken out.
        labels[row, np.repeat(sequence.segments["document"] == PADDING, lengths)] = IGNORE
        cut = np.union1d(starts, cuts)
        positions[row] = along - np.repeat(cut, np.diff(np.append(cut, length)))
        begins += [part % row_length for part in np.split(cut, np.searchsorted(cut, cuts[1:]))]
    highest = max(int(tokens.max()), int(labels.max()))
    if highest >= vocab_size:
        raise PackedError(
            f"token id {highest} is outside the vocabulary of {vocab_size}; "
            "the dataset was packed with another tokenizer, or is damaged"
        )
    boundaries = np.full((len(begins), max(map(len, begins)) + 1), row_length, np.int32)
    for row, begin in enumerate(begins):
        boundaries[row, : len(begin)] = begin
    return Batch(
        torch.from_numpy(tokens.reshape(-1, row_length)),
        torch.from_numpy(labels.reshape(-1, row_length)),
        torch.from_numpy(positions.reshape(-1, row_length)),
        torch.from_numpy(boundaries),
    )
