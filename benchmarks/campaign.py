"""Kill a data run again and again: a random process at a random moment, then the same command; compare the output.

    python benchmarks/campaign.py FILE… [--kills 20] [--seed 0] [--workers 2]
    ARRIERO_TEST_DATA=DATA python benchmarks/campaign.py           # DATA/web/readability-00000.warc.gz

Each kill begins with an empty folder, or, with `--chained`, goes on where the one before left the run. A killed driver is
started again; a killed worker is the driver's own affair.
Prints what was killed, where the run stood, how it went on, and whether the output is that of an undisturbed run; exit
status 1 if it ever is not, or if a run hangs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 600.0
"""Seconds after which a run counts as hung."""
NOT_OUTPUT = ("logs/", "stages/", ".", "config.yaml", "environment.jsonl", "funnel.json")


def command(words: list[str], output: Path) -> list[str]:
    """`arriero data` with an output folder."""
    return [sys.executable, "-m", "launch.cli", "data", *words, f"output={output}"]


def tree(folder: Path) -> dict[str, str]:
    """Hash of every file of a run, but for logs, the configuration, and the times in `stages/` and funnel.json."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(NOT_OUTPUT):
            hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    funnel = json.loads((folder / "funnel.json").read_text())
    hashes["funnel.json"] = json.dumps({k: v for k, v in funnel.items() if k != "stages"}, sort_keys=True)
    return hashes


def undisturbed(words: list[str], output: Path) -> tuple[dict[str, str], float]:
    """The output of a run that nobody kills, and its seconds."""
    began = time.monotonic()
    done = subprocess.run(command(words, output), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return tree(output), time.monotonic() - began


@dataclass
class Kill:
    """What one kill did."""

    victim: str
    """`driver`, `worker`, or `nothing` where the run was over by then."""
    stage: str
    """Stage that ran."""
    status: int
    """Exit status of the killed run."""
    runs: int
    """Times that the command was started, until it ended well."""
    differences: list[str]
    """Files that differ from the undisturbed run's."""


def kill_once(
    words: list[str],
    output: Path,
    expected: dict[str, str],
    delay: float,
    draw: random.Random,
    finish: bool = True,
) -> Kill:
    """Start a run, kill one of its processes after `delay` seconds, and repeat the command until it ends well.

    With `finish` false a killed driver is not started again, and the output is not looked at.
    """
    process = subprocess.Popen(
        command(words, output), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    victim = "nothing"
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        target = draw.choice([process.pid, *_workers(process.pid)])
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            os.kill(target, signal.SIGKILL)
            victim = "driver" if target == process.pid else "worker"
    stage = _stage(output)
    _, errors = process.communicate(timeout=PATIENCE)
    status, runs = process.returncode, 1
    while process.returncode and finish:
        if runs > 3 or (victim != "driver" and process.returncode > 0):
            raise RuntimeError(f"killed {victim} in {stage}: {errors[-2000:]}")
        process = subprocess.Popen(
            command(words, output), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        _, errors = process.communicate(timeout=PATIENCE)
        runs += 1
    # A chain goes on in the same folder until a run ends well there.
    found = tree(output) if process.returncode == 0 else expected
    names = sorted(found.keys() | expected.keys())
    return Kill(victim, stage, status, runs, [n for n in names if found.get(n) != expected.get(n)])


def _workers(driver: int) -> list[int]:
    """Processes of a run that may hold a task: those without children, but for multiprocessing's own helpers."""
    workers = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(driver).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since
                if not process.children() and "tracker" not in " ".join(process.cmdline()):
                    workers.append(process.pid)
    return workers


def _stage(output: Path) -> str:
    """The stage that a run stands in."""
    started = {p.stem: p.stat().st_mtime for p in (output / "stages").glob("*.started")}
    done = {p.stem for p in (output / "stages").glob("*.json")}
    open_ = [name for name in started if name not in done]
    return max(open_, key=lambda n: started[n]) if open_ else "planning" if not started else "between"


def campaign(
    words: list[str],
    folder: Path,
    kills: int,
    seed: int,
    chained: bool = False,
    made: tuple[dict[str, str], float] | None = None,
) -> list[Kill]:
    """Kill `kills` runs at random moments, or one run so many times; prints a line for each.

    Args:
        made: what `undisturbed` gave for these words; None: it is run here.
    """
    draw = random.Random(seed)
    if made is None:
        first, _ = undisturbed(words, folder / "undisturbed")
        made = undisturbed(words, folder / "again")  # the first one may have compiled functions
        if made[0] != first:
            raise RuntimeError("two undisturbed runs differ")
    expected, seconds = made
    print(f"undisturbed: {seconds:.1f} s, {len(expected)} files")
    dead: list[Kill] = []
    i = 0
    while (done := sum(kill.victim != "nothing" for kill in dead)) < kills and len(dead) < 4 * kills:
        output = folder / ("killed" if chained else f"killed-{i}")
        delay = draw.uniform(0.3 if chained else 0.1, 0.8 if chained else 1.0) * seconds
        kill = kill_once(words, output, expected, delay, draw, finish=not chained or done == kills - 1)
        verdict = "identical" if not kill.differences else f"DIFFERENT: {', '.join(kill.differences[:5])}"
        print(
            f"  {i + 1:>2}. {kill.victim:<8} after {delay:5.1f} s in {kill.stage:<12} runs {kill.runs}  {verdict}",
            flush=True,
        )
        dead.append(kill)
        i += 1
        if kill.victim == "nothing":
            seconds *= 0.8  # the machine has become faster
        if not chained or kill.status == 0:
            shutil.rmtree(output)
    return dead


def main() -> int:
    """Run a campaign and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="*")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--chained", action="store_true")
    arguments = parser.parse_args()
    if not arguments.file:
        if "ARRIERO_TEST_DATA" not in os.environ:
            print("skipped: name input files, or set ARRIERO_TEST_DATA to the folder of test data")
            return 0
        arguments.file = [os.environ["ARRIERO_TEST_DATA"] + "/web/readability-00000.warc.gz"]
    sources = ",".join(f"{{name: s{i}, recipe: web, input: '{f}'}}" for i, f in enumerate(arguments.file))
    words = [f"sources=[{sources}]", f"executor.workers={arguments.workers}", "unit_bytes=300000",
             "tokenizer.vocab_size=400", "tokenizer.n_special=16", "pack.sequence_length=64"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        kills = campaign(words, Path(folder), arguments.kills, arguments.seed, arguments.chained)
    bad = sum(bool(kill.differences) for kill in kills)
    drivers = sum(kill.victim == "driver" for kill in kills)
    workers = sum(kill.victim == "worker" for kill in kills)
    print(
        f"{len(kills)} kills ({drivers} drivers, {workers} workers): {len(kills) - bad} outputs identical, {bad} different"
    )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
