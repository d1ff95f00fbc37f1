"""Which sequences each step consumes: batch sizes and sequence lengths by phase.

Step t consumes sequences [N(t), N(t + 1)) of the data plan, N being a pure function of the phases: it depends neither on
the number of steps nor on ranks, so a longer run begins with the same steps. Batches that grow, and sequences that do,
follow the Llama 3 report, section 3.4.1.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from configs.schema.train import PhaseConfig
from pretrain.data.plan import PlanError


@dataclass(frozen=True)
class Span:
    """What one step consumes."""

    n: int
    """First sequence, by its index in the plan."""
    size: int
    """Packed sequences of the global batch."""
    length: int
    """Tokens of a row: packed sequences are cut into rows of this length."""


@dataclass(frozen=True)
class Stretch:
    """Steps of one batch size and one sequence length; neighbouring phases that agree in both are one stretch."""

    phases: tuple[int, ...]
    """Numbers of its phases, from 0."""
    first_step: int
    """From 1."""
    steps: int | None
    """None: without end."""
    n: int
    """First sequence."""
    size: int
    """Packed sequences of a step."""
    length: int
    """Tokens of a row."""


class Ramp:
    """Batch size and sequence length of every step.

    Args:
        phases: of the configuration. The last stretch goes on without an end here; whether the data does is the plan's
            question.
        global_batch_size: packed sequences of a step, where a phase names no other.
        sequence_length: tokens of a packed sequence.

    Raises:
        PlanError: a size that is not positive, a length that does not divide the packed one, or a batch that would
            span two stretches.
    """

    def __init__(self, phases: Sequence[PhaseConfig], global_batch_size: int, sequence_length: int) -> None:
        self.sequence_length = sequence_length
        stretches: list[Stretch] = []
        held: list[int] = []
        """Phases of the stretch that is being made."""
        n, step, sequences = 0, 1, 0
        for i, phase in enumerate(phases):
            size = global_batch_size if phase.global_batch_size is None else phase.global_batch_size
            length = sequence_length if phase.sequence_length is None else phase.sequence_length
            _check_shape(i, size, length, sequence_length)
            held.append(i)
            last = i + 1 == len(phases)
            following = None if last else _shape(phases[i + 1], global_batch_size, sequence_length)
            sequences += phase.sequences or 0
            if following == (size, length):
                continue
            if not last and sequences % size:
                raise PlanError(_spans_two(i, phase, sequences, size))
            steps = None if last else sequences // size
            stretches.append(Stretch(tuple(held), step, steps, n, size, length))
            n, step, sequences, held = n + sequences, step + (steps or 0), 0, []
        self.stretches = tuple(stretches)
        self._first_steps = [stretch.first_step for stretch in stretches]

    def stretch(self, step: int) -> Stretch:
        """The stretch of a step (from 1)."""
        return self.stretches[max(0, bisect_right(self._first_steps, step) - 1)]

    def span(self, step: int) -> Span:
        """What a step (from 1) consumes."""
        at = self.stretch(step)
        return Span(at.n + (step - at.first_step) * at.size, at.size, at.length)

    def spans(self, first: int, last: int) -> Iterator[Span]:
        """What each of the steps first, …, last consumes."""
        return (self.span(step) for step in range(first, last + 1))

    def used(self, step: int) -> int:
        """Sequences that the steps 1, …, `step` consume together."""
        return self.span(step + 1).n

    def table(self, steps: int) -> str:
        """The first `steps` steps as text: by stretch, its steps, batch size, sequence length and tokens."""
        rows = [("phase", "steps", "batch size", "rows of", "tokens a step", "sequences", "tokens")]
        for stretch in self.stretches:
            if stretch.first_step > steps:
                break
            end = steps if stretch.steps is None else min(steps, stretch.first_step + stretch.steps - 1)
            sequences = (end - stretch.first_step + 1) * stretch.size
            phases = "-".join(str(i + 1) for i in sorted({stretch.phases[0], stretch.phases[-1]}))
            rows.append(
                (
                    phases,
                    f"{stretch.first_step:,}-{end:,}",
                    f"{stretch.size:,}",
                    f"{stretch.length:,}",
                    f"{stretch.size * self.sequence_length:,}",
                    f"{sequences:,}",
                    f"{sequences * self.sequence_length:,}",
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(r, widths, strict=True)) for r in rows)


def _shape(phase: PhaseConfig, global_batch_size: int, sequence_length: int) -> tuple[int, int]:
    return (
        global_batch_size if phase.global_batch_size is None else phase.global_batch_size,
        sequence_length if phase.sequence_length is None else phase.sequence_length,
    )


def _check_shape(i: int, size: int, length: int, sequence_length: int) -> None:
    if size < 1:
        raise PlanError(f"data.phases[{i}].global_batch_size is {size}; expected at least 1 sequence")
    if length < 1 or sequence_length % length:
        divisors = [d for d in range(1, sequence_length + 1) if sequence_length % d == 0]
        near = sorted(sorted(divisors, key=lambda d: abs(d - length))[:2])
        raise PlanError(
            f"data.phases[{i}].sequence_length is {length}, which does not divide the packed sequences of "
            f"{sequence_length} tokens; use {' or '.join(map(str, near))}, or pack again"
        )


def _spans_two(i: int, phase: PhaseConfig, sequences: int, size: int) -> str:
    asked, over = phase.sequences or 0, sequences % size
    near = " or ".join(str(n) for n in (asked - over, asked - over + size) if n > 0)
    return (
        f"data.phases[{i}].sequences is {asked}, and with it the steps of {size} sequences leave {over} over; the next "
        f"phase has another batch size or sequence length, and no step spans both: use {near} sequences"
    )
