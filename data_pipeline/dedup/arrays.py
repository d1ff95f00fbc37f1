"""Files of named arrays that are read in part: what the tasks of a deduplication leave for each other.

    magic "ARRAYS01" | uint64 length of the header | header, JSON | arrays, each at a multiple of 64 bytes

The header is `{"meta": …, "arrays": {NAME: [dtype, shape, offset from the header's end]}, "bytes": size of the file}`.
Numbers are little endian.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from data_pipeline.packed.files import atomic_file

_MAGIC = b"ARRAYS01"
_ALIGNMENT = 64


def write(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any] | None = None) -> None:
    """Write arrays by atomic rename, with bytes that depend on them alone."""
    described, offset = {}, 0
    for name, array in arrays.items():
        described[name] = [array.dtype.newbyteorder("<").str, list(array.shape), offset]
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    header = orjson.dumps({"meta": dict(meta or {}), "arrays": described, "bytes": offset})
    start = -(-(len(_MAGIC) + 8 + len(header)) // _ALIGNMENT) * _ALIGNMENT
    header = header.ljust(start - len(_MAGIC) - 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(_MAGIC + len(header).to_bytes(8, "little") + header)
        for array in arrays.values():
            whole = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            file.write(whole.data if whole.size else b"")
            file.write(bytes(-whole.nbytes % _ALIGNMENT))


class Arrays:
    """An open file of arrays; slices are read when they are asked for, so memory is what the caller takes."""

    def __init__(self, path: Path) -> None:
        """Open.

        Raises:
            ValueError: the file is damaged, or none of these.
            FileNotFoundError: no such file.
        """
        self.path = path
        with path.open("rb") as file:
            head = file.read(len(_MAGIC) + 8)
            length = int.from_bytes(head[len(_MAGIC) :], "little")
            if head[: len(_MAGIC)] != _MAGIC or length > 2**30:
                raise ValueError(
                    f"{path} is damaged or no file of arrays; remove its folder and run the command again"
                )
            header = file.read(length)
        self._start = len(_MAGIC) + 8 + length
        try:
            found = orjson.loads(header)
        except orjson.JSONDecodeError:
            found = {"bytes": -1}
        if path.stat().st_size != self._start + found["bytes"]:
            raise ValueError(f"{path} is cut short; remove its folder and run the command again")
        self.meta: dict[str, Any] = found["meta"]
        self._arrays: dict[str, tuple[str, list[int], int]] = found["arrays"]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array."""
        return tuple(self._arrays[name][1])

    def read(self, name: str, first: int = 0, last: int | None = None) -> np.ndarray:
        """Rows [first, last) of an array, along its first axis; null: to the end."""
        dtype, shape, offset = self._arrays[name]
        last = shape[0] if last is None else last
        width = int(np.prod(shape[1:], dtype=np.int64))
        at = self._start + offset + first * width * np.dtype(dtype).itemsize
        flat = np.fromfile(self.path, dtype, (last - first) * width, offset=at)
        return flat.reshape(last - first, *shape[1:])

    def map(self, name: str) -> np.ndarray:
        """An array as a memory map."""
        dtype, shape, offset = self._arrays[name]
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.memmap(self.path, dtype, "r", self._start + offset, tuple(shape))
