"""Backward passes in two halves: gradients of inputs first, those of weights when there is time (Qi et al. 2023,
"Zero Bubble Pipeline Parallelism", section 2).

Only the weight gradients of linear layers wait: they are nearly all of that half. Norms, the embedding and the head,
whose gradient is computed with the loss, have theirs in the first half. No product is computed twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule


class WeightGradients:
    """The weight gradients of one micro-batch in one stage."""

    def __init__(self) -> None:
        self.waiting = False
        """Whether a backward pass leaves them for later."""
        self._products: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, weight: Tensor, out_grad: Tensor, x: Tensor) -> None:
        """Leave one for later."""
        self._products.append((weight, out_grad, x))

    @torch.no_grad()
    def compute(self) -> None:
        """Compute those that wait, and add them to the parameters' gradients."""
        while self._products:
            weight, out_grad, x = self._products.pop()
            # FSDP of torch 2.15 wants gradients of bf16 weights in fp32.
            grad = _product(out_grad, x).to(getattr(weight, "grad_dtype", None) or weight.dtype)
            if weight.grad is None:
                weight.grad = grad
            else:
                weight.grad += grad


def _product(out_grad: Tensor, x: Tensor) -> Tensor:
    return out_grad.flatten(0, -2).mT @ x.flatten(0, -2)


class _Keep(torch.autograd.Function):
    """The input of a linear layer, kept for the gradient of its weight.

    It is kept before the product is computed: checkpointing, which computes again up to what was kept last, can leave
    out the last product of a block.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: _Pass) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer = layer
        return x.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, x_grad: Tensor) -> tuple[Tensor, Tensor | None, None]:  # type: ignore[override]
        (x,), layer = ctx.saved_tensors, ctx.layer
        assert layer.out_grad is not None
        if layer.gradients.waiting:
            layer.gradients.add(layer.weight, layer.out_grad, x)
            return x_grad, None, None
        return x_grad, _product(layer.out_grad, x).to(layer.weight.dtype), None


@dataclass
class _Pass:
    """One pass through a linear layer."""

    weight: Tensor
    gradients: WeightGradients
    out_grad: Tensor | None = None

    def keep(self, out_grad: Tensor) -> None:
        self.out_grad = out_grad


class Linear(nn.Linear):
    """A linear layer without bias whose backward pass has two halves.

    Args:
        weight: as `nn.Linear` holds it.
        current: holds the weight gradients of the forward pass that is running.
    """

    def __init__(self, weight: nn.Parameter, current: Current):
        super().__init__(weight.size(1), weight.size(0), bias=False, device="meta")
        self.weight, self.current = weight, current

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return F.linear(x, self.weight.to(x.dtype))
        # Checkpointing computes this again, with whatever is current then: only what it saves is used, not its graph.
        one = _Pass(self.weight, self.current.gradients)
        out = F.linear(_Keep.apply(x, self.weight, one), self.weight.detach().to(x.dtype))
        out.register_hook(one.keep)
        return out


@dataclass
class Current:
    """What the linear layers of a rank need to know: the weight gradients of the forward pass that is running."""

    gradients: WeightGradients = field(default_factory=WeightGradients)

    def replace_linears(self, part: nn.Module) -> None:
        """Give a part linear layers whose backward pass has two halves; before it is sharded."""
        for parent in part.modules():
            for name, child in parent.named_children():
                if isinstance(child, nn.Linear) and child.bias is None:
                    setattr(parent, name, Linear(child.weight, self))


def accumulate(part: nn.Module) -> None:
    """Let FSDP take over what was added to the gradients of its whole parameters outside of a backward pass: it
    accumulates in the precision of the reduction, not in that of the parameters."""
    for module in part.modules():
        if isinstance(module, FSDPModule):
            group = module._get_fsdp_state()._fsdp_param_group
            if group is not None:
                group.post_backward()


def reduce(part: nn.Module) -> None:
    """Reduce the gradients of a step over the ranks of FSDP and free the whole parameters, which FSDP itself does at the
    end of a backward pass only; collective."""
    if not isinstance(part, FSDPModule):
        return
    # All in the precision of the reduction first: some gradients are from this micro-batch only.
    accumulate(part)
    part.set_requires_gradient_sync(True)
    part.set_reshard_after_backward(True)
    accumulate(part)
    state = part._get_fsdp_state()
    if getattr(state._state_ctx, "manual_backward_finalization_active", False) is None:
        # torch 2.15: no backward pass is running that would have said so.
        state._state_ctx.manual_backward_finalization_active = False  # type: ignore[attr-defined]
    state._root_post_backward_final_callback()
