"""Chunks: what a rank holds of a tensor, as a rectangle of the whole one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


@dataclass(frozen=True)
class Chunk:
    """A rectangle of a tensor: `tensor[o : o + s, …]` for each offset o and size s."""

    name: str
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    shape: tuple[int, ...]
    """Shape of the whole tensor."""

    def overlap(self, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[slice, ...] | None:
        """The part of this chunk, in its own coordinates, that another rectangle covers; None: none."""
        slices = []
        for mine, size, other, other_size in zip(self.offsets, self.sizes, offsets, sizes, strict=True):
            start, stop = max(mine, other), min(mine + size, other + other_size)
            if start >= stop:
                return None
            slices.append(slice(start - mine, stop - mine))
        return tuple(slices)


def local_chunks(tensors: dict[str, Tensor]) -> Iterator[tuple[Chunk, Tensor]]:
    """This rank's chunk of each tensor or DTensor, with the local values (a view, not a copy); empty ones left out."""
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            sizes, offsets = compute_local_shape_and_global_offset(
                tensor.shape, tensor.device_mesh, tensor.placements
            )
            local = tensor.to_local().detach()
        else:
            sizes, offsets, local = tensor.shape, (0,) * tensor.ndim, tensor.detach()
        if local.numel():
            yield Chunk(name, tuple(offsets), tuple(sizes), tuple(tensor.shape)), local
