"""How kernels are compiled: once a machine, with the signature stated, so that importing them loads machine code.

python -m data_pipeline.compiled        # all of them now, and not when a run first needs them
"""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import xxhash
from numba.core.caching import FunctionCache

njit: Any = numba.njit  # its stubs do not know all of its options
_PACKAGE = Path(__file__).parent


def _holders() -> list[Path]:
    """Files of this package that hold kernels."""
    return [f for f in sorted(_PACKAGE.rglob("*.py")) if b"data_pipeline.compiled import" in f.read_bytes()]


@cache
def _sources(folder: Path) -> str:
    """Hash of the sources in a folder, and of all files of this package that hold kernels."""
    files = set(folder.glob("*.py"))
    files |= set(_holders())
    state = xxhash.xxh3_128()
    for file in sorted(files):
        state.update(file.read_bytes())
    return state.hexdigest()


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's cache looks at a function's own file alone, but kernels call others and use constants of other files."""

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), _sources(Path(self._py_func.__code__.co_filename).parent))


def _compile(signatures: tuple[Any, ...], function: Callable[..., Any], **options: Any) -> Any:
    dispatcher = njit(nogil=True, **options)(function)
    # Where neither the source's folder nor the user's cache can be written, each process compiles anew.
    with contextlib.suppress(RuntimeError):
        dispatcher._cache = _Cache(function)
    for signature in signatures:
        dispatcher.compile(signature)
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


subroutine = njit(nogil=True)
"""Decorator of functions that only kernels call: they are compiled, and cached, with their callers."""


def main() -> None:
    """Compile all kernels by importing the modules that hold them."""
    began = time.monotonic()
    for file in _holders():
        name = file.relative_to(_PACKAGE.parent).with_suffix("").as_posix()
        importlib.import_module(name.replace("/", ".").removesuffix(".__init__"))
    print(f"kernels are compiled ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    main()
