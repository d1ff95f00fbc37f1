"""Every call of ours into torch is one that this torch takes, also those that only a GPU, a pipeline or a compiler makes.

`make test-torch` runs this for other releases of torch.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup
from torch.distributed.fsdp._fully_shard._fsdp_state import FSDPState
from torch.distributed.tensor import DTensor
from torch.nn.attention.flex_attention import BlockMask

ROOT = Path(__file__).parents[2]
SOURCES = [*sorted((ROOT / "pretrain").rglob("*.py")), *sorted((ROOT / "launch").rglob("*.py"))]
METHODS: dict[str, type] = {
    "set_requires_gradient_sync": FSDPModule,
    "set_requires_all_reduce": FSDPModule,
    "set_reshard_after_backward": FSDPModule,
    "set_gradient_divide_factor": FSDPModule,
    "set_force_sum_reduction_for_comms": FSDPModule,
    "reshard": FSDPModule,
    "_get_fsdp_state": FSDPModule,
    "post_backward": FSDPParamGroup,
    "_root_post_backward_final_callback": FSDPState,
    "_flatten": DeviceMesh,
    "get_local_rank": DeviceMesh,
    "full_tensor": DTensor,
    "to_local": DTensor,
    "from_kv_blocks": BlockMask,
    "read_metadata": FileSystemReader,
    "write_data": FileSystemWriter,
    "_get_backend": dist.ProcessGroup,
    "register_post_accumulate_grad_hook": torch.Tensor,
}
"""Methods of objects that torch makes, by names that nothing else in our sources has."""
FOUND = object()


def torch_names(tree: ast.Module) -> dict[str, Any]:
    """What a file's imports of torch mean."""
    names: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "torch":
                    module = importlib.import_module(alias.name)
                    names[alias.asname or "torch"] = module if alias.asname else torch
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                found = getattr(module, alias.name, None)
                found = found or importlib.import_module(f"{node.module}.{alias.name}")
                names[alias.asname or alias.name] = found
    return names


def resolved(node: ast.expr, names: dict[str, Any]) -> Any:
    """What an expression such as `dist.init_process_group` names; None: nothing of torch."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        parent = resolved(node.value, names)
        if inspect.ismodule(parent) or inspect.isclass(parent):
            return getattr(parent, node.attr, FOUND)
    return None


def calls() -> Iterator[tuple[str, ast.Call, Any, bool]]:
    """Place, call, what is called, and whether it is a method of an object."""
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        names = torch_names(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            place = f"{path.relative_to(ROOT)}:{node.lineno}"
            function = resolved(node.func, names)
            if function is not None:
                yield place, node, function, False
            elif isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
                yield place, node, getattr(METHODS[node.func.attr], node.func.attr, FOUND), True


def refusal(call: ast.Call, function: Any, method: bool) -> str | None:
    """Why a call would raise; None: its arguments fit, or the function has no signature that can be asked for."""
    if function is FOUND:
        return "there is no such name"
    if isinstance(function, type) and issubclass(function, torch.autograd.Function):
        return None
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return None
    starred = any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords)
    own = method and not inspect.ismethod(function) and not isinstance(function, staticmethod)
    places = [None] * (len([a for a in call.args if not isinstance(a, ast.Starred)]) + own)
    keywords = {k.arg: None for k in call.keywords if k.arg is not None}
    try:
        (signature.bind_partial if starred else signature.bind)(*places, **keywords)
    except TypeError as error:
        return str(error)
    return None


# What some torch of the range has and another has not; asked for with hasattr.
SINCE = {"all_gather_single", "all_gather_into_tensor", "set_timeout", "_set_pg_timeout"}


def test_this_torch_takes_every_call_of_ours() -> None:
    wrong, asked = [], set()
    for place, call, function, method in calls():
        name = ast.unparse(call.func)
        reason = refusal(call, function, method)
        if reason is not None and not (reason.startswith("there is no") and name.split(".")[-1] in SINCE):
            wrong.append(f"{place}: {name}: {reason}")
        asked.add(name.split(".")[-1])
    assert not wrong, "\n".join(wrong)
    # The places that depend most on torch's insides.
    assert asked >= {
        "varlen_attn",
        "fully_shard",
        "set_requires_gradient_sync",
        "post_backward",
        "_concatenate",
        "_StorageInfo",
        "enable_symm_mem_for_group",
        "create_selective_checkpoint_contexts",
        "from_kv_blocks",
        "get_gradient_edge",
    }


def test_a_call_that_torch_does_not_take_is_found() -> None:
    tree = ast.parse("varlen_attn(q, k, v, b, b, 1, 1, no_such_option=True)").body[0]
    assert isinstance(tree, ast.Expr) and isinstance(tree.value, ast.Call)
    from torch.nn.attention.varlen import varlen_attn

    assert "no_such_option" in (refusal(tree.value, varlen_attn, False) or "")


def test_insides_of_torch_that_we_read_are_there() -> None:
    assert "_fsdp_param_group" in inspect.getsource(FSDPState)
    assert isinstance(torch._dynamo.config.recompile_limit, int)
    assert isinstance(torch._inductor.config._micro_pipeline_tp, bool)
    assert hasattr(torch.ops.torch_attn, "_varlen_attn")


def test_our_wrappers_warn_of_nothing_that_is_deprecated() -> None:
    from pretrain.collectives import all_gather_single, reduce_scatter_single, set_timeout

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            group, x = dist.group.WORLD, torch.arange(4.0)
            assert group is not None
            for collective in (all_gather_single, reduce_scatter_single):
                out = torch.empty(4)
                collective(out, x, group)
                assert torch.equal(out, x)
            set_timeout(timedelta(seconds=77), group)
        assert group._get_backend(torch.device("cpu")).options._timeout == timedelta(seconds=77)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("impl", ["FA3"])
def test_faster_kernels_are_known_by_name(impl: str) -> None:
    attention = importlib.import_module("torch.nn.attention")
    if not hasattr(attention, "activate_flash_attention_impl"):
        pytest.skip("this torch has no choice of kernels")
    assert impl in attention.list_flash_attention_impls()


MANY_RANKS = """
import torch.distributed as dist
from torch.distributed import distributed_c10d
from torch.testing._internal.distributed import fake_pg
from pretrain.parallel.layout import Layout
from pretrain.parallel.mesh import build_mesh

store = dist.HashStore()
dist.init_process_group("fake", store=store, rank=0, world_size=1024)
build_mesh(Layout(pp=4, dp_replicate=2, dp_shard=16, cp=1, tp=8, micro_batches=4), "cpu")
held, keys = len(distributed_c10d._world.pg_map), store.num_keys()
for first in range(8, 1024, 8):
    assert dist.new_group(list(range(first, first + 8)), backend="gloo") == dist.GroupMember.NON_GROUP_MEMBER
print(held, store.num_keys() - keys)
"""


def test_groups_of_other_ranks_cost_a_rank_nothing_but_the_call() -> None:
    """So a mesh of many nodes starts without `split_group`, which would need `device_id`: a rank holds the world and a group
    of each dimension, and tells the store nothing of the others."""
    done = subprocess.run(
        [sys.executable, "-c", MANY_RANKS], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["6", "0"], done.stderr
