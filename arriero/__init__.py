"""arriero as a library: what its commands do, as functions and classes of Python.

    import arriero

    text = arriero.extract_text("<html><body><p>…</p></body></html>")
    config = arriero.load_config("train", "model=debug", "data.path=data/web/packed", "run.dir=runs/a")
    arriero.train(config)

Names are imported when they are first used, so `import arriero` loads neither torch nor what the data pipeline needs.
`help(arriero.NAME)` explains each. Everything that is not listed in `__all__` may change without notice.
"""

from __future__ import annotations

import importlib
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

runpy.run_path(str(Path(__file__).parent.parent / "configs" / "own_path.py"))  # before `configs` is imported

if TYPE_CHECKING:  # for editors and type checkers; a test compares it with `_HOMES`
    from arriero.configuration import load_config, model_config
    from arriero.documents import extract_text, run_data, signals
    from arriero.models import TrainedModel, generate, load_checkpoint, load_tokenizer, train
    from configs.fields import ConfigError
    from configs.schema.pipeline import DataRun
    from configs.schema.train import ModelConfig, TrainRun
    from data_pipeline.packed import MixtureError, PackedDataset, PackedError
    from pretrain.checkpoint import CheckpointError
    from pretrain.data import PlanError
    from pretrain.model.init import init_weights
    from pretrain.model.llama import Llama
    from pretrain.trainer import TrainingStopped

# Module → the names that are imported from it.
_HOMES = {
    "arriero.configuration": ("load_config", "model_config"),
    "arriero.documents": ("extract_text", "run_data", "signals"),
    "arriero.models": ("TrainedModel", "generate", "load_checkpoint", "load_tokenizer", "train"),
    "configs.fields": ("ConfigError",),
    "configs.schema.pipeline": ("DataRun",),
    "configs.schema.train": ("ModelConfig", "TrainRun"),
    "data_pipeline.packed": ("MixtureError", "PackedDataset", "PackedError"),
    "pretrain.checkpoint": ("CheckpointError",),
    "pretrain.data": ("PlanError",),
    "pretrain.model.init": ("init_weights",),
    "pretrain.model.llama": ("Llama",),
    "pretrain.trainer": ("TrainingStopped",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataRun",
    "Llama",
    "MixtureError",
    "ModelConfig",
    "PackedDataset",
    "PackedError",
    "PlanError",
    "TrainRun",
    "TrainedModel",
    "TrainingStopped",
    "extract_text",
    "generate",
    "init_weights",
    "load_checkpoint",
    "load_config",
    "load_tokenizer",
    "model_config",
    "run_data",
    "signals",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'arriero' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
