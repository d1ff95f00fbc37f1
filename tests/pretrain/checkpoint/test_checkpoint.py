"""Checkpoints: what is stored is what comes back, in any layout, and what was altered is never used."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from configs.edge import ConfigError
from pretrain.checkpoint import (
    Checkpointer,
    CheckpointError,
    committed,
    newest,
    open_checkpoint,
    restore,
    restore_model,
)
from pretrain.checkpoint_folders import remove_surplus, remove_uncommitted
from pretrain.distributed import setup, teardown
from pretrain.ledger import Ledger, read_ledger


@pytest.fixture(autouse=True)
def group() -> object:
    setup("cpu", timeout=300)
    yield
    teardown()


def tensors(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    # A view into a larger storage, as a shard is: only its own values may be stored.
    view = torch.randn(100, 6)[3:7]
    return {"model.a": torch.randn(8, 4), "model.view": view, "model.scalar": torch.tensor(3.5)}


def save(run_dir: Path, step: int, values: dict[str, Tensor], keep: int = 0) -> None:
    ledger = Ledger(run_dir / "ledger.jsonl")
    checkpointer = Checkpointer(run_dir, keep, asynchronous=True, ledger=ledger)
    checkpointer.start(step, values, {"step": step})
    checkpointer.finish()
    checkpointer.close()


def load(run_dir: Path) -> tuple[int, tuple[str, ...], dict[str, Tensor]]:
    into = {name: torch.zeros_like(t) for name, t in tensors(0).items()}
    restored = restore(run_dir, lambda c: into, lambda c: None)
    assert restored is not None
    return restored.step, restored.passed_over, into


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 5, tensors(1))
    step, passed_over, values = load(tmp_path)
    assert (step, passed_over) == (5, ())
    assert equal(values, tensors(1))
    event = read_ledger(tmp_path)[-1]
    assert event["event"] == "saved" and event["step"] == 5
    # A view must not drag its whole storage into the file.
    assert event["bytes"] < 8000


def test_weights_may_change_as_soon_as_start_returns(tmp_path: Path) -> None:
    values = tensors(1)
    checkpointer = Checkpointer(tmp_path, 0, asynchronous=True, ledger=None)
    checkpointer.start(1, values, {})
    for tensor in values.values():
        tensor.fill_(float("nan"))
    checkpointer.finish()
    assert equal(load(tmp_path)[2], tensors(1))


def test_torch_distributed_checkpoint_reads_it(tmp_path: Path) -> None:
    save(tmp_path, 5, tensors(1))
    values = {name: torch.zeros_like(t) for name, t in tensors(0).items()}
    dcp.load(values, checkpoint_id=str(newest(tmp_path)[0]))
    assert equal(values, tensors(1))


def test_any_flipped_bit_is_noticed_and_named(tmp_path: Path) -> None:
    save(tmp_path, 1, tensors(1))
    save(tmp_path, 2, tensors(2))
    folder = newest(tmp_path)[0]
    rng = random.Random(0)
    for file in ("__0_0.distcp", "manifest.json", ".metadata"):
        good = (folder / file).read_bytes()
        for _ in range(20):
            bad = bytearray(good)
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
            (folder / file).write_bytes(bad)
            step, passed_over, values = load(tmp_path)
            assert step == 1
            assert str(folder / file) in passed_over[0]
            assert equal(values, tensors(1))
        (folder / file).write_bytes(good)
    assert load(tmp_path)[0] == 2


def test_flipped_bit_names_the_tensor(tmp_path: Path) -> None:
    save(tmp_path, 1, tensors(1))
    file = newest(tmp_path)[0] / "__0_0.distcp"
    row = open_checkpoint(newest(tmp_path)[0]).chunks["model.view"][0]
    data = bytearray(file.read_bytes())
    data[row["at"] + row["length"] // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"distcp is damaged: the bytes of `model\.view`"):
        load(tmp_path)


@pytest.mark.parametrize("keep_bytes", [0, 1000])
def test_truncated_file_is_passed_over(tmp_path: Path, keep_bytes: int) -> None:
    save(tmp_path, 1, tensors(1))
    save(tmp_path, 2, tensors(2))
    os.truncate(newest(tmp_path)[0] / "__0_0.distcp", keep_bytes)
    step, passed_over, values = load(tmp_path)
    assert step == 1 and "is truncated" in passed_over[0]
    assert equal(values, tensors(1))


@pytest.mark.parametrize("file", ["__0_0.distcp", "manifest.json", ".metadata"])
def test_missing_file_is_passed_over(tmp_path: Path, file: str) -> None:
    save(tmp_path, 1, tensors(1))
    save(tmp_path, 2, tensors(2))
    (newest(tmp_path)[0] / file).unlink()
    step, passed_over, _ = load(tmp_path)
    assert step == 1 and file in passed_over[0] and "missing" in passed_over[0]


def test_retention_counts_committed_checkpoints_only(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, step, tensors(step), keep=2)
    (tmp_path / "checkpoints" / "step-00000003").mkdir()
    save(tmp_path, 4, tensors(4), keep=2)
    assert [p.name for p in committed(tmp_path)] == ["step-00000004", "step-00000002"]
    remove_uncommitted(tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]


def foreign(run_dir: Path) -> dict[str, bytes]:
    """What a user may keep beside checkpoints, made; returns its files by path."""
    folder = run_dir / "checkpoints"
    for name in ("step-00000002.bak", "step-00000004-hf", "step-4", "step-000000009", "best"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_bytes(name.encode())
        (folder / name / "COMMITTED").write_bytes(b"{}")
    (folder / "step-00000099").mkdir()  # our form, a user's content
    (folder / "step-00000099" / "notes.txt").write_text("mine")
    (folder / "step-4.pt").write_bytes(b"a file")
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_only_our_folders_are_read_counted_or_removed(tmp_path: Path) -> None:
    theirs = foreign(tmp_path)
    for step in (1, 2, 3):
        save(tmp_path, step, tensors(step), keep=1)
    assert [p.name for p in committed(tmp_path)] == ["step-00000003"]
    assert load(tmp_path)[0] == 3
    assert remove_uncommitted(tmp_path) == []
    left = {str(p): p.read_bytes() for p in (tmp_path / "checkpoints").rglob("*") if p.is_file()}
    assert theirs.items() <= left.items()
    with pytest.raises(OSError, match=r"step-00000099 holds files that are not a checkpoint's"):
        save(tmp_path, 99, tensors(1))
    assert (tmp_path / "checkpoints" / "step-00000099" / "notes.txt").read_text() == "mine"


def test_of_a_checkpoint_that_was_linked_back_only_the_link_is_removed(tmp_path: Path) -> None:
    run_dir, elsewhere = tmp_path / "run", tmp_path / "archive"
    save(run_dir, 1, tensors(1))
    newest(run_dir)[0].rename(elsewhere)
    (run_dir / "checkpoints" / "step-00000001").symlink_to(elsewhere)
    save(run_dir, 2, tensors(2), keep=1)
    assert [p.name for p in (run_dir / "checkpoints").iterdir()] == ["step-00000002"]
    assert (elsewhere / "COMMITTED").is_file() and (elsewhere / "__0_0.distcp").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_checkpoint_that_cannot_be_removed_stays_whole_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 1, tensors(1))
    first = newest(tmp_path)[0]
    # A mount point can be neither renamed nor removed, whatever a user's rights.
    mounted = subprocess.run(["mount", "--bind", str(first), str(first)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting failed: {mounted.stderr.strip()}")
    try:
        save(tmp_path, 2, tensors(2), keep=1)
        assert "step-00000001 could not be removed (Device or resource busy)" in capsys.readouterr().err
        assert [p.name for p in committed(tmp_path)] == ["step-00000002", "step-00000001"]
    finally:
        subprocess.run(["umount", str(first)], check=True)
    assert remove_surplus(tmp_path, 1) == []
    assert [p.name for p in committed(tmp_path)] == ["step-00000002"]


def test_a_removal_that_was_killed_is_finished_later(tmp_path: Path) -> None:
    save(tmp_path, 1, tensors(1))
    first = newest(tmp_path)[0]
    first.rename(first.with_name(f".{first.name}.removing"))
    assert remove_uncommitted(tmp_path) == []
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_surplus_makes_room_before_the_next_checkpoint_is_written(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, tensors(step), keep=0)
    checkpointer = Checkpointer(tmp_path, 1, asynchronous=True, ledger=None)
    checkpointer.start(4, tensors(4), {})
    assert [p.name for p in committed(tmp_path)] == ["step-00000003"]
    checkpointer.finish()
    checkpointer.close()
    assert [p.name for p in committed(tmp_path)] == ["step-00000004"]


def test_a_step_that_was_passed_over_can_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 1, tensors(1))
    os.truncate(newest(tmp_path)[0] / "__0_0.distcp", 10)
    save(tmp_path, 1, tensors(3))
    assert equal(load(tmp_path)[2], tensors(3))


def test_another_model_is_refused_not_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1, tensors(1))

    class Other:
        def state_dict(self) -> dict[str, Tensor]:
            return {"a": torch.zeros(8, 5)}

    with pytest.raises(
        ConfigError, match=r"another model: `model\.a` has the shape \(8, 4\) there and \(8, 5\)"
    ):
        restore_model(Other(), tmp_path)


def test_restore_model_wants_a_checkpoint(tmp_path: Path) -> None:
    class Any:
        def state_dict(self) -> dict[str, Tensor]:
            return {"a": torch.zeros(8, 4)}

    with pytest.raises(ConfigError, match="no committed checkpoint"):
        restore_model(Any(), tmp_path)
    save(tmp_path, 1, tensors(1))
    with pytest.raises(ConfigError, match=r"no checkpoint of step 7 \(there are: 1\)"):
        restore_model(Any(), tmp_path, step=7)
    assert restore_model(Any(), newest(tmp_path)[0]) == 1


FULL_DISK = """
import resource, sys, torch
from pathlib import Path
from pretrain.checkpoint import Checkpointer
from pretrain.checkpoint_folders import remove_surplus, remove_uncommitted
from pretrain.distributed import setup
setup("cpu", timeout=300)
run_dir = Path(sys.argv[1])
def save(step, size):
    c = Checkpointer(run_dir, 0, asynchronous=True, ledger=None)
    c.start(step, {"model.a": torch.ones(size)}, {})
    c.finish()
save(1, 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save(2, 100_000)
except OSError as error:
    print("OSError:", error)
"""


def test_file_that_cannot_be_written_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True)
    assert "OSError: checkpoint" in result.stdout, result.stderr
    assert "step-00000002 could not be written" in result.stdout
    assert "the newest whole checkpoint is" in result.stdout and "step-00000001" in result.stdout
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


# Layouts: mesh shape, dimension names, placements of a matrix.
LAYOUTS = {
    "fsdp": ((-1,), ("dp",), (Shard(0),)),
    "tp": ((-1,), ("tp",), (Shard(1),)),
    "hsdp": ((2, -1), ("replicate", "dp"), (Replicate(), Shard(0))),
    "fsdp_tp": ((-1, 2), ("dp", "tp"), (Shard(0), Shard(1))),
}


def matrix(layout: str, fill: Tensor | None) -> DTensor:
    shape, names, placements = LAYOUTS[layout]
    world = dist.get_world_size()
    known = 2 if len(shape) == 2 else 1
    mesh = init_device_mesh(
        "cpu", tuple(world // known if s == -1 else s for s in shape), mesh_dim_names=names
    )
    whole = torch.zeros(7, 10) if fill is None else fill
    return distribute_tensor(whole, mesh, placements, src_data_rank=None)


def whole_matrix() -> Tensor:
    return torch.arange(70.0).reshape(7, 10)


def join(rank: int, world_size: int, folder: str) -> None:
    store = dist.FileStore(f"{folder}/store-{world_size}", world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)


def leave() -> None:
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)


def write_all_layouts(rank: int, world_size: int, folder: str) -> None:
    join(rank, world_size, folder)
    for layout in LAYOUTS:
        run_dir, shared = Path(folder) / layout, torch.tensor([2.0, 4.0])
        checkpointer = Checkpointer(run_dir, 0, asynchronous=True, ledger=None)
        values = {
            "model.m": matrix(layout, whole_matrix()),
            "model.shared": shared,
            f"rng.{rank}.cpu": shared,
        }
        for step in (1, 2):
            checkpointer.start(step, values, {"step": step})
        checkpointer.finish()
        checkpointer.close()
    read_all_layouts(Path(folder), list(LAYOUTS))
    # Damage what half of the ranks read: all must walk back together.
    run_dir = Path(folder) / "hsdp"
    dist.barrier()
    if rank == 0:
        file = open_checkpoint(run_dir / "checkpoints" / "step-00000002").chunks["model.m"][0]["file"]
        os.truncate(run_dir / "checkpoints" / "step-00000002" / file, 5)
    dist.barrier()
    into = {"model.m": matrix("hsdp", None)}
    restored = restore(run_dir, lambda c: into, lambda c: None)
    assert restored is not None
    assert restored.step == 1 and "truncated" in restored.passed_over[0]
    assert torch.equal(into["model.m"].full_tensor(), whole_matrix())
    leave()


def read_all_layouts(folder: Path, layouts: list[str]) -> None:
    for written in LAYOUTS:
        for layout in layouts:
            into = {"model.m": matrix(layout, None), "model.shared": torch.zeros(2)}
            restored = restore(folder / written, lambda c, into=into: into, lambda c: None)
            assert restored is not None
            assert torch.equal(into["model.m"].full_tensor(), whole_matrix()), (written, layout)
            assert into["model.shared"].tolist() == [2.0, 4.0]


def read_on_fewer(rank: int, world_size: int, folder: str) -> None:
    join(rank, world_size, folder)
    read_all_layouts(Path(folder), ["fsdp", "tp"])
    leave()


def test_every_layout_reads_what_every_layout_wrote(tmp_path: Path) -> None:
    mp.spawn(write_all_layouts, (4, str(tmp_path)), nprocs=4)
    checkpoint = open_checkpoint(tmp_path / "hsdp" / "checkpoints" / "step-00000001")
    # Chunks that several ranks hold are stored once.
    assert len(checkpoint.chunks["model.m"]) == 2
    assert len(checkpoint.chunks["model.shared"]) == 1
    assert all(f"rng.{r}.cpu" in checkpoint.chunks for r in range(4))
    mp.spawn(read_on_fewer, (2, str(tmp_path)), nprocs=2)
    into = {"model.m": torch.zeros(7, 10)}
    restore(tmp_path / "fsdp_tp", lambda c: into, lambda c: None)
    assert torch.equal(into["model.m"], whole_matrix())
