"""`arriero import`: a Hugging Face Llama becomes a run whose weights can be continued, sampled, evaluated, exported.

The weights keep their stored precision, bit for bit; they are the checkpoint of step 0 of the new run directory.
Continue from it with `arriero train model.init_from=RUN …` on data packed with the same tokenizer.

Examples:
  arriero import input=exports/a run.dir=runs/imported
  arriero import input=models/Llama-3.2-1B run.dir=runs/llama-1b
  arriero import input=models/tiny run.dir=runs/tiny --cfg job     # shows the configuration and stops
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import DataConfig, ImportRun, ModelConfig, RunConfig, TrainConfig, TrainRun
from data_pipeline.packed.files import atomic_folder, write_atomically
from pretrain.checkpoint import Checkpointer
from pretrain.checkpoint.chunks import local_chunks
from pretrain.distributed import process_group
from pretrain.hf import from_hf_config, hf_name, parameter_shapes, vocab_multiple
from pretrain.parallel.layout import shape
from pretrain.weights import pointer, read_json, tokenizer_in

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
    n_tokens = tokenizer_in(
        folder,
        "save the tokenizer there with transformers.AutoTokenizer.from_pretrained(…).save_pretrained(…)",
    ).size
    if n_tokens > source.vocab_size:
        raise ConfigError(
            f"{folder}: the tokenizer has ids up to {n_tokens - 1:,}, but config.json an embedding of "
            f"{source.vocab_size:,} rows; they are not of one model"
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
            read_json(folder / "config.json"), folder.resolve().name, str(folder / "config.json")
        )
        try:
            shape(self.model, self.vocab_size)
        except ConfigError as error:
            raise ConfigError(f"{folder / 'config.json'}: {error}") from None
        self.shapes = parameter_shapes(self.model, self.vocab_size)
        self._files = {name: self._open(folder / name) for name in self._file_names()}
        self._where: dict[str, Any] = {}
        for file_name, file in self._files.items():
            for key in file.keys():  # noqa: SIM118
                self._add(key, file_name)
        self._check()

    def read(self, name: str) -> Tensor:
        """A whole tensor in its stored precision; ConfigError where it holds what is no finite number."""
        tensor: Tensor = self._where[hf_name(name)].get_tensor(hf_name(name))
        self._check_finite(name, tensor)
        return tensor

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
            values = stored[part]
            self._check_finite(chunk.name, values)
            local.copy_(values)

    def _file_names(self) -> list[str]:
        index = self.folder / "model.safetensors.index.json"
        if index.is_file():
            weight_map = read_json(index).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise ConfigError(f"{index} holds no `weight_map`; it must name the file of every tensor")
            for tensor, name in weight_map.items():
                if not isinstance(name, str) or not name or Path(name).name != name:
                    raise ConfigError(
                        f"{index}: `weight_map` gives {name!r} as the file of `{tensor}`; it must be the name of a file "
                        f"in {self.folder}"
                    )
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
            raise ConfigError(f"{path} is not a whole safetensors file: {error}{pointer(path)}") from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error}; expected a safetensors file") from None

    def _add(self, key: str, file_name: str) -> None:
        """Note where a tensor lies; ConfigError where two files hold it, and not alike."""
        file = self._files[file_name]
        if (other := self._where.setdefault(key, file)) is file:
            return
        if not _equal(other.get_slice(key), file.get_slice(key)):
            first = next(name for name, held in self._files.items() if held is other)
            raise ConfigError(
                f"{self.folder}: `{key}` lies in {first} and, with other values, in {file_name}; the files are not of one "
                "model, so fetch them again"
            )

    def _check_finite(self, name: str, values: Tensor) -> None:
        if not torch.isfinite(values).all():
            raise ConfigError(
                f"{self.folder}: `{hf_name(name)}` holds NaN or infinite numbers; a model with them computes nothing, so "
                "take another checkpoint or fetch the file again"
            )

    def _check(self) -> None:
        where = self.folder
        expected = {hf_name(name): sizes for name, sizes in self.shapes.items()}
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
        for name, sizes in expected.items():
            found = tuple(self._where[name].get_slice(name).get_shape())
            if found != sizes:
                raise ConfigError(
                    f"{where}: `{name}` has the shape {found}, but config.json makes it {sizes}"
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
        if not _equal(self._where[HEAD].get_slice(HEAD), self._where[EMBEDDING].get_slice(EMBEDDING)):
            raise ConfigError(
                f"{self.folder}: config.json has tie_word_embeddings true, but `{HEAD}` differs from `{EMBEDDING}`; set it "
                "to false if the head is the model's, or remove the tensor if it is not"
            )


def _equal(a: Any, b: Any) -> bool:
    """Whether two stored tensors hold the same numbers, in whatever precision."""
    if a.get_shape() != b.get_shape():
        return False
    if not a.get_shape():
        return torch.equal(a[:].float(), b[:].float())
    starts = range(0, a.get_shape()[0], ROWS)
    return all(torch.equal(a[s : s + ROWS].float(), b[s : s + ROWS].float()) for s in starts)


if __name__ == "__main__":
    sys.exit(main())
