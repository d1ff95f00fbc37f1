"""Our packages in a folder that has others of the same names: ours are taken, or one sentence says what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from toyrun import ROOT, documents, overrides

from configs import children


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a user's own packages, which fail when they are imported."""
    for name in ("configs", "data_pipeline"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('the wrong {name}')\n")
    (tmp_path / "launch.py").write_text("raise SystemExit('the wrong launch')\n")
    return tmp_path


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # As where the packages are installed: on the path, behind the working folder.
    installed = f"import sys; sys.path.append({str(ROOT)!r})"
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site/sitecustomize.py").write_text(installed)
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    env |= {"PYTHONPATH": str(folder / "site"), **environment}
    return subprocess.run([sys.executable, "-m", *words], cwd=folder, env=env, capture_output=True, text=True)


def test_training_starts_beside_packages_of_the_same_names(folder: Path, toy_packed: Path) -> None:
    words = [*overrides(toy_packed, folder / "run"), "train.steps=1", "schedule.warmup_steps=1"]
    for start in (
        ["pretrain.train"],
        ["torch.distributed.run", "--nproc-per-node=1", "-m", "pretrain.train"],
    ):
        done = run(folder, *start, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (folder / "run/metrics.jsonl").is_file()
    shown = run(folder, "pretrain.train", "--help", PYTHONPATH=f"{folder}:{folder / 'site'}")
    assert shown.returncode == 0, shown.stderr


def test_a_folder_of_yaml_files_is_no_package(tmp_path: Path, toy_packed: Path) -> None:
    (tmp_path / "configs/model").mkdir(parents=True)
    (tmp_path / "configs/model/mine.yaml").write_text(
        "name: mine\ndim: 32\nn_layers: 1\nn_heads: 2\nn_kv_heads: 1\nffn_dim: 64\n"
    )
    words = [*overrides(toy_packed, tmp_path / "run"), "train.steps=1", "schedule.warmup_steps=1"]
    done = run(tmp_path, "pretrain.train", *("model=mine" if w == "model=debug" else w for w in words))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mine" in (tmp_path / "run/config.yaml").read_text()


def test_another_package_that_is_imported_already_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/__init__.py").touch()
    program = tmp_path / "program.py"
    program.write_text(f"import configs, sys\nsys.path.append({str(ROOT)!r})\nimport pretrain\n")
    done = subprocess.run([sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and f"another `configs` was imported before it ({tmp_path}" in last, last
    assert "PYTHONSAFEPATH=1" in last


def test_data_is_made_beside_packages_of_the_same_names(folder: Path) -> None:
    """The workers' fork server and the compilers start Python themselves."""
    (folder / "notes").mkdir()
    for n, text in enumerate(documents()):
        (folder / f"notes/{n:03d}.txt").write_text(text)
    words = [
        "recipe=text",
        "input=notes",
        "output=out",
        "stop_after=read",
        "executor.workers=2",
        "unit_bytes=20000",
    ]
    code = f"import sys; from launch.cli import main; sys.exit(main(['data', *{words!r}]))"
    (folder / "program").mkdir()
    (folder / "program/arriero.py").write_text(f"if __name__ == '__main__':\n    {code}\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [sys.executable, "program/arriero.py"], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0 and "wrong" not in done.stdout + done.stderr, done.stdout + done.stderr


def test_children_take_our_packages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    for module in ("launch.agent", "data_pipeline.quality.server", "launch.demo"):
        done = subprocess.run(
            [*children.command(module), "--help"], env=children.environment(), capture_output=True, text=True
        )
        assert done.returncode == 0 and module.rpartition(".")[2] in done.stdout, done.stderr
    line = children.in_shell("launch.agent", "--help")
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with children.safe_path():
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert "PYTHONSAFEPATH" not in os.environ


def test_nothing_of_ours_starts_python_by_hand() -> None:
    """`sys.executable -m` outside of `configs.children` would search the working folder first."""
    found = [
        str(file.relative_to(ROOT))
        for package in ("configs", "data_pipeline", "launch", "pretrain")
        for file in (ROOT / package).rglob("*.py")
        if 'sys.executable, "-m"' in file.read_text() and file.name != "children.py"
    ]
    assert found == []
