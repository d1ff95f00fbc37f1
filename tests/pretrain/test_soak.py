"""Resident memory does not grow while a run goes on."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from benchmarks import soak


@pytest.mark.full
def test_resident_memory_is_flat_after_a_hundred_steps(tmp_path: Path) -> None:
    packed = soak.make_packed(tmp_path / "packed", sequences=700, length=256, vocab_size=512)
    # Documents of all lengths, in bf16: where shapes follow documents, the CPU's libraries keep code for each.
    samples = soak.train(
        packed,
        tmp_path / "run",
        1,
        10,
        "model=debug",
        "train.steps=300",
        "train.global_batch_size=2",
        "train.micro_batch_size=2",
        "train.eval_sequences=1",
        "checkpoint.every=100",
    )[0]
    early = [s.resident for s in samples if 100 <= s.step <= 140]
    late = [s.resident for s in samples if s.step >= 260]
    assert samples[0].resident > 100 and len(early) >= 4 and len(late) >= 4
    assert statistics.median(late) - statistics.median(early) < 12
