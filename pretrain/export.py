"""`arriero export`: a checkpoint becomes a Hugging Face folder that transformers, vLLM and trl load as a Llama.

Weights as safetensors (in shards with an index above 5 GB), config.json, generation_config.json and the tokenizer.
One tensor is in memory at a time, and every byte read is verified. The folder appears whole or not at all.

llama.cpp's converter knows tokenizers by a hash of the ids that they give to a text of its own. A newly trained one is not
among them, whatever its pattern: add its hash, which the converter prints, to `get_vocab_base_pre` of the converter.

Examples:
  arriero export run.dir=runs/a output=exports/a
  arriero export run.dir=runs/a output=exports/a-bf16 dtype=bf16
  arriero export run.dir=runs/a output=exports/a-500 step=500
"""

from __future__ import annotations

import json
import math
import shutil
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import ExportRun, ModelConfig
from data_pipeline.packed.files import atomic_folder
from pretrain.checkpoint import Checkpoint, step_of
from pretrain.hf import hf_name, parameter_shapes, to_hf_config
from pretrain.host import limit_threads
from pretrain.weights import (
    DTYPES,
    RunTokenizer,
    from_newest,
    read_config,
    read_tensor,
    read_tokenizer,
    stored_vocab_size,
)

MAX_SHARD_BYTES = 5 * 10**9
_SAFETENSORS_DTYPES = {"bf16": "BF16", "fp32": "F32", "fp64": "F64"}


def main(argv: Sequence[str] | None = None) -> int:
    """`arriero export`."""
    return edge.main("export", ExportRun, run, __doc__, argv)


def run(config: ExportRun) -> int:
    """Write the folder; returns the exit status."""
    limit_threads(1)
    run_dir, output = Path(config.run.dir), Path(config.output)
    model, tokenizer = read_config(run_dir).model, read_tokenizer(run_dir)
    step, size = export(run_dir, output, model, tokenizer, config.step, config.dtype)
    print(f"{output}: step {step} of {run_dir}, {size / 2**20:,.1f} MiB of weights in {config.dtype}")
    return 0


def export(
    run_dir: Path,
    output: Path,
    model: ModelConfig,
    tokenizer: RunTokenizer,
    step: int | None,
    dtype: str,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> tuple[int, int]:
    """Write a checkpoint of a run as a Hugging Face folder.

    Args:
        output: must not exist or be an empty folder.
        step: step of the checkpoint; None: the newest that verifies.
        dtype: stored precision, `bf16`, `fp32` or `fp64`.
        max_shard_bytes: largest file of weights.

    Returns:
        The step and the bytes of all tensors.

    Raises:
        ConfigError: `output` holds files, or there is no such checkpoint.
        CheckpointError: no checkpoint verifies.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"`output={output}` exists and is not an empty folder; choose another or empty it")
    with atomic_folder(output, durable=True) as partial:

        def write(checkpoint: Checkpoint) -> tuple[int, int]:
            for left in partial.iterdir():  # of a checkpoint that turned out damaged
                left.unlink()
            size = _write_weights(checkpoint, partial, model, dtype, max_shard_bytes)
            length = checkpoint.state.get("sequence_length")
            _write_settings(partial, model, stored_vocab_size(checkpoint), tokenizer, dtype, length)
            return step_of(checkpoint.path), size

        return from_newest(run_dir, step, write)


def _write_weights(
    checkpoint: Checkpoint, folder: Path, model: ModelConfig, dtype: str, max_shard_bytes: int
) -> int:
    shapes = parameter_shapes(model, stored_vocab_size(checkpoint))
    width = DTYPES[dtype].itemsize
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * width
        if filled and filled + size > max_shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = shape
        filled += size
    weight_map: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards, 1):
        file = (
            "model.safetensors"
            if len(shards) == 1
            else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        )
        tensors = (read_tensor(checkpoint, name, shape, DTYPES[dtype]) for name, shape in shard.items())
        total += _write_safetensors(
            folder / file,
            {hf_name(n): s for n, s in shard.items()},
            tensors,
            _SAFETENSORS_DTYPES[dtype],
            width,
        )
        weight_map |= {hf_name(name): file for name in shard}
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", index)
    return total


def _write_safetensors(
    path: Path, shapes: dict[str, tuple[int, ...]], tensors: Iterator[Tensor], dtype: str, width: int
) -> int:
    """Write a safetensors file from tensors that come one by one; returns the bytes of the tensors.

    safetensors' own writer wants all tensors of a file in memory. The format is a length (8 bytes), a JSON header
    with the place of each tensor, and their bytes.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * width
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # tensors are aligned to 8 bytes
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)))
        file.write(encoded)
        for tensor in tensors:
            file.write(tensor.contiguous().view(torch.uint8).numpy().data)
    return at


def _write_settings(
    folder: Path,
    model: ModelConfig,
    vocab_size: int,
    tokenizer: RunTokenizer,
    dtype: str,
    trained_length: int | None,
) -> None:
    for file in sorted(tokenizer.path.iterdir()):
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    config = to_hf_config(model, vocab_size, tokenizer.bos, list(tokenizer.stop), dtype, trained_length)
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        own = json.loads(settings.read_text(encoding="utf-8"))
        # Longer inputs would be positions that the model never saw.
        own["model_max_length"] = config["max_position_embeddings"]
        _write_json(settings, own)
    _write_json(folder / "config.json", config)
    generation = {
        "bos_token_id": config["bos_token_id"],
        "eos_token_id": config["eos_token_id"],
        "do_sample": True,
    }
    _write_json(folder / "generation_config.json", generation)


def _write_json(path: Path, data: Mapping[str, object]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
