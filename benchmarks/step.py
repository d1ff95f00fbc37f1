"""One training step on CPU against the same model in transformers, in one go: python benchmarks/step.py [--help]

Both sides have the same shape, precision, batch and length, AdamW (fused), clipping at 1.0 and causal attention over
whole sequences; then ours once more with documents inside the sequences, which transformers does not compute here.
Prints tokens/s, the ratio, and the share of the measured peak of a matrix product. Model FLOPs are counted as
6 × parameters of matrices (the head included, the embedding's lookup not) + 6 × layers × width × length a token.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from configs.schema.train import ModelConfig, ParallelConfig, TrainConfig
from pretrain.data.batch import Batch
from pretrain.hf import parameter_shapes, to_hf_config
from pretrain.parallel.engine import Engine

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
SHAPES = {
    "4m": (ModelConfig("4m", 256, 4, 4, 2, 704, tied=True), 4096),
    "33m": (ModelConfig("33m", 512, 8, 8, 4, 1408, tied=True), 16384),
}


def matmul_peak(dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product, the best of ten."""
    a, b = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best


def batch(rows: int, length: int, vocab_size: int, mean_document: int) -> Batch:
    """Random tokens; documents of log-normal length, or whole rows where `mean_document` is 0."""
    chance = random.Random(0)
    bounds = []
    for _ in range(rows):
        row = [0]
        while row[-1] < length:
            step = (
                length if mean_document == 0 else int(chance.lognormvariate(0, 1) * mean_document / 1.65) + 1
            )
            row.append(min(length, row[-1] + step))
        bounds.append(row)
    width = max(map(len, bounds))
    cu = torch.tensor([b + [length] * (width - len(b)) for b in bounds], dtype=torch.int32)
    positions = torch.stack(
        [torch.cat([torch.arange(e - s) for s, e in itertools.pairwise(b)]) for b in bounds]
    )
    tokens = torch.randint(0, vocab_size, (rows, length + 1), generator=torch.Generator().manual_seed(0))
    return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), positions, cu)


def ours(model: ModelConfig, vocab_size: int, dtype: str, compiled: bool, data: Batch) -> Callable[[], None]:
    """One step of this framework."""
    train = TrainConfig(1, len(data.tokens), len(data.tokens), dtype=dtype, compile=compiled)  # type: ignore[arg-type]
    engine = Engine(model, vocab_size, ParallelConfig(), train, None, torch.device("cpu"), 0)
    optimizer = torch.optim.AdamW([p for _, p in engine.named_parameters()], lr=1e-4, fused=True)
    n_valid = data.n_valid

    def step() -> None:
        engine.forward_backward([data], n_valid)
        engine.clip_grad_norm(1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def theirs(
    model: ModelConfig, vocab_size: int, dtype: str, compiled: bool, data: Batch
) -> Callable[[], None]:
    """One step of transformers: fp32 weights, autocast for bf16."""
    import transformers

    net = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**to_hf_config(model, vocab_size, 0, [1], "fp32"))
    )
    forward = torch.compile(net) if compiled else net
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    # transformers shifts labels itself; the number of predicted tokens differs by one a row.
    labels: Tensor = data.tokens

    def step() -> None:
        with torch.autocast("cpu", DTYPES[dtype]) if dtype == "bf16" else nullcontext():
            loss = forward(input_ids=data.tokens, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds(sides: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds a step of each side; sides take turns, so that a busy machine slows all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for name, step in sides.items():
        start = time.perf_counter()
        step()
        print(f"  first step of {name}: {time.perf_counter() - start:.1f} s", flush=True)
    for _ in range(repeats):
        for name, step in sides.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=SHAPES, default="4m")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--rows", type=int, default=8, help="sequences of a step")
    parser.add_argument("--length", type=int, default=512, help="tokens of a sequence")
    parser.add_argument("--document", type=int, default=256, help="mean tokens of a document in the last row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--eager-only", action="store_true", help="leave torch.compile out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, vocab_size = SHAPES[options.model]
    whole = batch(options.rows, options.length, vocab_size, 0)
    packed = batch(options.rows, options.length, vocab_size, options.document)
    arguments = (model, vocab_size, options.dtype)
    sides = {"transformers": theirs(*arguments, False, whole), "arriero": ours(*arguments, False, whole)}
    if not options.eager_only:
        sides["transformers, compiled"] = theirs(*arguments, True, whole)
        sides["arriero, compiled"] = ours(*arguments, True, whole)
    sides["arriero, documents"] = ours(*arguments, False, packed)
    matrices = sum(
        shape[0] * shape[1] for shape in parameter_shapes(model, vocab_size).values() if len(shape) == 2
    )
    flops = 6 * matrices + 6 * model.n_layers * model.dim * options.length
    times = seconds(sides, options.repeats)
    peak = matmul_peak(DTYPES[options.dtype])
    tokens = options.rows * options.length
    print(
        f"{options.model} {options.dtype}, {options.rows} × {options.length} tokens, {options.threads} thread(s); "
        f"matrix product {peak / 1e9:.0f} GFLOP/s"
    )
    print(f"{'':26}{'tokens/s':>10}{'of transformers':>17}{'of peak':>9}")
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        peer = medians["transformers, compiled" if name.endswith("compiled") else "transformers"]
        print(f"{name:26}{tokens / median:10.0f}{peer / median:16.2f}x{flops * tokens / median / peak:9.1%}")
    # gloo's threads sometimes abort an ordinary exit.
    os._exit(0)


if __name__ == "__main__":
    main()
