"""How a rank tells that another one is gone: real processes, over Gloo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from toyrun import PATIENCE

from launch.cli import EXIT_LOST_PEER
from launch.worker import told

RANK = """
import os, signal, sys
from pathlib import Path
import torch, torch.distributed as dist
from launch.cli import EXIT_LOST_PEER
from launch.worker import told

def work() -> int:
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=int(sys.argv[1]), world_size=2)
    dist.all_reduce(torch.ones(1))
    if sys.argv[1] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(torch.ones(1))
    return 0

status = told(work, Path(sys.argv[3]))
sys.stdout.flush()
os._exit(status)
"""


def test_a_rank_that_lost_another_says_so_in_one_line_and_keeps_the_traceback(tmp_path: Path) -> None:
    file = tmp_path / "traceback.txt"
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "meeting"), str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    printed = [rank.communicate(timeout=PATIENCE)[0] for rank in ranks]
    assert ranks[1].returncode == -signal.SIGKILL
    assert ranks[0].returncode == EXIT_LOST_PEER, printed[0]
    assert "lost another one" in printed[0] and str(file) in printed[0] and "Traceback" not in printed[0]
    assert "all_reduce" in file.read_text()


def test_an_error_of_this_rank_is_raised(tmp_path: Path) -> None:
    def fail() -> int:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        told(fail, tmp_path / "traceback.txt")
    assert not any(tmp_path.iterdir())
