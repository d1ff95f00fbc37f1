"""Tokens per second of the loader, against reading the same files without it.

  python benchmarks/loader.py                          # a dataset made for the purpose, 8,192-token sequences
  python benchmarks/loader.py data=out/packed          # one's own

Four figures: the memory map summed as it lies on disk (the floor: no CRC, no documents), `PackedDataset.read` in plan
order, the whole path to `Batch`, and the same from the prefetch thread. One core, page cache warm.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from configs.schema.train import PhaseConfig
from data_pipeline.pack import concat
from data_pipeline.packed import PADDING, SEGMENT_DTYPE, PackedDataset, PackedWriter, TokenizerInfo
from pretrain.data import DataPlan, Span
from pretrain.data.loader import Loader

VOCAB_SIZE = 128_256
TOKENS = 2**25


def make_packed(path: Path, sequence_length: int) -> PackedDataset:
    """About 33M random tokens in documents of log-normal length (median 600 tokens), the shape of web text."""
    folder = path.with_name("tokenizer")
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    info = TokenizerInfo(hashlib.sha256(b"{}").hexdigest(), VOCAB_SIZE, {"bos": 1, "eos": 2, "pad": 2})
    rng = np.random.default_rng(0)
    lengths: list[int] = []
    while sum(lengths) < TOKENS:
        lengths.extend(int(n) for n in 2 + rng.lognormal(6.4, 1.1, 4096))
    with PackedWriter(path, info, sequence_length) as writer:
        stream = writer.stream("train", "web")
        for length in lengths:
            stream.document(rng.bytes(16), 0, length, 4 * length)
        for layout in concat(lengths, sequence_length):
            starts = np.cumsum([0, *(taken for _, _, taken in layout)])
            segments = [(d, s, o) for (d, o, _), s in zip(layout, starts, strict=False)]
            if starts[-1] < sequence_length:
                segments.append((PADDING, starts[-1], 0))
            document, offset, taken = layout[-1]
            goes_on = offset + taken < lengths[document]
            tokens = rng.integers(0, VOCAB_SIZE, sequence_length)
            stream.sequence(tokens, 5 if goes_on else -1, np.array(segments, SEGMENT_DTYPE))
        writer.finish(folder, {"weights": {"web": 1.0}, "max_epochs": {}}, {})
    return PackedDataset(path)


def measure(name: str, function: Callable[[], int], floor: float | None = None) -> float:
    """Best of three, in tokens per second, printed."""
    best = 0.0
    for _ in range(3):
        begin = time.perf_counter()
        tokens = function()
        best = max(best, tokens / (time.perf_counter() - begin))
    print(
        f"{name:44s} {best / 1e6:9.1f} M tokens/s" + (f"  {best / floor:7.3f} of the floor" if floor else "")
    )
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", help="data=DIR/packed: an existing packed dataset")
    parser.add_argument("--sequence-length", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.data:
            packed = PackedDataset(arguments.data.removeprefix("data="))
        else:
            packed = make_packed(Path(temporary) / "packed", arguments.sequence_length)
        report(packed, arguments.batch)


def report(packed: PackedDataset, batch: int) -> None:
    """Measure and print."""
    plan = DataPlan(packed.manifest, [PhaseConfig()], seed=0)
    held = sum(info.sequences for info in packed.streams("train").values())
    steps = max(1, min(held, 4096) // batch)
    count = steps * batch
    tokens = count * packed.sequence_length
    files = sorted((packed.path / "train").rglob("tokens-*.bin"))
    print(
        f"{packed.path}: {held:,} sequences of {packed.sequence_length:,} tokens, {packed.manifest.dtype}; "
        f"{count:,} sequences a run, batches of {batch}"
    )

    def raw() -> int:
        read = 0
        for file in files:
            values = np.memmap(file, packed.manifest.dtype, "r")
            values.sum()
            read += len(values)
        return read

    def plain(dataset: PackedDataset) -> int:
        for n in range(count):
            dataset.read(*plan.locate(n)).tokens.sum()
        return tokens

    loader = Loader(packed, plan, batch)
    spans = [Span(step * batch, batch, packed.sequence_length) for step in range(steps)]

    def batches() -> int:
        return sum(b.tokens.numel() for span in spans for b in loader.step(span))

    def prefetched() -> int:
        with loader.prefetch(spans) as made:
            return sum(b.tokens.numel() for step in made for b in step)

    floor = measure("memory map, summed", raw)
    measure("read in plan order, no CRC", lambda: plain(PackedDataset(packed.path, verify=False)), floor)
    measure("read in plan order, CRC verified", lambda: plain(packed), floor)
    measure("Batch: labels, positions, cu_seqlens", batches, floor)
    measure("Batch from the prefetch thread", prefetched, floor)


if __name__ == "__main__":
    main()
