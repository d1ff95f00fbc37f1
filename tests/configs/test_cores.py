"""Cores that a process may use: its affinity mask and the quotas of its control groups."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from configs.environment import _quota, cores


def groups(folder: Path, membership: str, **files: str) -> tuple[Path, Path]:
    """`/proc/PID/cgroup` and a mount with files by their path, `__` for `/`."""
    (folder / "cgroup").write_text(membership)
    mount = folder / "mount"
    mount.mkdir()
    for name, text in files.items():
        path = mount.joinpath(*name.split("__"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "cgroup", mount


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/pod/box\n", {"pod__box__cpu.max": "max 100000\n"}, math.inf),
        ("0::/pod/box\n", {"pod__box__cpu.max": "max 100000\n", "pod__cpu.max": "250000 100000\n"}, 2.5),
        # In a container the path is the host's, and its own group is what is mounted.
        ("0::/docker/4f\n", {"cpu.max": "50000 100000\n"}, 0.5),
        (
            "3:cpu,cpuacct:/job\n2:cpuset:/job\n",
            {
                "cpu,cpuacct__job__cpu.cfs_quota_us": "300000\n",
                "cpu,cpuacct__job__cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        ("1:cpu:/\n", {"cpu__cpu.cfs_quota_us": "-1\n", "cpu__cpu.cfs_period_us": "100000\n"}, math.inf),
    ],
)
def test_the_smallest_quota_of_the_groups_counts(
    tmp_path: Path, membership: str, files: dict[str, str], expected: float
) -> None:
    assert _quota(*groups(tmp_path, membership, **files)) == expected


def test_no_control_groups_are_no_quota(tmp_path: Path) -> None:
    assert _quota(tmp_path / "none", tmp_path) == math.inf


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity masks are Linux's")
def test_the_affinity_mask_counts() -> None:
    mask = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mask)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, mask)
