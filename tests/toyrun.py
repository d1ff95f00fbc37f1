"""A small packed dataset made from real text, and real training processes over it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from data_pipeline.packed import PADDING, SEGMENT_DTYPE, PackedWriter, TokenizerInfo

ROOT = Path(__file__).parent.parent
PATIENCE = 900.0
"""Seconds that tests wait for what takes a few seconds when nothing else runs on the machine."""
SPECIAL = {"<|begin_of_text|>": "bos", "<|end_of_text|>": "eos", "<|pad|>": "pad"}


def documents() -> list[str]:
    """Sources of the standard library's `json` and `email` packages: text that every Python has."""
    import email
    import json

    folders = [Path(m.__file__ or "").parent for m in (json, email)]
    files = sorted(p for folder in folders for p in folder.glob("*.py"))
    return [paragraph for p in files for paragraph in p.read_text().split("\n\n\n") if paragraph.strip()]


def make_tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer trained on `documents`, saved in `folder`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents(), trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def make_packed(path: Path, sequence_length: int = 64, vocab_size: int = 320) -> Path:
    """A packed dataset of two sources, `json` and `email`, with a held-out stream each."""
    folder = path.with_name(path.name + "-tokenizer")
    tokenizer = make_tokenizer(folder, vocab_size)
    special = {name: tokenizer.token_to_id(token) for token, name in SPECIAL.items()}
    digest = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    texts = documents()
    parts = {
        ("train", "json"): texts[0::3],
        ("train", "email"): texts[1::3],
        ("heldout", "json"): texts[2::6],
        ("heldout", "email"): texts[5::6],
    }
    info = TokenizerInfo(digest, tokenizer.get_vocab_size(), special)
    with PackedWriter(path, info, sequence_length) as writer:
        for (split, source), chosen in parts.items():
            _pack(writer, split, source, chosen, tokenizer, special)
        writer.finish(folder, {"weights": {"json": 0.4, "email": 0.6}, "max_epochs": {}}, {})
    return path


def _pack(
    writer: PackedWriter,
    split: str,
    source: str,
    texts: list[str],
    tokenizer: Tokenizer,
    special: dict[str, int],
) -> None:
    stream, length = writer.stream(split, source), writer.sequence_length
    ids, owners, offsets = [], [], []
    for text in texts:
        encoded = [special["bos"], *tokenizer.encode(text).ids, special["eos"]]
        row = stream.document(hashlib.md5(text.encode()).digest(), 0, len(encoded), len(text.encode()))
        ids += encoded
        owners += [row] * len(encoded)
        offsets += range(len(encoded))
    while len(ids) % length:
        ids.append(special["pad"])
        owners.append(PADDING)
        offsets.append(0)
    for first in range(0, len(ids), length):
        inside = owners[first : first + length]
        starts = [0, *(i for i in range(1, length) if inside[i] != inside[i - 1])]
        segments = np.array([(inside[i], i, offsets[first + i]) for i in starts], SEGMENT_DTYPE)
        end = first + length
        goes_on = end < len(ids) and owners[end] == owners[end - 1] != PADDING
        stream.sequence(np.array(ids[first:end]), ids[end] if goes_on else -1, segments)


def overrides(packed: Path, run_dir: Path, *more: str) -> list[str]:
    """Overrides of a run of a few small steps, without trackers."""
    return [
        "model=debug",
        "model.dim=32",
        "model.ffn_dim=64",
        f"data.path={packed}",
        f"run.dir={run_dir}",
        "train.dtype=fp32",
        "train.global_batch_size=4",
        "schedule.warmup_steps=5",
        "tracker=none",
        "device=cpu",
        # Longer than a test waits: a rank that was left alone in a collective is a hang.
        "resilience.collective_timeout=3600",
        *more,
    ]


def _torchrun(nproc: int) -> list[str]:
    return [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--local-addr=localhost",
        f"--nproc-per-node={nproc}",
    ]


def torchrun(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script, or `-m` a module, on two ranks to its end, with variables of the environment set."""
    return subprocess.run(
        [sys.executable, *_torchrun(2), *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def start(arguments: list[str], nproc: int = 1, within: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start `pretrain.train`, under torchrun where there are several processes, in a session of its own.

    within: a command that takes that of the training as its last arguments.
    """
    launcher = _torchrun(nproc) if nproc > 1 else []
    command = [*within, sys.executable, *launcher, "-m", "pretrain.train", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def train(
    arguments: list[str], nproc: int = 1, timeout: float = PATIENCE, within: Sequence[str] = ()
) -> tuple[int, str]:
    """Run `pretrain.train` to its end; returns exit status and output."""
    process = start(arguments, nproc, within)
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        kill_all(process)
    return process.returncode, output


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the process and all that it started."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.kill()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(family, timeout=PATIENCE)
    process.wait()


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[str], timeout: float = PATIENCE
) -> None:
    """Wait for a condition while the process lives; AssertionError with its output otherwise."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            kill_all(process)
            raise AssertionError(f"the condition did not come true: {process.communicate()[0]}")
        time.sleep(0.02)
