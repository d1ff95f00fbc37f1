"""What the stages of a run are built from."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs import edge
from configs.schema.pipeline import ClassifierConfig, DataRun, RecipeConfig
from data_pipeline import fingerprint, policy
from data_pipeline.annotate import cld2
from data_pipeline.classify import calibrate
from data_pipeline.document import read_shard
from data_pipeline.read import Source, Unit
from data_pipeline.read import units as planning
from data_pipeline.recipes import sources


@dataclasses.dataclass(frozen=True)
class Context:
    """A run before it starts: its configuration and its plan of units."""

    run_dir: Path
    """Directory of the run."""
    config: DataRun
    """Configuration."""
    plan: planning.Plan
    """Units of work and the fingerprint of the inputs."""
    sources: list[Source]
    """Sources with their recipes."""
    not_run: list[str] = dataclasses.field(default_factory=list)
    """What does not run because it has no model or list: `NAME: REASON` each, filled while the stages are built."""
    reduced: list[str] = dataclasses.field(default_factory=list)
    """What runs without its model or list, and so judges less: in the same form."""

    @property
    def shards(self) -> int:
        """Document shards, one a unit."""
        return len(self.plan.units)

    @property
    def recipes(self) -> dict[str, Any]:
        """Recipes by source as plain data, as far as reading depends on them: without what decides later."""
        return {s.name: edge.to_dict(s.recipe) | {"filter": None, "one_per_url": None} for s in self.sources}

    @property
    def filters(self) -> dict[str, Any]:
        """Policies by source as plain data."""
        return {s.name: edge.to_dict(s.recipe.filter) for s in self.sources}


def recipe_of(run_dir: Path, shard: int, config: DataRun) -> tuple[Unit, RecipeConfig]:
    """The unit of a shard and the recipe of its source."""
    unit = planning.load(run_dir / "units.json")[shard]
    return unit, next(s.recipe for s in sources(config) if s.name == unit.source)


def model_path(run_dir: Path, config: ClassifierConfig, name: str, labelled: bool = False) -> Path | None:
    """The model that scores: a given one, the one that this run trains, or none."""
    if config.model is not None:
        return Path(config.model)
    return run_dir / "models" / f"{name}.bin" if config.train is not None or labelled else None


def language_config(config: DataRun) -> ClassifierConfig:
    """The classifier of languages that this Python can run: CLD2 gives way to training, and without its package to none.

    Where the package is missing, a model is trained on what the environment holds, if that can be read.
    """
    chosen = config.languages
    if chosen.model != cld2.NAME or (chosen.train is None and cld2.available()):
        return chosen
    offline = importlib.util.find_spec("babel") is not None
    return dataclasses.replace(chosen, model=None, train=chosen.train or ("offline" if offline else None))


def given_files(classifier: ClassifierConfig, key: str) -> list[str]:
    """Content hashes of the files that a classifier is made from."""
    if classifier.model == cld2.NAME:
        return []
    models = [] if classifier.model is None else [classifier.model]
    if models and (beside := calibrate.path_of(Path(models[0]))).is_file():
        models.append(str(beside))
    rows = [] if classifier.train in (None, "offline") else [classifier.train]
    return [*fingerprint.of_paths(rows, f"{key}.train"), *fingerprint.of_paths(models, f"{key}.model")]


def with_languages(run_dir: Path, shard: int, columns: list[str] | None = None) -> pa.Table:
    """A document shard whose `language` is the stated one, or else the detected one."""
    documents = read_shard(run_dir, shard, columns)
    found = policy.languages(run_dir, shard, documents)
    return documents.set_column(documents.schema.get_field_index("language"), "language", found)


def numbers(counts: dict[str, Any]) -> dict[str, int]:
    """The whole numbers among counts."""
    return {k: v for k, v in counts.items() if isinstance(v, int)}
