"""Inputs of blocks that wait for the backward pass in the host's memory (Rhu et al. 2016, "vDNN").

Copies run on a stream of their own. In the backward pass the input of the block before comes while a block is computed.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor


class HostMemory:
    """Where the blocks of one part leave their inputs."""

    def __init__(self) -> None:
        self._stream: Any = None
        self._newest: _Waiting | None = None

    def begin(self) -> None:
        """A forward pass begins: its first block has no block before it."""
        self._newest = None

    def keep(self, h: Tensor) -> contextlib.AbstractContextManager[Any]:
        """While a block computes: what is saved of it and is as large as its input `h` goes to the host. Outside of compiled
        code, which takes no such hooks inside."""
        shape, dtype = h.shape, h.dtype

        def pack(x: Tensor) -> Tensor | _Waiting:
            if x.shape != shape or x.dtype != dtype:
                return x
            if x.is_cuda and self._stream is None:
                self._stream = torch.cuda.Stream(x.device)
            self._newest = _Waiting(x, self._stream, self._newest)
            return self._newest

        return torch.autograd.graph.saved_tensors_hooks(pack, _unpack)


def _unpack(packed: Tensor | _Waiting) -> Tensor:
    return packed.get() if isinstance(packed, _Waiting) else packed


class _Waiting:
    """A tensor in the host's memory.

    Args:
        stream: of the copies; None: the tensor is not on a GPU.
        before: what the backward pass needs after this one.
    """

    def __init__(self, x: Tensor, stream: Any, before: _Waiting | None):
        self.device, self.stream, self.before = x.device, stream, before
        self.host = torch.empty(x.shape, dtype=x.dtype, pin_memory=stream is not None)
        self.back: Tensor | None = None
        if stream is None:
            self.host.copy_(x)
            return
        stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(stream):
            self.host.copy_(x, non_blocking=True)
        # Its memory may be used anew only after the copy.
        x.record_stream(stream)

    def fetch(self) -> None:
        """Start the copy back."""
        if self.back is not None:
            return
        if self.stream is None:
            self.back = self.host.to(self.device)
            return
        with torch.cuda.stream(self.stream):
            self.back = self.host.to(self.device, non_blocking=True)

    def get(self) -> Tensor:
        """The tensor on its device; the one before is fetched meanwhile."""
        self.fetch()
        back, self.back = self.back, None
        assert back is not None
        if self.stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.stream)
            back.record_stream(current)
        if self.before is not None:
            self.before.fetch()
            self.before = None
        return back
