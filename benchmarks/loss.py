"""Loss of a linear head over a large vocabulary, forward and backward: time and memory against what torch offers.

Each side runs in a process of its own; the rounds are interleaved, so that what else the machine does meets all of them.
Memory is the growth of the resident high-water mark over a step, beyond inputs and weights, gradients included.

  python benchmarks/loss.py                        # 2,048 tokens, 256 wide, vocabulary 128,256, fp32
  python benchmarks/loss.py --dtype bf16 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIDES = {
    "plain": "F.linear + F.cross_entropy",
    "ours": "pretrain.model.loss",
    "compiled": "pretrain.model.loss, compiled passes",
    "torch": "F.linear_cross_entropy",
    "torch chunked": "F.linear_cross_entropy, batch_chunk_size=256",
}


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=128_256)
    parser.add_argument("--chunk", type=int, default=2048, help="train.loss_chunk_tokens")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(options)
        return 0
    workers = {side: Worker(side) for side in SIDES}
    rounds: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    # The first round is the one in which memory grows; its time is not counted.
    for _ in range(options.rounds + 1):
        for side, worker in workers.items():
            if (answer := worker.step()) is not None:
                rounds[side].append(answer)
    for worker in workers.values():
        worker.close()
    report(options, {side: answers for side, answers in rounds.items() if answers})
    return 0


class Worker:
    """A process that does a step when told to."""

    def __init__(self, side: str):
        command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def step(self) -> dict[str, float] | None:
        """Seconds, CPU seconds, bytes and loss of a step; None where torch has no such function."""
        assert self.process.stdin is not None and self.process.stdout is not None
        if self.process.poll() is not None:
            return None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(options: argparse.Namespace) -> None:
    """Do a step for each line of the input, and write down what it took."""
    import torch

    sys.path.insert(0, str(ROOT))
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    x = torch.randn(1, options.tokens, options.dim).to(dtype).requires_grad_()
    weight = torch.randn(options.vocab, options.dim).mul_(options.dim**-0.5).to(dtype).requires_grad_()
    labels = torch.randint(0, options.vocab, (1, options.tokens))
    run = loss_of(options.side, x, weight, labels, options.chunk)
    if run is None:
        return
    # Products of the same shape warm up the libraries, whose buffers are nobody's activations.
    torch.mm(x[0, :8].detach(), weight.detach().mT)
    for _ in sys.stdin:
        x.grad = weight.grad = None
        reset_high_water()
        before, began, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
        loss = run()
        loss.backward()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        answer = {"seconds": seconds, "cpu": cpu, "bytes": resident("VmHWM") - before, "loss": loss.item()}
        print(json.dumps(answer), flush=True)


def loss_of(side: str, x: object, weight: object, labels: object, chunk: int) -> Callable[[], object] | None:
    """The mean loss as one side computes it."""
    import torch
    import torch.nn.functional as F

    from pretrain.model.loss import compile_passes, linear_cross_entropy

    assert (
        isinstance(x, torch.Tensor) and isinstance(weight, torch.Tensor) and isinstance(labels, torch.Tensor)
    )
    flat = labels.flatten()
    if side == "plain":
        return lambda: F.cross_entropy(F.linear(x, weight).flatten(0, 1), flat)
    if side == "ours":
        return lambda: linear_cross_entropy(x, weight, labels, chunk) / flat.numel()
    if side == "compiled":
        passes = compile_passes()
        return lambda: linear_cross_entropy(x, weight, labels, chunk, passes=passes) / flat.numel()
    if not hasattr(F, "linear_cross_entropy"):
        return None
    if side == "torch":
        return lambda: F.linear_cross_entropy(x.flatten(0, 1), weight, flat)
    chunks = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=256)
    return lambda: F.linear_cross_entropy(x.flatten(0, 1), weight, flat, options=chunks)


def resident(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def reset_high_water() -> None:
    """Forget the resident high-water mark."""
    Path("/proc/self/clear_refs").write_text("5")


def report(options: argparse.Namespace, rounds: dict[str, list[dict[str, float]]]) -> None:
    """The table, and ratios to the plain form."""
    print(
        f"{options.tokens:,} tokens, {options.dim} wide, vocabulary {options.vocab:,}, {options.dtype}, "
        f"{options.threads} threads, median of {options.rounds}"
    )
    print(f"{'':46}  seconds  CPU s  extra MB  loss      time ÷ plain")
    plain = statistics.median(r["seconds"] for r in rounds["plain"][1:])
    for side, answers in rounds.items():
        seconds, cpu = (statistics.median(r[key] for r in answers[1:]) for key in ("seconds", "cpu"))
        size = max(r["bytes"] for r in answers) / 1e6
        loss = answers[0]["loss"]
        print(f"{SIDES[side]:46}  {seconds:7.2f}  {cpu:5.1f}  {size:8.0f}  {loss:.6f}  {seconds / plain:.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
