"""The import rules of docs/architecture.md, read from the source."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("configs", "data_pipeline", "pretrain", "launch", "arriero")

# Room → what it may import of ours. The first room that a file lies in is the one that counts.
ALLOWED = {
    "data_pipeline/packed": ("data_pipeline.packed",),
    "configs": ("configs",),
    "data_pipeline": ("configs", "data_pipeline"),
    "pretrain": ("configs", "pretrain", "data_pipeline.packed"),
    "launch": ("configs", "data_pipeline", "pretrain", "launch"),
    "arriero": ROOMS,
}
# What the packed format may import beside the standard library: it must be readable with next to nothing.
PACKED_LIBRARIES = {"numpy", "orjson"}


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every module imported in a source, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def violations(path: str, source: str) -> list[str]:
    """What a file imports against the rules, as `path:line imports name`."""
    room = next(r for r in ALLOWED if path.startswith(r + "/"))
    found = []
    for line, name in imports(source, ".".join(Path(path).parent.parts)):
        top = name.split(".")[0]
        ours = top in ROOMS
        wrong = ours and not any(name == a or name.startswith(a + ".") for a in ALLOWED[room])
        wrong |= room.startswith("data_pipeline") and top == "torch"
        wrong |= (
            room == "data_pipeline/packed"
            and not ours
            and top not in sys.stdlib_module_names
            and top not in PACKED_LIBRARIES
        )
        if wrong:
            found.append(f"{path}:{line} imports {name}")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_every_import_follows_the_rules_of_the_architecture(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    found = [v for f in files for v in violations(str(f.relative_to(ROOT)), f.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("configs/edge.py", "import pretrain.train"),
        ("data_pipeline/run.py", "def f():\n    import torch.nn"),
        ("data_pipeline/run.py", "from pretrain import rundir"),
        ("data_pipeline/packed/reader.py", "from configs import edge"),
        ("data_pipeline/packed/reader.py", "from ..read import warc"),
        ("data_pipeline/packed/reader.py", "import pyarrow"),
        ("pretrain/train.py", "from data_pipeline import run"),
        ("pretrain/train.py", "import launch.cli"),
        ("launch/cli.py", "import arriero"),
    ],
)
def test_a_forbidden_import_is_found(path: str, source: str) -> None:
    assert violations(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("data_pipeline/packed/reader.py", "from .manifest import Manifest\nimport numpy, json"),
        ("pretrain/train.py", "from data_pipeline.packed import PackedDataset\nimport torch"),
        ("launch/worker.py", "import pretrain.train"),
        ("arriero/models.py", "from pretrain import generate"),
    ],
)
def test_an_allowed_import_is_left_alone(path: str, source: str) -> None:
    assert not violations(path, source)


@pytest.mark.parametrize(
    "module",
    ["arriero", "launch.cli", "launch.launch", "launch.slurm", "data_pipeline.packed", "configs.edge"],
)
def test_the_front_door_does_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


DESCRIBED = """
import json, sys
from configs import edge
from configs.schema.pipeline import DataRun
from data_pipeline import recipes
config = edge.load("data", DataRun, sys.argv[1:], recipes.with_recipes)
from data_pipeline import flow, policy
from data_pipeline.read import units
sources = recipes.sources(config)
for source in sources:
    policy.check(source.recipe.filter)
flow.build(__import__("pathlib").Path(config.output), config, units.plan(sources, config.unit_bytes))
print(json.dumps(sorted(sys.modules)))
"""
HEAVY = {
    "numba",
    "scipy",
    "pandas",
    "datatrove.executor",
    "huggingface_hub",
    "torch",
    "sklearn",
    "faiss",
    "tokenizers",
}
"""What takes a tenth of a second or more to import, and stages alone need."""


def loaded(*command: str) -> set[str]:
    """Modules that a Python process has imported, which it prints as the last line."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_run_is_planned_without_what_only_its_stages_need(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    words = ["recipe=web", f"input={tmp_path / 'a.jsonl'}", f"output={tmp_path / 'out'}"]
    chosen = ["dedup.lines=ccnet", "dedup.semantic=true", "dedup.sketches=true"]
    assert loaded("-c", DESCRIBED, *words, *chosen) & HEAVY == set()


def test_workers_start_before_what_the_driver_plans_with_is_imported() -> None:
    code = "import json, sys; import data_pipeline.run; print(json.dumps(sorted(sys.modules)))"
    modules = loaded("-c", code)
    assert "data_pipeline.workers" in modules
    assert modules & {*HEAVY, "numpy", "pyarrow", "datatrove", "data_pipeline.driver"} == set()
