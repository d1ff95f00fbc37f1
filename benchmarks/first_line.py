"""Time to the first line of each verb that needs no torch: `--help` of all, `report` and so on.

    python benchmarks/first_line.py DIR [--repeats 5]        # DIR: directory of a data run, with `packed/`

From the start of Python to the first line of output, on the clock and as processor time of the process; medians. Files are
in the page cache, and bytecode is written before, as after an installation. Beside it, the processor time of the whole
verb. Where the machine does other work, processor time is the figure to compare.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from launch.cli import VERBS

ROOT = Path(__file__).resolve().parent.parent


def first_line(words: list[str]) -> tuple[float, float, float]:
    """Milliseconds until a verb's first line: on the clock and of processor time; and processor time until it ends."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-u", "-m", "launch.cli", *words]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, cwd=ROOT
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    wall = time.perf_counter() - began
    # Nanoseconds on a core, of its first thread.
    until = int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e6
    process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if not line:
        raise RuntimeError(f"`arriero {' '.join(words)}` printed nothing and ended with status {status >> 8}")
    return 1e3 * wall, until, 1e3 * (used.ru_utime + used.ru_stime)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="directory of a data run")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    run = given.run.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        page, started = Path(scratch) / "report.html", Path(scratch) / "run"
        verbs = {f"{verb} --help": [verb, "--help"] for verb in VERBS}
        verbs |= {
            "--help": ["--help"],
            "report": ["report", f"data.path={run}", f"output={page}"],
            "whatif": ["whatif", f"data.path={run}"],
            "trace text=": ["trace", f"data.path={run}", "text=the", "limit=1"],
            "launch dry_run=true": [
                *(
                    "launch",
                    "cluster=local",
                    "cluster.nproc=2",
                    "model=debug",
                    "train.steps=100",
                    "dry_run=true",
                ),
                *(f"data.path={run}", f"run.dir={started}"),
            ],
        }
        print(f"{'':<22}{'first line, ms':>15}{'CPU ms':>10}{'whole, CPU ms':>15}")
        for name, words in verbs.items():
            first_line(words)
            taken = [first_line(words) for _ in range(given.repeats)]
            wall, until, whole = (statistics.median(column) for column in zip(*taken, strict=True))
            print(f"{name:<22}{wall:>15.0f}{until:>10.0f}{whole:>15.0f}", flush=True)


if __name__ == "__main__":
    main()
