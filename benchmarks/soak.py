"""Resident memory of every rank over 1,100 real training steps in fp32 and in bf16: python benchmarks/soak.py [--help]

Packs random documents of very different lengths, trains a small model on them with `pretrain.train` (under torchrun where
there are several ranks), and looks at each rank's memory every 50 steps, from outside (`/proc/PID/smaps_rollup` through
psutil). Prints a table, a curve, and by how much the memory has grown from step 100 to the last one; flat means at most 2%.
Each run is made twice, with the heap's settings of `arriero launch` and without them (`--heap`), and the processor seconds
of a step stand beside its growth.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import math
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from configs.schema.train import ClusterConfig
from data_pipeline.packed import SEGMENT_DTYPE, PackedWriter, TokenizerInfo
from launch import local

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
WARM = 100
"""Steps before which memory may grow: first allocations, first shapes, first checkpoint."""
MAX_GROWTH = 0.02
"""From step WARM to the last one, a share of what it was."""
HEAP = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
"""What `arriero launch` sets of glibc's heap."""


@dataclass(frozen=True)
class Sample:
    """One look at a rank."""

    step: int
    resident: float
    """MiB, pages of mapped files included."""
    private: float
    """MiB that belong to this process alone."""
    cpu_seconds: float
    """Of all its threads since it started."""


def make_packed(path: Path, sequences: int, length: int, vocab_size: int, seed: int = 0) -> Path:
    """A packed dataset of random tokens, in documents of log-normal length (median 150 tokens)."""
    chance = np.random.default_rng(seed)
    folder = path.with_name(path.name + "-tokenizer")
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    digest = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    info = TokenizerInfo(digest, vocab_size, {"bos": 0, "eos": 1, "pad": 2})
    with PackedWriter(path, info, length) as writer:
        for split, count in (("train", sequences), ("heldout", 8)):
            stream = writer.stream(split, "random")
            for number in range(count):
                lengths: list[int] = []
                while sum(lengths) < length:
                    lengths.append(min(int(chance.lognormal(5.0, 1.2)) + 2, length - sum(lengths)))
                starts = np.cumsum([0, *lengths[:-1]])
                rows = [
                    stream.document(hashlib.md5(b"%d %d" % (number, i)).digest(), 0, n, 4 * n)
                    for i, n in enumerate(lengths)
                ]
                segments = np.array(list(zip(rows, starts, itertools.repeat(0))), SEGMENT_DTYPE)
                stream.sequence(chance.integers(3, vocab_size, length), -1, segments)
        writer.finish(folder, {"weights": {"random": 1.0}, "max_epochs": {"random": 1e6}}, {})
    return path


def train(
    packed: Path,
    run_dir: Path,
    ranks: int,
    every: int,
    *overrides: str,
    minutes: float = math.inf,
    heap: str = "plain",
) -> dict[int, list[Sample]]:
    """Run `pretrain.train` and sample every rank's memory each `every` steps, from outside; stop it after `minutes`.

    `heap` is `launch`, with the settings of `arriero launch`, or `plain`, without any. RuntimeError where the run fails.
    """
    deadline = time.monotonic() + 60 * minutes
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", f"--master-port={port}"]
    command = [sys.executable, *(torchrun if ranks > 1 else []), "-m", "pretrain.train"]
    # A heartbeat each step tells the step and the process of every rank.
    command += [f"data.path={packed}", f"run.dir={run_dir}", "tracker=none", "device=cpu", *overrides]
    command += ["resilience.heartbeat_every=1e-3", "run.log_every=1000000"]
    environment = local.environment(ClusterConfig(threads=1))
    if heap == "plain":
        environment = {k: v for k, v in environment.items() if k not in HEAP}
    samples: dict[int, list[Sample]] = {rank: [] for rank in range(ranks)}
    with (run_dir.with_name(run_dir.name + ".log")).open("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                for rank, taken in samples.items():
                    sample = look(run_dir, rank, taken[-1].step + every if taken else 0)
                    if sample is not None:
                        taken.append(sample)
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
        finally:
            process.terminate()
            process.wait()
        log.seek(0)
        if process.returncode and time.monotonic() < deadline:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{log.read()[-4000:]}")
    return samples


def look(run_dir: Path, rank: int, at_least: int) -> Sample | None:
    """The memory of a rank that trains and has reached a step; None otherwise."""
    with contextlib.suppress(OSError, json.JSONDecodeError, psutil.Error):
        beat = json.loads((run_dir / "heartbeats" / f"rank-{rank}.json").read_bytes())
        if beat["phase"] == "training" and beat["step"] >= at_least:
            process = psutil.Process(beat["pid"])
            memory, times = process.memory_full_info(), process.cpu_times()
            return Sample(beat["step"], memory.rss / MIB, memory.uss / MIB, times.user + times.system)
    return None


def growth(samples: list[Sample]) -> float:
    """Resident memory at the last sample against that at step WARM, a share; NaN of a run that is shorter."""
    late = [s for s in samples if s.step >= WARM]
    return late[-1].resident / late[0].resident - 1 if len(late) > 1 else math.nan


def cpu_seconds_per_step(samples: list[Sample]) -> float:
    """Of the steps after WARM; NaN of a run that is shorter."""
    late = [s for s in samples if s.step >= WARM]
    if len(late) < 2:
        return math.nan
    return (late[-1].cpu_seconds - late[0].cpu_seconds) / (late[-1].step - late[0].step)


def sparkline(values: list[float], width: int = 80) -> str:
    """A curve in a line of text, from the lowest to the highest value."""
    low, high = min(values), max(values)
    thin = [values[i * len(values) // width] for i in range(width)] if len(values) > width else values
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (v - low) / max(high - low, 1e-9))] for v in thin)


def report(samples: dict[int, list[Sample]]) -> bool:
    """Print the samples of every rank; returns whether memory is flat."""
    flat = True
    for rank, taken in samples.items():
        print(f"\nrank {rank}       step   resident MiB   private MiB")
        for sample in taken[:: max(1, len(taken) // 20)]:
            print(f"{sample.step:>17,}   {sample.resident:>12.1f}   {sample.private:>11.1f}")
        grown = growth(taken)
        flat = flat and grown <= MAX_GROWTH
        values = [s.resident for s in taken]
        print(f"  {sparkline(values)}  {min(values):.0f} … {max(values):.0f} MiB")
        print(
            f"  from step {WARM} to {taken[-1].step:,}: {100 * grown:+.1f}% "
            f"({'flat' if grown <= MAX_GROWTH else 'GROWS'}, at most {100 * MAX_GROWTH:.0f}%), "
            f"{cpu_seconds_per_step(taken):.4f} CPU seconds a step"
        )
    return flat


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[1], help="runs, for each number of ranks")
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], help="runs, for each `train.dtype`")
    parser.add_argument("--heap", nargs="+", default=["plain", "launch"], choices=["plain", "launch"])
    parser.add_argument("--steps", type=int, default=WARM + 1001)
    parser.add_argument("--every", type=int, default=50, help="steps between samples")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop each run after so long")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--keep", type=Path, help="folder for the runs; default: a temporary one")
    parser.add_argument(
        "overrides", nargs="*", help="more keys of `arriero train`, such as model=33m optim=muon"
    )
    args = parser.parse_args()
    flat = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        packed = folder / "packed"
        if not packed.exists():
            make_packed(packed, 2000, args.length, args.vocab)
        for ranks, dtype, heap in itertools.product(args.ranks, args.dtypes, args.heap):
            overrides = [
                "model=debug",
                f"train.dtype={dtype}",
                f"train.global_batch_size={2 * ranks}",
                "train.micro_batch_size=2",
                f"train.steps={args.steps}",
                "checkpoint.every=50",
                "checkpoint.keep=2",
            ]
            began, run_dir = time.monotonic(), folder / f"run-{ranks}-{dtype}-{heap}"
            samples = train(
                packed,
                run_dir,
                ranks,
                args.every,
                *overrides,
                *args.overrides,
                minutes=args.minutes,
                heap=heap,
            )
            done, seconds = samples[0][-1].step, time.monotonic() - began
            print(
                f"\n{ranks} rank{'s' * (ranks > 1)}, {dtype}, heap {heap}: {done:,} of {args.steps:,} steps, {seconds:.0f} s"
            )
            flat = report(samples) and flat
    print(f"\nresident memory {'is flat' if flat else 'GROWS'}")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
