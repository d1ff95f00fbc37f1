"""`arriero average`: the mean of several checkpoints of a run becomes a run directory with one checkpoint.

Weights of the last steps, averaged, are better than those of the last step alone: Polyak averaging while the learning
rate is annealed, as for Llama 3 (report, section 3.4.3), or of checkpoints on the way (LAWA, Kaddour 2022). The mean is
taken in fp64, chunk by chunk, so memory does not grow with the model; every byte read is verified. The result can be
evaluated, sampled, exported, and continued with model.init_from=DIR. Keep enough checkpoints: checkpoint.keep=0 keeps all.

Examples:
  arriero average run.dir=runs/a last=5 output=runs/a-mean
  arriero average run.dir=runs/a 'steps=[900,950,1000]' output=runs/a-annealed
  arriero average run.dir=runs/a last=2 output=runs/b --cfg job     # shows the configuration and stops
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import AverageRun, RunConfig
from data_pipeline.packed.files import atomic_folder, write_atomically
from pretrain.checkpoint import (
    Checkpoint,
    load_chunk,
    newest,
    open_checkpoint,
    step_of,
    step_path,
    write_checkpoint,
)
from pretrain.checkpoint.chunks import Chunk
from pretrain.host import limit_threads
from pretrain.weights import read_config, read_tokenizer


def main(argv: Sequence[str] | None = None) -> int:
    """`arriero average`."""
    return edge.main("average", AverageRun, run, __doc__, argv)


def run(config: AverageRun) -> int:
    """Make the run directory; returns the exit status."""
    limit_threads(1)
    run_dir, output = Path(config.run.dir), Path(config.output)
    steps = chosen_steps(run_dir, config.steps, config.last)
    average(run_dir, steps, output)
    print(
        f"{output}: mean of steps {', '.join(map(str, steps))} of {run_dir}, as checkpoint of step {steps[-1]}"
    )
    return 0


def chosen_steps(run_dir: Path, steps: Sequence[int], last: int | None) -> list[int]:
    """The steps that were asked for, ascending.

    Raises:
        ConfigError: no run directory, neither or both of `steps` and `last`, fewer than two checkpoints, or some that are
            not there.
    """
    read_config(run_dir)
    there = sorted(step_of(path) for path in newest(run_dir))
    listed = ", ".join(map(str, there)) or "none"
    if bool(steps) == (last is not None):
        raise ConfigError("give either `steps=[…]` or `last=K`, to say which checkpoints are averaged")
    if last is not None:
        if not 2 <= last <= len(there):
            raise ConfigError(
                f"`last` is {last}, but {run_dir} has {len(there)} committed checkpoints (steps: {listed}); a mean "
                "takes at least 2, and a run with checkpoint.keep=0 keeps all"
            )
        return there[-last:]
    if missing := [step for step in steps if step not in there]:
        raise ConfigError(f"{run_dir} has no checkpoint of step {missing[0]} (there are: {listed})")
    if len(set(steps)) < max(2, len(steps)):
        raise ConfigError(f"`steps` must name at least two different checkpoints, but it is {list(steps)}")
    return sorted(steps)


def average(run_dir: Path, steps: Sequence[int], output: Path) -> None:
    """Make a run directory whose checkpoint has the mean weights of several.

    Args:
        steps: of committed checkpoints, ascending; the new checkpoint has the last one's step.
        output: must not exist or be an empty folder; appears whole or not at all.

    Raises:
        ConfigError: `output` holds files, or the checkpoints are of different models.
        CheckpointError: one of them does not verify.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"`output={output}` exists and is not an empty folder; choose another or empty it")
    config, tokenizer = read_config(run_dir), read_tokenizer(run_dir)
    checkpoints = [open_checkpoint(step_path(run_dir, step)) for step in steps]
    check_same_model(checkpoints)
    with atomic_folder(output, durable=True) as partial:
        shutil.copytree(tokenizer.path, partial / "tokenizer")
        saved = replace(config, run=RunConfig(dir=str(output)))
        write_atomically(partial / "config.yaml", edge.to_yaml(saved))
        state = {
            "step": steps[-1],
            "averaged": {"run": str(run_dir.resolve()), "steps": list(steps)},
            "sequence_length": checkpoints[-1].state.get("sequence_length"),
        }
        write_checkpoint(step_path(partial, steps[-1]), mean_chunks(checkpoints), state)


def check_same_model(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise ConfigError where checkpoints do not hold the same weights in the same shapes and precision."""
    first = checkpoints[0]
    for other in checkpoints[1:]:
        for name in sorted(_weights(first).keys() ^ _weights(other).keys()):
            has, lacks = (first, other) if name in first.chunks else (other, first)
            raise ConfigError(
                f"{has.path} and {lacks.path} are of different models: only the first holds `{name}`"
            )
        for name, (shape, dtype) in _weights(first).items():
            if _weights(other)[name] != (shape, dtype):
                raise ConfigError(
                    f"{first.path} and {other.path} are of different models: `{name}` is {dtype} {shape} in one and "
                    f"{' '.join(map(str, reversed(_weights(other)[name])))} in the other"
                )


def mean_chunks(checkpoints: Sequence[Checkpoint]) -> Iterator[tuple[Chunk, Tensor]]:
    """The mean weights, chunk by chunk as the last checkpoint stores them, in its precision.

    Raises:
        CheckpointError: what is read is not what was saved.
    """
    last = checkpoints[-1]
    rows = [row for name in _weights(last) for row in last.chunks[name]]
    for row in tqdm(rows, desc="averaging", unit="chunk", disable=not sys.stderr.isatty()):
        chunk = Chunk(row["name"], tuple(row["offsets"]), tuple(row["sizes"]), tuple(row["shape"]))
        dtype = getattr(torch, row["dtype"])
        total = torch.zeros(chunk.sizes, dtype=torch.float64)
        for checkpoint in checkpoints:
            part = torch.empty(chunk.sizes, dtype=dtype)
            load_chunk(checkpoint, chunk, part)
            total += part
        yield chunk, (total / len(checkpoints)).to(dtype)


def _weights(checkpoint: Checkpoint) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and precision of every weight, by name in the checkpoint."""
    return {
        name: (tuple(rows[0]["shape"]), rows[0]["dtype"])
        for name, rows in checkpoint.chunks.items()
        if name.startswith("model.")
    }


if __name__ == "__main__":
    sys.exit(main())
