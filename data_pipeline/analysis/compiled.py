"""How kernels are compiled: once a machine, with the signature stated, so that importing them loads machine code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import xxhash
from numba.core.caching import FunctionCache

njit: Any = numba.njit  # its stubs do not know all of its options


@cache
def _sources() -> str:
    """Hash of all source files of this package."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return xxhash.xxh3_128_hexdigest(b"\0".join(file.read_bytes() for file in files))


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's cache looks at a function's own file alone, but kernels call others and use constants of other files."""

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), _sources())


def _compile(signature: Any, function: Callable[..., Any], **options: Any) -> Any:
    dispatcher = njit(nogil=True, **options)(function)
    dispatcher._cache = _Cache(function)
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher


def kernel(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function that allocates arrays."""
    return lambda function: _compile(signature, function)


def small(signature: Any, inline: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function that allocates nothing and is called for single words.

    numba counts the references of every array that a function is given, by atomic instructions that take longer than the
    rest of a small function: finding words took 8.9 ns a byte with them and 5.8 without. So they are left out.
    """
    return lambda function: _compile(signature, function, _nrt=False, inline="always" if inline else "never")
