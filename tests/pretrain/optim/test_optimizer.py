"""AdamW and Muon, whole and sharded."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from configs.schema.train import OptimConfig
from pretrain.optim.muon import orthogonalise
from pretrain.optim.optimizer import Optimizer, decays

SHAPES = {
    "tok_embeddings.weight": (12, 6),
    "layers.0.attention.wq.weight": (6, 6),
    "layers.0.attention.wk.weight": (6, 6),
    "layers.1.attention.wq.weight": (6, 6),
    "layers.0.feed_forward.w1.weight": (10, 6),
    "layers.0.feed_forward.w2.weight": (6, 10),
    "layers.0.ffn_norm.weight": (6,),
    "output.weight": (12, 6),
}


def values(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def train(parameters: dict[str, nn.Parameter], name: str, place: object = None) -> Optimizer:
    config = OptimConfig(name=name, lr=0.01, weight_decay=0.1)  # type: ignore[arg-type]
    optimizer = Optimizer(parameters.items(), config, "fp32")
    for step in range(3):
        for key, gradient in values(100 + step).items():
            parameters[key].grad = place(gradient) if callable(place) else gradient
        optimizer.step(0.5)
        optimizer.zero_grad()
    return optimizer


def test_norms_and_embeddings_do_not_decay() -> None:
    assert [n for n, shape in SHAPES.items() if not decays(n, torch.empty(shape))] == [
        "tok_embeddings.weight",
        "layers.0.ffn_norm.weight",
    ]


def test_adamw_is_that_of_torch() -> None:
    ours = {n: nn.Parameter(v) for n, v in values(0).items()}
    train(ours, "adamw")
    theirs = {n: nn.Parameter(v) for n, v in values(0).items()}
    groups = [{"params": [p], "weight_decay": 0.1 if decays(n, p) else 0.0} for n, p in theirs.items()]
    reference = torch.optim.AdamW(groups, lr=0.005, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    for step in range(3):
        for key, gradient in values(100 + step).items():
            theirs[key].grad = gradient
        reference.step()
    for name in SHAPES:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-7)


def test_muon_is_that_of_torch_for_block_matrices_and_adamw_for_the_rest() -> None:
    ours = {n: nn.Parameter(v) for n, v in values(0).items()}
    train(ours, "muon")
    adamw = {n: nn.Parameter(v) for n, v in values(0).items()}
    train(adamw, "adamw")
    theirs = {n: nn.Parameter(v) for n, v in values(0).items()}
    blocks = [p for n, p in theirs.items() if n.startswith("layers") and p.ndim == 2]
    reference = torch.optim.Muon(blocks, lr=0.01, momentum=0.95, weight_decay=0.1)
    for step in range(3):
        for key, gradient in values(100 + step).items():
            theirs[key].grad = gradient
        reference.step()
    for name, p in theirs.items():
        if name.startswith("layers") and p.ndim == 2:
            # torch iterates in bf16, so an update of about 0.01 is equal to about 1%.
            torch.testing.assert_close(ours[name], p, rtol=0, atol=5e-4)
        else:
            assert torch.equal(ours[name], adamw[name])


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(orthogonalise(matrices))
    assert singular.min() > 0.6 and singular.max() < 1.3


def work(rank: int, world_size: int, folder: str) -> None:
    store = dist.FileStore(f"{folder}/store", world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    layouts = {
        "fsdp": (mesh["dp"], [Shard(0)]),
        "both": (mesh, [Shard(0), Shard(1)]),
        "tp": (mesh["tp"], [Shard(0)]),
    }
    for name in ("adamw", "muon"):
        whole = {n: nn.Parameter(v) for n, v in values(0).items()}
        expected = train(whole, name).state_dict()
        for where, placements in layouts.values():

            def place(t: Tensor, where: object = where, placements: list[Shard] = placements) -> DTensor:
                chosen = placements if t.ndim == 2 else [Shard(0)] * len(placements)
                return distribute_tensor(t, where, chosen, src_data_rank=None)  # type: ignore[arg-type]

            sharded = {n: nn.Parameter(place(v)) for n, v in values(0).items()}
            found = train(sharded, name, place).state_dict()
            assert found.keys() == expected.keys()
            for key in SHAPES:
                full = sharded[key].detach().full_tensor()  # type: ignore[attr-defined]
                torch.testing.assert_close(full, whole[key].detach(), rtol=1e-6, atol=1e-7)
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)


def test_sharded_parameters_get_the_same_updates(tmp_path: Path) -> None:
    mp.spawn(work, (4, str(tmp_path)), nprocs=4)


def test_state_exists_before_the_first_step() -> None:
    parameters = {n: nn.Parameter(v) for n, v in values(0).items()}
    optimizer = Optimizer(parameters.items(), OptimConfig(), "fp32")
    before = {name: t.shape for name, t in optimizer.state_dict().items()}
    assert len(before) == 3 * len(SHAPES)
    train(parameters, "adamw")
    optimizer = Optimizer(parameters.items(), OptimConfig(), "fp32")
    assert {name: t.shape for name, t in optimizer.state_dict().items()} == before
