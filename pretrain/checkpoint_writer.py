"""The process that writes one rank's part of a checkpoint: what `torch.save` would, and the CRC-32 of each tensor's bytes.

    python -I checkpoint_writer.py FILE DESCRIPTOR      # the job on standard input, what was written on standard output

It needs neither torch nor the rest of arriero, so that it starts in a moment and takes a few megabytes. The tensors lie in
memory that it shares with the rank (DESCRIPTOR). A tensor's file is a ZIP archive (torch's serialization notes, "torch.save
serialized file format"): `data.pkl`, its pickle, in which the storage is named `0`; `data/0`, the bytes; `byteorder`;
`version`. It takes no processor time from the rank's interpreter, and dies with it.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import mmap
import os
import signal
import sys
import zipfile
import zlib
from typing import Any, BinaryIO

PIECE = 1 << 24
"""Bytes written at a time."""
_LARGE = 1 << 31
_PR_SET_PDEATHSIG = 1


class Counted:
    """A file of which one part is written as if it were a file of its own, with its CRC-32."""

    def __init__(self, file: BinaryIO):
        self.file, self.at, self.crc32 = file, 0, 0

    def write(self, data: Any) -> int:
        """Append bytes."""
        self.file.write(data)
        self.at += len(data)
        self.crc32 = zlib.crc32(data, self.crc32)
        return len(data)

    def flush(self) -> None:
        """The file's own is enough."""


def write_tensor(file: BinaryIO, pickled: bytes, data: memoryview) -> tuple[int, int]:
    """Append a tensor as `torch.save` would; (bytes, CRC-32) of what was appended.

    Args:
        pickled: the tensor's pickle, with its storage by the name `0`.
        data: the storage's bytes.
    """
    out = Counted(file)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, content in (
            ("archive/data.pkl", memoryview(pickled)),
            ("archive/byteorder", memoryview(sys.byteorder.encode())),
            ("archive/data/0", data),
            ("archive/version", memoryview(b"3\n")),
        ):
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=len(content) >= _LARGE) as entry:
                for start in range(0, len(content), PIECE):
                    entry.write(content[start : start + PIECE])
    return out.at, out.crc32


def write_part(path: str, shared: bytes | mmap.mmap, job: list[dict[str, Any]]) -> list[list[int]]:
    """Write the tensors of a job one behind the other into a new file; [start, bytes, CRC-32] of each.

    Args:
        job: of each tensor its `pickle` (base64), and `start` and `bytes` of its storage in the shared memory.
    """
    written, at = [], 0
    memory = memoryview(shared)
    with open(path, "xb") as file:  # noqa: PTH123
        for tensor in job:
            start = tensor["start"]
            data = memory[start : start + tensor["bytes"]]
            length, crc32 = write_tensor(file, base64.b64decode(tensor["pickle"]), data)
            written.append([at, length, crc32])
            at += length
        file.flush()
        os.fsync(file.fileno())
    return written


def main() -> None:
    path, descriptor = sys.argv[1], int(sys.argv[2])
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # it died before it could be asked for
    with contextlib.suppress(OSError):
        os.nice(5)  # the ranks' steps come first
    try:
        job = json.load(sys.stdin)
        # Unmapped when the process ends.
        shared = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) if job else b""
        answer: dict[str, Any] = {"written": write_part(path, shared, job)}
    except OSError as error:
        answer = {"errno": error.errno, "error": error.strerror, "file": error.filename or path}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
