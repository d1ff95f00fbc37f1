"""How fast this machine trains a model, and a run that fits the time that is left.

python -m launch.pace EXPERIMENT VOCABULARY_SIZE        # tokens/s of one process, which the demo starts once a core
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from configs import edge
from configs.schema.train import TrainRun

if TYPE_CHECKING:
    import torch

ROWS, LENGTH = 4, 512
"""Shape of the micro-batch that is timed."""
PROBE_LENGTH = 64
"""Tokens by which precisions are compared: some processors multiply in bf16 so slowly that 2,048 tokens take a minute."""
ROUNDS = 3
SHARE = 0.8
"""Of the measured speed: optimizer, communication and evaluation between steps take the rest."""
EVALUATION = 1 / 3
"""Work of a forward pass as a share of a training step's, a token."""
MAX_STEPS, MIN_STEPS = 180, 60
BATCHES = (4, 8, 16)
"""Sequences of a step. With less time the batch is smaller, and the number of updates stays."""


@dataclass(frozen=True)
class Length:
    """How long a training is."""

    steps: int
    """Optimizer steps."""
    batch: int
    """Sequences of a step."""

    @property
    def overrides(self) -> list[str]:
        """For `arriero launch` on two ranks: four checkpoints, three evaluations."""
        return [
            f"train.steps={self.steps}",
            f"train.global_batch_size={self.batch}",
            f"train.micro_batch_size={self.batch // 2}",
            f"train.eval_every={-(-self.steps // 3)}",
            f"checkpoint.every={self.steps // 4}",
        ]


def fit(seconds: float, tokens_per_second: float, heldout_tokens: int, length: int) -> Length:
    """The longest training, up to MAX_STEPS of the largest batch, whose end and evaluation fit `seconds`.

    Args:
        seconds: for training and the evaluation at its end.
        tokens_per_second: of all processes, as measured.
        heldout_tokens: evaluated at the end.
        length: tokens of a sequence.
    """
    tokens = SHARE * tokens_per_second * seconds - EVALUATION * heldout_tokens
    batch = next((b for b in BATCHES if tokens <= MAX_STEPS * b * length), BATCHES[-1])
    return Length(max(MIN_STEPS, min(MAX_STEPS, int(tokens / (batch * length)))), batch)


def measure(experiment: str, vocab_size: int, environment: Mapping[str, str], processes: int = 2) -> float:
    """Tokens a second of forward and backward passes, summed over processes that run at once with one thread each.

    Raises:
        RuntimeError: a process failed; its output stands above.
    """
    command = [sys.executable, "-m", "launch.pace", experiment, str(vocab_size)]
    started = [
        subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    printed = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"`{' '.join(command)}` failed")
    return sum(map(float, printed))


def main() -> int:
    experiment, vocab_size = sys.argv[1], int(sys.argv[2])
    config = edge.load("train", TrainRun, [f"experiment={experiment}", "data.path=none", "run.dir=none"])
    import torch

    precisions = (torch.float32, torch.bfloat16)
    # As `train.dtype=auto` does, training takes the faster one.
    faster = min(precisions, key=lambda dtype: _seconds(config, vocab_size, 1, PROBE_LENGTH, dtype))
    print(ROWS * LENGTH / _seconds(config, vocab_size, ROWS, LENGTH, faster))
    return 0


def _seconds(config: TrainRun, vocab_size: int, rows: int, length: int, dtype: torch.dtype) -> float:
    """Shortest time of a forward and backward pass of the model, after one that is not counted."""
    import torch

    from pretrain.model.init import init_weights
    from pretrain.model.llama import Llama

    model = Llama(config.model, vocab_size)
    init_weights([model], config.seed)
    model.compute_dtype = dtype
    tokens = torch.randint(vocab_size, (rows, length + 1), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(length).expand(rows, length)
    boundaries = torch.tensor([0, length], dtype=torch.int32).expand(rows, 2)
    times = []
    for _ in range(1 + ROUNDS):
        began = time.perf_counter()
        model(tokens[:, :-1], positions, boundaries, tokens[:, 1:]).backward()
        times.append(time.perf_counter() - began)
    return min(times[1:])


if __name__ == "__main__":
    sys.exit(main())
