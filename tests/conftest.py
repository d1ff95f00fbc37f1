"""What all tests share. Being here puts this folder on the path, so that tests find `toyrun`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Two test processes share two cores: threads that wait for each other by spinning would cost more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests of many processes: those of one folder run one after the other, so that at most two such tests share the
# machine under `pytest -n 2 --dist loadgroup`.
SERIAL = ("distributed", "faults", "slurm")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(tests).parts[0] if item.path.is_relative_to(tests) else ""
        if folder in SERIAL:
            item.add_marker(pytest.mark.xdist_group(folder))


@pytest.fixture(scope="session")
def toy_packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small packed dataset; tests must not change it."""
    from toyrun import make_packed

    return make_packed(tmp_path_factory.mktemp("toy") / "packed")
