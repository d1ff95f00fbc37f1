"""What a finished run is read by: its configuration, its tokenizer, and its weights one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer
from torch import Tensor

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import ModelConfig, TrainRun
from data_pipeline.packed import read_template, token_name
from pretrain.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_into,
    newest,
    open_checkpoint,
    step_of,
    step_path,
)
from pretrain.hf import parameter_shapes

T = TypeVar("T")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}


@dataclass(frozen=True)
class RunTokenizer:
    """The tokenizer of a run."""

    path: Path
    """Folder of tokenizer.json."""
    tokenizer: Tokenizer
    begin: tuple[int, ...]
    """Ids that the tokenizer's own template puts before a text; empty for GPT-2's and SmolLM2's."""
    bos: int | None
    """Id of the token that the tokenizer calls BOS, whether it is put before texts or not; None: there is none."""
    size: int
    """Number of ids: one more than the highest; where ids are left out, more than there are tokens."""
    stop: tuple[int, ...]
    """Ids that end a text: `<|end_of_text|>` (or the tokenizer's EOS) first, then `<|eot_id|>`."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text behind those of the template (once, also where the text brings them)."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        begin = list(self.begin)
        return ids if ids[: len(begin)] == begin else begin + ids

    def decode(self, ids: list[int]) -> str:
        """Text of ids, without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)


def read_config(run_dir: Path) -> TrainRun:
    """The resolved configuration of a run; ConfigError where there is none."""
    if not run_dir.is_dir():
        raise ConfigError(f"`run.dir={run_dir}` is not a directory; give the directory of a run")
    return edge.read(run_dir / "config.yaml", TrainRun)


def read_tokenizer(run_dir: Path) -> RunTokenizer:
    """The tokenizer that lies in a run directory; ConfigError where there is none, or a damaged one."""
    return tokenizer_in(run_dir / "tokenizer", "a run holds a copy of its tokenizer there")


def tokenizer_in(folder: Path, expected: str) -> RunTokenizer:
    """The tokenizer of a folder.

    Args:
        expected: why one should be there, for messages.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; {expected}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The library raises bare Exception.
    except Exception as error:
        raise ConfigError(f"{path} is no tokenizer: {error}{pointer(path)}") from None
    settings = {}
    if (folder / "tokenizer_config.json").is_file():
        settings = read_json(folder / "tokenizer_config.json")

    def named(key: str, default: str) -> int | None:
        return tokenizer.token_to_id(token_name(settings.get(key)) or default)

    try:
        begin, _ = read_template(tokenizer)
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}") from None

    stop = [
        named("eos_token", "<|end_of_text|>"),
        *map(tokenizer.token_to_id, ("<|end_of_text|>", "<|eot_id|>")),
    ]
    return RunTokenizer(
        folder,
        tokenizer,
        begin,
        named("bos_token", "<|begin_of_text|>"),
        max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1,
        tuple(dict.fromkeys(i for i in stop if i is not None)),
    )


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file of a Hugging Face model, in any of Unicode's encodings.

    Raises:
        ConfigError: it does not exist, is damaged, or holds no mapping.
    """
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{path} does not exist; expected the folder of a Hugging Face model") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}{pointer(path)}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping, but it holds {type(data).__name__}")
    return data


def pointer(path: Path) -> str:
    """A remedy to add to a message about a damaged file, where it is only a pointer of Git LFS; else nothing."""
    with path.open("rb") as file:
        is_pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
    return "; it is a pointer of Git LFS, whose content `git lfs pull` fetches" if is_pointer else ""


LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def from_newest(run_dir: Path, step: int | None, use: Callable[[Checkpoint], T]) -> T:
    """Give the newest checkpoint that verifies to `use`, walking back past broken ones, which are named.

    Every tensor is verified when it is read, so `use` may fail with CheckpointError half-way and is then called
    again with the checkpoint before it.

    Args:
        step: step of the checkpoint; None: the newest. A step that was asked for is never walked past.

    Raises:
        ConfigError: no such checkpoint.
        CheckpointError: there are checkpoints, but none verifies.
    """
    paths = newest(run_dir)
    if step is not None:
        steps = ", ".join(str(step_of(p)) for p in paths) or "none"
        paths = [p for p in paths if p == step_path(run_dir, step)]
        if not paths:
            raise ConfigError(f"{run_dir} has no checkpoint of step {step} (there are: {steps})")
    if not paths:
        raise ConfigError(f"{run_dir} has no committed checkpoint (looked for checkpoints/step-*/COMMITTED)")
    broken = []
    for path in paths:
        try:
            return use(open_checkpoint(path))
        except CheckpointError as error:
            broken.append(str(error))
            if path != paths[-1]:
                print(f"{path.name} is passed over: {error}")
    raise CheckpointError(f"no checkpoint of {run_dir} verifies: {'; '.join(broken)}")


def stored_vocab_size(checkpoint: Checkpoint) -> int:
    """Rows of the embedding in a checkpoint: the vocabulary size of its model."""
    rows = checkpoint.chunks.get("model.tok_embeddings.weight")
    if not rows:
        raise ConfigError(
            f"{checkpoint.path} holds no `model.tok_embeddings.weight`: it is no checkpoint of a Llama"
        )
    return int(rows[0]["shape"][0])


def read_tensor(
    checkpoint: Checkpoint,
    name: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> Tensor:
    """One verified parameter by its name in the unsplit model, cast to `dtype`."""
    tensor = torch.empty(shape, dtype=dtype, device=device)
    load_into(checkpoint, {f"model.{name}": tensor})
    return tensor


def read_weights(
    checkpoint: Checkpoint, model: ModelConfig, dtype: torch.dtype, device: torch.device | str
) -> dict[str, Tensor]:
    """All parameters of a model by name, verified."""
    shapes = parameter_shapes(model, stored_vocab_size(checkpoint))
    return {name: read_tensor(checkpoint, name, shape, dtype, device) for name, shape in shapes.items()}
