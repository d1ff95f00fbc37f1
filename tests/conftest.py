"""What all tests share. Being here puts this folder on the path, so that tests find `toyrun`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

# Two test processes share two cores: threads that wait for each other by spinning would cost more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What takes minutes, the longest first: begun last, one of them would keep one worker busy while the other has nothing left.
LONG = (
    "tests/test_demo.py",
    "tests/slurm",
    "tests/distributed/test_parity.py",
    "tests/test_readme.py",
    "tests/launch/test_supervisor.py",
    "tests/data_pipeline/test_stage_races.py",
    "tests/distributed",
    "tests/faults",
    "tests/test_wheel.py",
    "tests/launch",
    "tests/pretrain",
)


def unit(nodeid: str) -> str:
    """What one worker of xdist does alone: a file, whose fixtures are then made once; the folder that shares a Slurm."""
    return "tests/slurm" if nodeid.startswith("tests/slurm/") else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole units to the workers, in the order of the tests.

    `--dist loadgroup` of xdist 3.8 does not: it puts the group into a test's `_nodeid`, which pytest 9.2 no longer reads, so
    that the tests of a group are spread over all workers without a word.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    config.option.loadscopereorder = False
    return Units(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests first, where there are several workers."""

    def place(item: pytest.Item) -> int:
        return next((i for i, long in enumerate(LONG) if item.nodeid.startswith(long)), len(LONG))

    if hasattr(config, "workerinput"):
        items.sort(key=place)


@pytest.fixture(scope="session")
def toy_packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small packed dataset; tests must not change it."""
    from toyrun import make_packed

    return make_packed(tmp_path_factory.mktemp("toy") / "packed")
