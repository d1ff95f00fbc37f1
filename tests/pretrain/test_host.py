"""Threads of a process that computes: its share of the cores, unless the user has said something else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from configs.environment import cores
from configs.schema.train import ClusterConfig
from launch import local

THREADS = (
    "import torch; from pretrain.distributed import setup; setup('cpu', 60); print(torch.get_num_threads())"
)
NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LOCAL_WORLD_SIZE")


def threads(code: str = THREADS, **environment: str) -> int:
    """What torch computes with in a process of this environment."""
    own = {k: v for k, v in os.environ.items() if k not in NAMES} | environment
    done = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def test_ranks_share_the_cores_of_their_machine() -> None:
    assert threads() == cores()
    assert threads(LOCAL_WORLD_SIZE=str(cores() + 1)) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity masks are Linux's")
def test_an_affinity_mask_bounds_the_threads() -> None:
    assert threads(f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}}); {THREADS}") == 1


def test_verbs_without_a_process_group_take_no_more_threads_than_cores() -> None:
    code = f"""
import contextlib, torch
from pretrain import average, export, generate
for verb, more in ((average, ["output=b"]), (export, ["output=b"]), (generate, [])):
    torch.set_num_threads({cores()} + 3)
    with contextlib.suppress(Exception):  # there is no such run
        verb.main(["run.dir=a", *more])
    if torch.get_num_threads() != {cores()}:
        raise SystemExit(verb.__name__)
print(torch.get_num_threads())
"""
    assert threads(code) == cores()


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_what_the_user_has_set_stays(name: str) -> None:
    assert threads(**{name: "1"}) == 1


def test_a_launch_keeps_the_user_s_threads_unless_it_is_told_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert local.environment(ClusterConfig(nproc=2))["OMP_NUM_THREADS"] == "5"
    assert local.environment(ClusterConfig(nproc=2, threads=3))["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert local.environment(ClusterConfig(nproc=1))["OMP_NUM_THREADS"] == str(cores())
    assert local.environment(ClusterConfig(nproc=cores() + 1))["OMP_NUM_THREADS"] == "1"
