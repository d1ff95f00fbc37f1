"""Pipeline schedules over point-to-point messages: GPipe (Huang et al. 2019) and 1F1B (Narayanan et al. 2019).

A stage is the part of the model on this rank. Hidden states travel with the shape that each micro-batch needs, so
micro-batches may differ in length from step to step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

Forward = Callable[[int, Tensor | None], Tensor]


@dataclass(frozen=True)
class Neighbours:
    """This stage among the others."""

    group: dist.ProcessGroup
    stage: int
    stages: int
    device: torch.device
    dtype: torch.dtype

    @property
    def first(self) -> bool:
        """Whether this stage reads tokens."""
        return self.stage == 0

    @property
    def last(self) -> bool:
        """Whether this stage computes the loss."""
        return self.stage == self.stages - 1

    def exchange(
        self,
        to_next: Tensor | None = None,
        to_previous: Tensor | None = None,
        from_next: tuple[int, ...] | None = None,
        from_previous: tuple[int, ...] | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Send and receive at once, so that two neighbours that send to each other do not wait for each other.

        Args:
            from_next, from_previous: shape of the tensor to receive; None: nothing.

        Returns:
            What came from the next and from the previous stage.
        """
        ops = []
        received: list[Tensor | None] = [None, None]
        for tensor, offset in ((to_previous, -1), (to_next, 1)):
            if tensor is not None:
                ops.append(dist.P2POp(dist.isend, tensor.contiguous(), self._rank(offset), self.group))
        for place, (shape, offset) in enumerate(((from_next, 1), (from_previous, -1))):
            if shape is not None:
                buffer = torch.empty(shape, dtype=self.dtype, device=self.device)
                received[place] = buffer
                ops.append(dist.P2POp(dist.irecv, buffer, self._rank(offset), self.group))
        if ops:
            for work in dist.batch_isend_irecv(ops):
                work.wait()
        return received[0], received[1]

    def _rank(self, offset: int) -> int:
        return dist.get_global_rank(self.group, self.stage + offset)


def run(
    neighbours: Neighbours,
    schedule: Literal["1f1b", "gpipe"],
    shapes: list[tuple[int, ...]],
    forward: Forward,
    before_backward: Callable[[int], None],
) -> None:
    """Forward and backward of all micro-batches of a step.

    1F1B runs a stage's forward passes ahead by the number of stages behind it, then one backward pass after each
    forward pass: no stage holds more activations than there are stages. GPipe runs all forward passes first.

    Args:
        shapes: shape of the hidden state of each micro-batch.
        forward: micro-batch and hidden state of the previous stage (None on the first) → hidden state, or the loss
            on the last stage.
        before_backward: called with the micro-batch before its backward pass.
    """
    n, first, last = len(shapes), neighbours.first, neighbours.last
    ahead = n if schedule == "gpipe" else min(neighbours.stages - neighbours.stage - 1, n)
    flying: deque[tuple[Tensor | None, Tensor]] = deque()
    done = 0

    def forward_one(i: int, hidden: Tensor | None) -> Tensor:
        if hidden is not None:
            hidden.requires_grad_()
        out = forward(i, hidden)
        flying.append((hidden, out))
        return out.detach()

    def backward_one(grad: Tensor | None) -> Tensor | None:
        nonlocal done
        before_backward(done)
        hidden, out = flying.popleft()
        torch.autograd.backward(out, grad)
        done += 1
        return None if hidden is None else hidden.grad

    def incoming(i: int) -> tuple[int, ...] | None:
        return None if first or i >= n else shapes[i]

    def outgoing(i: int) -> tuple[int, ...] | None:
        return None if last or i >= n else shapes[i]

    for i in range(ahead):
        _, hidden = neighbours.exchange(from_previous=incoming(i))
        out = forward_one(i, hidden)
        neighbours.exchange(to_next=None if last else out)
    _, hidden = neighbours.exchange(from_previous=incoming(ahead))
    for i in range(ahead, n):
        out = forward_one(i, hidden)
        grad, _ = neighbours.exchange(to_next=None if last else out, from_next=outgoing(done))
        hidden_grad = backward_one(grad)
        _, hidden = neighbours.exchange(to_previous=hidden_grad, from_previous=incoming(i + 1))
    while flying:
        grad, _ = neighbours.exchange(from_next=outgoing(done))
        neighbours.exchange(to_previous=backward_one(grad))
