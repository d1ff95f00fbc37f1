"""Models: training, checkpoints and samples."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from configs import edge
from configs.schema.train import GenerateRun, TrainRun
from pretrain import generate as sampling
from pretrain.checkpoint import step_of
from pretrain.model.llama import Llama
from pretrain.resilience import STOP_SIGNALS
from pretrain.weights import RunTokenizer, from_newest, read_config, read_tokenizer, tokenizer_in


@dataclass(frozen=True)
class TrainedModel:
    """A model restored from a checkpoint, with what belongs to it."""

    model: Llama
    """In evaluation mode."""
    tokenizer: RunTokenizer
    """Its `encode` and `decode` turn text into ids and back."""
    config: TrainRun
    """Configuration of the run."""
    step: int
    """Step of the checkpoint."""


def train(config: TrainRun) -> bool:
    """Train in this process; returns whether the run is finished.

    A run that was interrupted continues from its newest checkpoint that verifies. SIGTERM, SIGUSR1 and Ctrl-C end the
    step, save a checkpoint and return False. Call it from the main thread. Started by torchrun, each process is a rank;
    otherwise this process trains alone (`arriero launch` restarts what fails). A dry run (`train.dry_run`) trains nothing,
    and returns whether the run fits.

    Raises:
        ConfigError, PackedError, PlanError, OSError: what is wrong and what to do.
        TrainingStopped: the loss or the gradients were not finite for too many steps in a row.
    """
    from pretrain.train import run

    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        return run(config, raises=True) == 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def load_tokenizer(folder: str | os.PathLike[str]) -> RunTokenizer:
    """Return the tokenizer of a folder, such as `tokenizer/` of a packed dataset.

    Raises:
        ConfigError: there is no `tokenizer.json`, or it is damaged.
    """
    return tokenizer_in(Path(folder), "expected the folder of a tokenizer")


def load_checkpoint(
    run_dir: str | os.PathLike[str],
    step: int | None = None,
    dtype: Literal["bf16", "fp32", "fp64"] = "fp32",
    device: str | torch.device = "cpu",
) -> TrainedModel:
    """Return the model of a run with the weights of a checkpoint, every tensor verified, on one device.

    Args:
        run_dir: directory of the run (`run.dir`).
        step: step of the checkpoint; None: the newest that verifies.
        dtype: of the weights and of what is computed with them.

    Raises:
        ConfigError: there is no such run or checkpoint.
        CheckpointError: no checkpoint verifies, or the one that was asked for does not.
    """
    folder, target = Path(run_dir), torch.device(device)
    config, tokenizer = read_config(folder), read_tokenizer(folder)
    model, found = from_newest(
        folder,
        step,
        lambda c: (sampling.load(c, config.model, dtype, target, tokenizer.size), step_of(c.path)),
    )
    return TrainedModel(model, tokenizer, config, found)


def generate(
    model: Llama,
    tokenizer: RunTokenizer,
    prompts: str | Sequence[str],
    *,
    max_tokens: int = 128,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    n: int = 1,
    seed: int = 0,
) -> list[str]:
    """Return `n` continuations of each prompt, in the order of the prompts, without the prompts.

    Args:
        prompts: one or several; what the tokenizer's template puts before a text is put before each.
        max_tokens: new tokens at most.
        temperature: of the softmax; 0: the likeliest token.
        top_k: draw from the k likeliest tokens; 0: all.
        top_p: draw from the smallest set of tokens that holds this probability (Holtzman et al. 2020).
        seed: key of the draws; a prompt gets the same continuations alone and among others.

    Raises:
        ConfigError: a setting out of bounds, or a prompt that is empty or fills the model's context.
    """
    settings = {"max_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    config = edge.build(GenerateRun, {"run": {"dir": "."}, **settings, "n": n, "seed": seed})
    encoded = [tokenizer.encode(prompt) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
    with torch.inference_mode():
        samples = sampling.generate(
            model, encoded, tokenizer.stop, config.max_tokens, sampling.check(config), config.n
        )
        return [tokenizer.decode(sample.ids) for _, sample in samples]
