"""When kernels are compiled: before the stages that need them, in parallel, once for each version and processor.

The machine code of a module lies in a folder of its own, whose name holds a hash of all that it is made from: the
module, the modules that it imports, Python, numba and the processor. So a change recompiles what depends on it and nothing
else, and an older version beside it stays usable.

    python -m data_pipeline.compiling        # all kernels now, and not when a run first needs them

This module imports no numba: to know that everything is compiled takes milliseconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from configs import children

PACKAGE = Path(__file__).parent
_COMPILED = PACKAGE / "compiled.py"
_IMPORT = re.compile(
    rb"^(?P<indent>[ \t]*)(?:from (?P<base>[\w.]+) import (?P<names>\([^)]*\)|[^\n]*)|import (?P<module>[\w.]+))",
    re.MULTILINE,
)
_COMPLETE = "complete"
"""File of a module's folder: all of its kernels are there."""
_CHILD = "ARRIERO_COMPILES_KERNELS"
"""Set in the environment of processes that do nothing else."""
_KEPT_SECONDS = 30 * 24 * 3600
"""Time after its last use after which the machine code of another version is removed."""


def holders() -> list[Path]:
    """Files of this package that hold kernels."""
    return [f for f in sorted(PACKAGE.rglob("*.py")) if _holds(f)]


@cache
def _holds(file: Path) -> bool:
    decorators = re.search(rb"^from data_pipeline\.compiled import (.*)$", file.read_bytes(), re.MULTILINE)
    return decorators is not None and re.search(rb"\b(kernel|small)\b", decorators[1]) is not None


@cache
def _imports(file: Path, inside_functions: bool) -> frozenset[Path]:
    """Files of this package that a file imports."""
    found: set[Path] = set()
    for match in _IMPORT.finditer(file.read_bytes()):
        if match["indent"] and not inside_functions:
            continue
        base = (match["base"] or match["module"]).decode()
        if base.split(".")[0] != PACKAGE.name:
            continue
        names = re.findall(r"(\w+)(?: as \w+)?", re.sub(r"#.*", "", (match["names"] or b"").decode()))
        found |= {f for name in ("", *names) if (f := _file(base, name)) is not None}
    return frozenset(found)


def _file(base: str, name: str) -> Path | None:
    path = PACKAGE.parent.joinpath(*base.split("."), *([name] if name else []))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _reached(files: Iterable[Path], inside_functions: bool) -> set[Path]:
    """Files of this package that these import, and those that they import, themselves included."""
    seen: set[Path] = set()
    left = list(files)
    while left:
        file = left.pop()
        if file in seen:
            continue
        seen.add(file)
        if file != _COMPILED:  # how kernels are compiled decides what they are, when and where does not
            left += _imports(file, inside_functions)
    return seen


def needed(code: Iterable[str]) -> list[Path]:
    """Files with kernels that source files and folders of this package use, see `Stage.code`."""
    return sorted(f for f in _reached(_files(code), inside_functions=True) if _holds(f))


def is_compiled(code: Iterable[str]) -> bool:
    """Whether the kernels that source files and folders of this package use are all compiled."""
    return all(map(_is_complete, needed(code)))


def _files(code: Iterable[str]) -> set[Path]:
    files: set[Path] = set()
    for name in code:
        path = PACKAGE / name
        files |= set(path.rglob("*.py")) if path.is_dir() else {path} if path.suffix == ".py" else set()
    return files


@cache
def _digest(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()


@cache
def _environment() -> str:
    """What machine code depends on beside its sources."""
    described = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):  # not Linux
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
        described += "".join(
            line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))
        )
    # Beside the place of the cache, each of numba's variables may change what is compiled.
    set_by_user = sorted((k, v) for k, v in os.environ.items() if k.startswith("NUMBA_") and "CACHE" not in k)
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite")]
    return repr((sys.version_info[:2], versions, described, set_by_user))


@cache
def _bases() -> tuple[Path, ...]:
    """Folders for machine code, in the order in which they are tried."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return (Path(given).expanduser() / "arriero",)
    user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return PACKAGE / "__pycache__" / "kernels", user / "arriero" / "kernels"


def name_of(file: Path) -> str:
    """Name of the folder of a module's machine code."""
    state = hashlib.sha256(_environment().encode())
    for part in sorted(_reached([file], inside_functions=False)):
        state.update(_digest(part))
    module = file.relative_to(PACKAGE) if file.is_relative_to(PACKAGE) else Path(file.name)
    return f"{'.'.join(module.with_suffix('').parts)}-{state.hexdigest()[:16]}"


@cache
def place(file: Path) -> Path | None:
    """Folder of a module's machine code: where it is complete, or else where it can be written; None: nowhere."""
    name = name_of(file)
    for base in _bases():
        if (base / name / _COMPLETE).is_file():
            return base / name
    for base in _bases():
        with contextlib.suppress(OSError):
            (base / name).mkdir(parents=True, exist_ok=True)
            if os.access(base / name, os.W_OK):
                return base / name
    return None


def _is_complete(file: Path) -> bool:
    folder = place(file)
    return folder is not None and (folder / _COMPLETE).is_file()


@contextlib.contextmanager
def alone(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a name among all processes; without `wait`, whether it was free."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.with_name(f".{path.name}.lock").open("a"))
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks: at worst something is compiled twice
            pass
        yield True


def ensure(files: Sequence[Path], say: Callable[[str], None]) -> None:
    """Compile what is not compiled yet, in as many processes as there are cores.

    Args:
        files: modules with kernels.
        say: is given a line before, and one after; none where everything is compiled.

    Raises:
        RuntimeError: a module could not be compiled.
    """
    left = [f for f in files if not _is_complete(f)]
    if not left:
        return
    if place(left[0]) is None:
        say(
            f"kernels cannot be kept, because {' and '.join(map(str, _bases()))} cannot be written: each process compiles "
            "its own; set NUMBA_CACHE_DIR=FOLDER"
        )
        return
    # The largest first, so that no process is left with one at the end. Size of source follows time well enough.
    left.sort(key=lambda f: (-sum(p.stat().st_size for p in _sources_of_kernels(f)), f))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(cores, len(left))
    say(
        f"compiling kernels of {len(left)} modules in {processes} processes; they are kept for this version and processor "
        f"in {place(left[0]).parent}"  # type: ignore[union-attr]
    )
    began = time.monotonic()
    command = children.command(f"{PACKAGE.name}.compiling", *map(module_name, left))
    environment = children.environment() | {_CHILD: "1"}
    compilers = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    try:
        for child in compilers:
            _, errors = child.communicate()
            if child.returncode:
                raise RuntimeError(f"kernels could not be compiled: {errors.strip()[-2000:]}")
    finally:
        for child in compilers:
            child.kill()
            child.wait()
    _remove_old()
    say(f"kernels are compiled ({time.monotonic() - began:.0f} s)")


def is_child() -> bool:
    """Whether this process was started to compile kernels."""
    return _CHILD in os.environ


def _sources_of_kernels(file: Path) -> set[Path]:
    return {
        f
        for f in _reached([file], inside_functions=False)
        if b"data_pipeline.compiled import" in f.read_bytes()
    }


def module_name(file: Path) -> str:
    """Name by which a file of this package is imported."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _remove_old() -> None:
    now = time.time()
    for base in _bases():
        with contextlib.suppress(OSError):  # of another user, or another process removes it too
            for folder in base.iterdir():
                if now - folder.stat().st_mtime > _KEPT_SECONDS and folder != place(_COMPILED):
                    shutil.rmtree(folder)


def compile_modules(files: Sequence[Path]) -> None:
    """Compile modules by importing them; what another process has begun is left to it, and waited for at the end."""
    waiting = list(files)
    for wait in (False, True):
        for file in list(waiting):
            folder = place(file)
            assert folder is not None
            with alone(folder / _COMPLETE, wait) as free:
                if free:
                    if not (folder / _COMPLETE).exists():
                        importlib.import_module(module_name(file))
                        (folder / _COMPLETE).touch()
                    waiting.remove(file)


def main(argv: Sequence[str] | None = None) -> int:
    """All kernels, or those of the modules that are named, in this process."""
    names = sys.argv[1:] if argv is None else list(argv)
    if names:
        compile_modules([f for f in map(_named, names) if f is not None])
    else:
        ensure(holders(), print)
    return 0


def _named(module: str) -> Path | None:
    return _file(module, "")


if __name__ == "__main__":
    sys.exit(main())
