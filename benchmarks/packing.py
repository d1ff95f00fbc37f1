"""Plans of packing millions of documents: seconds, memory, padding and documents that are cut.

  python benchmarks/packing.py                       # 5M documents, the lengths of web text, at 8,192, 32K and 128K tokens
  python benchmarks/packing.py --documents 1000000

Each method runs in a process of its own, so its peak memory is its own. Seconds are processor time of one core. Bars: under
60 s for 5M documents; best-fit pads under 0.5% and cuts only documents longer than a sequence.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np


def plan(method: str, n_documents: int, length: int) -> None:
    """Plan, and print a row."""
    from data_pipeline.pack import best_fit, concat

    # Log-normal, median 600 tokens, mean 1,100: what FineWeb's documents have, and some of books.
    rng = np.random.default_rng(0)
    lengths = (2 + rng.lognormal(6.4, 1.1, n_documents)).astype(np.int64)
    lengths[::10_000] = rng.integers(50_000, 200_000, len(lengths[::10_000]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, sequences, pieces = time.process_time(), 0, np.zeros(n_documents, np.int32)
    layouts = best_fit(lengths, length) if method == "best_fit" else concat(lengths.tolist(), length)
    spent = time.process_time() - start
    iterator = iter(layouts)
    while True:
        start = time.process_time()
        layout = next(iterator, None)
        spent += time.process_time() - start
        if layout is None:
            break
        sequences += 1
        for document, _, _ in layout:
            pieces[document] += 1
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    padding = 1 - lengths.sum() / (sequences * length)
    cut = pieces > 1
    print(
        f"{method:9s} {length:8,} {n_documents:11,} {spent:8.1f} s {peak:8,.0f} MiB {padding:9.3%} {int(cut.sum()):11,} "
        f"{int((cut & (lengths <= length)).sum()):11,} {n_documents / sequences:10.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=5_000_000)
    parser.add_argument("--plan", nargs=2, metavar=("METHOD", "LENGTH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plan:
        plan(arguments.plan[0], arguments.documents, int(arguments.plan[1]))
        return
    print(
        "method      length   documents    planned       peak   padding         cut   cut short   documents/sequence"
    )
    for length in (2048, 8192, 32_768, 131_072):
        for method in ("concat", "best_fit"):
            command = [
                sys.executable,
                __file__,
                "--documents",
                str(arguments.documents),
                "--plan",
                method,
                str(length),
            ]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
