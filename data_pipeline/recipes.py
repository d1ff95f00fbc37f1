"""The sources of a run, each with its recipe.

This module imports little: the verb `data` uses it before it loads what its stages need.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from configs import edge
from configs.schema.pipeline import DataRun, FilterConfig, RecipeConfig, SourceConfig
from data_pipeline.read import Source


def sources(config: DataRun) -> list[Source]:
    """Sources of a run: `sources`, or the one that `recipe` and `input` make.

    Raises:
        ConfigError: neither or both are given, a recipe does not exist, or two sources have one name.
    """
    if config.sources and config.input is not None:
        raise edge.ConfigError("give `input` with `recipe`, or `sources`, not both")
    if not config.sources:
        if config.input is None:
            raise edge.ConfigError(
                "no input: write input=FILE|DIR|GLOB, or sources=[{name: …, recipe: …, input: …}]"
            )
        return [Source(config.recipe.name, config.recipe, config.input)]
    names = [s.name for s in config.sources]
    if len(set(names)) < len(names):
        raise edge.ConfigError(f"sources need different names, but they are {', '.join(names)}")
    return [Source(s.name, _recipe(s), s.input) for s in config.sources]


def _recipe(source: SourceConfig) -> RecipeConfig:
    """The recipe of a source, with what the source says itself in the place of what the recipe says."""
    try:
        recipe = source.recipe
        if isinstance(recipe, str):
            recipe = edge.load_group("recipe", recipe, RecipeConfig)
        policy_config = source.filter
        if isinstance(policy_config, str):
            policy_config = edge.load_group("filter", policy_config, FilterConfig)
    except edge.ConfigError as error:
        raise edge.ConfigError(f"source `{source.name}`: {error}") from None
    keys = ("max_source_bytes", "text_key", "id_key", "url_key", "date_key", "sites")
    given = {key: value for key in keys if (value := getattr(source, key)) is not None}
    recipe = dataclasses.replace(recipe, **given)
    return recipe if policy_config is None else dataclasses.replace(recipe, filter=policy_config)


def with_recipes(data: dict[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    """The configuration with the whole recipe of each source in the place of its name.

    So the stages, the workers and later verbs need no search for files: `config.yaml` of the run holds what was found.

    Raises:
        ConfigError: a recipe does not exist, or an override changes one that no source has.
    """
    config = edge.build(DataRun, data)
    lost = [text for key, text in chosen.items() if key.split(".")[0] in ("recipe", "filter")]
    if config.sources and lost:
        raise edge.ConfigError(
            f"`{lost[0]}` changes the recipe of `input`, but `sources` are given, and each names its own: write it there, "
            f"as in sources=[{{name: {config.sources[0].name}, recipe: NAME, filter: NAME, input: …}}], with "
            "options of your own in configs/recipe or configs/filter"
        )
    filled = [SourceConfig(s.name, _recipe(s), s.input) for s in config.sources]
    return data | {"sources": [edge.to_dict(s) for s in filled]}
