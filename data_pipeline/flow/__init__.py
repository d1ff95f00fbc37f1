"""The stages of `arriero data`, in order: what each runs, what it depends on, what it writes.

A stage names everything that its output depends on, so that changing a threshold repeats the decisions and not the
reading, and changing a reader repeats everything.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from configs import edge
from configs.schema.pipeline import DataRun
from data_pipeline.recipes import sources

if TYPE_CHECKING:
    from data_pipeline.read.units import Plan
    from data_pipeline.stage import Stage

CORE = ("document.py",)
"""What every stage reads its input with."""


def build(run_dir: Path, config: DataRun, plan: Plan) -> tuple[list[Stage], list[str], list[str]]:
    """The stages of a run, what does not run because it has no model, and what runs in part: `NAME: REASON` each.

    Raises:
        ConfigError: `stop_after` names no stage.
    """
    # Imported here because they load Arrow and datatrove, and verbs that look at a run need neither.
    from data_pipeline.flow import (
        annotating,
        decontaminating,
        deduplicating,
        finishing,
        own,
        privacy,
        reading,
    )
    from data_pipeline.flow.context import Context

    context = Context(run_dir, config, plan, sources(config))
    stages: list[Stage] = []
    for part in (reading, annotating, own, privacy, decontaminating, deduplicating, finishing):
        for stage in part.stages(context):
            known = {s.name for s in stages}
            depends = tuple(d for d in dict.fromkeys(stage.depends) if d in known)
            stages.append(dataclasses.replace(stage, depends=depends, code=(*CORE, *stage.code)))
    return _until(stages, config.stop_after), context.not_run, context.reduced


def _until(stages: list[Stage], last: str | None) -> list[Stage]:
    if last is None:
        return stages
    names = [s.name for s in stages]
    if last not in names:
        close = difflib.get_close_matches(last, names, n=1)
        hint = f"did you mean `{close[0]}`? " if close else ""
        raise edge.ConfigError(f"`stop_after`: there is no stage `{last}`; {hint}stages: {', '.join(names)}")
    return stages[: names.index(last) + 1]


def owned(run_dir: Path) -> Iterator[Path]:
    """Folders that decide what later stages see by being there at all."""
    for kind in ("decisions", "edits", "minhash"):
        yield from sorted((run_dir / kind).glob("*"))
    yield run_dir / "signals" / "minhash"
    yield run_dir / "index"
    yield run_dir / "sketches"
