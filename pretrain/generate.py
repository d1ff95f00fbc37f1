"""`arriero generate`: samples from a checkpoint.

What the tokenizer's own template puts before a text stands before every prompt (the begin-of-text token of Llama 3;
nothing of GPT-2 and SmolLM2); a sample ends on `<|end_of_text|>` or `<|eot_id|>`, after
`max_tokens`, or where the model's context ends. Samples are printed and kept in `samples.jsonl` of the run directory.

Examples:
  arriero generate run.dir=runs/a prompt="The"
  arriero generate run.dir=runs/a prompt="def " temperature=0.7 top_p=0.95 n=3 max_tokens=200
  arriero generate run.dir=runs/a prompts=few_shot.jsonl temperature=0 output=answers.jsonl
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import orjson
import torch
from torch import Tensor

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import GenerateRun, ModelConfig
from data_pipeline.packed.files import write_atomically
from pretrain.checkpoint import Checkpoint, load_into, step_of
from pretrain.dtype import decide
from pretrain.hf import padded_vocab_size, parameter_shapes
from pretrain.host import limit_threads
from pretrain.model.decode import Cache, decode
from pretrain.model.llama import Llama
from pretrain.rundir import JsonlLog
from pretrain.weights import DTYPES, from_newest, read_config, read_tokenizer, stored_vocab_size

ROWS = 32
"""Texts that are decoded together."""


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn: softmax of logits ÷ temperature, cut to top-k, then to top-p, then one draw."""

    temperature: float
    """0: the likeliest token."""
    top_k: int
    """Tokens kept; 0: all."""
    top_p: float
    """Probability that the kept tokens, likeliest first, reach at least (Holtzman et al. 2020)."""
    seed: int
    """Key of every draw."""


@dataclass(frozen=True)
class Sample:
    """One continuation of a prompt."""

    ids: list[int]
    """New tokens, without the one that ended the text."""
    finish: Literal["stop", "length"]
    """Ended by a stop token, or cut."""


def main(argv: Sequence[str] | None = None) -> int:
    """`arriero generate`."""
    return edge.main("generate", GenerateRun, run, __doc__, argv)


def run(config: GenerateRun) -> int:
    """Sample, print, and append to samples.jsonl; returns the exit status."""
    limit_threads(1)
    run_dir, sampling = Path(config.run.dir), check(config)
    prompts = read_prompts(config)
    model_config, tokenizer = read_config(run_dir).model, read_tokenizer(run_dir)
    cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    if cuda and not torch.cuda.is_available():
        raise ConfigError(
            "`device` is cuda, but torch finds no CUDA device here; use device=cpu or device=auto"
        )
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    if not all(encoded):
        raise ConfigError(
            "the prompt is empty, and this model's tokenizer puts no token before a text, so there is nothing to go on "
            "from; give prompt=…"
        )
    device = torch.device("cuda" if cuda else "cpu")
    precision = decide(config.dtype, device)
    model, step = from_newest(
        run_dir,
        config.step,
        lambda c: (load(c, model_config, precision.dtype, device, tokenizer.size), step_of(c.path)),
    )
    # After what may be wrong with the checkpoint, and not on standard output, which holds the samples alone.
    precision.tell(_to_stderr, lambda text: _to_stderr(f"warning: {text}"))
    rows = []
    for index, sample in generate(model, encoded, tokenizer.stop, config.max_tokens, sampling, config.n):
        text = tokenizer.decode(sample.ids)
        print(f"{prompts[index]}{text}\n{'-' * 60}", flush=True)
        row = {
            "step": step,
            "prompt": prompts[index],
            "text": text,
            "tokens": len(sample.ids),
            "finish": sample.finish,
        }
        how = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
        rows.append(row | how | {"seed": sampling.seed, "time": time.time()})
    JsonlLog(run_dir / "samples.jsonl").write(rows)
    if config.output is not None:
        output = Path(config.output)
        write_atomically(output, b"".join(orjson.dumps(row) + b"\n" for row in rows))
        print(f"{len(rows)} samples in {output}")
    return 0


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def check(config: GenerateRun) -> Sampling:
    """The sampling that a configuration asks for; ConfigError for values that mean nothing."""
    for key, valid, expected in (
        ("temperature", config.temperature >= 0, "at least 0"),
        ("top_k", config.top_k >= 0, "at least 0 (0: all)"),
        ("top_p", 0 < config.top_p <= 1, "above 0 and at most 1"),
        ("n", config.n >= 1, "at least 1"),
        ("max_tokens", config.max_tokens >= 1, "at least 1"),
    ):
        if not valid:
            raise ConfigError(f"`{key}` is {getattr(config, key)}, but it must be {expected}")
    return Sampling(config.temperature, config.top_k, config.top_p, config.seed)


def read_prompts(config: GenerateRun) -> list[str]:
    """Prompts of the command line or of a file.

    A file is JSONL with `prompt` in each row, or text in which blank lines separate prompts. Without either, the
    prompt is what the tokenizer puts before a text.

    Raises:
        ConfigError: both are given, or the file holds no prompt or a row without one.
    """
    if config.prompts is None:
        return [config.prompt or ""]
    if config.prompt is not None:
        raise ConfigError("`prompt` and `prompts` are both given; give one of them")
    path = Path(config.prompts)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"`prompts={path}` does not exist; give a file of prompts") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start})") from None
    # Lines end at "\n" alone: `splitlines` would also cut at U+2028 and others, which JSON strings may hold.
    lines = content.replace("\r\n", "\n").split("\n")
    if path.suffix == ".jsonl":
        prompts = []
        for number, line in enumerate(lines, 1):
            if line.strip():
                prompts.append(_prompt_of(line, f"{path}, line {number}"))
    else:
        parts = "\n".join("" if not line.strip() else line for line in lines).split("\n\n")
        prompts = [part.strip("\n") for part in parts if part.strip()]
    if not prompts:
        raise ConfigError(f"{path} holds no prompt")
    return prompts


def _prompt_of(line: str, where: str) -> str:
    try:
        row = json.loads(line.lstrip("\ufeff"))  # files that were joined have marks within
    except ValueError as error:
        raise ConfigError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise ConfigError(f'{where}: expected {{"prompt": "…"}}')
    prompt: str = row["prompt"]
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{where}: the prompt holds half of a surrogate pair at character {error.start}, which is no text; write the "
            "character itself, or both halves"
        ) from None
    return prompt


def load(
    checkpoint: Checkpoint,
    config: ModelConfig,
    dtype: str,
    device: torch.device,
    n_tokens: int | None = None,
) -> Llama:
    """The whole model of a checkpoint on one device, every tensor verified.

    Args:
        n_tokens: tokens of the tokenizer; where the embedding is these padded, padding is never sampled. None: every row
            is a token.
    """
    vocab_size = rows = stored_vocab_size(checkpoint)
    if n_tokens is not None and padded_vocab_size(config, n_tokens) == rows:
        vocab_size = n_tokens
    with torch.device("meta"):
        model = Llama(config, vocab_size)
    model = model.to(DTYPES[dtype]).to_empty(device=device).eval()
    parameters = dict(model.named_parameters())
    assert parameters.keys() == parameter_shapes(config, rows).keys()
    load_into(checkpoint, {f"model.{name}": parameter for name, parameter in parameters.items()})
    return model


def generate(
    model: Llama,
    prompts: Sequence[list[int]],
    stop: Sequence[int],
    max_tokens: int,
    sampling: Sampling,
    n: int = 1,
) -> Iterator[tuple[int, Sample]]:
    """Sample `n` continuations of each prompt, in order; yields (prompt index, sample).

    Draws are keyed by (seed, prompt, number of the sample), so a prompt gives the same samples alone and among
    others, up to ties that rounding decides.

    Args:
        prompts: token ids, the begin-of-text token included; lengths may differ.
        stop: ids that end a text.

    Raises:
        ConfigError: a prompt is empty or fills the model's context.
    """
    context = model.config.max_sequence_length
    for index, prompt in enumerate(prompts):
        if not 0 < len(prompt) < context:
            raise ConfigError(
                f"prompt {index + 1} has {len(prompt)} tokens, but the model reads 1 to {context - 1} before it writes "
                "(model.max_sequence_length)"
            )
    jobs = [(index, sample) for index in range(len(prompts)) for sample in range(n)]
    for first in range(0, len(jobs), ROWS):
        part = jobs[first : first + ROWS]
        samples = _generate_together(
            model, [prompts[i] for i, _ in part], [s for _, s in part], stop, max_tokens, sampling
        )
        yield from zip((i for i, _ in part), samples, strict=True)


def _generate_together(
    model: Llama,
    prompts: list[list[int]],
    numbers: list[int],
    stop: Sequence[int],
    max_tokens: int,
    sampling: Sampling,
) -> list[Sample]:
    device = next(model.parameters()).device
    context = model.config.max_sequence_length
    room = [min(max_tokens, context - len(prompt)) for prompt in prompts]
    cache = Cache.empty(model, len(prompts), max(len(p) + r for p, r in zip(prompts, room, strict=True)))
    draws = [_draws(sampling.seed, p, number) for p, number in zip(prompts, numbers, strict=True)]
    logits: list[Tensor] = []
    for row, prompt in enumerate(prompts):
        if row and prompt == prompts[row - 1]:
            cache.copy_row(row - 1, row)
            logits.append(logits[-1])
        else:
            logits.append(decode(model, torch.tensor([prompt], device=device), cache.row(row))[0])
    following = torch.stack(logits)
    ids: list[list[int]] = [[] for _ in prompts]
    finish: list[Literal["stop", "length"] | None] = [None] * len(prompts)
    while True:
        values = following.to("cpu", torch.float64).numpy()
        chosen = [0] * len(prompts)
        for row in range(len(prompts)):
            if finish[row] is None:
                chosen[row] = choose(values[row], sampling, draws[row])
                if chosen[row] in stop:
                    finish[row] = "stop"
                    continue
                ids[row].append(chosen[row])
                if len(ids[row]) == room[row]:
                    finish[row] = "length"
        if all(finish):
            return [Sample(i, f or "length") for i, f in zip(ids, finish, strict=True)]
        # A finished text is decoded on with the others; it must not run out of its room.
        cache.lengths.clamp_(max=cache.k_lbske.size(2) - 1)
        following = decode(model, torch.tensor(chosen, device=device)[:, None], cache)


def _draws(seed: int, prompt: list[int], number: int) -> np.random.Generator:
    key = hashlib.blake2b(json.dumps([seed, prompt, number]).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def choose(logits: np.ndarray, sampling: Sampling, draws: np.random.Generator) -> int:
    """One token id from logits [V], fp64; the draw is taken from `draws` unless the temperature is 0.

    Raises:
        ValueError: the logits are not finite.
    """
    if not np.isfinite(logits).all():
        raise ValueError(
            "the model gave logits that are not finite; its weights are broken, or bf16 overflowed"
        )
    if sampling.temperature == 0:
        return int(logits.argmax())
    # Likeliest first; equal ones in the order of their ids.
    order = np.argsort(-logits, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    scaled = (logits[order] - logits[order[0]]) / sampling.temperature
    cumulative = np.cumsum(np.exp(scaled))
    if sampling.top_p < 1:
        kept = int(np.searchsorted(cumulative, sampling.top_p * cumulative[-1])) + 1
        cumulative = cumulative[:kept]
    position = np.searchsorted(cumulative, draws.random() * cumulative[-1], side="right")
    return int(order[min(int(position), len(cumulative) - 1)])


if __name__ == "__main__":
    sys.exit(main())
