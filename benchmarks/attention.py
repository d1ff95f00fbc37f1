"""Attention forward and backward on the CPU, against torch's ways to mask documents: python benchmarks/attention.py [--help]

Sides take turns on the same rows of documents of equal length:

* `arriero`: `attention` of this framework.
* `loop`: causal SDPA, one call a document.
* `causal`: causal SDPA over whole rows, blind to documents (more work, unless a row is one document).
* `mask`: SDPA under the boolean mask [1, 1, T, T] that is true inside documents.

Printed are medians of milliseconds, this framework's nanoseconds for each pair of a query and a key that it sees (documents
of n tokens have n (n + 1) / 2 of them in each head), and the ratios of the others' medians to ours. `--errors` compares
each with the float64 definition instead: norm of the difference ÷ norm, of the output and of the gradients of q, k and v.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.model.attention import Documents, attention, reference_attention

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
Side = Callable[[Tensor, Tensor, Tensor], Tensor]


def sides(rows: int, length: int, document: int) -> tuple[dict[str, Side], Tensor]:
    """What is compared on rows of documents of one length (the last one cut), and their cu_seqlens."""
    bounds = [*range(0, length, document), length]
    cu = torch.tensor([bounds] * rows, dtype=torch.int32)
    documents = Documents.of(cu, length)
    number = torch.arange(length) // document
    mask = (number[:, None] == number[None]).tril()[None, None]

    def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=q.size(1) != k.size(1)
        )
        return out.transpose(1, 2)

    def loop(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = (sdpa(q[:, a:b], k[:, a:b], v[:, a:b]) for a, b in itertools.pairwise(bounds))
        return torch.cat(list(parts), dim=1)

    return {
        "arriero": lambda q, k, v: attention(q, k, v, documents),
        "loop": loop,
        "causal": sdpa,
        "mask": lambda q, k, v: sdpa(q, k, v, mask),
    }, cu


def inputs(options: argparse.Namespace, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], Tensor]:
    """q, k and v, and a gradient of the output."""
    torch.manual_seed(0)
    heads = (options.heads, options.kv_heads, options.kv_heads, options.heads)
    q, k, v, grad = (
        torch.randn(options.rows, options.length, n, options.width).to(dtype).requires_grad_() for n in heads
    )
    return (q, k, v), grad.detach()


def step(side: Side, qkv: tuple[Tensor, ...], grad: Tensor) -> list[Tensor]:
    """Output and gradients."""
    out = side(*qkv)
    return [out.detach(), *torch.autograd.grad(out, qkv, grad)]


def timed(options: argparse.Namespace, dtype: torch.dtype, document: int) -> dict[str, float]:
    """Median seconds of each side."""
    compared, _ = sides(options.rows, options.length, document)
    qkv, grad = inputs(options, dtype)
    clock = time.thread_time if options.cpu_time else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in compared}
    for turn in range(options.rounds + 1):
        for name, side in compared.items():
            before = clock()
            step(side, qkv, grad)
            if turn:
                seconds[name].append(clock() - before)
    return {name: statistics.median(values) for name, values in seconds.items()}


def errors(options: argparse.Namespace, dtype: torch.dtype, document: int) -> dict[str, list[float]]:
    """Of each side that masks documents."""
    compared, cu = sides(options.rows, options.length, document)
    qkv, grad = inputs(options, dtype)
    wanted = step(lambda q, k, v: reference_attention(q, k, v, cu), qkv, grad)
    found = {name: step(compared[name], qkv, grad) for name in ("arriero", "loop", "mask")}
    return {
        name: [
            float((a.double() - b.double()).norm() / b.double().norm())
            for a, b in zip(got, wanted, strict=True)
        ]
        for name, got in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=2048, help="tokens of a row")
    parser.add_argument("--documents", type=int, nargs="+", default=[64, 128, 256, 400, 512, 1024, 2048])
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=64, help="of a head")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["bf16", "fp32"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time instead, for one thread of a busy machine"
    )
    parser.add_argument("--errors", action="store_true")
    options = parser.parse_args()
    for threads, name in itertools.product(options.threads, options.dtypes):
        torch.set_num_threads(threads)
        print(
            f"\n{name}, {threads} threads, torch {torch.__version__}, {options.rows} × {options.length} tokens"
        )
        for document in options.documents:
            if options.errors:
                for side, far in errors(options, DTYPES[name], document).items():
                    print(f"{document:6} {side:8}", "  ".join(f"{x:.1e}" for x in far), flush=True)
                continue
            result = timed(options, DTYPES[name], document)
            ours = result.pop("arriero")
            lengths = [document] * (options.length // document) + [options.length % document]
            pairs = options.rows * options.heads * sum(n * (n + 1) // 2 for n in lengths)
            print(
                f"{document:6} arriero {ours * 1e3:8.1f} ms, {ours / pairs * 1e9:5.1f} ns a pair;",
                ", ".join(f"{side} {s * 1e3:.1f} ms ({s / ours:.2f}×)" for side, s in result.items()),
                flush=True,
            )


if __name__ == "__main__":
    main()
