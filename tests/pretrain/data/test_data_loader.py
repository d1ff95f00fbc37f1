"""The loader: the same global batch for every layout, errors where they belong, threads that end."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from configs.schema.train import PhaseConfig
from data_pipeline.packed import PackedDataset, PackedError
from pretrain.data import DataPlan, Loader, PlanError


@pytest.fixture
def packed(write_packed) -> PackedDataset:
    return write_packed({"web": 100, "code": 40})


def plan_of(packed: PackedDataset, **phase) -> DataPlan:
    return DataPlan(packed.manifest, [PhaseConfig(**phase)], seed=4)


@pytest.mark.parametrize(("dp_size", "micro"), [(1, 12), (1, 3), (2, 6), (3, 2), (4, 1), (12, 1)])
def test_changing_ranks_or_micro_batches_changes_no_batch(packed, dp_size: int, micro: int) -> None:
    plan = plan_of(packed)
    whole = Loader(packed, plan, 12, 12).step(24)[0]
    parts = [b for r in range(dp_size) for b in Loader(packed, plan, 12, micro, r, dp_size).step(24)]
    assert len(parts) == 12 // micro
    for name in ("tokens", "labels", "positions"):
        assert torch.equal(torch.cat([getattr(b, name) for b in parts]), getattr(whole, name))


def test_prefetch_gives_the_steps_from_start_and_ends(packed) -> None:
    loader = Loader(packed, plan_of(packed), 4, 2, start=8)
    with loader.prefetch(3, depth=2) as batches:
        seen = [[b.tokens for b in step] for step in batches]
        with pytest.raises(StopIteration):
            next(batches)
    expected = [[b.tokens for b in loader.step(n)] for n in (8, 12, 16)]
    assert len(seen) == 3
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
    with Loader(packed, plan, 4, 4).prefetch(5) as batches:
        assert len([next(batches), next(batches)]) == 2
        with pytest.raises(PackedError, match=rf"{path.name}: sequence {row} .* is damaged"):
            next(batches)
        with pytest.raises(StopIteration):
            next(batches)


def test_the_end_of_the_data_is_an_error(packed) -> None:
    plan = plan_of(packed, max_epochs={"web": 1, "code": 1})
    with (
        Loader(packed, plan, 4, 4).prefetch() as batches,
        pytest.raises(PlanError, match="train fewer steps"),
    ):
        list(batches)


def test_closing_ends_the_thread_at_once(packed) -> None:
    batches = Loader(packed, plan_of(packed), 4, 4).prefetch(depth=1)
    next(batches)
    begin = time.monotonic()
    batches.close()
    assert time.monotonic() - begin < 2
    assert not any(t.name == "loader" for t in threading.enumerate())
    with pytest.raises(StopIteration):
        next(batches)


def test_sizes_that_do_not_divide_are_refused(packed) -> None:
    with pytest.raises(ValueError, match=r"train\.global_batch_size 10 must be a multiple of the 4"):
        Loader(packed, plan_of(packed), 10, 1, 0, 4)
    with pytest.raises(ValueError, match="dp_rank 2"):
        Loader(packed, plan_of(packed), 4, 1, 2, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs CUDA")
def test_pinned_batches(packed) -> None:
    with Loader(packed, plan_of(packed), 4, 4).prefetch(1, pin_memory=True) as batches:
        assert next(batches)[0].tokens.is_pinned()
