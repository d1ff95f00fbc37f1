"""Structured arrays: what a kernel counts has a name."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np


def count_fields(*names: str) -> np.dtype[np.void]:
    """Dtype of named int64 counts."""
    return fields(**dict.fromkeys(names, np.int64))


def fields(**types: type[np.generic]) -> np.dtype[np.void]:
    """Dtype of named fields, aligned as numba expects them."""
    return np.dtype(list(types.items()), align=True)


def rows(dtype: np.dtype[np.void]) -> Any:
    """numba's type of a contiguous array of such records."""
    record: Any = numba.from_dtype(dtype)
    return record[::1]
