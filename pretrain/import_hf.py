"""`arriero import`: a Hugging Face Llama becomes a run whose weights can be continued, sampled, evaluated, exported.

The weights keep their stored precision, bit for bit; they are the checkpoint of step 0 of the new run directory.
Continue from it with `arriero train model.init_from=RUN …` on data packed with the same tokenizer.

Examples:
  arriero import input=exports/a run.dir=runs/imported
  arriero import input=models/Llama-3.2-1B run.dir=runs/llama-1b
  arriero import input=models/tiny run.dir=runs/tiny --cfg job     # shows the configuration and stops
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import DataConfig, ImportRun, ModelConfig, RunConfig, TrainConfig, TrainRun
from data_pipeline.packed.files import atomic_folder, write_atomically
from pretrain.checkpoint import Checkpointer
from pretrain.checkpoint.chunks import local_chunks
from pretrain.distributed import process_group
from pretrain.hf import from_hf_config, hf_name, parameter_shapes, vocab_multiple

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
FLOATS = ("BF16", "F16", "F32", "F64")
"""safetensors' names of the number formats that are weights by themselves."""
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ROWS = 4096
"""Rows of embedding and head that are compared at a time."""


def main(argv: Sequence[str] | None = None) -> int:
    """`arriero import`."""
    return edge.main("import", ImportRun, run, __doc__, argv)


def run(config: ImportRun) -> int:
    """Make the run directory; returns the exit status."""
    folder, run_dir = Path(config.input), Path(config.run.dir)
    model, vocab_size = import_model(folder, run_dir)
    count = sum(torch.Size(s).numel() for s in parameter_shapes(model, vocab_size).values())
    print(
        f"{run_dir}: {count:,} parameters of {folder}, vocabulary of {vocab_size:,}, as checkpoint of step 0"
    )
    return 0


def import_model(folder: Path, run_dir: Path) -> tuple[ModelConfig, int]:
    """Make a run directory with a committed checkpoint of step 0 from a Hugging Face folder.

    Returns:
        The model's configuration and its vocabulary size.

    Raises:
        ConfigError: no Llama that can be imported, tensors missing or of another shape, or `run_dir` is not empty.
    """
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise ConfigError(f"`run.dir={run_dir}` exists and is not an empty folder; choose another")
    source = HfWeights(folder)
    tokenizer_path = folder / "tokenizer.json"
    if not (folder / "tokenizer.json").is_file():
        raise ConfigError(
            f"{folder / 'tokenizer.json'} does not exist; save the tokenizer there with "
            "transformers.AutoTokenizer.from_pretrained(…).save_pretrained(…)"
        )
    n_tokens = Tokenizer.from_file(str(tokenizer_path)).get_vocab_size()
    if n_tokens > source.vocab_size:
        raise ConfigError(
            f"{folder}: the tokenizer has {n_tokens:,} tokens, but config.json an embedding of {source.vocab_size:,} rows; "
            "they are not of one model"
        )
    model = replace(source.model, vocab_multiple=vocab_multiple(source.vocab_size, n_tokens))
    tensors = {name: source.read(name) for name in source.shapes}
    with atomic_folder(run_dir, durable=True) as partial:
        (partial / "tokenizer").mkdir()
        for name in TOKENIZER_FILES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, partial / "tokenizer" / name)
        config = TrainRun(
            data=DataConfig(path=""),
            model=model,
            train=TrainConfig(steps=1, global_batch_size=1, micro_batch_size=1),
            run=RunConfig(dir=str(run_dir)),
        )
        write_atomically(partial / "config.yaml", edge.to_yaml(config))
        with process_group("cpu", timeout=60.0):
            checkpointer = Checkpointer(partial, keep=0, asynchronous=False, ledger=None)
            state = {"step": 0, "imported_from": str(folder.resolve())}
            checkpointer.start(0, {f"model.{name}": tensor for name, tensor in tensors.items()}, state)
            checkpointer.close()
    return model, source.vocab_size


class HfWeights:
    """The weights of a Hugging Face Llama folder, by our names; files are mapped, tensors read when asked for."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError: no Llama that can be imported, or tensors that are missing or of another shape."""
        self.folder = folder
        self.model, self.vocab_size = from_hf_config(
            _read_json(folder / "config.json"), folder.resolve().name, str(folder / "config.json")
        )
        self.shapes = parameter_shapes(self.model, self.vocab_size)
        self._files = {name: self._open(folder / name) for name in self._file_names()}
        self._where = {key: file for file in self._files.values() for key in file.keys()}  # noqa: SIM118
        self._check()

    def read(self, name: str) -> Tensor:
        """A whole tensor in its stored precision."""
        return self._where[hf_name(name)].get_tensor(hf_name(name))

    def fill(self, parameters: dict[str, Tensor]) -> None:
        """Fill tensors and DTensors of any layout, casting to their dtype; reads this rank's part only.

        Args:
            parameters: by names of the unsplit model, as `Engine.state_dict()` gives them.

        Raises:
            ConfigError: a parameter that the folder does not hold, or that has another shape there.
        """
        for chunk, local in local_chunks(parameters):
            if self.shapes.get(chunk.name) != chunk.shape:
                raise ConfigError(
                    f"{self.folder} is another model: `{chunk.name}` has the shape {self.shapes.get(chunk.name)} "
                    f"there and {chunk.shape} here"
                )
            stored = self._where[hf_name(chunk.name)].get_slice(hf_name(chunk.name))
            part = tuple(slice(o, o + s) for o, s in zip(chunk.offsets, chunk.sizes, strict=True))
            local.copy_(stored[part])

    def _file_names(self) -> list[str]:
        index = self.folder / "model.safetensors.index.json"
        if index.is_file():
            weight_map = _read_json(index).get("weight_map")
            if not isinstance(weight_map, dict):
                raise ConfigError(f"{index} holds no `weight_map`; it must name the file of every tensor")
            return sorted(set(weight_map.values()))
        if not (self.folder / "model.safetensors").is_file():
            raise ConfigError(
                f"{self.folder} holds neither model.safetensors nor model.safetensors.index.json; weights in other "
                "formats must be saved as safetensors first (model.save_pretrained(…) of transformers)"
            )
        return ["model.safetensors"]

    def _open(self, path: Path) -> Any:
        try:
            return safe_open(path, framework="pt")
        except FileNotFoundError:
            raise ConfigError(f"{path} does not exist, but the index of {self.folder} names it") from None
        except SafetensorError as error:
            raise ConfigError(f"{path} is not a whole safetensors file: {error}") from None

    def _check(self) -> None:
        where = self.folder
        expected = {hf_name(name): shape for name, shape in self.shapes.items()}
        if missing := [name for name in expected if name not in self._where]:
            raise ConfigError(
                f"{where} lacks {len(missing)} tensors of the model in config.json, such as `{missing[0]}`"
            )
        for name in expected:
            if (dtype := self._where[name].get_slice(name).get_dtype()) not in FLOATS:
                raise ConfigError(
                    f"{where}: `{name}` is stored as {dtype}, a quantised number whose scale is lost here; export the "
                    "model in bf16, fp16 or fp32"
                )
        for name, shape in expected.items():
            found = tuple(self._where[name].get_slice(name).get_shape())
            if found != shape:
                raise ConfigError(
                    f"{where}: `{name}` has the shape {found}, but config.json makes it {shape}"
                )
        # Older exports carry the rotary frequencies, and some a copy of the tied head: neither is a parameter.
        known = {HEAD} if self.model.tied else set()
        extra = [
            n
            for n in self._where
            if n not in expected and n not in known and not n.endswith("rotary_emb.inv_freq")
        ]
        if extra:
            raise ConfigError(
                f"{where} holds {len(extra)} tensors that a Llama has no place for, such as `{extra[0]}`; "
                "it is a variation that cannot be imported"
            )
        if self.model.tied and HEAD in self._where:
            self._check_tied_head()

    def _check_tied_head(self) -> None:
        """Raise ConfigError where a folder that calls its head tied holds another one."""
        embedding = self._where[EMBEDDING].get_slice(EMBEDDING)
        head = self._where[HEAD].get_slice(HEAD)
        same = head.get_shape() == embedding.get_shape()
        for start in range(0, self.vocab_size if same else 0, ROWS):
            part = slice(start, start + ROWS)
            same = same and torch.equal(head[part].float(), embedding[part].float())
        if not same:
            raise ConfigError(
                f"{self.folder}: config.json has tie_word_embeddings true, but `{HEAD}` differs from `{EMBEDDING}`; set it "
                "to false if the head is the model's, or remove the tensor if it is not"
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; expected the folder of a Hugging Face model") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping, but it holds {type(data).__name__}")
    return data


if __name__ == "__main__":
    sys.exit(main())
