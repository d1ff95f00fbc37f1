"""A training step on CPU against the same model in transformers, in one go: python benchmarks/step.py [--help]

Sides take turns, and each has the same shape, precision, tokens, labels, AdamW (fused) and clipping at 1.0:

* `floor`: the model's matrix products, forward and backward, and causal SDPA over whole sequences; nothing else.
* `transformers`: LlamaForCausalLM, compiled whole, fp32 weights under bf16 autocast, SDPA; documents by the boolean
  mask [B, 1, T, T] that is true inside documents.
* `arriero`: this engine, compiled by blocks.
* `boolean mask` (`--mask`): this engine with SDPA under the same boolean mask instead of its own attention.

Each is timed with one document a sequence and with packed ones. Ratios are medians over rounds of the two times of a
round, because a busy machine slows neighbouring steps alike. `--lengths` measures instead how a step's time depends on
the length of documents.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema.train import ModelConfig, OptimConfig, ParallelConfig, TrainConfig
from pretrain.data.batch import IGNORE, Batch
from pretrain.hf import parameter_shapes, to_hf_config
from pretrain.metrics.flops import attention_pairs, step_flops
from pretrain.model import llama
from pretrain.optim.optimizer import Optimizer
from pretrain.parallel.engine import Engine

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
SHAPES = {
    "4m": (ModelConfig("4m", 256, 4, 4, 2, 704, tied=True), 4096),
    "33m": (ModelConfig("33m", 512, 8, 8, 4, 1536), 8192),
}
Step = Callable[[], None]


def document_lengths(length: int, median: int, chance: random.Random) -> list[int]:
    """Lengths of a row's documents: log-normal with that median (σ = 1), the last one cut; one where it is 0."""
    lengths: list[int] = []
    while sum(lengths) < length:
        drawn = max(1, round(chance.lognormvariate(0, 1) * median)) if median else length
        lengths.append(min(drawn, length - sum(lengths)))
    return lengths


def batch(rows: int, length: int, vocab_size: int, documents: list[list[int]]) -> Batch:
    """Random tokens in documents of these lengths; a document's last label is ignored."""
    bounds = [[0, *itertools.accumulate(row)] for row in documents]
    width = max(map(len, bounds))
    cu = torch.tensor([b + [length] * (width - len(b)) for b in bounds], dtype=torch.int32)
    tokens = torch.randint(0, vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
    labels = torch.full_like(tokens, IGNORE)
    positions = torch.empty_like(tokens)
    for row, b in enumerate(bounds):
        for start, end in itertools.pairwise(b):
            labels[row, start : end - 1] = tokens[row, start + 1 : end]
            positions[row, start:end] = torch.arange(end - start)
    return Batch(tokens, labels, positions, cu)


def document_mask(data: Batch) -> Tensor:
    """bool [B, 1, T, T]: whether a query sees a key."""
    document = (data.positions == 0).cumsum(dim=1)
    return (document[:, None, :, None] == document[:, None, None, :]).tril()


def floor(model: ModelConfig, vocab_size: int, dtype: torch.dtype, data: Batch) -> tuple[Step, Step]:
    """The matrix products of a step, and its causal attention over whole sequences."""
    rows, length = data.tokens.shape
    shapes = [
        s for name, s in parameter_shapes(model, vocab_size).items() if len(s) == 2 and "tok_" not in name
    ]
    if model.tied:
        shapes.append((vocab_size, model.dim))
    weights = [torch.randn(shape).to(dtype) for shape in shapes]
    inputs = {n: torch.randn(rows * length, n).to(dtype) for shape in shapes for n in shape}
    head_dim = model.dim // model.n_heads
    q, k, v = (
        torch.randn(rows, heads, length, head_dim).to(dtype).requires_grad_()
        for heads in (model.n_heads, model.n_kv_heads, model.n_kv_heads)
    )
    gradient = torch.randn(rows, model.n_heads, length, head_dim).to(dtype)

    def products() -> None:
        for weight in weights:
            x, y = inputs[weight.size(1)], inputs[weight.size(0)]
            _ = x @ weight.mT, y @ weight, y.mT @ x

    def attention() -> None:
        for _ in range(model.n_layers):
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            torch.autograd.grad(out, (q, k, v), gradient)

    return products, attention


def ours(model: ModelConfig, vocab_size: int, dtype: str, compiled: bool, data: Batch) -> Step:
    """One step of this framework."""
    rows = len(data.tokens)
    train = TrainConfig(1, rows, rows, dtype=dtype, compile=compiled)  # type: ignore[arg-type]
    engine = Engine(model, vocab_size, ParallelConfig(), train, None, torch.device("cpu"), 0)
    optimizer = Optimizer(engine.named_parameters(), OptimConfig(lr=1e-4), dtype)
    n_valid = data.n_valid

    def step() -> None:
        engine.forward_backward([data], n_valid)
        engine.clip_grad_norm(1.0)
        optimizer.step(1.0)
        optimizer.zero_grad()

    return step


def masked(step: Step, data: Batch) -> Step:
    """This framework's step with SDPA under a boolean mask for its attention."""
    mask = document_mask(data)

    def attention(q_bshe: Tensor, k_bske: Tensor, v_bske: Tensor, documents: object) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q_bshe, k_bske, v_bske))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2)

    @contextmanager
    def replaced() -> Iterator[None]:
        own = llama.attention
        llama.attention = attention  # type: ignore[assignment]
        try:
            yield
        finally:
            llama.attention = own

    def other() -> None:
        with replaced():
            step()

    return other


def theirs(
    model: ModelConfig, vocab_size: int, dtype: str, compiled: bool, data: Batch, packed: bool
) -> Step:
    """One step of transformers."""
    import transformers

    config = transformers.LlamaConfig(**to_hf_config(model, vocab_size, 0, [1], "fp32"))
    net = transformers.LlamaForCausalLM._from_config(config, attn_implementation="sdpa")
    forward = torch.compile(net) if compiled else net
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    # transformers shifts labels itself.
    labels = torch.cat((torch.full_like(data.labels[:, :1], IGNORE), data.labels[:, :-1]), dim=1)
    inputs = {"input_ids": data.tokens, "labels": labels, "use_cache": False}
    if packed:
        inputs |= {"attention_mask": document_mask(data), "position_ids": data.positions}

    def step() -> None:
        with torch.autocast("cpu", DTYPES[dtype]) if dtype == "bf16" else nullcontext():
            loss = forward(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds(sides: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds a step of each side; sides take turns, so that a busy machine slows all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for name, step in sides.items():
        start = time.perf_counter()
        step()
        step()
        print(f"  first two steps of {name}: {time.perf_counter() - start:.1f} s", flush=True)
    for _ in range(rounds):
        for name, step in sides.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return times


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    """How many times as fast `fast` is, median over rounds."""
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def compare(options: argparse.Namespace) -> None:
    """Print ours, theirs and the floor."""
    model, vocab_size = SHAPES[options.model]
    rows, length, compiled = options.rows, options.length, not options.eager
    chance = random.Random(0)
    layouts = {
        "one document": [[length]] * rows,
        "packed": [document_lengths(length, options.document, chance) for _ in range(rows)],
    }
    sides: dict[str, Step] = {}
    batches = {kind: batch(rows, length, vocab_size, documents) for kind, documents in layouts.items()}
    matmul, attention = floor(model, vocab_size, DTYPES[options.dtype], batches["one document"])
    sides |= {"floor: matrix products": matmul, "floor: causal SDPA": attention}
    for kind, data in batches.items():
        arguments = (model, vocab_size, options.dtype, compiled, data)
        sides[f"arriero, {kind}"] = ours(*arguments)
        if not options.mask:
            sides[f"transformers, {kind}"] = theirs(*arguments, kind == "packed")
    if options.mask:
        arguments = (model, vocab_size, options.dtype, compiled, batches["packed"])
        sides["boolean mask, packed"] = masked(ours(*arguments), batches["packed"])
    if options.only:
        sides = {name: side for name, side in sides.items() if options.only in name}
    times = seconds(sides, options.rounds)
    n = sum(map(len, layouts["packed"]))
    tokens = rows * length
    print(
        f"\n{options.model} {options.dtype}, {rows} × {length} tokens, {options.threads} threads, "
        f"{'compiled' if compiled else 'eager'}; packed: {n} documents, {tokens / n:.0f} tokens in the mean; "
        f"torch {torch.__version__}, median of {options.rounds}"
    )
    print(f"{'':28}{'s a step':>10}{'tokens/s':>10}{'GFLOP/s':>9}")
    for name, values in times.items():
        median = statistics.median(values)
        rate = ""
        if not name.startswith("floor"):
            pairs = attention_pairs(batches[name.split(", ")[1]].cu_seqlens)
            flops = step_flops(model, vocab_size, tokens, pairs)
            rate = f"{tokens / median:10.0f}{flops / median / 1e9:9.0f}"
        print(f"{name:28}{median:10.3f}{rate}")
    if options.only:
        return
    times["floor"] = [sum(pair) for pair in zip(*(times[name] for name in list(times)[:2]), strict=True)]
    for kind in layouts:
        own = f"arriero, {kind}"
        print(f"{kind}: {ratio(times, 'floor', own):.2f} of the floor", end="")
        for peer in ("transformers", "boolean mask"):
            if f"{peer}, {kind}" in times:
                print(f"; {ratio(times, f'{peer}, {kind}', own):.2f}× {peer}", end="")
        print()


def by_length(options: argparse.Namespace) -> None:
    """Print how a step's time follows the length of documents."""
    model, vocab_size = SHAPES[options.model]
    rows, length = options.rows, options.length
    sizes = [n for n in (128, 256, 512, 1024, 2048, 4096, 8192) if n <= length]
    batches = {n: batch(rows, length, vocab_size, [[n] * (length // n)] * rows) for n in sizes}
    arguments = (model, vocab_size, options.dtype, not options.eager)
    times = seconds({str(n): ours(*arguments, data) for n, data in batches.items()}, options.rounds)
    median = {n: statistics.median(times[str(n)]) for n in sizes}
    pairs = {n: attention_pairs(data.cu_seqlens) for n, data in batches.items()}
    flops = {n: step_flops(model, vocab_size, rows * length, pairs[n]) for n in sizes}
    # What does not depend on documents, and the price of a pair, from the two ends.
    first, last = sizes[0], sizes[-1]
    price = (median[last] - median[first]) / (pairs[last] - pairs[first])
    print(
        f"\n{'document':>9}{'s a step':>10}{'of longest':>12}{'FLOPs':>8}{'a + b · pairs':>15}{'measured':>10}"
    )
    for n in sizes:
        line = median[first] + price * (pairs[n] - pairs[first])
        print(
            f"{n:9}{median[n]:10.3f}{median[n] / median[last]:12.2f}{flops[n] / flops[last]:8.2f}{line:15.3f}"
            f"{median[n] / line:9.2f}×"
        )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=SHAPES, default="33m")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--rows", type=int, default=2, help="sequences of a step")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a sequence")
    parser.add_argument("--document", type=int, default=400, help="median tokens of a packed document")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--eager", action="store_true", help="compile neither side")
    parser.add_argument(
        "--mask", action="store_true", help="against boolean-mask SDPA instead of transformers"
    )
    parser.add_argument("--lengths", action="store_true", help="step time by document length instead")
    parser.add_argument("--only", default="", help="time only the sides whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    (by_length if options.lengths else compare)(options)
    # gloo's threads sometimes abort an ordinary exit.
    os._exit(0)


if __name__ == "__main__":
    main()
