"""Two workers against one: `arriero data recipe=web` whole, from pages to the packed dataset, on two cores.

    ARRIERO_TEST_DATA=DATA python benchmarks/two_workers.py [--repeats 3]     # DATA/web/*.warc.gz, over 200 MB of pages
    python benchmarks/two_workers.py FILE.warc.gz …

Runs take turns, each in a process of its own on the same two cores, with kernels compiled before; more `--copies` of the
pages make a longer run, each with other words in other places so that deduplication keeps it. Where the machine does
other work the ratio says little: `cores` is what each run got, its processor time by its time on the clock; beside it
stands what others took. Prints time of each stage, of what is around the stages, and the ratio.
"""

from __future__ import annotations

import argparse
import ctypes
import gzip
import os
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import orjson
import timing

LEAST = 200e6
"""Bytes of pages below which start-up counts for too much."""
SUBREAPER = 36
"""`PR_SET_CHILD_SUBREAPER` of Linux's prctl: processes whose parent has ended become children of this one."""
THREADS = (
    "RAYON_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
)


@dataclass(frozen=True)
class Run:
    """One run of the pipeline."""

    wall: float
    """Seconds on the clock, start of Python included."""
    cpu: float
    """Processor seconds of all its processes."""
    others: float
    """Processor seconds that other processes took meanwhile."""
    stages: dict[str, float]
    """Seconds on the clock by stage."""


def busy() -> float:
    """Processor seconds that this machine has worked since its start."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, interrupts, soft, *_ = map(int, fields)
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def run(pages: Path, output: Path, workers: int, words: list[str]) -> Run:
    """One run in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "launch.cli", "data", "recipe=web", f"input={pages}", f"output={output}"]
    command += [f"executor.workers={workers}", *words]
    environment = {name: value for name, value in os.environ.items() if name not in THREADS}
    others = busy()
    # The process that workers were forked from ends after the verb, and its time counts with that of its workers.
    wall, cpu, _ = timing.timed(command, environment, orphans=True)
    stages = orjson.loads((output / "funnel.json").read_bytes())["stages"]
    return Run(wall, cpu, busy() - others - cpu, {s["name"]: s["seconds"] for s in stages})


def size_of(file: Path) -> int:
    """Bytes of the records of an archive."""
    with gzip.open(file) as archive:
        return sum(map(len, iter(lambda: archive.read(1 << 20), b"")))


def changed(source: Path, target: Path, copy: int) -> None:
    """A copy of an archive in which each long word is another of its length, so that it stays a page of its language."""
    with gzip.open(source) as archive:
        content = archive.read()
    # Only between tags, so that pages keep their structure, and not in headers; no length changes, which headers state.
    text, word = re.compile(rb"(?<=>)[^<>]{20,}(?=<)"), re.compile(rb"\b[a-z]{5,}\b")
    headers = re.compile(rb"WARC[-/]|HTTP/|\nContent-", re.I)
    by_length: dict[int, set[bytes]] = {}
    for piece in text.finditer(content):
        for long in word.findall(piece[0]):
            by_length.setdefault(len(long), set()).add(long)
    others: dict[bytes, bytes] = {}
    for words in map(sorted, by_length.values()):
        turned = copy * len(words) // 7
        others |= zip(words, words[turned:] + words[:turned], strict=True)

    def other(piece: re.Match[bytes]) -> bytes:
        return piece[0] if headers.search(piece[0]) else word.sub(lambda long: others[long[0]], piece[0])

    content = text.sub(other, content)
    target.write_bytes(gzip.compress(content, 1))


def main() -> int:
    """Run both in turn and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="*", help="WARC files")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each, interleaved")
    parser.add_argument("--copies", type=int, default=0, help="changed copies of each file beside it")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further words of the verb")
    parser.add_argument("--only", type=int, choices=[1, 2], help="so many workers alone, to profile")
    given = parser.parse_args()
    files = timing.archives(given.files)
    if not files:
        return 0
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        print("skipped: this process may use one core only")
        return 0
    os.sched_setaffinity(0, cores)
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    subprocess.run([sys.executable, "-m", "data_pipeline.compiling"], check=True, cwd=timing.ROOT)
    runs: dict[int, list[Run]] = {n: [] for n in ((1, 2) if given.only is None else (given.only,))}
    with tempfile.TemporaryDirectory() as scratch:
        pages = Path(scratch) / "pages"
        pages.mkdir()
        for file in files:
            (pages / file.name).symlink_to(file)
            for copy in range(1, given.copies + 1):
                changed(file, pages / f"copy-{copy}-{file.name}", copy)
        size = sum(map(size_of, pages.iterdir()))
        print(f"{len(list(pages.iterdir()))} files, {size / 1e6:.0f} MB of records")
        if size < LEAST:
            print(f"  less than {LEAST / 1e6:.0f} MB: what is around the stages counts for too much")
        for repeat in range(given.repeats):
            for workers, found in runs.items():
                found.append(run(pages, Path(scratch) / f"{workers}-{repeat}", workers, given.set))
                last = found[-1]
                print(
                    f"  {workers} worker{'s' if workers > 1 else ' '} {last.wall:6.1f} s on the clock, {last.cpu:6.1f} "
                    f"CPU s, {last.cpu / last.wall:.2f} cores; others {last.others:.1f} CPU s",
                    flush=True,
                )
    show(runs)
    return 0


def show(runs: dict[int, list[Run]]) -> None:
    """Medians by stage, those that take longest first, and the ratio."""

    def median(workers: int, stage: str) -> float:
        return statistics.median(r.stages[stage] for r in runs[workers])

    first = next(iter(runs))
    names = sorted(runs[first][0].stages, key=lambda name: -median(first, name))
    print(f"{'stage, s':<18}" + "".join(f"{workers:>9}" for workers in runs))
    for name in names:
        print(f"{name:<18}" + "".join(f"{median(workers, name):9.2f}" for workers in runs))
    around = {
        w: statistics.median(r.wall - sum(r.stages.values()) for r in found) for w, found in runs.items()
    }
    print(f"{'around the stages':<18}" + "".join(f"{seconds:9.2f}" for seconds in around.values()))
    walls = {w: statistics.median(r.wall for r in found) for w, found in runs.items()}
    print(f"{'whole':<18}" + "".join(f"{seconds:9.2f}" for seconds in walls.values()))
    if len(walls) == 2:
        print(f"two workers against one: {walls[1] / walls[2]:.2f}x")


if __name__ == "__main__":
    sys.exit(main())
