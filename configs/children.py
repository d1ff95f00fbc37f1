"""How a process of ours starts another one of ours, in any working folder."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
CHECKOUT = "" if _ROOT.name in ("site-packages", "dist-packages") else str(_ROOT)
"""Folder of the packages where they are not installed, and Python would not find them by itself."""


def command(module: str, *arguments: str) -> list[str]:
    """The command of a module, to be run with `environment`."""
    return [sys.executable, "-m", module, *arguments]


def environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment (this process's own by default) in which a child takes only our packages for ours."""
    given = os.environ if given is None else given
    paths = (given.get("PYTHONPATH") or "").split(os.pathsep)
    ours = [CHECKOUT, *(path for path in paths if path != CHECKOUT)]
    # `python -m` puts the working folder first, where a user's own `configs/` or `launch.py` would be taken for ours.
    return {**given, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, ours))}


def in_shell(module: str, *arguments: str) -> str:
    """`command` with `environment` as a line of a shell script, which adds to the PYTHONPATH that the script has by then."""
    checkout = [f'PYTHONPATH={shlex.quote(CHECKOUT)}"${{PYTHONPATH:+:$PYTHONPATH}}"'] if CHECKOUT else []
    return " ".join(["env PYTHONSAFEPATH=1", *checkout, shlex.join(command(module, *arguments))])


@contextlib.contextmanager
def safe_path() -> Iterator[None]:
    """For what starts Python with the environment of this process: multiprocessing's fork server."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
