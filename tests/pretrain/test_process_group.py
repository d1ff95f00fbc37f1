"""The end of a process group: an error of one rank ends the others, and no rank ends with another status than its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from toyrun import ROOT, torchrun

SCRIPT = """
import atexit, os, sys, time
import torch, torch.distributed as dist
from configs.edge import ConfigError
from pretrain.distributed import process_group, run_to_end, together

# What threads of gloo may do to an interpreter that finalizes.
atexit.register(os.abort)

def fail():
    raise ConfigError("every rank finds this") if sys.argv[1] == "all" else RuntimeError("rank 1 alone finds this")

def main():
    with process_group("cpu", timeout=3600.0) as process:
        if process.rank == 1 or sys.argv[1] == "all":
            together(fail) if sys.argv[1] == "all" else fail()
        dist.all_reduce(torch.ones(1))
    return 0

run_to_end(main)
"""


def test_an_error_of_one_rank_ends_the_others_before_the_timeout(tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(SCRIPT)
    done = torchrun(str(tmp_path / "ranks.py"), "one")
    assert done.returncode == 1 and "RuntimeError: rank 1 alone finds this" in done.stderr
    assert "SIGABRT" not in done.stderr


def test_an_error_of_all_ranks_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(SCRIPT)
    done = torchrun(str(tmp_path / "ranks.py"), "all")
    assert done.returncode == 1 and done.stderr.count("error: every rank finds this") == 1
    assert "exitcode  : 2" in done.stderr and "SIGABRT" not in done.stderr


def test_a_verb_with_a_process_group_ends_with_its_status(tmp_path: Path) -> None:
    code = (
        "import atexit, os, sys; from launch.cli import main; atexit.register(os.abort); "
        "sys.argv[1:] = ['evaluate', 'run.dir=nowhere', 'device=cpu']; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: `run.dir=nowhere`"), done.stderr
