"""What a training prints: our lines, and none of the libraries'."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from toyrun import overrides, train

UNKNOWN_HOST = ("unshare", "--uts", "sh", "-c", 'hostname nowhere && exec "$@"', "sh")
"""Runs a command on a host whose name does not resolve, as that of many laptops and containers."""


def shapes(output: str) -> set[str]:
    """Lines without their numbers, and without what is said of one or of several ranks."""
    return {
        re.sub(r"[\d,.]+(e[+-]\d+)?", "N", line).replace("N ranks;", "N rank;")
        for line in output.splitlines()
    }


@pytest.mark.parametrize("more", [(), ("parallel.tp=2",)], ids=["fsdp", "tp"])
def test_several_ranks_print_what_one_process_prints(
    toy_packed: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    within = UNKNOWN_HOST if os.geteuid() == 0 else ()
    if within and subprocess.run([*within, "true"], capture_output=True).returncode:
        within = ()
    short = ("train.steps=2", "run.log_every=1", "train.eval_sequences=1")
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    printed = []
    for folder, nproc in (("one", 1), ("two", 2)):
        words = overrides(toy_packed, tmp_path / folder / "run", *short, *(more if nproc > 1 else ()))
        code, output = train(words, nproc, within=within if nproc > 1 else ())
        assert code == 0, output
        printed.append(shapes(output.replace(str(tmp_path / folder), "DIR")))
    assert printed[1] == printed[0]
    assert not [line for line in printed[0] if re.search(r"^\[|Warning:|torch/|site-packages", line)]
