"""The cluster that the Slurm tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import Cluster, missing, running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four nodes of a real Slurm on this machine; SLURM_CONF points to it."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with running(Path(tmp_path_factory.mktemp("slurm"))) as started:
        yield started
