"""Precisions of training: what is computed in which, and linear layers in float8."""

from __future__ import annotations

import torch
from torch import nn

from pretrain import options

COMPUTE_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, of_torch) for name, of_torch in options.COMPUTE_DTYPES.items()
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
