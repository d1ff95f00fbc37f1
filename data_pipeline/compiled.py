"""How kernels are compiled: with the signature stated, and kept, so that importing them loads machine code.

When, and how many at once, is the matter of `data_pipeline.compiling`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import AnalysisPass, register_pass
from numba.core.runtime import rtsys
from numba.core.typed_passes import AnnotateTypes

from data_pipeline import compiling

njit: Any = numba.njit  # its stubs do not know all of its options
_told = False


class _Locator(_CacheLocator):  # type: ignore[misc]
    """A folder whose name changes with everything that the machine code is made from."""

    def __init__(self, function: Any, file: str) -> None:
        self._line, self._py_file = function.__code__.co_firstlineno, file
        self._folder = compiling.place(Path(file))

    def get_cache_path(self) -> str:
        return str(self._folder)

    def ensure_cache_path(self) -> None:
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)

    def get_source_stamp(self) -> str:
        return ""  # it is in the folder's name

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, function: Any, file: str) -> _Locator | None:
        located = cls(function, file)
        return None if located._folder is None else located


class _Implementation(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes: ClassVar = [_Locator]  # type: ignore[misc]


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's cache, in our folders, and with a lock: what one process compiles the others wait for."""

    _impl_class = _Implementation

    def __init__(self, function: Any, waiting: contextlib.ExitStack) -> None:
        super().__init__(function)
        self._waiting = waiting

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = self._kept(sig, target_context)
        if found is None:
            path = Path(self._cache_path, self._impl.filename_base)
            self._waiting.enter_context(compiling.alone(path))
            found = self._kept(sig, target_context)
        if found is None:
            _tell()
        return found

    def _kept(self, sig: Any, target_context: Any) -> Any:
        """What is kept for a signature.

        numba would first load all that it can compile, and SciPy to ask for its BLAS: a third of a second that machine code
        does not need. What it does need are the functions that count references.
        """
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


class _CodegenOfLinked:
    """The code generator as a linked library sees it: nothing is kept for code that is never called by its address."""

    def __init__(self, codegen: Any) -> None:
        self._codegen = codegen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codegen, name)

    def set_env(self, name: str, env: Any) -> None:
        pass


class _LinkedLibrary(JITCodeLibrary):  # type: ignore[misc]
    """A subroutine's code, as it is linked into kernels.

    numba would optimise it as a whole, emit machine code for it that nobody calls, and optimise it again inside of every
    caller. Here its kernels alone do, which takes a third of the time.
    """

    @property
    def codegen(self) -> Any:
        return _CodegenOfLinked(self._codegen)

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0


@register_pass(mutates_CFG=False, analysis_only=True)
class _Link(AnalysisPass):  # type: ignore[misc]
    """Have a function lowered into a `_LinkedLibrary`."""

    _name = "arriero_link"

    def __init__(self) -> None:
        AnalysisPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        state.library = _LinkedLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        return False


class _SubroutineCompiler(Compiler):  # type: ignore[misc]
    def define_pipelines(self) -> Any:
        pipelines = super().define_pipelines()
        for pipeline in pipelines:
            pipeline.add_pass_after(_Link, AnnotateTypes)
            pipeline.finalize()
        return pipelines


def _tell() -> None:
    """Say once a process why it takes long: a verb that is no data run compiles when it first needs a kernel."""
    global _told
    if not _told and not compiling.is_child():
        print("compiling kernels; they are kept for the next time", file=sys.stderr, flush=True)
    _told = True


def _compile(signatures: tuple[Any, ...], function: Callable[..., Any], **options: Any) -> Any:
    # The wrapper for C is never called.
    dispatcher = njit(nogil=True, no_cfunc_wrapper=True, **options)(function)
    for signature in signatures:
        with contextlib.ExitStack() as waiting:
            # Without a folder that can be written each process compiles its own.
            with contextlib.suppress(RuntimeError):
                dispatcher._cache = _Cache(function, waiting)
            dispatcher.compile(signature)
    for compiled in dispatcher.overloads.values():
        # Those of subroutines; what comes from the cache has them.
        for environment in compiled._find_referenced_environments():
            compiled.library.codegen.set_env(environment.env_name, environment)
    dispatcher.disable_compile()
    return dispatcher


def kernel(*signatures: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function that Python calls, for these signatures."""
    return lambda function: _compile(signatures, function)


def small(signature: Any, inline: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function that allocates nothing and is called for single words.

    numba counts the references of every array that a function is given, by atomic instructions that take longer than the
    rest of a small function: finding words took 8.9 ns a byte with them and 5.8 without. So they are left out.
    """
    return lambda function: _compile(
        (signature,), function, _nrt=False, inline="always" if inline else "never"
    )


# Python calls none of them, so they need no wrapper.
subroutine = njit(
    nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, pipeline_class=_SubroutineCompiler
)
"""Decorator of functions that only kernels call: they are compiled, and cached, with their callers."""
small_subroutine = njit(
    nogil=True,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
    _nrt=False,
    pipeline_class=_SubroutineCompiler,
)
"""The same for what allocates nothing, see `small`: training a tokenizer took 2.6 times as long with counted references."""
