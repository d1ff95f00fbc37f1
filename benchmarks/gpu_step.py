"""A training step on one GPU: python benchmarks/gpu_step.py [--help]; under 10 minutes on an H100 or H200

Engine, optimizer and clipping of a run, blocks compiled, batches copied from pinned memory while the step before computes.
TFLOP/s count what the document mask leaves of attention, the head included, recomputation not. Prints a Markdown table:

* Llama-3.2-1B's shape, 8,192 tokens a sequence: one document each, then packed documents, and how much of the speed that
  arithmetic allows they gain: (time ratio - 1) / (FLOP ratio - 1).
* Llama-3-8B's shape with 16 layers, in bf16 and with float8 linears (torchao).
* Host synchronisations in the timed steps, by `torch.cuda.set_sync_debug_mode`: expected none.
* 200 steps of a small model on the GPU and on the CPU, in bf16 and in fp32: the largest difference of two losses.

Without a GPU it runs the same code with tiny shapes, in seconds; figures then mean nothing.
"""

from __future__ import annotations

import os

# Before CUDA is initialised: shapes that change would otherwise leave holes.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import argparse
import datetime
import gc
import importlib.metadata
import importlib.util
import random
import sys
import time
import warnings
from dataclasses import dataclass, replace

import torch
from step import batch, document_lengths

from configs.schema.train import ModelConfig, OptimConfig, ParallelConfig, TrainConfig
from pretrain.data.batch import Batch
from pretrain.distributed import setup
from pretrain.metrics.flops import attention_pairs, peak_flops, step_flops
from pretrain.optim.optimizer import Optimizer
from pretrain.parallel.engine import Engine

GIB = 2**30
LARGE = 120 * GIB
"""Memory from which fp32 master weights of the 8B shape with 16 layers fit."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    model: ModelConfig
    vocab_size: int
    rows: int
    length: int
    document: int = 0
    """Median tokens of a document; 0: one a sequence."""
    dtype: str = "bf16"
    float8: bool = False


@dataclass(frozen=True)
class Figures:
    """What a case gave."""

    seconds: float
    """Of a step."""
    tokens: int
    flops: float
    memory: float
    """Highest allocated, bytes."""
    synchronisations: int
    """Of the host with the GPU, in the timed steps."""


def cases(device: torch.device) -> list[Case]:
    """The table's rows; tiny ones on the CPU."""
    one = ModelConfig("Llama-3.2-1B", 2048, 16, 32, 8, 8192, tied=True)
    eight = ModelConfig("Llama-3-8B, 16 layers", 4096, 16, 32, 8, 14336)
    vocab_size, length, document, small, large, dtype = 128_256, 8192, 700, 4, 2, "bf16"
    if device.type == "cpu":
        one = replace(one, dim=64, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=128)
        eight = replace(eight, dim=128, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=256)
        vocab_size, length, document = 512, 256, 24
    elif torch.cuda.get_device_properties(device).total_memory < LARGE:
        small, large, dtype = 2, 1, "bf16_pure"
    rows = [
        Case(one.name, one, vocab_size, small, length),
        Case(f"{one.name}, packed", one, vocab_size, small, length, document),
        Case(eight.name, eight, vocab_size, large, length, dtype=dtype),
    ]
    if importlib.util.find_spec("torchao") is not None:
        rows.append(Case(f"{eight.name}, float8", eight, vocab_size, large, length, dtype=dtype, float8=True))
    return rows


def measure(case: Case, device: torch.device, warm: int, steps: int) -> Figures:
    """Time the steps of a case, after `warm` steps that compile."""
    train = TrainConfig(
        steps=1,
        global_batch_size=case.rows,
        micro_batch_size=case.rows,
        dtype=case.dtype,  # type: ignore[arg-type]
        float8=case.float8,
        loss_chunk_tokens=4096,
    )
    parallel = ParallelConfig(reshard_after_forward=False)
    engine = Engine(case.model, case.vocab_size, parallel, train, None, device, 0)
    optimizer = Optimizer(engine.named_parameters(), OptimConfig(lr=1e-4), case.dtype)
    chance = random.Random(0)
    batches = [packed(case, chance, device) for _ in range(4)]

    def step(i: int) -> None:
        data, n_valid = batches[i % len(batches)]
        engine.forward_backward([data], torch.full((), n_valid, device=device))
        engine.clip_grad_norm(1.0)
        optimizer.step(1.0)
        optimizer.zero_grad()

    for i in range(warm):
        step(i)
    synchronise(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watch_synchronisations(device, "warn")
        began = time.perf_counter()
        for i in range(steps):
            step(i)
        watch_synchronisations(device, "default")
        synchronise(device)
        seconds = (time.perf_counter() - began) / steps
    waits = sum("synchroniz" in str(w.message) for w in caught)
    tokens = case.rows * case.length
    pairs = sum(attention_pairs(data.cu_seqlens) for data, _ in batches) / len(batches)
    flops = step_flops(case.model, case.vocab_size, tokens, int(pairs))
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return Figures(seconds, tokens, flops, memory, waits)


def packed(case: Case, chance: random.Random, device: torch.device) -> tuple[Batch, int]:
    """A batch in page-locked memory, and its valid labels."""
    lengths = [document_lengths(case.length, case.document, chance) for _ in range(case.rows)]
    data = batch(case.rows, case.length, case.vocab_size, lengths)
    return data.pin_memory() if device.type == "cuda" else data, int(data.n_valid)


def losses(device: torch.device, dtype: str, steps: int) -> list[float]:
    """Losses of a small model on text that can be learned: each token follows from the one before, nine times in ten."""
    vocab_size, rows, length = 1024, 4, 256
    model = ModelConfig("small", 128, 4, 4, 2, 384, tied=True)
    train = TrainConfig(steps, rows, rows, dtype=dtype)  # type: ignore[arg-type]
    engine = Engine(model, vocab_size, ParallelConfig(), train, None, device, 0)
    optimizer = Optimizer(engine.named_parameters(), OptimConfig(lr=1e-3), dtype)
    generator, chance = torch.Generator().manual_seed(0), random.Random(0)
    follows = torch.randperm(vocab_size, generator=generator)
    sums = []
    for _ in range(steps):
        lengths = [document_lengths(length, 60, chance) for _ in range(rows)]
        data = batch(rows, length, vocab_size, lengths)
        noise = torch.randint(0, vocab_size, data.tokens.shape, generator=generator)
        kept = torch.rand(data.tokens.shape, generator=generator) < 0.9
        tokens = noise.clone()
        for i in range(1, length):
            tokens[:, i] = torch.where(kept[:, i], follows[tokens[:, i - 1]], noise[:, i])
        labels = torch.where(data.labels >= 0, tokens.roll(-1, dims=1), data.labels)
        data = replace(data, tokens=tokens, labels=labels)
        n_valid = int(data.n_valid)
        loss = engine.forward_backward([data], torch.full((), n_valid, device=device))
        engine.clip_grad_norm(1.0)
        optimizer.step(1.0)
        optimizer.zero_grad()
        sums.append(loss / n_valid)
    return [float(loss) for loss in sums]


def parity(device: torch.device, steps: int) -> str:
    """The sentence about losses here and on the CPU."""
    here = losses(device, "bf16", steps)
    cpu = torch.device("cpu")
    on_cpu, exact = losses(cpu, "bf16", steps), losses(cpu, "fp32", steps)

    def apart(a: list[float], b: list[float]) -> float:
        return max(abs(x - y) for x, y in zip(a, b, strict=True))

    return (
        f"Loss over {steps} steps of a small model, {exact[0]:.4f} to {exact[-1]:.4f}: bf16 on {device.type} and on cpu "
        f"differ by at most {apart(here, on_cpu):.4f}; bf16 and fp32 on the cpu by {apart(on_cpu, exact):.4f}, on "
        f"{device.type} and in fp32 by {apart(here, exact):.4f}."
    )


def watch_synchronisations(device: torch.device, mode: str) -> None:
    """Let torch warn of each host synchronisation, or stop it."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode(mode)


def synchronise(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free(device: torch.device) -> None:
    """Give back what a case held: models, and what was compiled for them."""
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--warm", type=int, default=5, help="steps before the clock starts")
    parser.add_argument("--steps", type=int, default=20, help="timed steps")
    parser.add_argument("--parity-steps", type=int, default=200)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    device = setup(options.device, 600.0).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, tiny shapes"
    versions = [f"torch {torch.__version__}"]
    if importlib.util.find_spec("torchao") is not None:
        versions.append(f"torchao {importlib.metadata.version('torchao')}")
    print(f"{datetime.date.today()}, {name}, {', '.join(versions)}: `{' '.join(['python', *sys.argv])}`\n")
    print("| shape | precision | tokens | s a step | tokens/s | TFLOP/s | MFU | GiB | syncs |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    peak = peak_flops(device, "bf16")
    done: dict[str, Figures] = {}
    for case in cases(device):
        if options.only not in case.name:
            continue
        try:
            free(device)
            got = measure(case, device, options.warm, options.steps)
        except (RuntimeError, ValueError) as error:
            # One case that fails (out of memory) should not hide the others.
            print(f"| {case.name} | failed: {str(error).splitlines()[0]} |", flush=True)
            continue
        done[case.name] = got
        rate = got.flops / got.seconds
        print(
            f"| {case.name} | {case.dtype}{', float8' * case.float8} | {case.rows} × {case.length} | {got.seconds:.3f} | "
            f"{got.tokens / got.seconds:,.0f} | {rate / 1e12:,.3g} | {rate / peak:.1%} | {got.memory / GIB:.1f} | "
            f"{got.synchronisations} |",
            flush=True,
        )
    for name, got in done.items():
        whole = done.get(name.removesuffix(", packed"))
        if name.endswith(", packed") and whole is not None:
            faster, allowed = whole.seconds / got.seconds, whole.flops / got.flops
            print(
                f"\n{name}: {faster:.3f}× as fast as full causal, {allowed:.3f}× by arithmetic: "
                f"{(faster - 1) / (allowed - 1):.0%} of what it allows."
            )
    free(device)
    if options.parity_steps:
        print(f"\n{parity(device, options.parity_steps)}")
    sys.stdout.flush()
    # Communication threads sometimes abort an ordinary exit.
    os._exit(0)


if __name__ == "__main__":
    main()
