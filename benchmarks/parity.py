"""Every layout against one process, as a Markdown table: python benchmarks/parity.py [--full] [--ranks N …]

The layouts are those of tests/distributed/parity_layouts.py (`--full`: the campaign's), with gloo on this machine. Errors
are relative: of the loss, of the worst gradient (norm of the difference ÷ norm), and of the worst weight after five
steps of AdamW or Muon with clipping, weight decay and a schedule. Initial weights must be identical.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "distributed"))

import ranks
from parity_cases import outcomes
from parity_layouts import CORE, FULL
from test_parity import BOUNDS, alone, distances

COLUMNS = (
    "ranks",
    "layout",
    "options",
    "loss fp32",
    "gradient fp32",
    "loss fp64",
    "gradient fp64",
    "weights fp64",
)


def main() -> int:
    """Print a row for each layout as soon as its world is computed; 1 where one is out of bounds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="the layouts of the campaign")
    parser.add_argument("--ranks", type=int, nargs="*", help="only worlds of these sizes")
    arguments = parser.parse_args()
    table = FULL if arguments.full else CORE
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    wrong = 0
    for size in sorted(set(arguments.ranks or {case.world_size for case in table})):
        cases = [case for case in table if case.world_size == size]
        both = [replace(case, dtype=dtype) for case in cases for dtype in BOUNDS]
        alone(both)
        found = iter(ranks.run(outcomes, size, both, timeout=3600))
        for case in cases:
            errors = {dtype: distances(replace(case, dtype=dtype), next(found)) for dtype in BOUNDS}
            cells = [
                errors[dtype][what]
                for dtype, what in (
                    ("fp32", "loss"),
                    ("fp32", "gradient"),
                    ("fp64", "loss"),
                    ("fp64", "gradient"),
                    ("fp64", "weights"),
                )
            ]
            same = all(one["initial weights"] == 0 for one in errors.values())
            limits = (BOUNDS["fp32"][0], BOUNDS["fp32"][1], *[BOUNDS["fp64"][0]] * 3)
            wrong += not same or any(not x <= bound for x, bound in zip(cells, limits, strict=True))
            text = " | ".join(f"{x:.0e}" for x in cells)
            print(f"| {size} | {case.layout} | {case.options} | {text} |", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
