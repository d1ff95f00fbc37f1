"""A run directory with random weights and a real tokenizer, written with the functions that training uses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from toyrun import PATIENCE

from configs import edge
from configs.schema.pipeline import TokenizerConfig
from configs.schema.train import (
    DataConfig,
    ModelConfig,
    RopeScalingConfig,
    RunConfig,
    TrainConfig,
    TrainRun,
)
from data_pipeline.packed import PADDING, SEGMENT_DTYPE, PackedWriter
from data_pipeline.tokenize import load_tokenizer, train_tokenizer
from pretrain.checkpoint import Checkpointer
from pretrain.distributed import setup, teardown
from pretrain.hf import parameter_shapes

VOCAB_SIZE = 320
TEXTS = [
    "The road went up the hill and down again; the llama walked it every day.",
    "Una llama sube al cerro: piñas, ñandúes y café. 12345 × 6 = 74,070 ✓",
    "def carry(load: int) -> int:\n    return load + 1\n\n\nclass Llama:\n    pass\n",
    "短い文。Короткий текст. نص قصير. 🦙🦙",
    "a <|eot_id|> in a document is text, and so is <|begin_of_text|>.",
]
SHAPE = ModelConfig(
    name="tiny", dim=48, n_layers=2, n_heads=6, n_kv_heads=2, ffn_dim=80, max_sequence_length=512, tied=False
)
SCALED = RopeScalingConfig(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=64)
VARIANTS = {
    "untied": SHAPE,
    "tied": dataclasses.replace(SHAPE, tied=True, n_kv_heads=6, rope_theta=10_000.0, norm_eps=1e-6),
    "scaled": dataclasses.replace(SHAPE, rope_scaling=SCALED),
}


def write_tokenizer(folder: Path, bos: bool | None = None) -> Path:
    """A byte-level BPE of VOCAB_SIZE tokens; returns its folder."""
    texts = [(str(i), text) for i, text in enumerate(TEXTS)]
    config = TokenizerConfig(vocab_size=VOCAB_SIZE, n_special=12, min_frequency=1, bos=bos)
    train_tokenizer(texts, config, 0, folder)
    return folder


def random_weights(
    model: ModelConfig, dtype: torch.dtype = torch.float32, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Weights large enough that attention and the feed-forward matter."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in parameter_shapes(model, VOCAB_SIZE).items():
        value = torch.randn(shape, generator=generator, dtype=torch.float64)
        weights[name] = (1 + 0.3 * value if "norm" in name else 0.15 * value).to(dtype)
    return weights


def write_run(
    run_dir: Path,
    model: ModelConfig = SHAPE,
    packed: Path | None = None,
    weights: dict[str, torch.Tensor] | None = None,
    step: int = 7,
    state: dict[str, object] | None = None,
) -> Path:
    """A run directory with one committed checkpoint; returns it."""
    if not (run_dir / "tokenizer").exists():
        write_tokenizer(run_dir / "tokenizer")
    config = TrainRun(
        data=DataConfig(path=str(packed or "")),
        model=model,
        train=TrainConfig(steps=10, global_batch_size=2, micro_batch_size=2, dtype="fp32"),
        run=RunConfig(dir=str(run_dir)),
    )
    (run_dir / "config.yaml").write_text(edge.to_yaml(config))
    setup("cpu", timeout=PATIENCE)
    checkpointer = Checkpointer(run_dir, keep=0, asynchronous=False, ledger=None)
    tensors = weights or random_weights(model)
    checkpointer.start(step, {f"model.{n}": t for n, t in tensors.items()}, {"step": step, **(state or {})})
    checkpointer.close()
    teardown()
    return run_dir


def write_packed(folder: Path, length: int = 32, bos: bool | None = None) -> Path:
    """A packed dataset of two sources; documents are cut where a sequence ends and go on in the next."""
    tokenizer = load_tokenizer(write_tokenizer(folder.with_name(folder.name + "-tokenizer"), bos))
    begin, end, pad = tokenizer.info.begin, tokenizer.info.end, tokenizer.info.special["pad"]
    split = {
        ("train", "prose"): TEXTS,
        ("heldout", "prose"): TEXTS[:2],
        ("heldout", "code"): [TEXTS[2], "", TEXTS[3]],
        ("heldout", "web"): [TEXTS[4]],
    }
    with PackedWriter(folder, tokenizer.info, length, shard_sequences=3) as writer:
        for number, ((part, source), texts) in enumerate(split.items()):
            stream = writer.stream(part, source)
            tokens, owners, offsets = [], [], []
            for row, text in enumerate(texts):
                ids = [*begin, *tokenizer.encode([text])[0], *end]
                stream.document(bytes([number, row] * 8), 0, len(ids), len(text.encode()))
                tokens += ids
                owners += [row] * len(ids)
                offsets += range(len(ids))
            padding = -len(tokens) % length
            tokens += [pad] * padding
            owners += [PADDING] * padding
            offsets += [0] * padding
            for first in range(0, len(tokens), length):
                part_of = slice(first, first + length)
                starts = [i for i in range(length) if i == 0 or owners[first + i] != owners[first + i - 1]]
                segments = np.array(
                    [(owners[first + i], i, offsets[first + i]) for i in starts], SEGMENT_DTYPE
                )
                after = first + length
                goes_on = after < len(tokens) and owners[after] == owners[after - 1] != PADDING
                stream.sequence(np.array(tokens[part_of]), tokens[after] if goes_on else -1, segments)
        writer.finish(
            folder.with_name(folder.name + "-tokenizer"), {"weights": {"prose": 1.0}, "max_epochs": {}}, {}
        )
    return folder
