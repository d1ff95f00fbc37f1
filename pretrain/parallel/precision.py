"""Precisions of training: what is computed in which, and linear layers in float8."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Shard

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


def use_float8(part: nn.Module, tp: int, least: int) -> None:
    """Give a part's blocks linear layers whose three products are computed in float8, in place; before it is spread.

    Both sides of a product are scaled when it is computed, each row (on the right, each column) by its own largest value,
    E4M3 throughout (Micikevicius et al. 2022, "FP8 formats for deep learning"): no outlier takes bits from other rows, and
    no scale needs to know of another rank's.

    Args:
        tp: tensor-parallel ranks.
        least: layers for which `worth` is less stay as they are.
    """
    from torchao.float8 import Float8LinearConfig

    recipe, layer = Float8LinearConfig.from_recipe_name("rowwise"), _float8_linear()
    for name, module in list(part.named_modules()):
        if name.startswith("layers.") and isinstance(module, nn.Linear) and worth(name, module, tp) >= least:
            parent, _, own = name.rpartition(".")
            setattr(part.get_submodule(parent), own, layer.from_float(module, recipe))


def worth(name: str, module: nn.Linear, tp: int) -> float:
    """K · N / (K + N) of a layer with K inputs and N outputs on a rank: what float8 saves ÷ what it costs, up to a factor.

    Of M tokens, three products save half of 2 M K N / F seconds each; scaling reads and writes 3 bytes for each of M (K + N)
    elements, twice. With F = 990 TFLOP/s and 4.8 TB/s of an H200 the two are equal at 410, with an H100's 3.35 TB/s at 590.
    """
    split = {"in_features": 1, "out_features": 1}
    split["in_features" if name.endswith((".wo", ".w2")) else "out_features"] = tp
    k, n = (getattr(module, side) / ranks for side, ranks in split.items())
    return k * n / (k + n)


@cache
def _float8_linear() -> Any:
    """torchao's layer; under tensor parallelism it computes this rank's share of the product from plain tensors.

    Scales of distributed tensors would be agreed on by all ranks of a group: a collective, and a wait for it, for each scale
    of a product. Shares of a product have no need of it, because each is computed with scales of its own.
    """
    from torchao.float8.float8_linear import Float8Linear, matmul_with_hp_or_float8_args

    class Layer(Float8Linear):
        def forward(self, input: Tensor) -> Tensor:
            weight = self.weight
            if not isinstance(weight, DTensor):
                return super().forward(input)
            assert isinstance(input, DTensor)
            by_columns, last = weight.placements[0] == Shard(0), Shard(input.ndim - 1)
            share: Tensor = matmul_with_hp_or_float8_args.apply(
                input.to_local(grad_placements=[Partial() if by_columns else last]),
                weight.to_local(grad_placements=weight.placements).t(),
                self.linear_mm_config,
                self.config,
            )
            placement = last if by_columns else Partial()
            return DTensor.from_local(share, weight.device_mesh, [placement], run_check=False)

    return Layer
