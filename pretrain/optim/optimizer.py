"""The optimizer of a run: AdamW for all parameters, or Muon for the blocks' matrices and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from configs.schema.train import OptimConfig
from pretrain.optim.adamw_bf16 import StochasticAdamW
from pretrain.optim.muon import Muon

NS_DTYPES = {
    "bf16": torch.bfloat16,
    "bf16_pure": torch.bfloat16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}


class Optimizer:
    """One or more torch optimizers over the parameters of a rank, keyed by parameter name in checkpoints.

    Weight decay is decoupled (Loshchilov & Hutter 2019) and applies to the kinds of parameters in `optim.decay`. All state
    exists from the start, so that a checkpoint of any step, the first included, has the same entries.

    Args:
        dtype: `train.dtype`.
        seed: of stochastic rounding, where parameters are bf16.
    """

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig, dtype: str, seed: int = 0
    ):
        self.named = [(name, p) for name, p in parameters if p.requires_grad]
        self.in_backward = config.in_backward
        use_muon = config.name == "muon"
        muon = [(name, p) for name, p in self.named if use_muon and is_block_matrix(name, p)]
        rest = [(name, p) for name, p in self.named if not (use_muon and is_block_matrix(name, p))]
        self.parts: list[tuple[torch.optim.Optimizer, float]] = []
        if rest:
            # In the backward pass each parameter is updated alone.
            for some in [[one] for one in rest] if config.in_backward else [rest]:
                self.parts.append((_adamw(some, config, dtype, seed), config.lr))
        if muon:
            decay = config.weight_decay if "matrices" in config.decay else 0.0
            matrices = [p for _, p in muon]
            part = Muon(matrices, config.muon_lr, config.muon_momentum, decay, NS_DTYPES[dtype])
            self.parts.append((part, config.muon_lr))
        self._part_of = {p: part for part, _ in self.parts for g in part.param_groups for p in g["params"]}

    def begin(self, lr_factor: float) -> None:
        """Before the backward pass: what `update` needs to know, `lr_factor` × the peak learning rates."""
        for optimizer, peak in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = peak * lr_factor

    def update(self, p: nn.Parameter) -> None:
        """Update one parameter, whose gradient is there, during the backward pass."""
        self._part_of[p].step()

    def step(self, lr_factor: float, skip: Tensor | None = None) -> None:
        """Update the parameters with `lr_factor` × the peak learning rates; nothing where they were updated in the
        backward pass.

        Args:
            skip: scalar on the device; where it is true (not 0), weights, moments and step count stay as they are, whatever
                the gradients hold. The host does not wait to learn which.
        """
        if self.in_backward:
            return
        self.begin(lr_factor)
        flags: dict[torch.device, Tensor] = {}
        for optimizer, _ in self.parts:
            device = optimizer.param_groups[0]["params"][0].device
            if skip is not None and device not in flags:
                # torch would copy it by itself, without waiting for the copy: parameters in the host's memory would be
                # updated before the verdict is there.
                flags[device] = skip.detach().to(device, torch.float32)
            # What torch's gradient scaler sets, and its fused kernels look at.
            optimizer.found_inf = flags.get(device)  # type: ignore[attr-defined]
            optimizer.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for optimizer, _ in self.parts:
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """State tensors themselves (not copies), keyed `PARAMETER.STATE`, such as `norm.weight.exp_avg`."""
        return {
            f"{name}.{key}": value
            for name, p in self.named
            for key, value in self._part_of[p].state[p].items()
        }


def is_block_matrix(name: str, p: Tensor) -> bool:
    """Whether a parameter is a matrix of a transformer block: those are Muon's."""
    return p.ndim == 2 and "layers." in name


def kind(name: str, p: Tensor) -> str:
    """What a parameter is, in the words of `optim.decay`."""
    if p.ndim < 2:
        return "norms"
    if "tok_embeddings" in name:
        return "embeddings"
    return "matrices" if "layers." in name else "head"


def _adamw(
    named: list[tuple[str, nn.Parameter]], config: OptimConfig, dtype: str, seed: int
) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {
            "params": [p for name, p in named if kind(name, p) in config.decay],
            "weight_decay": config.weight_decay,
        },
        {"params": [p for name, p in named if kind(name, p) not in config.decay], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    made: torch.optim.Optimizer
    if dtype == "bf16_pure":
        names = {p: name for name, p in named}
        made = StochasticAdamW(groups, names, config.lr, config.betas, config.eps, seed)
    else:
        made = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
    # The state that AdamW would make at its first step, made now.
    for _, p in named:
        made.state[p] = {
            "step": torch.zeros((), dtype=torch.float32, device=p.device),
            "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
        }
    return made
