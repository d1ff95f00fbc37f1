"""Cross-entropy of a linear head, in chunks of tokens and over a vocabulary that may be split over ranks.

The gradient is computed together with the loss, chunk by chunk, so that no logits outlive their chunk and none are
computed twice. Softmax and sums are fp32 (fp64 for fp64), whatever the precision of the matrix products.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

IGNORED = -100


def linear_cross_entropy(x_bsd: Tensor, weight_vd: Tensor, labels_bs: Tensor, chunk_tokens: int) -> Tensor:
    """Sum of the losses of all labels that are not ignored, fp64 scalar; differentiable once.

    Args:
        x_bsd: hidden state; of this rank's share of the sequence where `weight_vd` is a DTensor.
        weight_vd: the head, or a DTensor split over the vocabulary (Megatron-LM, Shoeybi et al. 2019, section 3).
        labels_bs: int64 of the whole sequence, -100 where ignored.
        chunk_tokens: tokens whose logits exist at a time; 0: all.
    """
    x_bsd, weight, group = _local(x_bsd, weight_vd)
    x, labels = x_bsd.flatten(0, 1), labels_bs.flatten()
    chunk = _chunk_size(chunk_tokens, x, weight)
    return _LinearCrossEntropy.apply(x, weight, labels, chunk, group)  # type: ignore[no-any-return]


@torch.no_grad()
def linear_token_losses(x_bsd: Tensor, weight_vd: Tensor, labels_bs: Tensor, chunk_tokens: int) -> Tensor:
    """Loss of each token [B, T], fp32 (fp64 for fp64), 0 where ignored; without gradient. Arguments as above."""
    x_bsd, weight, group = _local(x_bsd, weight_vd)
    x, labels = x_bsd.flatten(0, 1), labels_bs.flatten()
    chunk = _chunk_size(chunk_tokens, x, weight)
    losses = [
        _chunk_losses(xc @ weight.mT, lc, group)[0]
        for xc, lc in zip(x.split(chunk), labels.split(chunk), strict=True)
    ]
    return torch.cat(losses).view_as(labels_bs)


def linear_logits(x_bsd: Tensor, weight_vd: Tensor) -> Tensor:
    """Logits [B, T, V] in compute precision; whole on every rank where `weight_vd` is split over the vocabulary."""
    x_bsd, weight, group = _local(x_bsd, weight_vd)
    logits = F.linear(x_bsd, weight)
    if group is None:
        return logits
    assert isinstance(weight_vd, DTensor)
    return DTensor.from_local(logits, weight_vd.device_mesh, [Shard(2)], run_check=False).full_tensor()


def gather_sequence(x_bsd: Tensor, mesh: DeviceMesh) -> Tensor:
    """The whole sequence from every rank's share; its gradient is summed over ranks and split again."""
    whole = DTensor.from_local(x_bsd, mesh, [Shard(1)], run_check=False).redistribute(
        placements=[Replicate()]
    )
    return whole.to_local(grad_placements=[Partial()])


def _local(x_bsd: Tensor, weight_vd: Tensor) -> tuple[Tensor, Tensor, dist.ProcessGroup | None]:
    if not isinstance(weight_vd, DTensor):
        return x_bsd, weight_vd, None
    mesh = weight_vd.device_mesh
    return gather_sequence(x_bsd, mesh), weight_vd.to_local(), mesh.get_group()


def _chunk_size(chunk_tokens: int, x: Tensor, weight: Tensor) -> int:
    """Tokens of a chunk; 0 asks for all at once.

    On the CPU the logits of a chunk should stay in cache, about 4 MB in fp32.
    """
    if not chunk_tokens:
        return len(x)
    return chunk_tokens if x.is_cuda else min(chunk_tokens, max(128, 2**20 // len(weight)))


def _chunk_losses(
    logits: Tensor, labels: Tensor, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Losses [N] of a chunk, with softmax [N, V], local label index [N] and where the label is here [N]."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    valid = labels != IGNORED
    here = valid
    index = labels.clamp(min=0)
    if group is not None:
        index = index - dist.get_rank(group) * logits.size(1)
        here = valid & (index >= 0) & (index < logits.size(1))
        index = index.clamp(0, logits.size(1) - 1)
    highest = logits.amax(dim=1, keepdim=True)
    if group is not None:
        dist.all_reduce(highest, dist.ReduceOp.MAX, group=group)
    shifted = logits - highest
    target = shifted.gather(1, index[:, None]).squeeze(1) * here
    exponentials = shifted.exp_()
    total = exponentials.sum(dim=1, keepdim=True)
    if group is not None:
        both = torch.stack((total.squeeze(1), target))
        dist.all_reduce(both, group=group)
        total, target = both[0, :, None], both[1]
    losses = torch.where(valid, total.squeeze(1).log() - target, 0.0)
    return losses, exponentials.div_(total), index, here


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        labels: Tensor,
        chunk_tokens: int,
        group: dist.ProcessGroup | None,
    ) -> Tensor:
        loss = torch.zeros((), dtype=torch.float64, device=x.device)
        x_grad = torch.empty_like(x)
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32
        weight_grad = torch.zeros(weight.shape, dtype=exact, device=x.device)
        for start in range(0, len(x), chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            losses, softmax, index, here = _chunk_losses(x[chunk] @ weight.mT, labels[chunk], group)
            loss += losses.sum(dtype=torch.float64)
            softmax.scatter_add_(1, index[:, None], -here[:, None].to(softmax.dtype))
            softmax.mul_((labels[chunk] != IGNORED)[:, None])
            logits_grad = softmax.to(x.dtype)
            torch.mm(logits_grad, weight, out=x_grad[chunk])
            if exact == x.dtype:
                weight_grad.addmm_(logits_grad.mT, x[chunk])
            else:
                weight_grad += logits_grad.mT @ x[chunk]
        ctx.save_for_backward(x_grad, weight_grad)
        ctx.weight_dtype = weight.dtype
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_grad, weight_grad = ctx.saved_tensors
        scale = grad.to(weight_grad.dtype)
        return (x_grad * scale).to(x_grad.dtype), (weight_grad * scale).to(ctx.weight_dtype), None, None, None


def reference_loss(logits_bsv: Tensor, labels_bs: Tensor) -> Tensor:
    """Sum of token losses by torch's own cross-entropy; the tests' yardstick."""
    return F.cross_entropy(
        logits_bsv.flatten(0, 1), labels_bs.flatten(), ignore_index=IGNORED, reduction="sum"
    )
