"""What was saved in any layout goes on in any other as it would have; in its own layout to the last bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest
import ranks
from parity_cases import ODD, Case
from parity_layouts import case
from resume_cases import Rest, resume_all, save_all

Model = Callable[..., Case]
SIZES: list[dict[str, object]] = [
    {},
    {"shard": 2},
    {"tp": 2},
    {"pp": 2},
    {"cp": 2},
    {"replicate": 2, "shard": 2},
    {"pp": 2, "tp": 2},
    {"cp": 2, "tp": 2},
    {"pp": 4, "schedule": "gpipe"},
    {"pp": 2, "shard": 2, "tp": 2},
    {"pp": 2, "cp": 2, "tp": 2},
    {"shard": 8},
]
# Schedules that have two stages on each rank; the ends of the model are on one rank, and on two.
SCHEDULES: list[dict[str, object]] = [
    {"pp": 2, "schedule": "zbv"},
    {"pp": 2, "shard": 2, "schedule": "interleaved"},
]


def layouts(sizes: list[dict[str, object]], **model: object) -> list[Case]:
    """One model in several layouts."""
    return [case(**{"model": (("n_layers", 4),), **model, **one}) for one in sizes]  # type: ignore[arg-type]


def by_world(cases: list[Case]) -> dict[int, list[Case]]:
    ordered = sorted(cases, key=lambda c: c.world_size)
    return {size: list(group) for size, group in groupby(ordered, key=lambda c: c.world_size)}


def save_and_resume(cases: list[Case], pairs: list[tuple[Case, Case]], folder: Path) -> list[str]:
    """Save all cases, resume the pairs (saved, case); what is not as it should be."""
    saved: dict[Case, Rest] = {}
    for world_size, some in by_world(cases).items():
        saved |= zip(some, ranks.run(save_all, world_size, some, folder, timeout=1200), strict=True)
    wrong = []
    for world_size, targets in by_world(list(dict.fromkeys(target for _, target in pairs))).items():
        chosen = [pair for pair in pairs if pair[1] in targets]
        for (source, target), got in zip(
            chosen, ranks.run(resume_all, world_size, chosen, folder, timeout=1200), strict=True
        ):
            label, expected = f"{source.name} → {target.name}", saved[source]
            wrong += [
                f"{label}: {name} differs"
                for name, value in expected.hashes.items()
                # What is restored has the same bits in every layout, what follows in the same layout alone.
                if (name.startswith("restored ") or source == target) and got.hashes[name] != value
            ]
            for ours, theirs in zip(got.losses, expected.losses, strict=True):
                if not abs(ours / theirs - 1) <= (0.0 if source == target else 1e-6):
                    wrong.append(f"{label}: loss {ours!r}, expected {theirs!r}")
    return wrong


def test_saved_in_one_layout_resumed_in_others(tmp_path: Path) -> None:
    sizes = [one for one in SIZES if math.prod(n for n in one.values() if isinstance(n, int)) in (2, 4)]
    cases = layouts(sizes[1:-1], tied=True, model=(("n_layers", 2),))
    # Each layout reads what it wrote itself, and what another wrote, of other dimensions and mostly of another size.
    pairs = [(cases[(i + shift) % len(cases)], c) for i, c in enumerate(cases) for shift in (0, 3)]
    assert not (wrong := save_and_resume(cases, pairs, tmp_path)), "\n".join(wrong)


def test_saved_under_one_pipeline_schedule_resumed_under_others(tmp_path: Path) -> None:
    cases = layouts([{"pp": 2}, *SCHEDULES], tied=True)
    pairs = [(cases[(i + shift) % len(cases)], c) for i, c in enumerate(cases) for shift in (0, 1)]
    assert not (wrong := save_and_resume(cases, pairs, tmp_path)), "\n".join(wrong)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("optim", ["adamw", "muon"])
@pytest.mark.parametrize("tied", [False, True])
def test_saved_in_every_layout_resumed_in_every_other(tied: bool, optim: str, tmp_path: Path) -> None:
    cases = layouts([*SIZES, *SCHEDULES], tied=tied, optim=optim)
    pairs = [(source, target) for source in cases for target in cases]
    assert not (wrong := save_and_resume(cases, pairs, tmp_path)), "\n".join(wrong)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_uneven_shards_are_resumed_in_every_other_layout(tmp_path: Path) -> None:
    cases = [c for c in layouts(SIZES, model=ODD) if c.parallel.tp == 1]
    pairs = [(source, target) for source in cases for target in cases]
    assert not (wrong := save_and_resume(cases, pairs, tmp_path)), "\n".join(wrong)
