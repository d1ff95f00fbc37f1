"""AdamW whose weights and moments are bf16: computed in fp32, stored by stochastic rounding.

Rounded to the nearest, an update below 1/256 of a weight is lost, and so is the slow part of a moving average. Rounded
up or down with the probability that makes the expectation right (Gupta et al. 2015, "Deep Learning with Limited
Numerical Precision", section 3), none is. The probabilities come from a hash of (seed, parameter name, row, column,
update), so that every layout, and a run that resumes, rounds alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pretrain.model.init import local_indices

# Elements updated at a time: their fp32 copies and hashes take about 50 bytes each.
_CHUNK = 1 << 22


class StochasticAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019, algorithm 2) on bf16 parameters, tensors or DTensors of any placement.

    State as that of `torch.optim.AdamW`, the moments in bf16. Set `found_inf` (0-dimensional, 0 or 1, where the parameters
    are) to leave all as it is where it is 1.

    Args:
        groups: `params` and `weight_decay`, as of any torch optimizer.
        names: name of each parameter, which its random numbers come from.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        names: dict[nn.Parameter, str],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        seed: int,
    ):
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})
        self.found_inf: Tensor | None = None
        self._keys = {p: _signed(f"{seed}\0{name}") for p, name in names.items()}
        # Made once: the host waits for each copy to the device.
        self._places = {p: (_places(p, 0), _places(p, 1)) for p in names}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update; parameters without gradient stay."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group)

    def _update(self, p: nn.Parameter, group: dict[str, Any]) -> None:
        state = self.state[p]
        skip = None if self.found_inf is None else self.found_inf.bool()
        state["step"] += 1 if skip is None else ~skip
        # Of the update that is computed, whether it is taken or not.
        count = state["step"] if skip is None else state["step"] + skip
        rows, columns = self._places[p]
        key = _mix(count.to(torch.int32) ^ self._keys[p])
        assert p.grad is not None
        weight, grad, mean, square = (
            _local(t).view(len(rows), len(columns))
            for t in (p, p.grad, state["exp_avg"], state["exp_avg_sq"])
        )
        beta1, beta2 = group["betas"]
        scale = 1 / (1 - beta1**count)
        root = (1 - beta2**count).sqrt()
        step = max(1, _CHUNK // max(1, len(columns)))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            g = grad[part].float()
            m = mean[part].float().lerp_(g, 1 - beta1)
            v = square[part].float().mul_(beta2).addcmul_(g, g, value=1 - beta2)
            w = weight[part].float().mul_(1 - group["lr"] * group["weight_decay"])
            w -= group["lr"] * scale * m / (v.sqrt().div_(root).add_(group["eps"]))
            noise = _mix(_mix(rows[part, None] ^ key) + columns)
            new = (stochastic(w, noise), stochastic(m, _mix(noise)), stochastic(v, noise >> 16))
            for old, value in zip((weight, mean, square), new, strict=True):
                old[part] = value if skip is None else torch.where(skip, old[part], value)


def _places(p: nn.Parameter, dim: int) -> Tensor:
    """int32 indices of this rank's shard along a dimension; a vector has one column."""
    indices = local_indices(p, dim) if dim < p.ndim else torch.zeros(1)
    return indices.to(p.device, torch.int32)


def stochastic(x: Tensor, noise: Tensor) -> Tensor:
    """fp32 as bf16, rounded away from zero with the probability of the part that is cut off.

    Args:
        noise: int32 of x's shape, of which the lower 16 bits are used.
    """
    bits = x.view(torch.int32)
    rounded = (bits + (noise & 0xFFFF)) & -0x10000
    # Infinities and NaN keep their bits: a carry could make one of them a number.
    return torch.where(x.isfinite(), rounded.view(torch.float32), x).bfloat16()


def _mix(x: Tensor) -> Tensor:
    """The finaliser of MurmurHash3 (Appleby 2011) on int32, in which every bit depends on all."""
    x = (x ^ (x >> 16 & 0xFFFF)) * -2048144789
    x = (x ^ (x >> 13 & 0x7FFFF)) * -1028477387
    return x ^ (x >> 16 & 0xFFFF)


def _signed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little", signed=True)


def _local(t: Tensor) -> Tensor:
    return t.to_local() if isinstance(t, DTensor) else t
