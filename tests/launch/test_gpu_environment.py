"""What ranks on GPUs find in their environment, and a device that cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.schema.train import ClusterConfig
from launch import local
from launch.agent import GRACE, GRACE_ON_GPUS
from launch.slurm_request import step_command
from pretrain.distributed import _gpus_of_slurm, _has_gpu_alone

ROOT = Path(__file__).parents[2]


def test_what_the_user_has_set_wins_by_any_of_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "TORCH_NCCL_DUMP_ON_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    own = local.for_gpus(tmp_path)
    assert own["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert own["TORCH_FR_DUMP_TEMP_FILE"] == f"{tmp_path}/logs/nccl-rank-"
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:512")
    monkeypatch.setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "0")
    assert own.keys() - local.for_gpus(tmp_path).keys() == {
        "PYTORCH_CUDA_ALLOC_CONF",
        "TORCH_NCCL_DUMP_ON_TIMEOUT",
    }
    whole = local.environment(ClusterConfig(), local.for_gpus(tmp_path))
    assert whole["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "0" and whole["TORCH_FR_BUFFER_SIZE"] == "2000"
    assert "TORCH_FR_BUFFER_SIZE" not in local.environment(ClusterConfig())


def test_ranks_on_gpus_get_the_time_to_write_down_their_collectives(tmp_path: Path) -> None:
    assert GRACE_ON_GPUS > 2 * 15 > GRACE  # seconds that NCCL waits for a dump
    assert f"--grace={GRACE:g}" in local.command(ClusterConfig(), tmp_path, tmp_path)
    command = step_command(ClusterConfig(), tmp_path, tmp_path, "n:1", "r", "64", GRACE_ON_GPUS, 8)
    assert f"--grace={GRACE_ON_GPUS:g}" in command


def test_gpus_that_slurm_gave_and_torch_does_not_find_are_an_error() -> None:
    code = "from pretrain.distributed import setup; setup('auto', 60)"
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "SLURM_JOB_ID": "7",
        "SLURM_GPUS_ON_NODE": "8",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode and "Slurm gave this node GPUs (SLURM_GPUS_ON_NODE=8)" in done.stderr
    assert "or set device=cpu" in done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_GPUS_ON_NODE": "8"},
        {"SLURM_JOB_ID": "7"},
        {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "0", "SLURM_JOB_GPUS": ""},
    ],
)
def test_a_node_without_gpus_is_none(environment: dict[str, str]) -> None:
    assert not _gpus_of_slurm(environment)


def test_a_task_that_sees_one_gpu_uses_it() -> None:
    assert _has_gpu_alone({"LOCAL_RANK": "3", "SLURM_LOCALID": "3"}, visible=1)
    # One task a node starts all ranks: three of four have no GPU.
    assert not _has_gpu_alone({"LOCAL_RANK": "3", "SLURM_LOCALID": "0"}, visible=1)
    assert not _has_gpu_alone({"LOCAL_RANK": "3", "SLURM_LOCALID": "3"}, visible=8)
    assert not _has_gpu_alone({"LOCAL_RANK": "3"}, visible=1)
