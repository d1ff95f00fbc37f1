"""What is found out about a launch before anything starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toyrun import overrides

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import LaunchRun
from launch import launch
from launch.preflight import _bytes, _limit, preflight

CLUSTERS = ("cluster=local", "cluster=slurm")


def config(packed: Path, run_dir: Path, *more: str) -> LaunchRun:
    return edge.load("launch", LaunchRun, [*overrides(packed, run_dir), *more])


def broken(packed: Path, tmp_path: Path, what: str) -> list[str]:
    """Overrides of a launch that cannot be."""
    if what == "tokenizer":
        copy = shutil.copytree(packed, tmp_path / "copy")
        (copy / "tokenizer" / "tokenizer.json").write_text("{}")
        return [f"data.path={copy}"]
    (tmp_path / "file").write_text("")
    return {
        "data": [f"data.path={tmp_path / 'nowhere'}"],
        "layout": ["parallel.tp=3"],
        "batch": ["cluster.nproc=3"],
        "phase": ["data.phases=[{weights: {books: 1}}]"],
        "weights": [f"model.init_from={tmp_path / 'nowhere'}"],
        "location": [f"run.dir={tmp_path / 'file' / 'run'}"],
        "kernel": ["run.dir=/proc/run"],
        # 12 bytes a parameter, of 40 TB of parameters.
        "disk": ["model.dim=1048576", "model.ffn_dim=1048576", "model.n_layers=4"],
        "memory": ["model.dim=1048576", "model.ffn_dim=1048576", "model.n_layers=4"],
    }[what]


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("data", "manifest"),
        ("tokenizer", "tokenizer.json is missing or not the tokenizer"),
        ("layout", "parallel.tp"),
        ("batch", "train.global_batch_size"),
        ("phase", "data.phases"),
        ("weights", "model.init_from"),
        ("location", "run.dir"),
        ("kernel", "`run.dir=/proc/run` cannot be made or written"),
        ("memory", "it does not fit"),
    ],
)
def test_what_cannot_be_is_refused_by_a_dry_run_and_before_submission(
    cluster: str, what: str, says: str, toy_packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.iterdir())
    words = [cluster, *broken(toy_packed, tmp_path, what)]
    made = sorted(tmp_path.iterdir())
    read = config(toy_packed, tmp_path / "run", *words)
    with pytest.raises(ConfigError, match=says):
        launch.run(read)
    assert launch.main([*overrides(toy_packed, tmp_path / "run"), *words, "dry_run=true"]) == 2
    shown, error = capsys.readouterr()
    assert says in error and error.startswith("error: ")
    # What must not be submitted is not shown as if it could be.
    assert "#SBATCH" not in shown and "launch.worker" not in shown
    assert sorted(tmp_path.iterdir()) == made >= before  # nothing was started, nothing written


def test_a_disk_that_is_too_small_is_refused_where_it_is_that_of_the_run(
    toy_packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = broken(toy_packed, tmp_path, "disk")
    here = preflight(config(toy_packed, tmp_path / "run", "cluster=local", *words), tmp_path / "run")
    assert [e for e in here.errors if e.startswith("the disk is too small")]
    # On a machine without Slurm the disk is not the cluster's.
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    away = preflight(config(toy_packed, tmp_path / "run", "cluster=slurm", *words), tmp_path / "run")
    assert not [e for e in away.errors if "the disk" in e]
    assert [w for w in away.warnings if w.startswith("this machine has no Slurm; if the cluster's disk")]


def test_several_mistakes_are_found_at_once(toy_packed: Path, tmp_path: Path) -> None:
    words = [f"model.init_from={tmp_path / 'nowhere'}", "data.path=nowhere"]
    found = preflight(config(toy_packed, tmp_path / "run", *words), tmp_path / "run")
    assert len(found.errors) == 2


def test_a_run_whose_checkpoint_it_cannot_continue_from_is_not_submitted(
    toy_packed: Path, tmp_path: Path
) -> None:
    from toyrun import train

    run_dir = tmp_path / "run"
    status, output = train(overrides(toy_packed, run_dir, "train.steps=3"))
    assert status == 0, output
    for word, says in (
        ("seed=5", "`seed`"),
        ("train.steps=2", "train.steps"),
        ("checkpoint.resume=false", "resume"),
    ):
        found = preflight(config(toy_packed, run_dir, "train.steps=3", word), run_dir)
        assert len(found.errors) == 1 and says in found.errors[0]
    assert not preflight(config(toy_packed, run_dir, "train.steps=3"), run_dir).errors


def test_weights_of_another_model_are_refused_and_those_of_a_run_that_goes_on_are_not_asked_for(
    toy_packed: Path, tmp_path: Path
) -> None:
    from toyrun import train

    status, output = train(overrides(toy_packed, tmp_path / "old", "train.steps=1"))
    assert status == 0, output
    start = f"model.init_from={tmp_path / 'old'}"
    assert not preflight(config(toy_packed, tmp_path / "new", start), tmp_path / "new").errors
    (error,) = preflight(
        config(toy_packed, tmp_path / "new", start, "model.n_layers=3"), tmp_path / "new"
    ).errors
    assert "whose model computes another function: model.n_layers is 3, there 2" in error
    (tmp_path / "folder").mkdir()
    words = [f"model.init_from={tmp_path / 'folder'}"]
    (error,) = preflight(config(toy_packed, tmp_path / "new", *words), tmp_path / "new").errors
    assert "which is neither a run directory, nor a checkpoint" in error
    # The run has weights of its own by now, and what it began from may be gone.
    words = [f"model.init_from={tmp_path / 'gone'}"]
    found = preflight(config(toy_packed, tmp_path / "old", "train.steps=1", *words), tmp_path / "old")
    assert not [error for error in found.errors if "no such folder" in error]


def test_bf16_is_warned_of_where_this_processor_does_not_multiply_it_natively(
    toy_packed: Path, tmp_path: Path
) -> None:
    masks = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}

    def shown(*words: str) -> str:
        words = (*overrides(toy_packed, tmp_path / "run"), "device=cpu", "dry_run=true", *words)
        code = "import sys; from launch import launch; sys.exit(launch.main(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=Path(__file__).parents[2], env=os.environ | masks, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    says = "does not multiply bf16 natively"
    assert says in shown("cluster=local", "train.dtype=bf16")
    # What the nodes of a cluster multiply in is not known here.
    assert says not in shown("cluster=slurm", "train.dtype=bf16")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400), ("90:30", 5430), ("1:00:00", 3600), ("2-0", 172_800), ("1-12:30", 131_400), ("1-0:0:5", 86_405),
        ("UNLIMITED", None),
    ],
)  # fmt: skip
def test_time_limits_are_read_as_slurm_reads_them(text: str, seconds: float | None) -> None:
    assert _limit(text) == seconds


def test_memory_is_read_as_slurm_reads_it() -> None:
    assert [_bytes(text) for text in ("64G", "512", "1T", "2048K", "?")] == [
        64 * 2**30,
        2**29,
        2**40,
        2**21,
        0,
    ]
