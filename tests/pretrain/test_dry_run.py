"""The dry run: it sees what the run would need, says on every rank what does not fit, and leaves nothing behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from toyrun import overrides, torchrun, train

from configs.schema.train import PhaseConfig
from pretrain import train as trainer
from pretrain.data.ramp import Ramp
from pretrain.dry_run import Shape, shapes, worst_batch
from pretrain.metrics.flops import attention_pairs

# Rank 1 may not have more than 400 MB beyond what it has after its imports.
ONE_RANK_IS_SHORT_OF_MEMORY = """
import os, psutil, resource, sys
from pretrain import train
import pretrain.dry_run, pretrain.optim.optimizer
if os.environ["RANK"] == "1":
    limit = psutil.Process().memory_info().vms + 400 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
status = train.main(sys.argv[1:])
sys.stdout.flush()
os._exit(status)
"""


def test_dry_run_says_what_each_phase_needs_and_leaves_nothing(toy_packed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    phases = "data.phases=[{sequences:8,sequence_length:32,global_batch_size:4},{}]"
    code, output = train(
        overrides(toy_packed, run_dir, "train.dry_run=true", "train.steps=10", phases), nproc=2
    )
    assert code == 0, output
    assert not run_dir.exists()
    peaks = re.findall(r"rows of (\d+), 2 micro-batches a rank: peak (\d\.\d+) GiB of (\d+\.\d+) GiB", output)
    assert [rows for rows, _, _ in peaks] == ["64", "32"]
    assert all(0.1 < float(peak) < float(capacity) for _, peak, capacity in peaks)
    assert "8 steps" in output and "2 steps" in output and "estimated run" in output
    assert "error" not in output and "Traceback" not in output


def test_checkpoint_of_the_dry_run_has_the_size_of_the_real_one(
    toy_packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("train.steps=1", "train.eval_sequences=1", "model.dim=256", "model.ffn_dim=1024")
    assert trainer.main(overrides(toy_packed, tmp_path / "run", *more)) == 0
    stored = sum(p.stat().st_size for p in (tmp_path / "run").glob("checkpoints/step-*/*.distcp"))
    capsys.readouterr()
    assert trainer.main(overrides(toy_packed, tmp_path / "dry", *more, "train.dry_run=true")) == 0
    found = re.search(r"checkpoint: (\d+\.\d+) GiB", capsys.readouterr().out)
    assert found is not None and float(found[1]) == pytest.approx(stored / 2**30, abs=0.005)
    assert not (tmp_path / "dry").exists()


def test_out_of_memory_on_one_rank_is_said_by_all_and_nothing_hangs(toy_packed: Path, tmp_path: Path) -> None:
    script = tmp_path / "short.py"
    script.write_text(ONE_RANK_IS_SHORT_OF_MEMORY)
    more = (
        "train.dry_run=true",
        "model.dim=1024",
        "model.ffn_dim=4096",
        "train.steps=2",
        "train.global_batch_size=64",
    )
    arguments = overrides(toy_packed, tmp_path / "run", *more, "train.micro_batch_size=32")
    ended = torchrun(str(script), *arguments)
    assert ended.returncode == 1
    errors = [line for line in ended.stderr.splitlines() if "error: " in line and "dry run" in line]
    assert len(errors) == 2 and errors[0] == errors[1], ended.stderr[-4000:]
    assert "failed on rank 1" in errors[0] and "out of memory" in errors[0]
    assert "train.micro_batch_size=16 (now 32)" in errors[0] and "activation_checkpointing" in errors[0]
    assert not (tmp_path / "run").exists()


def test_the_worst_batch_is_one_document_a_row() -> None:
    batch = worst_batch(3, 64, 100)
    assert batch.tokens.shape == batch.labels.shape == batch.positions.shape == (3, 64)
    assert attention_pairs(batch.cu_seqlens) == 3 * 64 * 65 // 2 and batch.n_valid == 3 * 64
    assert batch.cu_seqlens[:, 0].eq(0).all() and batch.cu_seqlens[:, 1:].eq(64).all()
    assert int(batch.tokens.max()) < 100 and torch.equal(batch.tokens[:, 1:], batch.labels[:, :-1])


def test_every_shape_of_the_run_is_tried_with_its_number_of_steps() -> None:
    phases = (
        PhaseConfig(sequences=8, global_batch_size=4),
        PhaseConfig(sequences=16, global_batch_size=8, sequence_length=32),
        PhaseConfig(global_batch_size=4),
    )
    ramp = Ramp(phases, 4, 64)
    assert shapes(ramp.stretches, 10) == [Shape(8, 32, 2), Shape(4, 64, 8)]
    assert shapes(ramp.stretches, 2) == [Shape(4, 64, 2)]
