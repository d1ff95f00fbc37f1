"""WARC files → filtered, deduplicated documents: `arriero data` beside datatrove's FineWeb example, one core each.

    python benchmarks/web.py FILE.warc.gz …
    ARRIERO_TEST_DATA=DATA python benchmarks/web.py          # the labelled pages and one crawl of DATA/web

Both sides read the same files with one worker, pinned to the same core, one after the other (datatrove in an environment
of its own), and end with documents on disk (JSONL). arriero runs every annotator of its web recipe that needs no model,
and a language model where one is given (`--languages FILE.bin`); datatrove's language filter is left out, as it
downloads its model. Processes are timed whole, imports included. Prints seconds, pages/s, CPU seconds and ratios; the
median of `--repeats`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
import peers
import timing

DEFAULT = (
    "wcxb-dev-00000",
    "trafilatura-eval-00000",
    "article-extraction-00000",
    "readability-00000",
    "uci-ics-crawl-00000",
)


@dataclass(frozen=True)
class Run:
    """One run of one side."""

    wall: float
    """Seconds."""
    cpu: float
    """CPU seconds of all its processes."""
    read: int
    """Pages read; 0 where the side does not tell."""
    kept: int
    """Documents kept."""
    steps: dict[str, float]
    """Seconds by step."""


def on_core(command: list[str], core: int) -> tuple[float, float, str]:
    """(wall seconds, CPU seconds, standard output) of a command on one core."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return timing.timed(["taskset", "-c", str(core), *command], environment)


def ours(warcs: Path, output: Path, core: int, extra: list[str]) -> Run:
    """`arriero data` up to the kept documents."""
    command = [sys.executable, "-m", "launch.cli", "data", "recipe=web", f"input={warcs}", f"output={output}"]
    wall, cpu, _ = on_core([*command, "executor.workers=1", "jsonl=true", "stop_after=final", *extra], core)
    funnel = orjson.loads((output / "funnel.json").read_bytes())
    row = funnel["sources"]["web"]
    return Run(
        wall,
        cpu,
        row["read_documents"],
        row["kept_documents"],
        {s["name"]: s["seconds"] for s in funnel["stages"]},
    )


def theirs(warcs: Path, output: Path, core: int) -> Run:
    """datatrove's FineWeb example."""
    interpreter = peers.python("datatrove", peers.DATATROVE)
    script = str(timing.ROOT / "benchmarks" / "fineweb_in_datatrove.py")
    wall, cpu, out = on_core([str(interpreter), script, str(warcs), str(output)], core)
    result = json.loads(out.splitlines()[-1])
    return Run(wall, cpu, 0, result["kept"], result["seconds"])


def show(name: str, runs: list[Run], pages: int) -> None:
    """One line of the median run by wall time, and its slowest steps."""
    wall = statistics.median(r.wall for r in runs)
    cpu = statistics.median(r.cpu for r in runs)
    steps = sorted(runs[-1].steps.items(), key=lambda kv: -kv[1])[:9]
    print(
        f"{name:<10}{wall:8.1f} s {cpu:8.1f} CPU s {pages / wall:8.1f} pages/s   kept {runs[-1].kept:,}\n"
        f"           {', '.join(f'{k} {v:.1f}' for k, v in steps)}"
    )


def main() -> int:
    """Run both sides and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="*", help="WARC files")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each side, interleaved")
    parser.add_argument("--core", type=int, default=0, help="core that both sides are pinned to")
    parser.add_argument("--languages", type=Path, help="fastText language model for our side")
    parser.add_argument("--only", choices=["arriero", "datatrove"], help="one side alone, to profile it")
    given = parser.parse_args()
    files = timing.archives(given.files, DEFAULT)
    if not files:
        return 0
    extra = [f"languages.model={given.languages.resolve()}"] if given.languages else []
    sides: dict[str, Callable[[Path, Path], Run]] = {
        "arriero": lambda warcs, output: ours(warcs, output, given.core, extra),
        "datatrove": lambda warcs, output: theirs(warcs, output, given.core),
    }
    if given.only:
        sides = {given.only: sides[given.only]}
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as scratch:
        warcs = Path(scratch) / "warcs"
        warcs.mkdir()
        for file in files:
            (warcs / file.name).symlink_to(file)
        for repeat in range(given.repeats):
            for name, side in sides.items():
                runs[name].append(side(warcs, Path(scratch) / f"{name}{repeat}"))
    pages = max(r.read for found in runs.values() for r in found) or 1
    size = sum(f.stat().st_size for f in files)
    print(f"{len(files)} files, {size / 1e6:.1f} MB compressed, {pages:,} records read")
    for name, found in runs.items():
        show(name, found, pages)
    if len(runs) == 2:
        ratios = [
            (b.wall / a.wall, b.cpu / a.cpu) for a, b in zip(runs["arriero"], runs["datatrove"], strict=True)
        ]
        print(
            f"ratio     {statistics.median(r[0] for r in ratios):.1f}x wall, "
            f"{statistics.median(r[1] for r in ratios):.1f}x CPU"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
