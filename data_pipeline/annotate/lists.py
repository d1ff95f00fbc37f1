"""Files of lists, one entry a line: found in folders, plain or gzip."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

_NOT_LISTS = ("license", "licence", "readme", "copying", "usage")


def files(names: tuple[str, ...]) -> list[Path]:
    """Files and folders → files, folders in the order of their paths.

    Raises:
        FileNotFoundError, ValueError: a name that does not exist, a folder without a list.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = [
                p
                for p in sorted(path.rglob("*"))
                if p.is_file() and not p.name.startswith(".") and p.suffix in ("", ".txt", ".gz")
            ]
            inside = [p for p in inside if not p.name.lower().startswith(_NOT_LISTS)]
            if not inside:
                raise ValueError(f"the list folder {path} holds no list (a text file, plain or .gz)")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"the list {path} does not exist; expected a file or folder")
    return found


def entries(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, entry) of a list; empty lines and lines that start with `#` are left out.

    Raises:
        ValueError: the file is not UTF-8, or a damaged gzip file.
    """
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if is_gzip else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                entry = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if entry and not entry.startswith("#"):
                    yield number, entry
    except UnicodeDecodeError as error:
        raise ValueError(f"the list {path} is not UTF-8 (line {number})") from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"the list {path} is a damaged gzip file: {error}") from None
