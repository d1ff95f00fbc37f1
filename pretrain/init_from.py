"""Weights to start from (`model.init_from`): of another run, one of its checkpoints, or a Hugging Face model."""

from __future__ import annotations

from pathlib import Path

from configs.edge import ConfigError
from configs.schema.train import ModelConfig, TrainRun
from pretrain.checkpoint import open_checkpoint, restore_model
from pretrain.checkpoint.restore import HasWeights
from pretrain.checkpoint_folders import parse_step
from pretrain.distributed import agreed, together
from pretrain.hf import FUNCTION_KEYS
from pretrain.same_run import config_of
from pretrain.weights import read_config


def start_from(config: TrainRun, engine: HasWeights) -> None:
    """Fill the weights from `model.init_from`, where it is set: a run, one of its checkpoints, or a Hugging Face model.

    Raises:
        ConfigError: nothing of these is there, or it is another model.
    """
    if config.model.init_from is None:
        return
    source = Path(config.model.init_from)
    together(lambda: check_init_from(config.model, source))
    if parse_step(source.name) is not None or (source / "checkpoints").is_dir():
        restore_model(engine, source)
    elif (source / "config.json").is_file():
        from pretrain.import_hf import HfWeights

        together(lambda: HfWeights(source).fill(engine.state_dict()))
    else:
        raise agreed(
            ConfigError(
                f"`model.init_from` is {source}, which is neither a run directory, nor a checkpoint (…/checkpoints/step-N), "
                "nor a folder with a Hugging Face config.json"
            )
        )


def check_init_from(model: ModelConfig, source: Path) -> None:
    """Refuse weights of a model that computes another function, unless `model.init_allow` lists what differs.

    Raises:
        ConfigError: the keys that differ, with both values.
    """
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
    if (source / "config.json").is_file() and not (source / "checkpoints").is_dir():
        from pretrain.import_hf import HfWeights

        return HfWeights(source).model
    run_dir = source.parent.parent if parse_step(source.name) is not None else source
    if (run_dir / "config.yaml").is_file():
        return read_config(run_dir).model
    if (source / "manifest.json").is_file() and "config" in (state := open_checkpoint(source).state):
        return config_of(state, source).model
    return None
