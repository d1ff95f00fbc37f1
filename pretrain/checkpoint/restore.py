"""Restoring: verify every byte that is read, into whatever layout the tensors have now."""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from configs.edge import ConfigError
from pretrain.checkpoint.chunks import Chunk, local_chunks
from pretrain.checkpoint_folders import parse_step, step_of, step_path
from pretrain.distributed import agreed
from pretrain.manifest import Checkpoint, CheckpointError, newest, open_checkpoint


class HasWeights(Protocol):
    """What weights are restored into: the engine of a rank."""

    def state_dict(self) -> dict[str, Tensor]:
        """The parameters themselves, keyed by their names in the unsplit model."""
        ...


@dataclass(frozen=True)
class Restored:
    """What `restore` found."""

    step: int
    path: Path
    state: dict[str, Any]
    passed_over: tuple[str, ...]
    """Why newer checkpoints were not used."""
    seconds: float


def load_into(checkpoint: Checkpoint, tensors: dict[str, Tensor]) -> None:
    """Fill tensors and DTensors of any layout from a checkpoint, casting to their dtype; not collective.

    Raises:
        CheckpointError: a file is missing, short or altered; names the file and the tensor.
        ConfigError: a tensor is not in the checkpoint, or has another shape there.
    """
    for chunk, local in local_chunks(tensors):
        load_chunk(checkpoint, chunk, local)


def load_chunk(checkpoint: Checkpoint, chunk: Chunk, local: Tensor) -> None:
    """Fill one chunk of a tensor; errors as in `load_into`."""
    rows = checkpoint.chunks.get(chunk.name)
    if rows is None:
        raise ConfigError(
            f"{checkpoint.path} holds no tensor `{chunk.name}`: it is a checkpoint of another model or optimizer"
        )
    if tuple(rows[0]["shape"]) != chunk.shape:
        raise ConfigError(
            f"{checkpoint.path} is a checkpoint of another model: `{chunk.name}` has the shape "
            f"{tuple(rows[0]['shape'])} there and {chunk.shape} here"
        )
    filled = 0
    for row in rows:
        offsets, sizes = tuple(row["offsets"]), tuple(row["sizes"])
        into = chunk.overlap(offsets, sizes)
        if into is None:
            continue
        start = [o + s.start for o, s in zip(chunk.offsets, into, strict=True)]
        source = tuple(
            slice(a - o, a - o + s.stop - s.start) for a, o, s in zip(start, offsets, into, strict=True)
        )
        target = local[into]
        target.copy_(_read(checkpoint.path, row)[source])
        filled += target.numel()
    if filled != local.numel():
        raise CheckpointError(
            f"{checkpoint.path / 'manifest.json'}: the stored chunks of `{chunk.name}` cover {filled} of "
            f"{local.numel()} values of this rank's part"
        )


def _read(path: Path, row: dict[str, Any]) -> Tensor:
    file, name = path / row["file"], row["name"]
    try:
        with file.open("rb") as stream:
            stream.seek(row["at"])
            data = stream.read(row["length"])
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing; it should hold `{name}`") from None
    if len(data) != row["length"]:
        raise CheckpointError(
            f"{file} is truncated: `{name}` should have {row['length']} bytes from byte {row['at']}, "
            f"but {len(data)} are there"
        )
    if zlib.crc32(data) != row["crc32"]:
        raise CheckpointError(
            f"{file} is damaged: the bytes of `{name}` ({row['length']} from byte {row['at']}) have the CRC-32 "
            f"{zlib.crc32(data):08x}, not the {row['crc32']:08x} of when they were saved"
        )
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def restore(
    run_dir: Path,
    tensors: Callable[[Checkpoint], dict[str, Tensor]],
    check: Callable[[Checkpoint], None],
    step: int | None = None,
) -> Restored | None:
    """Fill this rank's tensors from the newest checkpoint that verifies on every rank; collective.

    All ranks vote on each candidate, so that none uses what another could not read. When none verifies, the tensors
    may hold parts of one: they must be made anew.

    Args:
        tensors: the tensors to fill, chosen for a checkpoint (random states depend on the world size).
        check: raises ConfigError where a checkpoint is not of this run; that is never walked past.
        step: use this step alone; None: the newest.

    Returns:
        What was restored, with the reasons against newer ones in `passed_over`; None: there is no checkpoint at all
        (then nothing was touched).

    Raises:
        ConfigError: a checkpoint of another model, tokenizer or configuration, or a `step` that is not there.
        CheckpointError: there are checkpoints, but none verifies.
    """
    began = time.time()
    candidates = [step_path(run_dir, step)] if step is not None else _agree(newest(run_dir))
    passed_over: list[str] = []
    for path in candidates:
        state: dict[str, Any] = {}
        problem: Exception | None = None
        try:
            checkpoint = open_checkpoint(path)
            check(checkpoint)
            load_into(checkpoint, tensors(checkpoint))
            state = checkpoint.state
        except (ConfigError, OSError) as error:
            problem = error
        problems = _gather(problem)
        for found in problems:
            if isinstance(found, ConfigError):
                raise agreed(found)
        if not any(problems):
            return Restored(step_of(path), path, state, tuple(passed_over), time.time() - began)
        passed_over.append(next(str(found) for found in problems if found is not None))
    if not candidates:
        return None
    if step is not None and not candidates[0].exists():
        steps = ", ".join(str(step_of(p)) for p in newest(run_dir)) or "none"
        raise agreed(ConfigError(f"{run_dir} has no checkpoint of step {step} (there are: {steps})"))
    raise agreed(CheckpointError(f"no checkpoint of {run_dir} verifies: " + "; ".join(passed_over)))


def restore_model(engine: HasWeights, run_dir: Path, step: int | None = None) -> int:
    """Fill the weights of an engine from a run's newest checkpoint that verifies; collective where there is a group.

    Args:
        run_dir: a run directory, or one of its checkpoints (`…/checkpoints/step-00000050`).
        step: step of the checkpoint; None: the newest that verifies.

    Returns:
        The step.

    Raises:
        ConfigError: no checkpoint there, or one of another model.
        CheckpointError: there are checkpoints, but none verifies.
    """
    run_dir = Path(run_dir)
    if parse_step(run_dir.name) is not None and run_dir.parent.name == "checkpoints":
        run_dir, step = run_dir.parent.parent, step_of(run_dir)
    weights = engine.state_dict()
    # A checkpoint names weights `model.NAME`.
    named = {f"model.{name}": tensor for name, tensor in weights.items()}
    restored = restore(run_dir, lambda checkpoint: named, lambda checkpoint: None, step)
    if restored is None:
        raise agreed(
            ConfigError(f"{run_dir} has no committed checkpoint (looked for checkpoints/step-*/COMMITTED)")
        )
    return restored.step


def _agree(paths: list[Path]) -> list[Path]:
    """Rank 0's list: on network file systems others may see it later."""
    box: list[list[Path]] = [paths]
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def _gather(problem: Exception | None) -> list[Exception | None]:
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return [problem]
    told = problem
    if problem is not None:
        told = (
            ConfigError(str(problem)) if isinstance(problem, ConfigError) else CheckpointError(str(problem))
        )
    problems: list[Exception | None] = [None] * dist.get_world_size()
    dist.all_gather_object(problems, told)
    return problems
