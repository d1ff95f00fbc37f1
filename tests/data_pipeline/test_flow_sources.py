"""What the stages of a run say that they depend on, compared with what their functions import."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

import data_pipeline
from configs import edge
from configs.schema.pipeline import (
    ClassifierConfig,
    DataRun,
    DecontaminateConfig,
    DedupConfig,
    LabelConfig,
    QualityConfig,
    RecipeConfig,
    UrlConfig,
)
from data_pipeline import flow, recipes
from data_pipeline.read import units
from data_pipeline.stage import Stage, StageFunction, fingerprints

ROOM = Path(data_pipeline.__file__).parent
NOT_OUTPUT = {
    "fingerprint.py",
    "stage.py",
    "compiled.py",
    "compiling.py",
    "recipes.py",
    "workers.py",
    "read/storage.py",
    "packed/files.py",
    "zstd.py",
}
"""How a stage is run, where files lie and how they are written, how code is compiled, which recipe of the configuration a
source has: no output depends on it."""
NOT_CALLED = {
    "language": ["classify/bayes.py"],  # trains, and the model is an input
    "nsfw": ["classify/bayes.py"],
    "quality": ["classify/bayes.py"],
    "quality_labels": ["annotate/quality.py", "classify"],  # trains, which is a stage of its own
    "url_signals": [
        "annotate/lists.py",
        "annotate/list_formats.py",
    ],  # makes the index, which is a stage of its own
    "tokenizer": [f"packed/{name}.py" for name in ("mixture", "reader", "writer")],
    "tokens": [f"packed/{name}.py" for name in ("mixture", "reader", "writer")],
}
"""Beside what a stage calls, in one file with it."""


def source(module: str) -> Path | None:
    path = ROOM.parent / module.replace(".", "/")
    found = [p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()]
    return found[0] if found and module.startswith("data_pipeline.") else None


def imported(tree: ast.AST) -> dict[str, str]:
    """Name → module of this package, of every import; those for types alone are left out."""
    found: dict[str, str] = {}
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found[alias.asname or alias.name] = inner if source(inner) else node.module
        found |= imported(node)
    return found


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def needed(function: StageFunction) -> set[str]:
    """Source files that a stage function imports, and these import in turn; `policy.py` itself imports names alone."""
    path = source(function.__module__)
    assert path is not None
    tree = parsed(path)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    above = imported(ast.Module([node for node in tree.body if isinstance(node, ast.ImportFrom)], []))
    modules: set[str] = set()
    names, known = [function.__name__], set()
    while names:
        name = names.pop()
        if name in known:
            continue
        known.add(name)
        if name in functions:
            modules |= set(imported(functions[name]).values())
            names += [node.id for node in ast.walk(functions[name]) if isinstance(node, ast.Name)]
        elif name in above:
            modules.add(above[name])
    files: set[str] = set()
    while modules:
        found = source(modules.pop())
        if found is None or (name := str(found.relative_to(ROOM))) in files or name.startswith("flow/"):
            continue
        files.add(name)
        if name != "policy.py":
            modules |= set(imported(parsed(found)).values())
    return {f for f in files if Path(f).name != "__init__.py"} - NOT_OUTPUT


def stages(folder: Path, dedup: DedupConfig, given: bool) -> list[Stage]:
    evaluation = folder / "items.jsonl"
    evaluation.write_text('{"question": "Which llama carried the mail over the pass of Ancud?"}\n')
    (folder / "pages.jsonl").write_text('{"text": "a"}\n')
    trained = ClassifierConfig(train="offline") if given else ClassifierConfig()
    config = DataRun(
        output=str(folder / "out"),
        input=str(folder / "pages.jsonl"),
        recipe=edge.load_group("recipe", "web", RecipeConfig),
        dedup=dedup,
        languages=trained,
        quality=QualityConfig(label=LabelConfig(base_url="local" if given else None)),
        url=UrlConfig(lists=("datatrove",) if given else ()),
        decontaminate=DecontaminateConfig(sets=(str(evaluation),)),
    )
    return flow.build(folder / "out", config, units.plan(recipes.sources(config), config.unit_bytes))[0]


@pytest.mark.parametrize(
    ("dedup", "given"),
    [
        (DedupConfig(lines="llama3", semantic=True), True),
        (DedupConfig(lines="ccnet", minhash=False, exact=False, url=False), False),
        (DedupConfig(semantic=True, minhash=False, exact=False, url=False), False),
    ],
    ids=["all", "lines", "semantic"],
)
def test_a_stage_names_the_sources_that_its_output_depends_on(
    tmp_path: Path, dedup: DedupConfig, given: bool
) -> None:
    named: dict[str, set[str]] = {}
    for stage in stages(tmp_path, dedup, given):
        named[stage.name] = set().union(*(named[name] for name in stage.depends))
        for code in stage.code:
            path = ROOM / code
            inside = path.rglob("*.py") if path.is_dir() else [path]
            named[stage.name] |= {str(p.relative_to(ROOM)) for p in inside}
        missing = needed(stage.function) - named[stage.name]
        missing -= {f for f in missing for code in NOT_CALLED.get(stage.name, ()) if f.startswith(code)}
        assert missing == set(), stage.name


def test_a_renamed_evaluation_set_is_another_one(tmp_path: Path) -> None:
    before = fingerprints(stages(tmp_path, DedupConfig(), False))
    folder = tmp_path / "renamed"
    folder.mkdir()
    (tmp_path / "items.jsonl").rename(folder / "items.jsonl")
    found = fingerprints(stages(folder, DedupConfig(), False))
    assert found["evaluation_sets"] != before["evaluation_sets"]
