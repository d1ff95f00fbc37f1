from __future__ import annotations

import errno
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.edge import ConfigError
from launch import cli

ROOT = Path(__file__).parents[2]


def arriero(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "launch.cli", *words], cwd=ROOT, capture_output=True, text=True
    )


def test_help_names_every_verb_and_is_quick() -> None:
    began = time.monotonic()
    done = arriero("--help")
    assert done.returncode == 0
    assert all(f"\n  {verb} " in done.stdout for verb in cli.VERBS)
    assert (
        time.monotonic() - began < 5
    )  # 0.04 s when nothing else runs; importing torch alone would take longer


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself_with_three_examples(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    examples = [line for line in shown.splitlines() if f"arriero {verb}" in line or "torchrun" in line]
    assert len(examples) >= 3, f"`arriero {verb} --help` shows {len(examples)} examples"


def test_an_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr().err == "error: unknown verb `trian`; did you mean `train`?\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("arriero 0.")


def test_an_unknown_key_is_one_line_and_status_2() -> None:
    done = arriero("launch", "train.step=5", "data.path=x", "run.dir=y")
    assert done.returncode == 2
    assert done.stderr == "error: unknown key `train.step`; did you mean `train.steps`?\n"


def test_a_data_path_that_is_no_packed_dataset_is_refused_before_anything_starts(tmp_path: Path) -> None:
    done = arriero("launch", "model=debug", f"data.path={tmp_path}", f"run.dir={tmp_path}/run")
    assert done.returncode == 2
    assert "holds no manifest.json" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("`a` is wrong"), 2, "error: `a` is wrong"),
        (OSError(errno.ENOSPC, "No space left on device", "/d/x"), 1, "error: /d/x: No space left on device"),
        (ModuleNotFoundError("x", name="wandb.sdk"), 1, "pip install 'arriero[track]'"),
    ],
)
def test_errors_for_users_are_one_line(
    error: Exception, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def verb() -> int:
        raise error

    assert cli.guarded(verb) == status
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1


def test_a_programming_error_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.guarded(lambda: int("not a number")) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_value_error_of_our_own_code_is_for_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    from launch.slurm import slurm

    assert cli.guarded(lambda: slurm("sbatch-that-is-nowhere")) == 1  # type: ignore[arg-type, return-value]
    assert capsys.readouterr().err.startswith("error: `sbatch-that-is-nowhere` is not on this machine")
