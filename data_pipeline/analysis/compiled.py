"""How kernels are compiled: once a machine, with the signature stated, so that importing them loads machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.core.errors import NumbaError

njit: Any = numba.njit  # its stubs do not know all of its options


def kernel(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function that allocates arrays."""
    return njit(signature, cache=True, nogil=True)


def small(signature: Any, inline: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function that allocates nothing and is called for single words.

    numba counts the references of every array that a function is given, by atomic instructions that take longer than the
    rest of a small function: finding words took 8.9 ns a byte with them and 5.8 without. They are left out where numba
    allows it.
    """
    options: dict[str, Any] = {"cache": True, "nogil": True, "inline": "always" if inline else "never"}

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return njit(signature, _nrt=False, **options)(function)
        except (NumbaError, TypeError, KeyError):
            return njit(signature, **options)(function)

    return compiled
