"""The wheel, installed where no checkout is: commands run, and everything that a package needs is inside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Mapping
from email.message import Message
from email.parser import BytesParser
from importlib.metadata import version
from pathlib import Path

import pytest
from toyrun import documents

ROOT = Path(__file__).parent.parent
PACKAGES = ("arriero", "configs", "data_pipeline", "launch", "pretrain")


def run(*command: object, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the checkout: building leaves files beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", "dist", "."]
    if int(version("setuptools").split(".")[0]) >= 77:
        command.insert(4, "--no-build-isolation")
    run(*command, cwd=folder)
    return next((folder / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and the libraries of this one, but without the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv/bin/python"
    site = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=folder)
    # Lines of a .pth file are not searched for .pth files in turn, so an editable installation is not seen.
    libraries = [p for p in sys.path if "site-packages" in p or "dist-packages" in p]
    (site / "libraries.pth").write_text("".join(f"{p}\n" for p in libraries))
    # Kernels that are compiled for the checkout serve here too; without any, the commands compile what they need.
    for source in (ROOT / "data_pipeline").rglob("*.py"):
        stat = source.stat()
        target = site / source.relative_to(ROOT)
        os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        (target.parent / "__pycache__").mkdir(exist_ok=True)
        for compiled in (source.parent / "__pycache__").glob(f"{source.stem}.*.nb[ic]"):
            shutil.copy(compiled, target.parent / "__pycache__" / compiled.name)
    return folder


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return BytesParser().parsebytes(archive.read(name))


def test_everything_that_a_package_holds_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    files = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {f"{package}/py.typed" for package in PACKAGES} <= files
    assert files - inside == set()
    assert {n.partition("/")[0] for n in inside if ".dist-info/" not in n} == set(PACKAGES)
    found = metadata(wheel)
    assert found["License-Expression"] == "Apache-2.0"
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in inside)
    assert found.get_all("Project-URL")
    assert "Typing :: Typed" in found.get_all("Classifier", [])


def test_one_library_for_each_purpose(wheel: Path) -> None:
    required = " ".join(metadata(wheel).get_all("Requires-Dist", []))
    assert "fasttext-community" in required
    # Both would install a package `fasttext`; datatrove asks for the other one in an extra that is never taken.
    assert "fasttext-numpy2" not in required
    assert "datatrove[" not in required
    assert "zstandard" not in required


def test_commands_work_where_no_checkout_is(installed: Path, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    bin_ = installed / "venv/bin"

    def arriero(*words: object) -> str:
        return run(bin_ / "arriero", *words, cwd=tmp_path, env=env)

    where = run(
        bin_ / "python", "-c", "import configs, launch; print(configs.__file__)", cwd=tmp_path, env=env
    )
    assert Path(where.strip()).is_relative_to(installed)
    assert "train" in arriero("--help")
    for verb in ("data", "train", "launch"):
        assert f"arriero {verb}" in arriero(verb, "--help")
    (tmp_path / "notes").mkdir()
    for n, text in enumerate(documents()):
        (tmp_path / f"notes/{n:03d}.txt").write_text(text)
    arriero(
        *("data", "recipe=text", "input=notes", "output=out", "executor.workers=1"),
        *(
            "tokenizer=small",
            "tokenizer.vocab_size=320",
            "pack.sequence_length=64",
            "pack.heldout_fraction=0.1",
        ),
    )
    trained = arriero(
        *(
            "train",
            "model=debug",
            "model.dim=32",
            "model.ffn_dim=64",
            "data.path=out/packed",
            "run.dir=runs/a",
        ),
        *(
            "train.steps=2",
            "train.global_batch_size=4",
            "schedule.warmup_steps=1",
            "tracker=none",
            "device=cpu",
        ),
    )
    assert (tmp_path / "runs/a/metrics.jsonl").is_file(), trained
    arriero("report", "run.dir=runs/a")
    assert (tmp_path / "runs/a/report.html").is_file()


def test_files_of_ones_own_are_found_wherever_they_are_named(installed: Path, tmp_path: Path) -> None:
    """Recipe, policy, model and experiment in `./configs` and in `--config-dir`; the latter comes first."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    rules = "rules:\n  mine.short: {signal: stats.words, min: %d}\n"
    shape = "name: mine\ndim: 32\nn_layers: 2\nn_heads: 4\nn_kv_heads: 2\nffn_dim: 64\ntied: true\n"
    files = {
        "configs/recipe/mine.yaml": "defaults:\n  - /filter@filter: mine\n  - _self_\nname: mine\nextract: none\n",
        "configs/filter/mine.yaml": "name: mine\n" + rules % 1_000_000,
        "own/filter/mine.yaml": "name: mine\n" + rules % 5,
        "configs/model/mine.yaml": shape,
        "own/experiment/mine.yaml": (
            "# @package _global_\ndefaults:\n  - override /model: mine\n"
            "train: {steps: 2, global_batch_size: 4}\nschedule: {warmup_steps: 1}\n"
        ),
        "notes/few.txt": "Too few words.",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    for n, text in enumerate(documents()):
        (tmp_path / f"notes/{n:03d}.txt").write_text(text)

    def arriero(*words: str) -> str:
        return run(
            installed / "venv/bin/arriero", words[0], "--config-dir", "own", *words[1:], cwd=tmp_path, env=env
        )

    small = ("tokenizer=small", "tokenizer.vocab_size=320", "pack.sequence_length=64", "executor.workers=1")
    arriero("data", "sources=[{name:ours,recipe:mine,input:notes}]", "output=out", *small)
    counts = json.loads((tmp_path / "out/funnel.json").read_text())["sources"]["ours"]
    assert counts["dropped_documents"]["mine.short"] >= 1 and counts["kept_documents"] >= 10, counts
    assert "min: 5\n" in arriero("data", "recipe=mine", "input=notes", "output=out", "--cfg", "job")
    # Without --config-dir the policy is that of ./configs.
    words = ("data", "recipe=mine", "input=notes", "output=out", "--cfg", "job")
    assert "min: 1000000\n" in run(installed / "venv/bin/arriero", *words, cwd=tmp_path, env=env)
    arriero(
        "train", "experiment=mine", "data.path=out/packed", "run.dir=runs/a", "tracker=none", "device=cpu"
    )
    config = (tmp_path / "runs/a/config.yaml").read_text()
    assert "dim: 32\n" in config and "steps: 2\n" in config
