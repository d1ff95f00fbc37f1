"""AdamW and Muon, whole and sharded."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from configs.schema.train import OptimConfig
from pretrain.optim.adamw_bf16 import stochastic
from pretrain.optim.muon import orthogonalise
from pretrain.optim.optimizer import Optimizer, kind

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


def train(
    parameters: dict[str, nn.Parameter],
    name: str,
    place: object = None,
    dtype: str = "fp32",
    strikes: bool = False,
) -> Optimizer:
    """Three updates; with `strikes` a skipped one, whose gradients are worthless, before each."""
    config = OptimConfig(name=name, lr=0.01, weight_decay=0.1)  # type: ignore[arg-type]
    optimizer = Optimizer(parameters.items(), config, dtype)
    for step in range(3):
        gradients = values(100 + step).items()
        for factor in (math.nan, math.inf, 1.0) if strikes else (1.0,):
            for key, value in gradients:
                gradient = (value * factor).to(parameters[key].dtype)
                parameters[key].grad = place(gradient) if callable(place) else gradient
            optimizer.step(0.5, torch.tensor(factor != 1.0) if strikes else None)
            optimizer.zero_grad()
    return optimizer


def everything(parameters: dict[str, nn.Parameter], optimizer: Optimizer) -> dict[str, Tensor]:
    """Weights and states, whole."""
    found = {**{n: p.detach() for n, p in parameters.items()}, **optimizer.state_dict()}
    return {n: t.full_tensor() if isinstance(t, DTensor) else t for n, t in found.items()}


def decays(name: str, p: Tensor) -> bool:
    return kind(name, p) in OptimConfig().decay


def test_only_the_kinds_that_are_named_decay() -> None:
    kinds = {n: kind(n, torch.empty(shape)) for n, shape in SHAPES.items()}
    assert [n for n, k in kinds.items() if k not in OptimConfig().decay] == [
        "tok_embeddings.weight",
        "layers.0.ffn_norm.weight",
    ]
    for name in ("adamw", "muon"):
        for decay in ((), ("norms",), ("matrices", "embeddings"), ("head",)):
            parameters = {n: nn.Parameter(v) for n, v in values(0).items()}
            config = OptimConfig(name=name, lr=0.01, muon_lr=0.01, weight_decay=0.1, decay=decay)  # type: ignore[arg-type]
            optimizer = Optimizer(parameters.items(), config, "fp32")
            for p in parameters.values():
                p.grad = torch.zeros_like(p)
            optimizer.step(1.0)
            for n, before in values(0).items():
                factor = 1 - 0.01 * 0.1 if kinds[n] in decay else 1
                torch.testing.assert_close(parameters[n].detach(), before * factor, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("name", "dtype"), [("adamw", "fp32"), ("muon", "fp32"), ("adamw", "bf16_pure")])
def test_skipped_updates_leave_everything_and_others_are_the_same_to_the_last_bit(
    name: str, dtype: str
) -> None:
    results = []
    for strikes in (False, True):
        precision = torch.bfloat16 if dtype == "bf16_pure" else torch.float32
        parameters = {n: nn.Parameter(v.to(precision)) for n, v in values(0).items()}
        optimizer = train(parameters, name, dtype=dtype, strikes=strikes)
        results.append(everything(parameters, optimizer))
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[0][n], results[1][n]) for n in results[0])
    assert results[1]["output.weight.step"] == 3


def test_stochastic_rounding_is_right_on_average_and_keeps_what_bf16_has() -> None:
    exact = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    noise = torch.arange(1 << 16, dtype=torch.int32) * 40503
    for value in exact[:50].tolist():
        rounded = stochastic(torch.full((1 << 16,), value), noise).double()
        assert rounded.unique().numel() <= 2
        # Every value of the noise occurs once, so the mean is exact but for the last bit of the cut-off part.
        assert rounded.mean() == pytest.approx(torch.tensor(value).double().item(), rel=2**-22)
    kept = torch.tensor([1.5, -2.0, 0.0, math.inf, -math.inf])
    assert torch.equal(stochastic(kept, torch.full((5,), -1, dtype=torch.int32)).float(), kept)
    assert stochastic(torch.tensor([math.nan]), torch.ones(1, dtype=torch.int32)).isnan().all()


def test_pure_bf16_follows_fp32_where_nearest_rounding_stands_still() -> None:
    """Updates of 1/1000 of a weight, 300 of them."""
    config = OptimConfig(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0)
    results = {}
    for kind_of, dtype in (("fp32", torch.float32), ("bf16_pure", torch.bfloat16), ("bf16", torch.bfloat16)):
        p = nn.Parameter(torch.ones(64, 64, dtype=dtype))
        optimizer = Optimizer([("layers.0.attention.wq.weight", p)], config, kind_of)
        for _ in range(300):
            p.grad = torch.ones_like(p)
            optimizer.step(1.0)
        results[kind_of] = p.detach().float().mean().item()
    assert results["fp32"] == pytest.approx(0.7, abs=1e-3)
    assert results["bf16_pure"] == pytest.approx(results["fp32"], abs=2e-3)
    assert results["bf16"] == 1.0


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
            found = train(sharded, name, place, strikes=True).state_dict()
            assert found.keys() == expected.keys()
            for key in SHAPES:
                full = sharded[key].detach().full_tensor()  # type: ignore[attr-defined]
                torch.testing.assert_close(full, whole[key].detach(), rtol=1e-6, atol=1e-7)
    halved = {n: nn.Parameter(v.bfloat16()) for n, v in values(0).items()}
    expected = everything(halved, train(halved, "adamw", dtype="bf16_pure"))
    for where, placements in layouts.values():

        def place_half(t: Tensor, where: object = where, placements: list[Shard] = placements) -> DTensor:
            chosen = placements if t.ndim == 2 else [Shard(0)] * len(placements)
            return distribute_tensor(t, where, chosen, src_data_rank=None)  # type: ignore[arg-type]

        sharded = {n: nn.Parameter(place_half(v.bfloat16())) for n, v in values(0).items()}
        found = everything(sharded, train(sharded, "adamw", place_half, "bf16_pure"))
        assert all(torch.equal(found[n], expected[n]) for n in expected)
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
