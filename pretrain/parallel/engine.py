"""The model of this rank, in its layout: loss and gradients of a global batch, whatever the layout."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

from configs.edge import ConfigError
from configs.schema.train import ModelConfig, ParallelConfig, TrainConfig
from pretrain import options
from pretrain.data.batch import Batch
from pretrain.model.attention import Documents
from pretrain.model.context import Context, spread
from pretrain.model.init import init_weights
from pretrain.model.llama import Llama
from pretrain.model.loss import IGNORED
from pretrain.model.recompute import kept_by_layer
from pretrain.model.varlen import use_fastest
from pretrain.options import choose_attention
from pretrain.parallel import zero_bubble
from pretrain.parallel.layout import sequence_unit, shape, stage_layers, virtual_stages
from pretrain.parallel.mesh import limit_waiting, single_mesh
from pretrain.parallel.pipeline import Pipeline
from pretrain.parallel.precision import COMPUTE_DTYPES, MASTER_DTYPES
from pretrain.parallel.shard import shard
from pretrain.parallel.tied import TiedEmbeddings, local


@dataclass(frozen=True)
class Share:
    """What this rank computes of a batch: all of it, or its tokens under context parallelism."""

    tokens: Tensor
    """int64 [B, T / cp]."""
    labels: Tensor
    """int64 [B, T / cp]."""
    positions: Tensor
    """int64 [B, T / cp]."""
    documents: Documents | Context
    """What `cu_seqlens` of the batch mean for attention."""


class Engine:
    """The parts of the model on this rank, and what training asks of them.

    Every method but `named_parameters` and `state_dict` is collective: all ranks of the mesh call it.

    Args:
        mesh: from `build_mesh`; None: a mesh of this one process.
        seed: seed of the initial weights.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        vocab_size: int,
        parallel: ParallelConfig,
        train: TrainConfig,
        mesh: DeviceMesh | None,
        device: torch.device,
        seed: int,
    ):
        shape(model_config, vocab_size)
        self.mesh = single_mesh(device.type) if mesh is None else mesh
        self.config, self.vocab_size, self.device = model_config, vocab_size, device
        self.dtype = COMPUTE_DTYPES[train.dtype]
        width = model_config.dim // model_config.n_heads
        self.attention = choose_attention(
            train.attention, device.type, options.COMPUTE_DTYPES[train.dtype], width
        )
        if self.attention == "varlen" and device.type == "cuda":
            use_fastest(device)
        # Where parameters stay whole between passes, gradients do too until the last micro-batch.
        self.accumulates_whole = not parallel.reshard_after_forward
        sizes = dict(zip(self.mesh.mesh_dim_names or (), self.mesh.mesh.shape, strict=True))
        self.cp, self.tp = sizes["cp"], sizes["tp"]
        self.dp_size = sizes["dp_replicate"] * sizes["dp_shard"]
        rank = {name: self.mesh.get_local_rank(name) for name in sizes}
        self.dp_rank = rank["dp_replicate"] * sizes["dp_shard"] + rank["dp_shard"]
        self.pipeline = Pipeline(
            self.mesh.get_group("pp"),
            rank["pp"],
            sizes["pp"],
            parallel.pp_schedule if sizes["pp"] > 1 else "1f1b",
            virtual_stages(parallel),
            device,
            self.dtype,
        )
        self.last_stage = self.pipeline.n_stages - 1
        element, fused_norm = self.dtype.itemsize, device.type == "cuda"
        kept = kept_by_layer(
            model_config, train.activation_checkpointing, train.activation_budget, element, fused_norm
        )
        if train.activation_offload and device.type == "cpu":
            raise ConfigError(
                "`train.activation_offload` moves activations to the host's memory, where those of the CPU are anyway; set "
                "train.activation_offload=false"
            )
        self.parts: list[Llama] = []
        for stage in self.pipeline.stages:
            with torch.device("meta"):
                part = Llama(
                    model_config,
                    vocab_size,
                    stage_layers(model_config.n_layers, self.pipeline.n_stages, stage),
                    first=stage == 0,
                    last=stage == self.last_stage,
                    chunk_tokens=train.loss_chunk_tokens,
                    kept=kept,
                    offload=train.activation_offload,
                    z_loss=train.z_loss,
                ).to(MASTER_DTYPES[train.dtype])
            if self.pipeline.split:
                self.pipeline.current.replace_linears(part)
            shard(part, self.mesh, train, parallel)
            part.to_empty(device="cpu" if parallel.cpu_offload else device)
            self.parts.append(part)
        self._part_of = dict(zip(self.pipeline.stages, self.parts, strict=True))
        self._tied = TiedEmbeddings(self.pipeline, self.mesh, self.parts) if model_config.tied else None
        limit_waiting()
        self._used_squares = torch.zeros((), dtype=torch.float64, device=device)
        init_weights(self.parts, seed)

    def forward_backward(self, micro_batches: list[Batch], n_valid: Tensor) -> Tensor:
        """Add the gradients of (sum of token losses) / `n_valid` of the global batch.

        Args:
            micro_batches: this rank's micro-batches, as many on every rank.
            n_valid: number of labels of the global batch that are not ignored, the same on every rank.

        Returns:
            Sum of the token losses of the global batch, fp64 scalar, the same on every rank.
        """
        shares = [self._share(batch) for batch in micro_batches]
        scale = n_valid.to(self.device, torch.float64).clamp(min=1)
        total = torch.zeros((), dtype=torch.float64, device=self.device)

        def forward(stage: int, i: int, hidden: Tensor | None) -> Tensor:
            share, last = shares[i], stage == self.last_stage
            x = share.tokens if hidden is None else hidden
            labels = share.labels if last else None
            out: Tensor = self._part_of[stage](x, share.positions, share.documents, labels)
            if last:
                total.add_(out.detach())
                return out / scale
            return out

        def before_backward(stage: int, is_final: bool) -> None:
            # Where gradients of weights come later, FSDP reduces when the last of them is there.
            reduces = (is_final or not self.accumulates_whole) and not self.pipeline.split
            part = self._part_of[stage]
            if isinstance(part, FSDPModule):
                part.set_requires_gradient_sync(reduces)
                # Shards are summed over replicas once a step, however often they are summed into.
                part.set_requires_all_reduce(is_final)
                part.set_reshard_after_backward(reduces)

        def after_backward(stage: int, is_final: bool) -> None:
            if self.pipeline.split:
                (zero_bubble.reduce if is_final else zero_bubble.accumulate)(self._part_of[stage])

        if self._tied is not None:
            self._tied.copy_weight()
        shapes = [self._hidden_shape(share) for share in shares]
        self.pipeline.run(shapes, forward, before_backward, after_backward)
        if self._tied is not None:
            self._tied.sum_gradients()
        # Tensor-parallel ranks have the same loss, earlier stages none.
        total /= self.tp
        dist.all_reduce(total)
        return total

    @torch.no_grad()
    def token_losses(self, batch: Batch) -> Tensor:
        """Loss of each token [B, T] of this data-parallel rank's batch (fp32 or fp64), 0 where ignored; on every
        rank of its stages and tensor-parallel group.

        Args:
            batch: on the host, as for training: from a device its documents would have to be read back.
        """
        exact = torch.float64 if self.dtype == torch.float64 else torch.float32
        share = self._share(batch)
        out = self._forward_only(share, share.labels, per_token=True)
        out = torch.empty(share.labels.shape, dtype=exact, device=self.device) if out is None else out
        self.pipeline.broadcast_from_last(out)
        return self._whole(out, share, batch.tokens.size(1))

    @torch.no_grad()
    def logits(self, tokens: Tensor, positions: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Logits [B, T, V] in compute precision, on every rank of the batch; arguments as in `Batch`."""
        share = self._share(Batch(tokens, torch.full_like(tokens, IGNORED), positions, cu_seqlens))
        out = self._forward_only(share, None, per_token=False)
        size = (*share.tokens.shape, self.vocab_size)
        out = torch.empty(size, dtype=self.dtype, device=self.device) if out is None else out.contiguous()
        self.pipeline.broadcast_from_last(out)
        return self._whole(out, share, tokens.size(1))

    @torch.no_grad()
    def clip_grad_norm(self, max_norm: float) -> Tensor:
        """Scale all gradients so that their global norm is at most `max_norm` (0: leave them).

        Returns:
            The norm before, fp64 scalar, the same on every rank; not finite if any gradient is not (then the
            gradients are worthless, clipped or not).
        """
        squares, self._used_squares = self._used_squares, torch.zeros_like(self._used_squares)
        ours = [p for _, p in self.named_parameters() if p.grad is not None]
        grads = [local(p.grad) for p in ours if p.grad is not None]
        squares += self._squares(ours)
        dist.all_reduce(squares)
        norm = squares.sqrt()
        if max_norm > 0 and grads:
            factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(grads, factor.to(grads[0]))
        return norm

    def use_gradients(self, use: Callable[[nn.Parameter], None]) -> None:
        """From now on, call `use` with each parameter in the backward pass, as soon as its gradient of the micro-batch is
        complete, and drop the gradient after that. `clip_grad_norm` counts it nevertheless."""

        @torch.no_grad()
        def take(p: nn.Parameter) -> None:
            self._used_squares += self._squares([p])
            use(p)
            p.grad = None

        for _, p in self.named_parameters():
            p.register_post_accumulate_grad_hook(take)  # type: ignore[arg-type]

    def _squares(self, parameters: list[nn.Parameter]) -> Tensor:
        """This rank's share of the squared norm of the gradients, fp64 scalar on the device.

        All norms are taken by few kernels, and with parameters in the host's memory one number goes to the device.
        """
        by_holders: dict[int, list[Tensor]] = {}
        for p in parameters:
            assert p.grad is not None
            grad = local(p.grad)
            if grad.numel() and not (self._tied is not None and p is self._tied.copy):
                by_holders.setdefault(_holders(p), []).append(grad)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for holders, grads in by_holders.items():
            exact = torch.promote_types(grads[0].dtype, torch.float32)
            norms = torch.stack(torch._foreach_norm(grads, 2, dtype=exact)).double()
            total += (norms.square().sum() / holders).to(self.device)
        return total

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """This rank's parameters by their names in the unsplit model.

        The last stage of a tied model has its copy of `tok_embeddings.weight`, with equal gradients, if the first stage is
        not on this rank too.
        """
        hidden = self._tied.copy if self._tied is not None and self._tied.both_here else None
        for part in self.parts:
            for name, p in part.named_parameters():
                if p is not hidden:
                    yield name, p

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for _, p in self.named_parameters():
            p.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """This rank's parameters themselves (DTensors, not copies) by their names in the unsplit model."""
        return {name: p.detach() for name, p in self.named_parameters()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy values into this rank's parameters; DTensors of the same layout, or whole tensors.

        Raises:
            ConfigError: a parameter is missing or has another shape.
        """
        with torch.no_grad():
            for name, p in self.named_parameters():
                if name not in state:
                    raise ConfigError(
                        f"the weights have no `{name}`, which the model {self.config.name} needs"
                    )
                value = state[name]
                if value.shape != p.shape:
                    raise ConfigError(
                        f"`{name}` has the shape {tuple(value.shape)} in the weights, but {tuple(p.shape)} in the "
                        f"model {self.config.name}"
                    )
                if isinstance(p, DTensor) and not isinstance(value, DTensor):
                    value = distribute_tensor(
                        value.to(self.device), p.device_mesh, p.placements, src_data_rank=None
                    )
                p.copy_(value)

    def _forward_only(self, share: Share, labels: Tensor | None, per_token: bool) -> Tensor | None:
        """The model's result on the last stage, None on others."""

        def forward(stage: int, hidden: Tensor | None) -> Tensor:
            x = share.tokens if hidden is None else hidden
            result: Tensor = self._part_of[stage](
                x, share.positions, share.documents, labels if stage == self.last_stage else None, per_token
            )
            return result

        if self._tied is not None:
            self._tied.copy_weight()
        out = self.pipeline.forward_only(self._hidden_shape(share), forward)
        # Without a backward pass nothing else would free what `reshard_after_forward=False` leaves gathered, and the
        # next forward pass would use it, stale.
        for module in chain.from_iterable(part.modules() for part in self.parts):
            if isinstance(module, FSDPModule):
                module.reshard()
        return out

    def _hidden_shape(self, share: Share) -> tuple[int, ...]:
        b, s = share.tokens.shape
        return b, s // self.tp, self.config.dim

    def _share(self, batch: Batch) -> Share:
        """This rank's tokens of a batch, on its device."""
        length, unit = batch.tokens.size(1), sequence_unit(self.cp, self.tp)
        if length % unit:
            raise ConfigError(
                f"a sequence of {length} tokens does not divide into equal shares under parallel.cp={self.cp} and "
                f"parallel.tp={self.tp}; expected a multiple of {unit}"
            )
        if self.cp == 1:
            longest = batch.longest
            batch = batch.to(self.device)
            documents = Documents.of(batch.cu_seqlens, length, self.attention, longest)
            return Share(batch.tokens, batch.labels, batch.positions, documents)
        context = spread(batch.cu_seqlens, length, self.mesh.get_group("cp"), self.device, self.attention)
        batch = batch.to(self.device)
        tokens, labels, positions = map(context.local, (batch.tokens, batch.labels, batch.positions))
        return Share(tokens, labels, positions, context)

    def _whole(self, x_bs: Tensor, share: Share, length: int) -> Tensor:
        """What all context-parallel ranks computed, on each of them."""
        context = share.documents
        return context.whole(x_bs, length) if isinstance(context, Context) else x_bs


def _holders(p: Tensor) -> int:
    """Ranks that hold the same shard."""
    if not isinstance(p, DTensor):
        return 1
    n = 1
    for size, placement in zip(p.device_mesh.shape, p.placements, strict=True):
        n *= size if isinstance(placement, Replicate) else 1
    return n


def weights_hash(engine: Engine) -> str:
    """SHA-256 over all whole parameters in the order of their names; collective, the same on every rank."""
    digests: dict[str, str] = {}
    for name, tensor in engine.state_dict().items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        digests[name] = hashlib.sha256(whole.cpu().contiguous().numpy().tobytes()).hexdigest()
    every: list[dict[str, str]] = [{}] * dist.get_world_size()
    dist.all_gather_object(every, digests)
    merged: dict[str, str] = {}
    for one in every:
        for name, digest in one.items():
            if merged.setdefault(name, digest) != digest:
                raise AssertionError(f"ranks hold different values of `{name}`")
    text = "".join(f"{name} {merged[name]}\n" for name in sorted(merged))
    return hashlib.sha256(text.encode()).hexdigest()
