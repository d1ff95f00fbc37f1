"""Weights to start from (`model.init_from`): of another run, one of its checkpoints, or a Hugging Face model."""

from __future__ import annotations

from pathlib import Path

from configs.schema.train import TrainRun
from pretrain.checkpoint import restore_model
from pretrain.checkpoint.restore import HasWeights
from pretrain.distributed import together
from pretrain.init_check import check_init_from, is_run_or_checkpoint


def start_from(config: TrainRun, engine: HasWeights) -> None:
    """Fill the weights from `model.init_from`, where it is set: a run, one of its checkpoints, or a Hugging Face model.

    Raises:
        ConfigError: nothing of these is there, or it is another model.
    """
    if config.model.init_from is None:
        return
    source = Path(config.model.init_from)
    together(lambda: check_init_from(config.model, source))
    if is_run_or_checkpoint(source):
        restore_model(engine, source)
    else:
        from pretrain.import_hf import HfWeights

        together(lambda: HfWeights(source).fill(engine.state_dict()))
