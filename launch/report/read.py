"""What a run and its data left behind, read once, with a reason for every part that is missing. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from configs.edge import ConfigError
from pretrain.rundir import dataset_of, is_current

Row = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A run directory and the data directory behind it, as plain data.

    `missing` says in one sentence, by part (`metrics`, `funnel`, …), why a part cannot be shown.
    """

    run_dir: Path | None
    """The run; None where the page is about a data run alone."""
    config: Row
    metrics: list[Row]
    """One row a step, the last one written where a step was computed again; sorted by step."""
    ledger: list[Row]
    evals: list[Row]
    samples: list[Row]
    compression: Row
    environment: list[Row]
    """What each start of the run ran with; of the data run where the page is about data alone."""
    profiles: list[tuple[str, str]]
    """Name and summary of each traced step."""
    packed: Path | None
    manifest: Row
    data_dir: Path | None
    funnel: Row
    data_config: Row
    missing: dict[str, str] = field(default_factory=dict)


def read(run_dir: Path | None, packed: Path | None) -> Record:
    """Read everything the report shows.

    Args:
        run_dir: the run directory; None: the page is about data alone.
        packed: packed dataset, or the directory of a data run; None: `data.path` of the run's config.

    Raises:
        ConfigError: `run_dir` is not a directory, there is no dataset and no data run at `packed`, or neither is given.
    """
    from data_pipeline.funnel import FORMAT_VERSION  # imports Arrow, which a page without data needs not

    missing: dict[str, str] = {}
    config: Row = {}
    if packed is not None and (packed / "funnel.json").exists():
        packed = packed / "packed"
    if packed is not None and not any(
        path.exists() for path in (packed / "manifest.json", packed.parent / "funnel.json")
    ):
        raise ConfigError(
            f"`data.path={packed}`: there is no packed dataset (manifest.json) and no data run (funnel.json)"
        )
    if run_dir is None:
        if packed is None:
            raise ConfigError("give run.dir=DIR of a run, or data.path=DIR of a data run")
        for part in ("config", "metrics", "ledger", "evals", "samples"):
            missing[part] = "The page is about data alone; give run.dir=DIR for a run."
    else:
        if not run_dir.is_dir():
            raise ConfigError(f"`run.dir={run_dir}` is not a directory; give the directory of a run")
        config = _yaml(run_dir / "config.yaml", "config", missing)
        if packed is None and isinstance(config.get("data"), dict) and config["data"].get("path"):
            recorded = (config.get("run") or {}).get("dir") or str(run_dir)
            packed = dataset_of(run_dir, str(recorded), str(config["data"]["path"]))
    manifest: Row = {}
    funnel: Row = {}
    data_config: Row = {}
    data_dir: Path | None = None
    if packed is None:
        for part in ("manifest", "funnel", "data_config"):
            missing[part] = "The run's configuration names no packed dataset; give data.path=DIR/packed."
    else:
        manifest = _json(packed / "manifest.json", "manifest", missing)
        data_dir = packed.resolve().parent
        funnel = _json(data_dir / "funnel.json", "funnel", missing)
        if funnel and funnel.get("format_version") != FORMAT_VERSION:
            missing["funnel"] = (
                f"{data_dir / 'funnel.json'} has format version {funnel.get('format_version', 1)}, and this arriero reads "
                f"{FORMAT_VERSION}: run `arriero data` again with the same configuration, which rewrites it."
            )
            funnel = {}
        data_config = _yaml(data_dir / "config.yaml", "data_config", missing)
    if run_dir is None:
        assert data_dir is not None
        began = _lines(data_dir / "environment.jsonl", "environment", missing)
        return Record(
            *(None, {}, [], [], [], [], {}, began, []),
            *(packed, manifest, data_dir, funnel, data_config, missing),
        )
    rows = _lines(run_dir / "metrics.jsonl", "metrics", missing)
    if rows and not all(map(is_current, rows)):
        rows = [row for row in rows if is_current(row)]
        missing["metrics"] = (
            f"{run_dir / 'metrics.jsonl'} has rows of an earlier version of arriero, whose names of fields carried no "
            "units; they are left out."
        )
    by_step = {int(r["step"]): r for r in rows if is_step(r.get("step"))}
    compression = {}
    if (run_dir / "compression.json").exists():
        compression = _json(run_dir / "compression.json", "compression", missing)
    return Record(
        run_dir=run_dir,
        config=config,
        metrics=[by_step[step] for step in sorted(by_step)],
        ledger=sorted(_lines(run_dir / "ledger.jsonl", "ledger", missing), key=_time),
        evals=_lines(run_dir / "eval.jsonl", "evals", missing),
        samples=_lines(run_dir / "samples.jsonl", "samples", missing),
        compression=compression,
        environment=_lines(run_dir / "environment.jsonl", "environment", missing),
        profiles=[
            (path.parent.name, path.read_text(encoding="utf-8", errors="replace"))
            for path in sorted(run_dir.glob("profiles/*/summary*.txt"))
        ],
        packed=packed,
        manifest=manifest,
        data_dir=data_dir,
        funnel=funnel,
        data_config=data_config,
        missing=missing,
    )


_WHY = {
    "config": "the run has not started, or it was made by another tool",
    "metrics": "no step has been finished",
    "ledger": "nothing has been recorded about this run",
    "evals": "no held-out evaluation has been made: run `arriero evaluate`, or set train.eval_every",
    "samples": "no text has been sampled: run `arriero generate`",
    "manifest": "the packed dataset is not where the run's configuration says; give data.path=DIR/packed",
    "funnel": "the packed dataset was moved away from the data run that made it, or that run has not ended",
    "environment": "it was made by an earlier version, or by another tool",
    "data_config": "the packed dataset was moved away from the data run that made it",
}


def _time(row: Row) -> float:
    time = row.get("time")
    return float(time) if time is not None and is_step(time) else 0.0


def is_step(value: object) -> bool:
    """Whether a value can be the number of a step, or a time: a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _load(path: Path, part: str, missing: dict[str, str], parse: Callable[[str], Any]) -> Row:
    if not path.exists():
        missing[part] = f"{path} does not exist: {_WHY[part]}."
        return {}
    try:
        data = parse(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError, OSError) as error:
        missing[part] = f"{path} cannot be read: {' '.join(str(error).split())}."
        return {}
    if not isinstance(data, dict):
        missing[part] = f"{path} holds {type(data).__name__}, but a mapping was expected."
        return {}
    return data


def _json(path: Path, part: str, missing: dict[str, str]) -> Row:
    return _load(path, part, missing, json.loads)


def _yaml(path: Path, part: str, missing: dict[str, str]) -> Row:
    return _load(path, part, missing, yaml.safe_load)


def _lines(path: Path, part: str, missing: dict[str, str]) -> list[Row]:
    """Objects of a JSONL file. A line that cannot be parsed (a write cut off by a crash) is counted in `missing`."""
    if not path.exists():
        missing[part] = f"{path} does not exist: {_WHY.get(part, 'nothing wrote it')}."
        return []
    rows, broken = [], 0
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                try:
                    row = json.loads(line)  # NaN and Infinity, which orjson refuses
                except ValueError:
                    broken += 1
                    continue
            if isinstance(row, dict):
                rows.append(row)
            else:
                broken += 1
    if broken:
        missing[part] = f"{broken} unreadable line(s) of {path} were left out."
    elif not rows:
        missing[part] = f"{path} is empty: {_WHY.get(part, 'nothing wrote it')}."
    return rows
