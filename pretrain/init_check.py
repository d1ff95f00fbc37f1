"""Whether the weights that a run would start from are there and fit (`model.init_from`). Imports no torch: `arriero launch`
asks it before a job waits in a queue."""

from __future__ import annotations

import json
from pathlib import Path

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import ModelConfig, TrainRun
from pretrain.checkpoint_folders import parse_step
from pretrain.hf import FUNCTION_KEYS, from_hf_config
from pretrain.manifest import open_checkpoint
from pretrain.same_run import config_of


def is_run_or_checkpoint(source: Path) -> bool:
    """Whether a folder is a run directory or one of its checkpoints, by what it holds."""
    return parse_step(source.name) is not None or (source / "checkpoints").is_dir()


def check_init_from(model: ModelConfig, source: Path) -> None:
    """Refuse weights that are not there, or of a model that computes another function (`model.init_allow`: may differ).

    Raises:
        ConfigError: what the folder is not, or the keys that differ, with both values.
    """
    if not source.is_dir():
        raise ConfigError(
            f"`model.init_from` is {source}, and there is no such folder; expected a run directory, one of its "
            "checkpoints, or a folder with a Hugging Face config.json"
        )
    if not is_run_or_checkpoint(source) and not (source / "config.json").is_file():
        raise ConfigError(
            f"`model.init_from` is {source}, which is neither a run directory, nor a checkpoint (…/checkpoints/step-N), "
            "nor a folder with a Hugging Face config.json"
        )
    theirs = _model_of(source)
    if theirs is None:
        return
    if unknown := sorted(set(model.init_allow) - set(FUNCTION_KEYS)):
        raise ConfigError(f"`model.init_allow` names {unknown[0]}; it may name {', '.join(FUNCTION_KEYS)}")
    pairs = {key: (getattr(model, key), getattr(theirs, key)) for key in FUNCTION_KEYS}
    different = {k: v for k, v in pairs.items() if v[0] != v[1] and k not in model.init_allow}
    if different:
        listed = "; ".join(
            f"model.{key} is {ours}, there {there}" for key, (ours, there) in different.items()
        )
        raise ConfigError(
            f"`model.init_from` is {source}, whose model computes another function: {listed}. Set these keys to its values, "
            f"or allow the difference with model.init_allow=[{','.join(different)}]"
        )


def _model_of(source: Path) -> ModelConfig | None:
    """The model whose weights a run, a checkpoint or a Hugging Face folder holds; None where it is not recorded."""
    described = source / "config.json"
    if described.is_file() and not is_run_or_checkpoint(source):
        try:
            fields = json.loads(described.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{described} is not valid JSON: {error}") from None
        return from_hf_config(fields, source.resolve().name, str(described))[0]
    run_dir = source.parent.parent if parse_step(source.name) is not None else source
    if (run_dir / "config.yaml").is_file():
        return edge.read(run_dir / "config.yaml", TrainRun).model
    if (source / "manifest.json").is_file() and "config" in (state := open_checkpoint(source).state):
        return config_of(state, source).model
    return None
