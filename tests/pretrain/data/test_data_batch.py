"""Batches against the documents they hold, token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_pipeline.packed import PADDING, SEGMENT_DTYPE, PackedDataset, PackedError, Sequence
from pretrain.data.batch import IGNORE, collate
from pretrain.data.loader import heldout_batches


def test_labels_positions_and_boundaries_at_segment_edges() -> None:
    # Document 4 ends (1 2 3), document 5 is whole (1 7 2), document 6 goes on with 9.
    segments = np.array([(4, 0, 10), (5, 3, 0), (6, 6, 0)], SEGMENT_DTYPE)
    going_on = Sequence(np.array([5, 6, 2, 1, 7, 2, 1, 8], np.uint16), 9, segments)
    padded = Sequence(
        np.array([1, 3, 2, 2, 2, 2, 2, 2], np.uint16),
        -1,
        np.array([(0, 0, 0), (PADDING, 3, 0)], SEGMENT_DTYPE),
    )
    ends = Sequence(np.array([1, 3, 4, 5, 6, 7, 8, 2], np.uint16), -1, np.array([(0, 0, 0)], SEGMENT_DTYPE))
    batch = collate([going_on, padded, ends], vocab_size=10)
    i = IGNORE
    assert batch.tokens.tolist()[0] == [5, 6, 2, 1, 7, 2, 1, 8]
    assert batch.labels.tolist() == [
        [6, 2, i, 7, 2, i, 8, 9],
        [3, 2, i, i, i, i, i, i],
        [3, 4, 5, 6, 7, 8, 2, i],
    ]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 2, 0, 1], [0, 1, 2, 0, 1, 2, 3, 4], list(range(8))]
    assert batch.cu_seqlens.tolist() == [[0, 3, 6, 8], [0, 3, 8, 8], [0, 8, 8, 8]]
    assert batch.cu_seqlens.dtype == torch.int32
    assert {batch.tokens.dtype, batch.labels.dtype, batch.positions.dtype} == {torch.int64}
    assert batch.n_valid == 6 + 2 + 7


def test_every_transition_of_every_document_is_a_label_once(write_packed) -> None:
    packed: PackedDataset = write_packed({"web": 200})
    info = packed.stream("train/web")
    rows = [packed.read("train/web", i) for i in range(info.sequences)]
    batch = collate(rows, packed.vocab_size)
    # A document of n tokens has n − 1 transitions; EOS is predicted, BOS of the next document is not.
    assert batch.n_valid == info.tokens - info.documents
    assert not (batch.labels == 1).any()
    assert (batch.labels == 2).sum() == info.documents


def test_a_token_outside_the_vocabulary_is_refused() -> None:
    sequence = Sequence(np.array([1, 12, 2], np.uint16), -1, np.array([(0, 0, 0)], SEGMENT_DTYPE))
    with pytest.raises(PackedError, match="token id 12 is outside the vocabulary of 10"):
        collate([sequence], vocab_size=10)


@pytest.mark.parametrize("dp_size", [1, 2, 3])
def test_heldout_batches_cover_the_stream_once_with_equal_batches_on_all_ranks(write_packed, dp_size) -> None:
    packed: PackedDataset = write_packed({"web": 20}, heldout=30)
    info = packed.stream("heldout/web")
    ranks = [list(heldout_batches(packed, "heldout/web", 4, None, r, dp_size)) for r in range(dp_size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(b.tokens) == 4 for batches in ranks for b in batches)
    valid = sum(int(b.n_valid) for batches in ranks for b in batches)
    assert valid == info.tokens - info.documents
    merged = torch.cat([ranks[r][i].tokens for i in range(len(ranks[0])) for r in range(dp_size)])
    stored = np.stack([packed.read("heldout/web", i).tokens for i in range(info.sequences)]).astype(np.int64)
    np.testing.assert_array_equal(merged[: info.sequences].numpy(), stored)
    first = list(heldout_batches(packed, "heldout/web", 4, 2))
    assert len(first) == 1 and (first[0].labels[2:] == IGNORE).all() and first[0].n_valid > 0
