"""External sort: rows in any number and order → rows by key, in bounded memory, over sorted runs in temporary files."""

from __future__ import annotations

import heapq
import struct
import tempfile
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import IO, cast

from data_pipeline.zstd import zstd

RUN_BYTES = 64 * 2**20
"""Bytes of rows that are held before they are sorted and written."""
ROW_BYTES = 160
"""Bytes that a row takes in memory beside its payload."""
MERGED = 64
"""Runs of one level that become a run of the next; bounds how many files are open."""
LEVEL = 1
"""Compression level of zstd."""
_HEAD = struct.Struct("<QQI")

Row = tuple[int, int, bytes]
"""Key, number (rows of one key keep its order; no two rows share both), payload."""


class Sorter:
    """Takes rows, then gives them back by (key, number).

    Runs lie in files without a name below `TMPDIR` (`/tmp`): they are gone when the sorter or the process is.
    """

    def __init__(self, run_bytes: int = RUN_BYTES) -> None:
        self._run_bytes = run_bytes
        self._rows: list[Row] = []
        self._bytes = 0
        self._levels: list[list[IO[bytes]]] = []

    def add(self, key: int, number: int, payload: bytes) -> None:
        """One row; key and number are below 2**64, the payload below 4 GiB."""
        self._rows.append((key, number, payload))
        self._bytes += len(payload) + ROW_BYTES
        if self._bytes >= self._run_bytes:
            self._spill()

    def rows(self) -> Iterator[Row]:
        """All rows, in order; once."""
        self._rows.sort(key=itemgetter(0, 1))
        runs = [_read(run) for level in self._levels for run in level]
        yield from heapq.merge(*runs, self._rows, key=itemgetter(0, 1))

    def close(self) -> None:
        """Remove the runs."""
        for level in self._levels:
            for run in level:
                run.close()
        self._levels, self._rows, self._bytes = [], [], 0

    def __enter__(self) -> Sorter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spill(self) -> None:
        self._rows.sort(key=itemgetter(0, 1))
        run = _written(self._rows)
        self._rows, self._bytes = [], 0
        for level in range(len(self._levels) + 1):
            if level == len(self._levels):
                self._levels.append([])
            runs = self._levels[level]
            runs.append(run)
            if len(runs) < MERGED:
                return
            run = _written(heapq.merge(*map(_read, runs), key=itemgetter(0, 1)))
            for file in runs:
                file.close()
            runs.clear()


def _written(rows: Iterable[Row]) -> IO[bytes]:
    file = tempfile.TemporaryFile(prefix="arriero-sort-")  # noqa: SIM115  (whoever reads the run closes it)
    try:
        with zstd.ZstdFile(file, "wb", level=LEVEL) as stream:
            for key, number, payload in rows:
                stream.write(_HEAD.pack(key, number, len(payload)))
                stream.write(payload)
    except BaseException:
        file.close()
        raise
    return cast(IO[bytes], file)


def _read(file: IO[bytes]) -> Iterator[Row]:
    file.seek(0)
    with zstd.ZstdFile(file, "rb") as stream:
        while head := stream.read(_HEAD.size):
            key, number, size = _HEAD.unpack(head)
            yield key, number, stream.read(size)
