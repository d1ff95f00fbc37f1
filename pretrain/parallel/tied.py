"""An embedding that is also the head, where the first and the last stage of a pipeline are apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from pretrain.model.llama import Llama
from pretrain.parallel.pipeline import Pipeline


class TiedEmbeddings:
    """The first stage's embedding and the last stage's copy of it.

    On different ranks both are trained, by equal gradients. On one rank, which a V-shaped schedule gives both stages, only
    the original is, and the copy follows it.

    Args:
        parts: of this rank, in order of depth.
    """

    def __init__(self, pipeline: Pipeline, mesh: DeviceMesh, parts: Sequence[Llama]):
        self._first = parts[0] if parts[0].first else None
        self._last = parts[-1] if parts[-1].last and not parts[-1].first else None
        self.both_here = self._first is not None and self._last is not None
        self._group = None
        if pipeline.n_stages > 1 and pipeline.holder(pipeline.n_stages - 1) != 0:
            self._group = _ends(mesh)

    @property
    def original(self) -> nn.Parameter | None:
        """The first stage's parameter; None on other ranks."""
        return _weight(self._first)

    @property
    def copy(self) -> nn.Parameter | None:
        """The last stage's own parameter; None on other ranks, and where one stage is first and last."""
        return _weight(self._last)

    @torch.no_grad()
    def copy_weight(self) -> None:
        """Before a forward pass: the copy on the original's rank takes its values."""
        original, copy = self.original, self.copy
        if original is not None and copy is not None:
            local(copy).copy_(local(original))

    @torch.no_grad()
    def sum_gradients(self) -> None:
        """After the backward passes: the gradient of each is that of both. Collective among the two."""
        original, copy = self.original, self.copy
        if original is not None and copy is not None:
            assert original.grad is not None and copy.grad is not None
            local(original.grad).add_(local(copy.grad))
            copy.grad = None
        elif self._group is not None:
            weight = copy if original is None else original
            assert weight is not None and weight.grad is not None
            dist.all_reduce(local(weight.grad), group=self._group)


def _weight(part: Llama | None) -> nn.Parameter | None:
    # FSDP exchanges parameters, so they are looked up at each use.
    if part is None or part.tok_embeddings is None:
        return None
    weight = part.tok_embeddings.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def _ends(mesh: DeviceMesh) -> dist.ProcessGroup | None:
    """The group of the first and the last rank of the pipeline with this rank's shards; None on ranks between."""
    mine = None
    columns = mesh.mesh.flatten(1)
    for first, last in zip(columns[0].tolist(), columns[-1].tolist(), strict=True):
        group = dist.new_group([first, last])
        if dist.get_rank() in (first, last):
            mine = group
    return mine


def local(x: Tensor) -> Tensor:
    """This rank's shard of a DTensor, or the tensor itself."""
    return x.to_local() if isinstance(x, DTensor) else x
