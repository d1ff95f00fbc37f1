"""Cross-entropy of a linear head, in chunks of tokens and over a vocabulary that may be split over ranks.

The gradient is computed together with the loss, chunk by chunk, so that no logits outlive their chunk and none are
computed twice. Softmax and sums are fp32 (fp64 for fp64), whatever the precision of the matrix products.

With a large vocabulary the logits of a chunk are far more than a GPU's caches hold, and passes over them take up to half as
long as the products beside them. Compiled (`Passes`), there are three: one kernel reads them for the logsumexp, one reads
them again and writes their gradient in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from pretrain.collectives import all_gather_single

IGNORED = -100


def linear_cross_entropy(
    x_bsd: Tensor,
    weight_vd: Tensor,
    labels_bs: Tensor,
    chunk_tokens: int,
    z_loss: float = 0.0,
    vocab_size: int | None = None,
    passes: Passes | None = None,
) -> Tensor:
    """Sum of the cross-entropies of all labels that are not ignored, fp64 scalar; differentiable once.

    Args:
        x_bsd: hidden state; of this rank's share of the sequence where `weight_vd` is a DTensor. Products are computed
            in its precision.
        weight_vd: the head, or a DTensor split over the vocabulary (Megatron-LM, Shoeybi et al. 2019, section 3).
        labels_bs: int64 of the whole sequence, -100 where ignored.
        chunk_tokens: tokens whose logits exist at a time; 0: all.
        z_loss: weight of logsumexp² of each token's logits (Chowdhery et al. 2022, "PaLM", section 5), which is added to
            what the gradients are those of, but not to the value.
        vocab_size: rows of the head that are tokens; the rows behind them are padding, without probability. None: all.
        passes: compiled passes over the logits; None: torch's own operations, one after the other.
    """
    x_bsd, weight, group = _local(x_bsd, weight_vd)
    x, labels = x_bsd.flatten(0, 1), labels_bs.flatten()
    chunk, padding = _chunk_size(chunk_tokens, x, weight), _padding(weight, group, vocab_size)
    return _LinearCrossEntropy.apply(x, weight, labels, chunk, z_loss, group, padding, passes)  # type: ignore[no-any-return]


@torch.no_grad()
def linear_token_losses(
    x_bsd: Tensor,
    weight_vd: Tensor,
    labels_bs: Tensor,
    chunk_tokens: int,
    vocab_size: int | None = None,
    passes: Passes | None = None,
) -> Tensor:
    """Loss of each token [B, T], fp32 (fp64 for fp64), 0 where ignored; without gradient. Arguments as above."""
    x_bsd, weight, group = _local(x_bsd, weight_vd)
    x, labels = x_bsd.flatten(0, 1), labels_bs.flatten()
    weight = weight.to(x.dtype)
    chunk = _chunk_size(chunk_tokens, x, weight)
    padding = _padding(weight, group, vocab_size)
    logits = x.new_empty(min(chunk, len(x)), len(weight))
    losses = []
    for xc, lc in zip(x.split(chunk), labels.split(chunk), strict=True):
        torch.mm(xc, weight.mT, out=logits[: len(xc)])
        part = logits[: len(xc)]
        if passes is None:
            losses.append(_softmax_in_place(part, lc, group, padding).losses)
        else:
            losses.append(_losses(part, passes.logsumexp(part, padding), lc, group)[0])
    return torch.cat(losses).view_as(labels_bs)


def linear_logits(x_bsd: Tensor, weight_vd: Tensor, vocab_size: int | None = None) -> Tensor:
    """Logits [B, T, V] in compute precision; whole on every rank where `weight_vd` is split over the vocabulary.

    Args:
        vocab_size: V, where the head has rows of padding behind the tokens; None: all rows.
    """
    x_bsd, weight, group = _local(x_bsd, weight_vd)
    logits = F.linear(x_bsd, weight.to(x_bsd.dtype))
    if group is None:
        return logits[..., :vocab_size]
    assert isinstance(weight_vd, DTensor)
    return DTensor.from_local(logits, weight_vd.device_mesh, [Shard(2)], run_check=False).full_tensor()[
        ..., :vocab_size
    ]


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

    On the CPU the logits of a chunk should stay in cache, about 4 MB in fp32; but each chunk also reads and writes the
    whole gradient of the weight, which less than 256 tokens do not pay for.
    """
    if not chunk_tokens:
        return max(1, len(x))
    return chunk_tokens if x.is_cuda else min(chunk_tokens, max(256, 2**20 // len(weight)))


def _padding(weight: Tensor, group: dist.ProcessGroup | None, vocab_size: int | None) -> int:
    """Rows of padding at the end of this rank's part of the head."""
    if vocab_size is None:
        return 0
    first = 0 if group is None else dist.get_rank(group) * len(weight)
    return min(len(weight), max(0, first + len(weight) - vocab_size))


class _Chunk(NamedTuple):
    losses: Tensor
    """[N], 0 where ignored."""
    softmax: Tensor
    """[N, V] over the whole vocabulary, this rank's columns."""
    logsumexp: Tensor
    """[N]."""
    column: Tensor
    """Of the label among this rank's columns, [N]; any where it is not here."""
    here: Tensor
    """Whether the label is not ignored and this rank has it, [N]."""


def _softmax_in_place(
    logits: Tensor, labels: Tensor, group: dist.ProcessGroup | None, padding: int
) -> _Chunk:
    """What a chunk's logits [N, V] give; they are overwritten where their precision is that of the softmax.

    Args:
        padding: columns at the end that are no tokens.
    """
    if padding:
        # Not -inf: a rank may hold nothing but padding, and the softmax of its columns must be finite.
        logits[:, -padding:] = torch.finfo(logits.dtype).min
    exact = _exact(logits)
    # Softmax in its own place overwrites what the labels point to.
    target = logits.gather(1, _columns(logits, labels, group)[0][:, None]).squeeze(1)
    highest = logits.amax(dim=1).to(exact)
    if logits.dtype == exact:
        softmax = torch.softmax(logits, dim=1, out=logits)
    else:
        softmax = torch.softmax(logits, dim=1, dtype=exact)
    # The largest probability is at least 1 / V, so its logarithm is exact where those of others may have underflowed.
    mine = highest - softmax.amax(dim=1).log()
    losses, logsumexp, column, here = _losses(logits, mine, labels, group, target)
    if group is not None:
        softmax.mul_((mine - logsumexp).exp_()[:, None])
    return _Chunk(losses, softmax, logsumexp, column, here)


def _exact(logits: Tensor) -> torch.dtype:
    """What softmax and sums are computed in."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _columns(logits: Tensor, labels: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor]:
    """Column of each label among this rank's, any where it has none; and whether it has one."""
    here, index = labels != IGNORED, labels.clamp(min=0)
    if group is not None:
        index = index - dist.get_rank(group) * logits.size(1)
        here = here & (index >= 0) & (index < logits.size(1))
        index = index.clamp(0, logits.size(1) - 1)
    return index, here


def _losses(
    logits: Tensor,
    logsumexp: Tensor,
    labels: Tensor,
    group: dist.ProcessGroup | None,
    target: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Losses of a chunk, 0 where ignored; the logsumexp over all ranks; `_columns`. Each [N].

    Args:
        logsumexp: over this rank's columns.
        target: logits of the labels, where `logits` no longer hold them.
    """
    column, here = _columns(logits, labels, group)
    if target is None:
        target = logits.gather(1, column[:, None]).squeeze(1)
    target = target.to(logsumexp.dtype) * here
    if group is not None:
        mine = torch.stack((logsumexp, target))
        # gloo takes shares that follow each other, not a stack of them.
        every = mine.new_empty(dist.get_world_size(group) * len(mine), mine.size(1))
        all_gather_single(every, mine, group)
        every = every.view(-1, *mine.shape)
        logsumexp, target = every[:, 0].logsumexp(dim=0), every[:, 1].sum(dim=0)
    return torch.where(labels != IGNORED, logsumexp - target, 0.0), logsumexp, column, here


class Passes(NamedTuple):
    """The passes over the logits of a chunk as compiled code."""

    logsumexp: Callable[[Tensor, int], Tensor]
    """`logsumexp_of`."""
    gradient: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int], None]
    """`gradient_in_place`."""


def logsumexp_of(logits: Tensor, padding: int) -> Tensor:
    """Logsumexp of each row [N] over its columns but those of padding at the end, fp32 (fp64 for fp64)."""
    exact = logits.to(_exact(logits))
    if padding:
        # Finite, as above: what a rank with nothing but padding adds to the others' sum is 0.
        column = torch.arange(logits.size(1), device=logits.device)
        exact = exact.masked_fill(column >= logits.size(1) - padding, torch.finfo(logits.dtype).min)
    return exact.logsumexp(dim=1)


def gradient_in_place(
    logits: Tensor, logsumexp: Tensor, factor: Tensor, column: Tensor, here: Tensor, padding: int
) -> None:
    """Overwrite logits [N, V] with their gradient, factor · softmax - one-hot.

    Args:
        logsumexp: over the whole vocabulary, [N].
        factor: [N].
        column: of the label, [N].
        here: whether the row has one, [N].
        padding: columns at the end that are no tokens.
    """
    columns = torch.arange(logits.size(1), device=logits.device)
    softmax = (logits.to(logsumexp.dtype) - logsumexp[:, None]).exp()
    if padding:
        softmax = softmax.masked_fill(columns >= logits.size(1) - padding, 0.0)
    one_hot = ((columns == column[:, None]) & here[:, None]).to(softmax.dtype)
    logits.copy_(factor[:, None] * softmax - one_hot)


def compile_passes(**options: Any) -> Passes:
    """Compile the passes over the logits; options as of `torch.compile`."""
    compiled = partial(torch.compile, fullgraph=True, dynamic=False, **options)
    return Passes(compiled(logsumexp_of), compiled(gradient_in_place))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        labels: Tensor,
        chunk_tokens: int,
        z_loss: float,
        group: dist.ProcessGroup | None,
        padding: int,
        passes: Passes | None,
    ) -> Tensor:
        loss = torch.zeros((), dtype=torch.float64, device=x.device)
        master, weight = weight, weight.to(x.dtype)
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32
        x_grad = torch.empty_like(x)
        weight_grad = torch.zeros(weight.shape, dtype=exact, device=x.device)
        # One buffer for all chunks: a fresh one costs a page fault for every 4 KB.
        buffer = x.new_empty(min(chunk_tokens, len(x)), len(weight))
        for start in range(0, len(x), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            logits = buffer[: len(labels[part])]
            torch.mm(x[part], weight.mT, out=logits)
            if passes is not None:
                mine = passes.logsumexp(logits, padding)
                losses, logsumexp, column, here = _losses(logits, mine, labels[part], group)
                loss += losses.sum(dtype=torch.float64)
                factor = (labels[part] != IGNORED) * (1 + 2 * z_loss * logsumexp)
                passes.gradient(logits, logsumexp, factor, column, here, padding)
                torch.mm(logits, weight, out=x_grad[part])
                _add_product(weight_grad, logits.mT, x[part])
                continue
            chunk = _softmax_in_place(logits, labels[part], group, padding)
            loss += chunk.losses.sum(dtype=torch.float64)
            # Row i of the gradient is factor · softmax - one-hot. The factor is taken out of the rows and put into the
            # narrow sides of the two products.
            valid = (labels[part] != IGNORED).to(exact)
            factor = valid
            if z_loss and x.dtype == exact:
                factor = valid * (1 + 2 * z_loss * chunk.logsumexp)
            elif z_loss:
                # So near 1 that half precision would lose it there.
                chunk.softmax.mul_((1 + 2 * z_loss * chunk.logsumexp)[:, None])
            divisor = torch.where(factor == 0, 1.0, factor)
            chunk.softmax.scatter_add_(1, chunk.column[:, None], -(chunk.here / divisor)[:, None])
            logits_grad = chunk.softmax.to(x.dtype)
            factor = factor.to(x.dtype)[:, None]
            torch.mm(logits_grad, weight, out=x_grad[part])
            x_grad[part].mul_(factor)
            _add_product(weight_grad, logits_grad.mT, x[part] * factor)
        ctx.grads = (x_grad, weight_grad.to(master.dtype))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        # Scaled where they are, and given away: a copy of the weight's gradient may be larger than the logits.
        x_grad, weight_grad = ctx.grads
        del ctx.grads
        return x_grad.mul_(grad), weight_grad.mul_(grad), None, None, None, None, None, None


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b, in its own precision, to the total."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def reference_loss(logits_bsv: Tensor, labels_bs: Tensor) -> Tensor:
    """Sum of token losses by torch's own cross-entropy; the tests' yardstick."""
    return F.cross_entropy(
        logits_bsv.flatten(0, 1), labels_bs.flatten(), ignore_index=IGNORED, reduction="sum"
    )
