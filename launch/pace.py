"""How fast this machine trains a model, and a run that fits the time that is left.

python -m launch.pace EXPERIMENT VOCABULARY_SIZE MODEL…  # tokens/s of one process by model; the demo starts one a core
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from configs import children, edge
from configs.schema.train import TrainRun

if TYPE_CHECKING:
    import torch

ROWS, LENGTH = 4, 512
"""Shape of the micro-batch that is timed."""
ROUNDS = 3
SHARE = 0.8
"""Of the measured speed: optimizer, communication and evaluation between steps take the rest."""
EVALUATION = 1 / 3
"""Work of a forward pass as a share of a training step's, a token."""
ENOUGH = 700_000
"""Tokens with which a model of SHAPES is worth its time; with fewer, a narrower one that sees more of them learns more."""
MIN_STEPS = 60


@dataclass(frozen=True)
class Shape:
    """A model, and how it is trained in a given time."""

    model: str
    """A preset of `configs/model`."""
    batches: tuple[int, ...]
    """Sequences of a step; the smallest whose `max_steps` hold all tokens is taken."""
    max_steps: int
    """Steps that are enough."""


SHAPES = (Shape("4m", (4, 8, 16), 180), Shape("2m", (4,), 600))
"""By size. What counts after so few tokens is the number of updates: the narrow model makes more of them."""


@dataclass(frozen=True)
class Length:
    """How long a training is, and of what model."""

    model: str
    """A preset of `configs/model`."""
    steps: int
    """Optimizer steps."""
    batch: int
    """Sequences of a step."""

    @property
    def overrides(self) -> list[str]:
        """For `arriero launch` on two ranks: four checkpoints, three evaluations."""
        return [
            f"model={self.model}",
            f"train.steps={self.steps}",
            f"train.global_batch_size={self.batch}",
            f"train.micro_batch_size={self.batch // 2}",
            f"train.eval_every={-(-self.steps // 3)}",
            f"checkpoint.every={self.steps // 4}",
        ]


def fit(seconds: float, tokens_per_second: Mapping[str, float], heldout_tokens: int, length: int) -> Length:
    """The longest training whose end and evaluation fit `seconds`, of the largest model that sees ENOUGH tokens in them.

    Args:
        seconds: for training and the evaluation at its end.
        tokens_per_second: by model of SHAPES, of all processes, as measured.
        heldout_tokens: evaluated at the end.
        length: tokens of a sequence.
    """
    tokens = {
        s.model: SHARE * tokens_per_second[s.model] * seconds - EVALUATION * heldout_tokens for s in SHAPES
    }
    shape = next((s for s in SHAPES if tokens[s.model] >= ENOUGH), SHAPES[-1])
    left = tokens[shape.model]
    batch = next((b for b in shape.batches if left <= shape.max_steps * b * length), shape.batches[-1])
    return Length(shape.model, max(MIN_STEPS, min(shape.max_steps, int(left / (batch * length)))), batch)


def measure(
    experiment: str, vocab_size: int, environment: Mapping[str, str], processes: int = 2
) -> dict[str, float]:
    """Tokens a second of forward and backward passes by model, summed over processes that run at once with one thread each.

    Raises:
        RuntimeError: a process failed; its output stands above.
    """
    command = children.command("launch.pace", experiment, str(vocab_size), *(s.model for s in SHAPES))
    started = [
        subprocess.Popen(command, env=children.environment(environment), stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    printed = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"`{' '.join(command)}` failed")
    speeds = [json.loads(line) for line in printed]
    return {s.model: sum(speed[s.model] for speed in speeds) for s in SHAPES}


def main() -> int:
    experiment, vocab_size, models = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    import torch

    from pretrain.dtype import decide

    half = decide("auto", torch.device("cpu")).dtype == "bf16"
    speeds = {}
    for model in models:
        overrides = [f"experiment={experiment}", f"model={model}", "data.path=none", "run.dir=none"]
        config = edge.load("train", TrainRun, overrides)
        seconds = _seconds(config, vocab_size, torch.bfloat16 if half else torch.float32)
        speeds[model] = ROWS * LENGTH / seconds
    print(json.dumps(speeds))
    return 0


def _seconds(config: TrainRun, vocab_size: int, dtype: torch.dtype) -> float:
    """Shortest time of a forward and backward pass of the model, after one that is not counted."""
    import torch

    from pretrain.model.init import init_weights
    from pretrain.model.llama import Llama

    model = Llama(config.model, vocab_size)
    init_weights([model], config.seed)
    model.compute_dtype = dtype
    tokens = torch.randint(vocab_size, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(LENGTH).expand(ROWS, LENGTH)
    boundaries = torch.tensor([0, LENGTH], dtype=torch.int32).expand(ROWS, 2)
    times = []
    for _ in range(1 + ROUNDS):
        began = time.perf_counter()
        model(tokens[:, :-1], positions, boundaries, tokens[:, 1:]).backward()
        times.append(time.perf_counter() - began)
    return min(times[1:])


if __name__ == "__main__":
    sys.exit(main())
