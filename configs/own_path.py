"""Makes `configs`, `data_pipeline`, `launch` and `pretrain` mean ours in this process, whatever lies in the working folder.

`python -m` and `torchrun -m` search the working folder first, where a user's own package `configs/` or `launch.py` would be
taken for ours. `launch`, `pretrain` and `data_pipeline` run this file by its place, since an import could find another one.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("configs", "data_pipeline", "launch", "pretrain")
DELETED = (
    "the working folder was deleted (or deleted and made again); change to a folder that exists, and run the command again "
    "there"
)


def _other(entry: str) -> bool:
    """Whether an entry of the path holds something else under one of the names."""
    try:
        folder = Path(entry or ".").absolute()
    except FileNotFoundError:  # the working folder was deleted: it holds nothing
        return False
    return folder.resolve() != ROOT and any(
        (folder / name).is_dir() or (folder / f"{name}.py").is_file() for name in NAMES
    )


def _put_first() -> None:
    others = [entry for entry in sys.path if _other(entry)]
    if others:
        # They stay on the path, behind ours, for what else they hold.
        sys.path[:] = [entry for entry in sys.path if entry not in others] + others
        if (
            str(ROOT) not in sys.path
        ):  # found by a hook of an editable installation, which is asked after the path
            sys.path.insert(0, str(ROOT))
    for name in NAMES:
        file = getattr(sys.modules.get(name), "__file__", None)
        if name in sys.modules and (file is None or Path(file).resolve().parent.parent != ROOT):
            raise ImportError(
                f"the package `{name}` of arriero is at {ROOT / name}, but another `{name}` was imported before it "
                f"({file or 'a folder without __init__.py'}); start arriero from another folder or with "
                "PYTHONSAFEPATH=1, and in a process that has not imported that package"
            )


def _end_in_deleted_folder() -> None:
    """End `python -m` of ours there: torch, which modules import before their `main`, kills the process with other words."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        module = sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1] if "-m" in sys.orig_argv else []
        if module and module[0].split(".")[0] in NAMES:
            print(f"error: {DELETED}", file=sys.stderr)
            sys.exit(2)


_put_first()
_end_in_deleted_folder()
