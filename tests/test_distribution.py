"""`make test` gives whole files to its workers, so that what the tests of a file share is made once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from toyrun import PATIENCE

FILE = """
import os
from pathlib import Path
import pytest

@pytest.mark.parametrize("i", range(5))
def test_worker(i):
    with Path("workers").open("a") as file:
        file.write(f"{__name__} {os.environ['PYTEST_XDIST_WORKER']}\\n")
"""


def test_a_file_and_the_folder_of_slurm_are_not_divided(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    (tests / "slurm").mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "conftest.py", tests)
    for name in ("test_a", "test_b", "slurm/test_c", "slurm/test_d"):
        (tests / f"{name}.py").write_text(FILE)
    command = [sys.executable, "-m", "pytest", "-n", "2", "-q", f"--rootdir={tmp_path}", "tests"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    workers = defaultdict(set)
    lines = [line.split() for line in (tmp_path / "workers").read_text().splitlines()]
    for name, worker in lines:
        workers["slurm" if name in ("test_c", "test_d") else name].add(worker)
    assert len(lines) == 20 and len(workers) == 3
    assert all(len(w) == 1 for w in workers.values()), dict(workers)
    # The longest first.
    assert {lines[0][0], lines[1][0]} & {"test_c"}
