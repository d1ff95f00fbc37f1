from __future__ import annotations

from pathlib import Path

import pytest
from packing_example import Example, make_config, write_run


@pytest.fixture
def example(tmp_path: Path) -> Example:
    """A data directory of three shards, ready to be packed."""
    return write_run(tmp_path / "run", make_config(tmp_path / "run"), shards=3)
