"""Copies of tensors in memory that a process beside the rank reads, and that process.

The memory stays from one checkpoint to the next: pages that are new cost ten times as much as the copy into them.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import mmap
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrain import checkpoint_writer

ALIGNED = 64
"""Bytes; each tensor begins at a multiple of it."""


class Staging:
    """Shared memory that holds copies of a rank's tensors."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._memory: mmap.mmap | None = None
        self._registered: int | None = None
        self._stream: Any = None

    def copy(self, tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
        """Copy tensors, on any device; what `write` needs to know of them. The host waits for the copies, and nothing else.

        Raises:
            OSError: there is not enough memory.
        """
        starts, size = [], 0
        for tensor in tensors:
            starts.append(size)
            size += -(-tensor.nbytes // ALIGNED) * ALIGNED
        cuda = next((tensor.device for tensor in tensors if tensor.is_cuda), None)
        self._reserve(size, cuda)
        if cuda is not None:
            self._stream = self._stream or torch.cuda.Stream(cuda)
            self._stream.wait_stream(torch.cuda.current_stream(cuda))
        with torch.cuda.stream(self._stream) if cuda is not None else contextlib.nullcontext():
            for tensor, start in zip(tensors, starts, strict=True):
                self._place(tensor, start).copy_(tensor, non_blocking=True)
        if cuda is not None:
            self._stream.synchronize()
        return [
            {
                "pickle": base64.b64encode(pickled(tensor.dtype, tuple(tensor.shape))).decode(),
                "start": start,
                "bytes": tensor.nbytes,
            }
            for tensor, start in zip(tensors, starts, strict=True)
        ]

    def write(self, path: Path, job: list[dict[str, Any]]) -> list[list[int]]:
        """Write what was copied into a new file, by a process of its own; [start, bytes, CRC-32] of each tensor.

        Raises:
            OSError: the file cannot be written, or the process was ended.
        """
        command = [sys.executable, "-I", "-S", checkpoint_writer.__file__, str(path), str(self._descriptor)]
        held = (self._descriptor,) if self._descriptor >= 0 else ()
        done = subprocess.run(
            command,
            input=json.dumps(job),
            capture_output=True,
            text=True,
            check=False,
            pass_fds=held,
            start_new_session=True,  # Ctrl-C is for the rank, which waits for its checkpoint
        )
        if done.returncode or not done.stdout:
            last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            raise OSError(f"{path}: the process that writes it ended: {last[0]}")
        answer = json.loads(done.stdout)
        if "error" in answer:
            raise OSError(answer["errno"], answer["error"], answer["file"])
        return answer["written"]  # type: ignore[no-any-return]

    def close(self) -> None:
        """Give the memory back."""
        if self._registered is not None:
            torch.cuda.cudart().cudaHostUnregister(self._registered)
            self._registered = None
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _reserve(self, size: int, cuda: torch.device | None) -> None:
        if size == 0 or (self._memory is not None and len(self._memory) >= size):
            return
        self.close()
        self._descriptor = os.memfd_create("checkpoint")
        # All pages at once cost a fourth of what they cost one by one; and where there are not enough, it is an error here.
        os.posix_fallocate(self._descriptor, 0, size)
        populate = getattr(mmap, "MAP_POPULATE", 0)
        self._memory = mmap.mmap(self._descriptor, size, flags=mmap.MAP_SHARED | populate)
        if cuda is not None:
            # Copies from the GPU go at full speed to memory that the driver knows, and to other memory all the same.
            at = torch.frombuffer(self._memory, dtype=torch.uint8).data_ptr()
            if int(torch.cuda.cudart().cudaHostRegister(at, size, 0)) == 0:
                self._registered = at

    def _place(self, like: Tensor, start: int) -> Tensor:
        assert self._memory is not None
        flat = torch.frombuffer(self._memory, dtype=like.dtype, count=like.numel(), offset=start)
        return flat.view(like.shape)


@lru_cache(maxsize=1024)
def pickled(dtype: torch.dtype, shape: tuple[int, ...]) -> bytes:
    """What `torch.save` pickles of a contiguous tensor on the CPU: how to make it anew from the storage `0`."""
    out = io.BytesIO()
    _Pickler(out, dtype, shape).dump(_Contiguous(shape))
    return out.getvalue()


class _Storage:
    """Stands for the tensor's storage, which is pickled by its name."""


class _Contiguous:
    """Pickled as a tensor is."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape

    def __reduce__(self) -> tuple[Any, ...]:
        strides = torch.empty(self.shape, device="meta").stride()
        return torch._utils._rebuild_tensor_v2, (_Storage(), 0, self.shape, strides, False, OrderedDict())


class _Pickler(pickle.Pickler):
    def __init__(self, out: io.BytesIO, dtype: torch.dtype, shape: tuple[int, ...]):
        super().__init__(out, protocol=2)
        kind = getattr(torch, torch.storage._dtype_to_storage_type_map()[dtype])
        self.storage = ("storage", kind, "0", "cpu", torch.Size(shape).numel())

    def persistent_id(self, obj: Any) -> Any:
        return self.storage if isinstance(obj, _Storage) else None
