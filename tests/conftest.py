"""Puts this folder on the path (by being here), so that tests find `toyrun`."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def toy_packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small packed dataset; tests must not change it."""
    from toyrun import make_packed

    return make_packed(tmp_path_factory.mktemp("toy") / "packed")
