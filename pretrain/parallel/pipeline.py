"""A rank's part of a pipeline: it carries out the program of its schedule, with point-to-point messages.

Hidden states travel with the shape that each micro-batch needs, so micro-batches may differ in length from step to
step. Between stages of one rank they do not travel at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.profiler import record_function

from pretrain.parallel.pipeline_schedules import (
    SPLIT,
    Action,
    Message,
    Schedule,
    program,
    rank_of,
    stages_of,
)
from pretrain.parallel.zero_bubble import Current, WeightGradients

# Messages on their way that may be unfinished when the next is sent: nobody waits for a receiver that is a little late,
# and what was sent does not stay in memory for the whole step.
_UNFINISHED = 4
Forward = Callable[[int, int, Tensor | None], Tensor]


@dataclass
class _Pass:
    """What a forward pass leaves for the backward pass."""

    hidden: Tensor | None
    out: Tensor | GradientEdge
    weights: WeightGradients


@dataclass(frozen=True)
class Pipeline:
    """The virtual stages of this rank among all others."""

    group: dist.ProcessGroup
    rank: int
    """Place of this rank in the pipeline."""
    ranks: int
    schedule: Schedule
    virtual: int
    """Virtual stages on each rank."""
    device: torch.device
    dtype: torch.dtype
    """Of hidden states."""
    current: Current = field(default_factory=Current)
    """For the linear layers of a split backward pass."""

    @property
    def n_stages(self) -> int:
        """Virtual stages of all ranks."""
        return self.ranks * self.virtual

    @property
    def stages(self) -> list[int]:
        """Virtual stages of this rank, in order of depth."""
        return stages_of(self.schedule, self.rank, self.ranks, self.virtual)

    @property
    def split(self) -> bool:
        """Whether gradients of weights are computed apart from those of inputs."""
        return self.schedule in SPLIT

    def holder(self, stage: int) -> int:
        """Rank that holds a virtual stage."""
        return rank_of(self.schedule, stage, self.ranks)

    def run(
        self,
        shapes: list[tuple[int, ...]],
        forward: Forward,
        before_backward: Callable[[int, bool], None],
        after_backward: Callable[[int, bool], None],
    ) -> None:
        """Forward and backward passes of all micro-batches of a step, gradients accumulated.

        Args:
            shapes: shape of the hidden state of each micro-batch.
            forward: virtual stage, micro-batch, hidden state of the stage before (None in the first) → hidden state, or
                the loss in the last stage.
            before_backward: called before each backward pass (B or I) with its stage, and whether it is the last action
                of that stage.
            after_backward: called with the same after each action that ends a backward pass (B or W).
        """
        todo = program(self.schedule, self.ranks, self.virtual, len(shapes), self.rank)
        final = {event.stage: event for event in todo if isinstance(event, Action)}
        mail = _Mail(self)
        passes: dict[tuple[int, int], _Pass] = {}
        for event in todo:
            if isinstance(event, Message):
                mail.post(event, shapes[event.made_by.micro])
                continue
            kind, stage, micro = event
            is_final = final[stage] is event
            if kind == "F":
                hidden = mail.take("F", stage, micro) if stage else None
                with record_function("forward"):
                    passes[stage, micro], out = self._forward(stage, micro, hidden, forward)
                if out is not None:
                    mail.put(event, out)
                continue
            one = passes[stage, micro]
            if kind != "W":
                grad = mail.take("B", stage, micro) if stage < self.n_stages - 1 else None
                before_backward(stage, is_final)
                one.weights.waiting = kind == "I"
                with record_function("backward"):
                    torch.autograd.backward(one.out, grad)  # type: ignore[arg-type]
                if one.hidden is not None:
                    assert one.hidden.grad is not None
                    mail.put(event, one.hidden.grad)
                # Whatever waits for the weights keeps what it needs.
                one.hidden = None
                del one.out
            if kind == "W":
                with record_function("backward"):
                    one.weights.compute()
            if kind != "I":
                del passes[stage, micro]
                after_backward(stage, is_final)
        mail.finish()

    def _forward(
        self, stage: int, micro: int, hidden: Tensor | None, forward: Forward
    ) -> tuple[_Pass, Tensor | None]:
        """A forward pass, and the hidden state for the next stage."""
        if hidden is not None:
            hidden.requires_grad_()
        self.current.gradients = weights = WeightGradients()
        out = forward(stage, micro, hidden)
        if stage == self.n_stages - 1:
            return _Pass(hidden, out, weights), None
        # The backward pass needs the graph behind the hidden state, not its values.
        return _Pass(hidden, get_gradient_edge(out), weights), out.detach()

    def forward_only(
        self, shape: tuple[int, ...], forward: Callable[[int, Tensor | None], Tensor]
    ) -> Tensor | None:
        """One micro-batch through all stages; what the last one gives on its rank, None on others.

        Args:
            shape: of the hidden state.
            forward: virtual stage and hidden state (None in the first) → hidden state, or the result in the last.
        """
        out: Tensor | None = None
        for stage in self.stages:
            if stage and self.holder(stage - 1) != self.rank:
                out = torch.empty(shape, dtype=self.dtype, device=self.device)
                self.wait(self.receive(out, self.holder(stage - 1)))
            out = forward(stage, out if stage else None)
            if stage < self.n_stages - 1 and self.holder(stage + 1) != self.rank:
                self.wait(self.send(out.contiguous(), self.holder(stage + 1)))
        return out if self.holder(self.n_stages - 1) == self.rank else None

    def broadcast_from_last(self, x: Tensor) -> None:
        """Give all ranks of the pipeline what the last stage has, in place."""
        source = dist.get_global_rank(self.group, self.holder(self.n_stages - 1))
        dist.broadcast(x, source, self.group)

    def send(self, x: Tensor, target: int) -> dist.Work:
        """Start sending to another rank of the pipeline."""
        work = dist.isend(x, dist.get_global_rank(self.group, target), self.group)
        assert work is not None
        return work

    def receive(self, x: Tensor, source: int) -> dist.Work:
        """Start receiving from another rank of the pipeline."""
        work = dist.irecv(x, dist.get_global_rank(self.group, source), self.group)
        assert work is not None
        return work

    def wait(self, work: dist.Work) -> None:
        """Wait for a message, at most as long as a collective may take."""
        if self.device.type == "cpu":
            # gloo holds messages to the limit that the group was made with, unless it is told.
            work.wait(self.group._get_backend(self.device).options._timeout)
        else:
            # With a limit NCCL would hold up the host.
            work.wait()


class _Mail:
    """Hidden states (F) and their gradients (B) between the making and the use, of one step on one rank."""

    def __init__(self, pipeline: Pipeline):
        self.pipeline = pipeline
        self._here: dict[tuple[str, int, int], tuple[Tensor, dist.Work | None]] = {}
        """By the kind, stage and micro-batch of the action that needs it."""
        self._sent: deque[tuple[dist.Work, Tensor]] = deque()

    def put(self, made_by: Action, x: Tensor) -> None:
        """What an action made, for the next stage here, or until its message is due."""
        self._here[_needed_by(made_by)] = x, None

    def take(self, kind: str, stage: int, micro: int) -> Tensor:
        """What an action needs; waits where it is on its way."""
        x, work = self._here.pop((kind, stage, micro))
        if work is not None:
            with record_function("communication"):
                self.pipeline.wait(work)
        return x

    def post(self, message: Message, shape: tuple[int, ...]) -> None:
        """Start sending or receiving."""
        key, pipeline = _needed_by(message.made_by), self.pipeline
        if message.target == pipeline.rank:
            x = torch.empty(shape, dtype=pipeline.dtype, device=pipeline.device)
            self._here[key] = x, pipeline.receive(x, message.source)
            return
        x = self._here.pop(key)[0].contiguous()
        self._sent.append((pipeline.send(x, message.target), x))
        if len(self._sent) > _UNFINISHED:
            self.pipeline.wait(self._sent.popleft()[0])

    def finish(self) -> None:
        """Wait until all has arrived."""
        for work, _ in self._sent:
            self.pipeline.wait(work)
        assert not self._here, f"nobody used {list(self._here)}"


def _needed_by(made_by: Action) -> tuple[str, int, int]:
    if made_by.kind == "F":
        return "F", made_by.stage + 1, made_by.micro
    return "B", made_by.stage - 1, made_by.micro
