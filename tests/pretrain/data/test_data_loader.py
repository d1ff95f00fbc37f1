"""The loader: the same global batch for every layout, errors where they belong, threads that end."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest
import torch

from configs.schema.train import PhaseConfig
from data_pipeline.packed import PackedDataset, PackedError
from pretrain.data import DataPlan, PlanError, Span
from pretrain.data.batch import IGNORE, Batch
from pretrain.data.loader import Loader

LENGTH = 32
"""Of the packed sequences that `write_packed` makes."""


@pytest.fixture
def packed(write_packed) -> PackedDataset:
    return write_packed({"web": 100, "code": 40})


def plan_of(packed: PackedDataset, **phase) -> DataPlan:
    return DataPlan(packed.manifest, [PhaseConfig(**phase)], seed=4)


def endless(size: int = 4) -> Iterator[Span]:
    return (Span(n, size, LENGTH) for n in itertools.count(0, size))


def span(n: int, size: int, length: int = LENGTH) -> Span:
    return Span(n, size, length)


@pytest.mark.parametrize("length", [LENGTH, LENGTH // 4])
@pytest.mark.parametrize(("dp_size", "micro"), [(1, 12), (1, 3), (2, 6), (3, 2), (4, 1), (12, 1)])
def test_changing_ranks_or_micro_batches_changes_no_batch(
    packed, dp_size: int, micro: int, length: int
) -> None:
    plan, asked = plan_of(packed), span(24, 12, length)
    whole = Loader(packed, plan, 12).step(asked)[0]
    parts = [b for r in range(dp_size) for b in Loader(packed, plan, micro, r, dp_size).step(asked)]
    assert len(parts) == 12 // micro and all(b.tokens.numel() == micro * LENGTH for b in parts)
    assert whole.tokens.shape == (12 * LENGTH // length, length)
    for name in ("tokens", "labels", "positions"):
        assert torch.equal(torch.cat([getattr(b, name) for b in parts]), getattr(whole, name))


def segments(batch: Batch) -> list[list[int]]:
    """Where the segments of each row begin, without the repeated end."""
    return [sorted({int(x) for x in row}) for row in batch.cu_seqlens]


def test_cutting_sequences_moves_no_token_and_loses_no_label(packed) -> None:
    plan, short = plan_of(packed), LENGTH // 4
    (whole,) = Loader(packed, plan, 6).step(span(12, 6))
    (cut,) = Loader(packed, plan, 6).step(span(12, 6, short))
    assert torch.equal(cut.tokens.flatten(), whole.tokens.flatten())
    assert torch.equal(cut.labels.flatten(), whole.labels.flatten())
    # The label at a cut is the first token of the next row, unless a document ends there.
    inner = cut.labels.view(6, 4, short)[:, :3, -1]
    following = cut.tokens.view(6, 4, short)[:, 1:, 0]
    assert bool(((inner == following) | (inner == IGNORE)).all()) and bool((inner == following).any())
    wanted = [
        sorted({max(0, x - part * short) for x in row if x < (part + 1) * short} | {0, short})
        for row in segments(whole)
        for part in range(4)
    ]
    assert segments(cut) == wanted
    for row, starts in zip(cut.positions, segments(cut), strict=True):
        lengths = torch.tensor(starts).diff()
        assert torch.equal(row, torch.cat([torch.arange(int(n)) for n in lengths]))


def test_prefetch_gives_its_steps_in_order_and_ends(packed) -> None:
    loader = Loader(packed, plan_of(packed), 2)
    spans = [span(8, 4), span(12, 4), span(16, 8, LENGTH // 2), span(24, 2)]
    with loader.prefetch(iter(spans), depth=2) as batches:
        seen = [[b.tokens for b in step] for step in batches]
        with pytest.raises(StopIteration):
            next(batches)
    expected = [[b.tokens for b in loader.step(s)] for s in spans]
    assert [len(step) for step in seen] == [2, 2, 4, 1]
    for step, wanted in zip(seen, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(step, wanted, strict=True))


def test_an_error_comes_at_its_batch_and_names_file_and_sequence(packed) -> None:
    plan = plan_of(packed)
    stream, index = plan.locate(9)
    shard, row = divmod(index, packed.stream(stream).shards[0].sequences)
    path = packed.path / stream / f"tokens-{shard:05d}.bin"
    content = bytearray(path.read_bytes())
    content[row * packed.sequence_length * 2 + 5] ^= 4
    path.write_bytes(content)
    with Loader(packed, plan, 4).prefetch(endless()) as batches:
        assert len([next(batches), next(batches)]) == 2
        with pytest.raises(PackedError, match=rf"{path.name}: sequence {row} .* is damaged"):
            next(batches)
        with pytest.raises(StopIteration):
            next(batches)


def test_the_end_of_the_data_is_an_error(packed) -> None:
    plan = plan_of(packed, max_epochs={"web": 1, "code": 1})
    with (
        Loader(packed, plan, 4).prefetch(endless()) as batches,
        pytest.raises(PlanError, match="train fewer steps"),
    ):
        list(batches)


def test_closing_ends_the_thread_at_once(packed) -> None:
    taken = []
    batches = Loader(packed, plan_of(packed), 4).prefetch((taken.append(s) or s for s in endless()), depth=1)
    next(batches)
    batches.close()
    # The batch that was given out, the one in the queue, the one that waited for a place there.
    assert len(taken) <= 3
    assert not any(t.name == "loader" for t in threading.enumerate())
    with pytest.raises(StopIteration):
        next(batches)


def test_sizes_that_do_not_divide_are_refused(packed) -> None:
    with pytest.raises(ValueError, match="batch of 10 sequences must be a multiple of the 4"):
        Loader(packed, plan_of(packed), 1, 0, 4).step(span(0, 10))
    with pytest.raises(ValueError, match="dp_rank 2"):
        Loader(packed, plan_of(packed), 1, 2, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs CUDA")
def test_pinned_batches(packed) -> None:
    with Loader(packed, plan_of(packed), 4).prefetch([span(0, 4)], pin_memory=True) as batches:
        assert next(batches)[0].tokens.is_pinned()
