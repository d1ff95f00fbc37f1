"""How often compiled code for a GPU reads and writes memory, from Inductor's own plan of its kernels; no code is made of it.

`python traffic.py logsumexp` (or `gradient`) prints, for a step of the loss: kernels, and bytes ÷ bytes of the logits. It
goes through private parts of Inductor, and says so where a torch does not have them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from fake_cuda import UnknownTorch, fake_cuda

H200 = SimpleNamespace(
    name="NVIDIA H200",
    major=9,
    minor=0,
    multi_processor_count=132,
    total_memory=141 * 2**30,
    warp_size=32,
    max_threads_per_multi_processor=2048,
    regs_per_multiprocessor=65536,
    shared_memory_per_block_optin=232448,
    shared_memory_per_block=49152,
    L2_cache_size=50 * 2**20,
    gcnArchName="",
)


def _pretend() -> None:
    """Answer what Inductor asks of the device and of Triton before it plans kernels."""
    import torch._dynamo.device_interface
    import torch._inductor.scheduler
    import torch.utils._triton

    torch.cuda.get_device_properties = lambda device=None: H200  # type: ignore[assignment,return-value]
    cuda = torch._dynamo.device_interface.CudaInterface
    answers: dict[str, Any] = {
        "is_available": True,
        "get_compute_capability": 90,
        "get_device_properties": H200,
        "current_device": 0,
        "is_triton_capable": True,
        "raise_if_triton_unavailable": None,
        "is_bf16_supported": True,
    }
    for name, answer in answers.items():
        setattr(cuda, name, staticmethod(lambda *args, answer=answer, **kwargs: answer))
    for name in ("get_device_properties", "current_device"):
        setattr(cuda.Worker, name, getattr(cuda, name))
    for module in (torch.utils._triton, torch._inductor.scheduler):
        for name in ("has_triton", "has_triton_package"):
            if hasattr(module, name):
                setattr(module, name, lambda: True)


def planned(function: Callable[..., Any], *arguments: Any) -> tuple[int, int]:
    """Kernels of a compiled function, and the bytes that they read and write; once in a process."""
    plans = []

    def plan(graph: Any, inputs: Any, **options: Any) -> Any:
        try:
            from torch._inductor.compile_fx import (
                _recursive_post_grad_passes,
                fake_tensor_prop,
                record_original_output_strides,
                view_to_reshape,
            )
            from torch._inductor.debug import DebugContext
            from torch._inductor.graph import GraphLowering
            from torch._inductor.virtualized import V

            _pretend()
            record_original_output_strides(graph)
            view_to_reshape(graph)
            fake = fake_tensor_prop(graph, inputs)
            with V.set_fake_mode(fake):
                _recursive_post_grad_passes(graph, is_inference=True)
                lowered = GraphLowering(graph, example_inputs=inputs, is_inference=True)
                with V.set_graph_handler(lowered), V.set_debug_handler(DebugContext()):
                    lowered.run(*inputs)
                    lowered._update_scheduler()
                    plans.append((len(lowered.scheduler.nodes), lowered.count_bytes()[0]))
        except (ImportError, AttributeError, TypeError) as error:
            raise UnknownTorch(f"Inductor of torch {torch.__version__} is not known: {error}") from error
        return graph.forward

    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx

    config.joint_graph_constant_folding = False  # it would compute with values
    compiled = torch.compile(
        function, backend=lambda graph, inputs: compile_fx(graph, inputs, inner_compile=plan), fullgraph=True
    )
    with torch.no_grad():
        compiled(*arguments)
    ((kernels, size),) = plans
    return kernels, size


def main() -> None:
    from pretrain.model.loss import gradient_in_place, logsumexp_of

    with fake_cuda(2):
        rows, columns, cuda = 2048, 128_256, torch.device("cuda")
        logits = torch.empty(rows, columns, dtype=torch.bfloat16, device=cuda)
        exact = torch.empty(rows, device=cuda)
        column = torch.empty(rows, dtype=torch.int64, device=cuda)
        whole = logits.numel() * logits.element_size()
        if sys.argv[1] == "logsumexp":
            kernels, size = planned(logsumexp_of, logits, 0)
        else:
            kernels, size = planned(gradient_in_place, logits, exact, exact, column, column > 0, 0)
        print(f"{kernels} kernels, {size / whole:.2f} passes")


if __name__ == "__main__":
    try:
        main()
    except UnknownTorch as error:
        print(error)
    except Exception as error:
        if not isinstance(error.__cause__, UnknownTorch):
            raise
        print(error.__cause__)
