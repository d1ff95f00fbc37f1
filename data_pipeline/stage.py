"""A stage: one function over document shards, run as a datatrove step, skipped when its fingerprint matches.

What is on disk after a stage: its outputs (each by atomic rename) and `stages/NAME.json`. `stages/NAME.started` names
the fingerprint whose shards `logs/NAME/completions` counts, so a killed stage goes on where it stood, and one that was
started with other inputs begins anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from configs.schema.pipeline import DataRun
from data_pipeline import fingerprint
from data_pipeline.packed.files import is_temporary, remove_leftovers, write_atomically

StageFunction = Callable[[Path, int, DataRun], Mapping[str, Any] | None]
"""(run directory, shard, configuration) → counts. For stages with one task the shard is 0."""


@dataclass(frozen=True)
class Stage:
    """One step of a data run."""

    name: str
    """Name, of its files in `stages/` and `logs/`."""
    function: StageFunction
    """What it does with one shard; a function of a module, so that worker processes can import it."""
    tasks: int
    """Shards, or 1 where it looks at all of them at once."""
    outputs: tuple[str, ...]
    """Files and folders of the run directory that it owns; they are removed before it is redone."""
    depends: tuple[str, ...] = ()
    """Stages whose outputs it reads."""
    code: tuple[str, ...] = ()
    """Source files and folders of this package that its output depends on."""
    libraries: tuple[str, ...] = ()
    """Distributions whose version its output depends on."""
    config: Any = None
    """The part of the configuration that its output depends on, as plain data."""
    inputs: Any = None
    """Fingerprints of what it reads from outside the run directory: input files, models, lists."""


@dataclass(frozen=True)
class State:
    """Where a stage stands."""

    fingerprint: str
    """What its output would be made from now."""
    done: bool
    """Its output is there and was made from the same."""
    counts: dict[str, int] = field(default_factory=dict)
    """Sums over its tasks, of the completed stage."""
    seconds: float = 0.0
    """Wall time of the completed stage."""


def fingerprints(stages: list[Stage]) -> dict[str, str]:
    """Fingerprint of each stage; a change in one changes all that depend on it."""
    found: dict[str, str] = {}
    for stage in stages:
        found[stage.name] = fingerprint.of(
            stage.name,
            stage.tasks,
            fingerprint.code(stage.code),
            fingerprint.libraries(stage.libraries),
            stage.config,
            stage.inputs,
            [found[name] for name in stage.depends],
        )
    return found


def state(run_dir: Path, stage: Stage, expected: str) -> State:
    """Whether a stage is done. Outputs that were removed by hand, single shards too, make it undone."""
    path = run_dir / "stages" / f"{stage.name}.json"
    if not path.is_file() or not all((run_dir / output).exists() for output in stage.outputs):
        return State(expected, False)
    try:
        saved = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        return State(expected, False)
    whole = all(_count_files(run_dir / o) >= n for o, n in saved.get("files", {}).items())
    done = whole and saved["fingerprint"] == expected
    return State(expected, done, saved["counts"], saved["seconds"])


HANDED_ON = ("minhash", "lines", "semantic", "tokens")
"""Folders of intermediate files, some of which the stages that use them remove."""


def _count_files(path: Path) -> int:
    """Files of an output that are complete."""
    if not path.is_dir():
        return int(path.exists())
    return sum(not is_temporary(Path(name)) for _, _, names in os.walk(path) for name in names)


def prepare(run_dir: Path, stage: Stage, expected: str) -> None:
    """Make the run directory ready for a stage: remove what other inputs left, keep what these inputs did."""
    started = run_dir / "stages" / f"{stage.name}.started"
    started.parent.mkdir(parents=True, exist_ok=True)
    completed = run_dir / "stages" / f"{stage.name}.json"
    # A stage that was complete and is not done has lost a part of its output: which tasks are to be redone is not known.
    lost = completed.is_file()
    completed.unlink(missing_ok=True)
    same = not lost and started.is_file() and started.read_text() == expected
    if not (same and all((run_dir / output).exists() for output in stage.outputs)):
        for path in (run_dir / "logs" / stage.name, *(run_dir / output for output in stage.outputs)):
            remove(path)
    else:
        # What is there goes on to count, but for what a killed task had not finished.
        _remove_unfinished(run_dir, stage)
    write_atomically(started, expected)


def _remove_unfinished(run_dir: Path, stage: Stage) -> None:
    """Remove the temporary files of a stage of which no task runs."""
    for output in stage.outputs:
        for folder, _, _ in os.walk(run_dir / output):
            remove_leftovers(Path(folder), alone=True)


def finish(run_dir: Path, stage: Stage, expected: str, seconds: float) -> State:
    """Record a stage as done, without what tasks that were killed and given to others left unfinished."""
    _remove_unfinished(run_dir, stage)
    counts: Counter[str] = Counter()
    for path in sorted((run_dir / "logs" / stage.name / "counts").glob("*.json")):
        counts.update(orjson.loads(path.read_bytes()))
    record = {
        "name": stage.name,
        "fingerprint": expected,
        "depends": stage.depends,
        "outputs": stage.outputs,
        "tasks": stage.tasks,
        "seconds": round(seconds, 3),
        "counts": dict(counts),
        "files": {o: _count_files(run_dir / o) for o in stage.outputs if Path(o).parts[0] not in HANDED_ON},
    }
    write_atomically(
        run_dir / "stages" / f"{stage.name}.json", orjson.dumps(record, option=orjson.OPT_INDENT_2)
    )
    return State(expected, True, dict(counts), seconds)


def remove(path: Path) -> None:
    """Remove a file or folder where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class StageStep(PipelineStep):
    """A stage as a datatrove step: rank r works on shard r."""

    type = "arriero"

    def __init__(self, name: str, function: StageFunction, run_dir: Path, config: DataRun) -> None:
        super().__init__()
        self.name, self.function, self.run_dir, self.config = name, function, run_dir, config

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Work on a shard and leave its counts in the stage's log folder."""
        with working(self.run_dir):
            counts = {
                k: v
                for k, v in (self.function(self.run_dir, rank, self.config) or {}).items()
                if isinstance(v, int)
            }
        write_atomically(
            self.run_dir / "logs" / self.name / "counts" / f"{rank:05d}.json", orjson.dumps(counts)
        )
        return ()


@contextlib.contextmanager
def working(run_dir: Path):  # type: ignore[no-untyped-def]
    """Hold a shared lock while a task writes, so that a rerun after a kill waits for tasks still running."""
    with (run_dir / ".tasks.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


_watching = False


def die_with(process: int) -> None:
    """End this worker when the process that drives it is gone: a killed run must leave nothing that still writes."""
    global _watching
    if _watching:
        return
    _watching = True

    def watch() -> None:
        while True:
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                os._exit(1)
            time.sleep(0.2)

    threading.Thread(target=watch, daemon=True).start()
