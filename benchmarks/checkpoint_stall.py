"""How long training waits for a checkpoint: python benchmarks/checkpoint_stall.py [--gib 1]

A rank's tensors are saved several times. Training waits for the copy into shared memory; a process serialises it and sums it
up meanwhile. Printed for each save: GB/s of processor time and of time of the wait, and what the writing took; beside them
`torch.save` into memory with a CRC-32, which was the wait before. The first save makes the
memory that later ones use.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
import zlib
from pathlib import Path

import torch

from pretrain.checkpoint import Checkpointer
from pretrain.distributed import setup, teardown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gib", type=float, default=1.0, help="bytes of the rank's tensors, GiB")
    parser.add_argument("--saves", type=int, default=3)
    arguments = parser.parse_args()
    setup("cpu", timeout=600)
    torch.set_num_threads(1)
    each = 64 * 2**20
    tensors = {
        f"model.{i}": torch.randn(each // 4096, 1024)
        for i in range(max(1, int(arguments.gib * 2**30 / each)))
    }
    size = sum(t.nbytes for t in tensors.values()) / 1e9
    folder = Path(tempfile.mkdtemp(prefix="checkpoint-stall-"))
    print(f"{size:.2f} GB in {len(tensors)} tensors, one thread\n")
    print("| | GB/s of processor time | GB/s of the wait | whole, s |")
    print("| --- | --- | --- | --- |")
    try:
        checkpointer = Checkpointer(folder, 1, asynchronous=True, ledger=None)
        for number in range(1, arguments.saves + 1):
            began, cpu = time.perf_counter(), time.process_time()
            checkpointer.start(number, tensors, {})
            waited, used = time.perf_counter() - began, time.process_time() - cpu
            checkpointer.finish()
            whole = time.perf_counter() - began
            print(f"| save {number} | {size / used:.2f} | {size / waited:.2f} | {whole:.1f} |", flush=True)
        checkpointer.close()
        began, cpu = time.perf_counter(), time.process_time()
        for tensor in tensors.values():
            out = io.BytesIO()
            torch.save(tensor.clone(), out)
            zlib.crc32(out.getbuffer())
        waited, used = time.perf_counter() - began, time.process_time() - cpu
        print(f"| `torch.save` into memory, CRC-32 | {size / used:.2f} | {size / waited:.2f} | |")
    finally:
        shutil.rmtree(folder)
        teardown()


if __name__ == "__main__":
    main()
