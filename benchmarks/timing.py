"""What benchmarks of whole commands share: archives to read, and the time that a command and its processes take."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def archives(given: Sequence[Path], names: Sequence[str] = ("*",)) -> list[Path]:
    """WARC files: those given, or else those of `$ARRIERO_TEST_DATA/web` with these names; none: it says why."""
    if given:
        return [file.resolve() for file in given]
    if "ARRIERO_TEST_DATA" not in os.environ:
        print("skipped: name WARC files, or set ARRIERO_TEST_DATA to the folder of test data")
        return []
    web = Path(os.environ["ARRIERO_TEST_DATA"]).resolve() / "web"
    return [file for name in names for file in sorted(web.glob(f"{name}.warc.gz"))]


def timed(
    command: Sequence[str], environment: Mapping[str, str], orphans: bool = False
) -> tuple[float, float, str]:
    """(wall seconds, CPU seconds of all its processes, standard output) of a command.

    Args:
        environment: all of it.
        orphans: wait for children of the command that outlive it too; this process must be their reaper.

    Raises:
        RuntimeError: it failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=ROOT)
    wall = time.perf_counter() - began
    if orphans:
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout
