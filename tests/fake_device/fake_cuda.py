"""A CUDA device without a GPU: whole training steps of one rank of many on tensors that say cuda and hold no data.

FakeTensorMode knows what each operation would give, the fake process group what each collective would; between them all of
our code and torch's own runs (FSDP, autograd, Dynamo, optimizers), on any build of torch. Nothing is computed, so this holds
what is called, on which device, how often and in which order, and no number.

The process is changed for good: each case has one of its own (`fake_steps.run`).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

REGISTRY = "_ZN3c104impl26device_guard_impl_registryE"
PRELOADED = "_ZN2at11accelerator13isAcceleratorEN3c1010DeviceTypeE"
OURS = ("arriero::gather_tokens", "arriero::scatter_sum")
"""Collectives inside of operators of our own, which fake tensors do not enter."""
DEVICE_TYPES, CUDA, META = 21, 1, 14  # c10::DeviceType


class UnknownTorch(RuntimeError):
    """This torch is not built as those that the fake device was made for."""


def lend_guard() -> None:
    """Give CUDA the device guard of meta tensors, which does nothing.

    A build without CUDA has none, and one with CUDA asks a driver.

    Raises:
        UnknownTorch: what is needed is not where it was in torch 2.11 to 2.15.
    """
    lib = Path(torch.__file__).parent / "lib"
    try:
        guards = (ctypes.c_void_p * DEVICE_TYPES).in_dll(ctypes.CDLL(str(lib / "libc10.so")), REGISTRY)
        asked = ctypes.CDLL(None)[PRELOADED]
    except (OSError, ValueError, AttributeError) as error:
        raise UnknownTorch(f"the fake CUDA device does not know torch {torch.__version__}: {error}") from None
    asked.restype = ctypes.c_bool
    if guards[META] is None or asked(CUDA):
        raise UnknownTorch(
            f"the fake CUDA device does not know torch {torch.__version__}: guard.c is not preloaded, or is not asked"
        )
    guards[CUDA] = guards[META]


class Stream:
    """What torch.cuda.Stream and Event are asked for; all work is done at once."""

    device, device_index, device_type, stream_id, cuda_stream = torch.device("cuda", 0), 0, 1, 0, 0

    def __init__(self, *args: Any, **kwargs: Any): ...

    def wait_stream(self, *args: Any) -> None: ...

    wait_event = synchronize = record = wait = wait_stream

    def record_event(self, event: Any = None) -> Any:
        return event or Event()

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Any) -> float:
        return 1.0

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *args: Any) -> None: ...


class Event(Stream):
    """As above."""


def outside(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, run without FakeTensorMode."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with unset_fake_temporarily():
            return function(*args, **kwargs)

    return run


def _real_stays_real(name: str) -> None:
    """Tables of documents are made with NumPy from tensors that are real; a fake one still raises."""
    method = getattr(torch.Tensor, name)
    whole = outside(method)
    setattr(
        torch.Tensor,
        name,
        lambda self, *a, **k: (whole if type(self) is torch.Tensor else method)(self, *a, **k),
    )


def _apply(self: torch.nn.Module, fn: Callable[..., Any], recurse: bool = True) -> torch.nn.Module:
    """`nn.Module._apply`, but new parameters take the place of old ones: fake ones cannot swap their data."""
    for child in self.children():
        child._apply(fn)
    for name, p in self._parameters.items():
        if p is not None:
            with torch.no_grad():
                self._parameters[name] = torch.nn.Parameter(fn(p), p.requires_grad)
    return self


def _pretend() -> None:
    cuda, one = torch.cuda, Stream()
    answers: dict[str, Any] = {
        "Stream": Stream,
        "Event": Event,
        "_lazy_init": lambda: None,
        "current_device": lambda: 0,
        "device_count": lambda: 8,
        "set_device": lambda device: None,
        "current_stream": lambda device=None: one,
        "default_stream": lambda device=None: one,
        "stream": lambda stream: contextlib.nullcontext(),
        "synchronize": lambda device=None: None,
        "get_device_capability": lambda device=None: (9, 0),
    }
    for name, answer in answers.items():
        setattr(cuda, name, answer)
    torch.nn.Module._apply = _apply  # type: ignore[method-assign]
    for name in ("cpu", "numpy", "tolist", "item", "__int__"):
        _real_stays_real(name)
    torch.Tensor.pin_memory = lambda self, *a, **k: self  # type: ignore[method-assign]  # FakeTensorMode has none
    torch.Tensor.record_stream = lambda self, stream: None  # type: ignore[method-assign]
    # Meshes hold real tables of ranks.
    for name in (
        *("__getitem__", "_flatten", "_concatenate", "_unflatten", "get_coordinate", "get_local_rank"),
        *("get_group", "_get_submesh", "get_all_groups", "_sym_get_coordinate"),
    ):
        if name in DeviceMesh.__dict__:
            found = DeviceMesh.__dict__[name]
            kind = type(found) if isinstance(found, (staticmethod, classmethod)) else lambda f: f
            setattr(DeviceMesh, name, kind(outside(getattr(found, "__func__", found))))


@contextlib.contextmanager
def fake_cuda(world_size: int, rank: int = 0) -> Iterator[FakeTensorMode]:
    """One rank of many on a device that is not there."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    lend_guard()
    _pretend()
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    try:
        with (
            torch.autograd.set_multithreading_enabled(False),
            FakeTensorMode(allow_non_fake_inputs=True) as mode,
        ):
            yield mode
    finally:
        dist.destroy_process_group()


class Watch(TorchDispatchMode):
    """Counts where the host waits for the device, and the collectives.

    It waits for each copy between them that is not `non_blocking`. A value that is read (`.item()`, `nonzero()`) raises
    DataDependentOutputException under FakeTensorMode by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        """By direction and line of our code."""
        self.collectives: Counter[tuple[str, str]] = Counter()
        """By operation and name of the group."""
        self.scaled = 0
        """Products in float8."""

    supports_higher_order_operators = True

    @classmethod
    def is_infra_mode(cls) -> bool:
        return True  # else torch.compile refuses to work under it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What these do with the tensors that they hold comes back here.
        if any(issubclass(t, DTensor) or t.__name__ == "Float8TrainingTensor" for t in types):
            return NotImplemented
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not isinstance(func, torch._ops.OpOverload):
            return out
        name = func._schema.name
        self.scaled += name == "aten::_scaled_mm"
        if name == "aten::_to_copy":
            self._copy(args[0].device.type, out.device.type, kwargs.get("non_blocking", False))
        elif name == "aten::copy_":
            later = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            self._copy(args[1].device.type, args[0].device.type, later)
        elif name.startswith("arriero::blocked_attention") and args[0].device.type == "cuda":
            # It cuts its blocks on the host, inside of the operator, which fake tensors do not enter.
            self.waits[name] += 1
        elif name in OURS or (func.namespace in ("c10d", "_c10d_functional") and "wait_tensor" not in name):
            groups = [
                a for a in args if isinstance(a, torch.ScriptObject) and "ProcessGroup" in str(a._type())
            ]
            # Functional collectives and ours name their group, the others hold it.
            group = (
                dist.ProcessGroup.unbox(groups[0]).group_name
                if groups
                else next(a for a in reversed(args) if isinstance(a, str))
            )
            self.collectives[name.split("::")[1], group] += 1
        return out

    def _copy(self, source: str, target: str, later: bool) -> None:
        if source == target or later:
            return
        stack = traceback.extract_stack()
        ours = [
            frame for frame in stack if "/pretrain/" in frame.filename and "/tests/" not in frame.filename
        ]
        where = (ours or stack[-3:])[-1]
        self.waits[f"{source} to {target} at {where.filename.split('/pretrain/')[-1]}: {where.line}"] += 1
