"""The optimizer of a run: AdamW for all parameters, or Muon for the blocks' matrices and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from configs.edge import ConfigError
from configs.schema.train import OptimConfig
from pretrain.optim.muon import Muon

NS_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}


def check(config: OptimConfig) -> None:
    """Raise ConfigError where a value makes no sense."""
    for name in ("lr", "muon_lr", "eps"):
        if getattr(config, name) <= 0:
            raise ConfigError(f"`optim.{name}` must be above 0, but it is {getattr(config, name)}")
    for name in ("weight_decay", "clip"):
        if getattr(config, name) < 0:
            raise ConfigError(f"`optim.{name}` must not be negative, but it is {getattr(config, name)}")
    if not all(0 <= beta < 1 for beta in (*config.betas, config.muon_momentum)):
        raise ConfigError("`optim.betas` and `optim.muon_momentum` must lie in [0, 1)")


class Optimizer:
    """One or two torch optimizers over the parameters of a rank, keyed by parameter name in checkpoints.

    Weight decay is decoupled (Loshchilov & Hutter 2019) and applies to matrices of the blocks and to an untied output
    head; norms and embeddings have none. All state exists from the start, so that a checkpoint of any step, the first
    included, has the same entries.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig, dtype: str):
        self.named = [(name, p) for name, p in parameters if p.requires_grad]
        use_muon = config.name == "muon"
        muon = [p for name, p in self.named if use_muon and is_block_matrix(name, p)]
        rest = [(name, p) for name, p in self.named if not (use_muon and is_block_matrix(name, p))]
        groups = [
            {"params": [p for name, p in rest if decays(name, p)], "weight_decay": config.weight_decay},
            {"params": [p for name, p in rest if not decays(name, p)], "weight_decay": 0.0},
        ]
        self.parts: list[tuple[torch.optim.Optimizer, float]] = []
        if rest:
            adamw = torch.optim.AdamW(
                [g for g in groups if g["params"]],
                lr=config.lr,
                betas=config.betas,
                eps=config.eps,
                fused=True,
            )
            _make_adamw_state(adamw)
            self.parts.append((adamw, config.lr))
        if muon:
            part = Muon(muon, config.muon_lr, config.muon_momentum, config.weight_decay, NS_DTYPES[dtype])
            self.parts.append((part, config.muon_lr))

    def step(self, lr_factor: float) -> None:
        """Update the parameters with `lr_factor` × the peak learning rates."""
        for optimizer, peak in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = peak * lr_factor
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
            for optimizer, _ in self.parts
            if p in optimizer.state
            for key, value in optimizer.state[p].items()
        }


def is_block_matrix(name: str, p: Tensor) -> bool:
    """Whether a parameter is a matrix of a transformer block: those are Muon's."""
    return p.ndim == 2 and "layers." in name


def decays(name: str, p: Tensor) -> bool:
    """Whether weight decay applies: matrices, but no embedding."""
    return p.ndim >= 2 and "tok_embeddings" not in name


def _make_adamw_state(optimizer: torch.optim.AdamW) -> None:
    """The state that AdamW would make at its first step, made now."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p] = {
                "step": torch.zeros((), dtype=torch.float32, device=p.device),
                "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
            }
