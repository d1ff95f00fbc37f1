"""Tasks of a stage that run at the same time, and what they write: nothing that two of them share."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from webpages import page, response

from configs import edge
from configs.schema.pipeline import DataRun
from data_pipeline import executors, flow, recipes
from data_pipeline import run as data_run
from data_pipeline.packed.files import is_temporary
from data_pipeline.read import units as planning

SHARDS = 64
WORKERS = 8
SEVERAL = {"lines/runs/buckets.json"}
"""Written by several tasks of a stage: the same bytes, whichever is last."""
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "that",
    "have",
    "with",
    "be",
    "a",
    "in",
    "is",
    "was",
    "it",
    "for",
    "on",
    "as",
]


def _prose(draw: random.Random, sentences: int) -> str:
    made = []
    for _ in range(sentences):
        words = []
        for _ in range(5):
            words += [draw.choice(WORDS), 2 * (draw.choice("bdfgklmnprst") + draw.choice("aeiou"))]
        made.append(" ".join(words).capitalize() + ".")
    return "\n".join(" ".join(made[i : i + 3]) for i in range(0, sentences, 3))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 archives of three pages, of which some are near copies, and share a line."""
    folder = tmp_path_factory.mktemp("pages")
    draw = random.Random(7)
    common = _prose(draw, 24)
    for number in range(SHARDS):
        texts = [
            _prose(draw, 24),
            f"{_prose(draw, 18)}\nSubscribe to our newsletter and win!",
            common + f"\n{number}.",
        ]
        members = [
            response(f"http://site{number % 9}.example/{number}/{i}", page(t)) for i, t in enumerate(texts)
        ]
        (folder / f"{number:02d}.warc.gz").write_bytes(b"".join(gzip.compress(m, mtime=0) for m in members))
    return folder


def _config(pages: Path, output: Path, workers: int) -> DataRun:
    words = [
        "recipe=web",
        f"input={pages}",
        f"output={output}",
        f"executor.workers={workers}",
        "unit_bytes=1000",
        "tokenizer.vocab_size=400",
        "tokenizer.n_special=16",
        "pack.sequence_length=64",
        "dedup.semantic=true",
        "dedup.semantic_dim=16",
        "jsonl=true",
    ]
    return edge.load("data", DataRun, words)


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Writes:
    """Which tasks gave a file of a run directory its name, seen by Python's audit hook; tasks run in this process."""

    def __init__(self) -> None:
        self.run_dir: Path | None = None
        self.task = ""
        self.tasks: dict[str, set[str]] = defaultdict(set)
        self.not_renamed: set[str] = set()

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.run_dir is None or event not in ("open", "os.rename"):
            return
        target = arguments[1] if event == "os.rename" else arguments[0]
        if not isinstance(target, (str, os.PathLike)):
            return
        path = Path(target)
        if not path.is_relative_to(self.run_dir):
            return
        name = path.relative_to(self.run_dir).as_posix()
        if event == "open":
            if task := re.fullmatch(r"logs/(\w+)/logs/(task_\d+)\.log", name):
                self.task = f"{task[1]} {task[2]}"
            writes = bool(int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR))
            inside = any(is_temporary(p) for p in (path, *path.parents))
            if writes and not inside and not name.startswith(("logs/", ".", "environment.jsonl")):
                self.not_renamed.add(name)
        elif not any(is_temporary(p) for p in (path, *path.parents)) and not name.startswith("logs/"):
            self.tasks[name].add(self.task)


@pytest.fixture(scope="module")
def writes() -> Iterator[Writes]:
    seen = Writes()
    sys.addaudithook(seen.hook)  # for the life of the process, so it is told when to look
    yield seen
    seen.run_dir = None


@pytest.fixture(scope="module")
def done(pages: Path, writes: Writes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("done") / "data"
    writes.run_dir = output
    assert data_run.run(_config(pages, output, workers=1)) == 0
    writes.run_dir = None
    return output


def test_no_two_tasks_write_the_same_file(done: Path, writes: Writes) -> None:
    stages = {task.split()[0] for tasks in writes.tasks.values() for task in tasks if task}
    assert {"read", "line_hashes", "semantic_embed", "verify", "tokens", "pack"} <= stages
    by_stage: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, tasks in writes.tasks.items():
        for task in tasks - {""}:
            by_stage[task.split()[0]][name].add(task)
    shared = {n: sorted(t)[:3] for files in by_stage.values() for n, t in files.items() if len(t) > 1}
    assert set(shared) <= SEVERAL, shared


def test_no_file_of_a_run_is_written_under_its_own_name(done: Path, writes: Writes) -> None:
    assert not writes.not_renamed
    assert not [path for path in done.rglob("*") if is_temporary(path)]


def _repeat(pages: Path, done: Path, times: int) -> None:
    """Run every stage of several tasks anew, again and again, with more workers than cores; outputs must not change."""
    config = _config(pages, done, WORKERS)
    sources = recipes.sources(config)
    stages, *_ = flow.build(done, config, planning.plan(sources, config.unit_bytes))
    by_name = {stage.name: stage for stage in stages}
    several = [stage for stage in stages if stage.tasks > 1]
    assert len(several) > 20 and all(stage.tasks >= SHARDS for stage in several if stage.name != "bands")
    try:
        for stage in several:
            # Sets are removed by `verify`, which reads them once.
            made = {output: _digests(done / output) for output in stage.outputs if stage.name != "sets"}
            for turn in range(times):
                if stage.name == "verify":
                    executors.run(done, by_name["sets"], config, f"sets for verify {turn}")
                # Another fingerprint: what the stage made is removed first.
                executors.run(done, stage, config, f"{stage.name} {turn}")
                again = {output: _digests(done / output) for output in stage.outputs}
                made = made or again
                assert again == made, stage.name
    finally:
        from data_pipeline.executors import local

        local.close()
    assert not [path for path in done.rglob("*") if is_temporary(path)]


def test_stages_with_eight_workers_write_the_same_bytes(pages: Path, done: Path) -> None:
    _repeat(pages, done, times=1)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_stages_with_eight_workers_write_the_same_bytes_twenty_times(pages: Path, done: Path) -> None:
    _repeat(pages, done, times=20)
