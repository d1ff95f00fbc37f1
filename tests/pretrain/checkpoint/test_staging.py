"""Copies of tensors for the process that writes them: its files are torch's own, and what stops it is told."""

from __future__ import annotations

import io
import resource
import signal
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest
import torch

from pretrain.checkpoint.staging import Staging, pickled

TENSORS = [
    torch.randn(7, 5),
    torch.randn(3, 4, dtype=torch.float64),
    torch.randn(100, 6).bfloat16()[3:7],
    torch.tensor(3.5),
    torch.arange(5),
    torch.arange(250, dtype=torch.uint8),
    torch.randn(4, 6).T,
    torch.randn(1, 1),
]


def test_a_part_holds_what_torch_would_have_saved(tmp_path: Path) -> None:
    staging = Staging()
    rows = staging.write(tmp_path / "part", staging.copy(TENSORS))
    data = (tmp_path / "part").read_bytes()
    at = 0
    for tensor, (start, length, crc32) in zip(TENSORS, rows, strict=True):
        assert start == at and zlib.crc32(data[at : at + length]) == crc32
        loaded = torch.load(io.BytesIO(data[at : at + length]), weights_only=True)
        assert loaded.dtype == tensor.dtype and torch.equal(loaded, tensor)
        at += length
    assert at == len(data)
    staging.close()


@pytest.mark.parametrize("tensor", TENSORS, ids=lambda t: f"{t.dtype} {list(t.shape)}")
def test_the_pickle_of_a_tensor_is_torch_s_own(tensor: torch.Tensor) -> None:
    out = io.BytesIO()
    torch.save(tensor.clone().contiguous(), out)
    with zipfile.ZipFile(out) as archive:
        theirs = archive.read("archive/data.pkl")
    assert pickled(tensor.dtype, tuple(tensor.shape)) == theirs


def test_the_memory_stays_and_grows(tmp_path: Path) -> None:
    staging = Staging()
    staging.copy([torch.zeros(1000)])
    memory = staging._memory
    staging.copy([torch.ones(900)])
    assert staging._memory is memory
    rows = staging.write(tmp_path / "part", staging.copy([torch.ones(5000)]))
    assert staging._memory is not memory and len(rows) == 1
    staging.close()
    assert staging.write(tmp_path / "empty", staging.copy([])) == []
    assert (tmp_path / "empty").stat().st_size == 0


def test_a_full_disk_is_the_error_of_the_rank(tmp_path: Path) -> None:
    staging = Staging()
    job = staging.copy([torch.zeros(10**6)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large"):
            staging.write(tmp_path / "part", job)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    with pytest.raises(FileExistsError):
        staging.write(tmp_path / "part", job)


def test_a_writer_that_is_killed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = Staging()
    job = staging.copy([torch.zeros(1000)])
    communicate = subprocess.Popen.communicate

    def kill_first(process: subprocess.Popen[str], *args: object, **kwargs: object) -> object:
        process.kill()
        return communicate(process, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(subprocess.Popen, "communicate", kill_first)
    with pytest.raises(OSError, match="the process that writes it ended: exit status -9"):
        staging.write(tmp_path / "part", job)
