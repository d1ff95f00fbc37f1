"""Precisions of training: what is computed in which, and linear layers in float8."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import nn

from configs.edge import ConfigError
from configs.schema.train import ModelConfig, OptimConfig, ParallelConfig, TrainConfig

COMPUTE_DTYPES = {
    "bf16": torch.bfloat16,
    "bf16_pure": torch.bfloat16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}
"""Of hidden states and products."""
MASTER_DTYPES = {
    "bf16": torch.float32,
    "bf16_pure": torch.bfloat16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}
"""Of weights, gradients and optimizer states."""
REDUCE_DTYPES = MASTER_DTYPES | {"bf16_pure": torch.float32}
"""Of sums of gradients over ranks and micro-batches."""
_UNIT = 16  # Sizes that float8 products take are multiples of it.


def check(train: TrainConfig, parallel: ParallelConfig, optim: OptimConfig, model: ModelConfig) -> None:
    """Raise ConfigError where a precision cannot be had with the other options."""
    if train.dtype == "bf16_pure" and optim.name != "adamw":
        raise ConfigError(
            f"train.dtype=bf16_pure rounds AdamW's updates stochastically, but optim.name is {optim.name}; set "
            "optim=adamw or train.dtype=bf16"
        )
    if not train.float8:
        return
    if COMPUTE_DTYPES[train.dtype] != torch.bfloat16:
        raise ConfigError(
            f"`train.float8` computes linear layers from bf16 in float8, but train.dtype is {train.dtype}; set "
            "train.dtype=bf16 or train.float8=false"
        )
    if find_spec("torchao") is None:
        raise ConfigError(
            "`train.float8` needs torchao, which is not installed; pip install 'arriero[float8]', or set "
            "train.float8=false"
        )
    if parallel.pp > 1 and parallel.pp_schedule in ("zbv", "dualpipev"):
        raise ConfigError(
            f"parallel.pp_schedule={parallel.pp_schedule} computes gradients of weights by itself, not in float8; set "
            "parallel.pp_schedule=interleaved or train.float8=false"
        )
    for name, size in (("dim", model.dim), ("ffn_dim", model.ffn_dim)):
        if size % (_UNIT * parallel.tp):
            raise ConfigError(
                f"float8 products need sizes that are multiples of {_UNIT} on each rank, but `model.{name}` is {size} over "
                f"parallel.tp={parallel.tp}; change it, or set train.float8=false"
            )
    widths = model.dim // model.n_heads * model.n_kv_heads
    if widths % (_UNIT * parallel.tp):
        raise ConfigError(
            f"float8 products need sizes that are multiples of {_UNIT} on each rank, but keys are {widths} wide over "
            f"parallel.tp={parallel.tp}; change model.n_kv_heads, or set train.float8=false"
        )


def use_float8(part: nn.Module) -> None:
    """Give a part's blocks linear layers whose three products are computed in float8, in place; before it is spread.

    Each tensor is scaled by its own largest value when it is used (Micikevicius et al. 2022, "FP8 formats for deep
    learning"): E4M3 for inputs and weights, E5M2 for gradients.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    recipe = Float8LinearConfig.from_recipe_name("tensorwise")
    convert_to_float8_training(
        part, config=recipe, module_filter_fn=lambda _, name: name.startswith("layers.")
    )
