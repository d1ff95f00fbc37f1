"""Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") on sharded matrices.

`torch.optim.Muon` orthogonalises DTensors operation by operation, so the rounding of its bf16 matrix products
depends on how a matrix is sharded, and every rank does all the work. Here the momentum of a matrix is gathered once and
orthogonalised whole, each rank of the first mesh dimension takes its share of the matrices, and the results are
gathered: the same products in every layout, and work that shrinks with the number of ranks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

# Coefficients of the quintic iteration, chosen by Jordan et al. for the steepest slope at zero.
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Approximate U Vᵀ of each matrix [N, R, C] by Newton-Schulz iteration, in the tensor's own precision."""
    a, b, c = NS_COEFFICIENTS
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose update is orthogonalised; for matrices only.

    The learning rate of an R × C matrix is scaled by sqrt(max(1, R / C)), as in the reference implementation.

    Args:
        params: matrices, as tensors or DTensors of any placement.
        ns_dtype: precision of the orthogonalisation.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float,
        weight_decay: float,
        ns_dtype: torch.dtype,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.ns_dtype = ns_dtype
        self.found_inf: Tensor | None = None
        """0-dimensional, where the parameters are; None: every update is taken."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim != 2:
                    raise ValueError(f"Muon takes matrices, but a parameter has the shape {tuple(p.shape)}")
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update; parameters without gradient stay, and all where `found_inf` is 1."""
        for group in self.param_groups:
            # Matrices of one shape are orthogonalised in one batch: a block's are small, its siblings many.
            by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[tuple(p.shape)].append(p)
            for shape, params in by_shape.items():
                self._update(params, shape, group)

    def _update(self, params: list[Tensor], shape: tuple[int, ...], group: dict[str, Any]) -> None:
        momentum, lr = group["momentum"], group["lr"]
        scale = max(1.0, shape[0] / shape[1]) ** 0.5
        directions = []
        for p in params:
            assert p.grad is not None
            buffer = self.state[p]["momentum_buffer"]
            new = buffer.lerp(p.grad, 1 - momentum)
            direction = p.grad.lerp(new, momentum)
            self._take(buffer, new)
            whole = direction.full_tensor() if isinstance(direction, DTensor) else direction
            directions.append(whole.to(self.ns_dtype))
        updates = _orthogonalise_shared(directions, params[0])
        for p, whole in zip(params, updates, strict=True):
            update = whole.to(p.dtype)
            if isinstance(p, DTensor):
                update = distribute_tensor(update, p.device_mesh, p.placements, src_data_rank=None)
            self._take(p, (p * (1 - lr * group["weight_decay"])).add_(update, alpha=-lr * scale))

    def _take(self, old: Tensor, new: Tensor) -> None:
        if self.found_inf is None:
            old.copy_(new)
        else:
            mine, theirs = (t.to_local() if isinstance(t, DTensor) else t for t in (old, new))
            mine.copy_(torch.where(self.found_inf.bool(), mine, theirs))


def _orthogonalise_shared(directions: list[Tensor], like: Tensor) -> list[Tensor]:
    """Orthogonalise whole matrices of one shape that all ranks of `like`'s mesh hold, sharing the work."""
    size = like.device_mesh.size(0) if isinstance(like, DTensor) else 1
    if size == 1:
        return list(orthogonalise(torch.stack(directions)))
    assert isinstance(like, DTensor)
    rank, share = like.device_mesh.get_local_rank(0), -(-len(directions) // size)
    mine = directions[rank * share : (rank + 1) * share]
    results = torch.zeros(share, *directions[0].shape, dtype=directions[0].dtype, device=directions[0].device)
    if mine:
        results[: len(mine)] = orthogonalise(torch.stack(mine))
    gathered = [torch.empty_like(results) for _ in range(size)]
    dist.all_gather(gathered, results, group=like.device_mesh.get_group(0))
    return list(torch.cat(gathered)[: len(directions)])
