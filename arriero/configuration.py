"""Configurations: the groups, defaults and checks of the command line, as frozen dataclasses."""

from __future__ import annotations

import os
from typing import Any, Literal, overload

from configs import edge, options
from configs.schema.pipeline import DataRun
from configs.schema.train import ModelConfig, TrainRun


@overload
def load_config(
    verb: Literal["data"], *overrides: str, config_dir: str | os.PathLike[str] | None = None
) -> DataRun: ...
@overload
def load_config(
    verb: Literal["train"], *overrides: str, config_dir: str | os.PathLike[str] | None = None
) -> TrainRun: ...
def load_config(
    verb: Literal["data", "train"], *overrides: str, config_dir: str | os.PathLike[str] | None = None
) -> DataRun | TrainRun:
    """Return the configuration that `arriero VERB OVERRIDES…` would run with.

    `dataclasses.replace` makes a changed copy, without the checks; a further override is checked.

    Args:
        verb: `data` for `run_data`, `train` for `train`.
        overrides: `key=value` and `group=option`, as on the command line, one a string: `"model=debug"`.
        config_dir: folder of `GROUP/OPTION.yaml` that is searched before `./configs` and the built-in groups.

    Raises:
        ConfigError: an unknown key or option (with the nearest one), a missing value, or one
            of the wrong type or out of bounds.
    """
    with options.searching([] if config_dir is None else [os.fspath(config_dir)]):
        if verb == "data":
            from data_pipeline.recipes import with_recipes

            return edge.load("data", DataRun, overrides, with_recipes)
        if verb == "train":
            from pretrain.sizing.fill import in_process

            return edge.load("train", TrainRun, overrides, in_process)
    raise edge.ConfigError(f"no configuration is loaded for `{verb}`; expected `data` or `train`")


def model_config(name: str, **changes: Any) -> ModelConfig:
    """Return a preset of `configs/model/` (`debug`, `160m`, `8b`, …), with fields changed.

    Example: `model_config("debug", n_layers=2)`.

    Raises:
        ConfigError: there is no such preset or field, or a value does not fit it.
    """
    preset = edge.to_dict(edge.load_group("model", name, ModelConfig))
    return edge.build(ModelConfig, preset | changes, "model")
