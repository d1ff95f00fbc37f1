"""Python's garbage collection, at steps of our choice: the same on every rank, so that ranks do not wait in turn."""

from __future__ import annotations

import gc
from types import TracebackType


class GarbageCollection:
    """While the context lasts, cyclic garbage is collected when `at` is called at a step that is due, and never between.

    Python collects when enough objects have been made, which each rank reaches at another step; as every step waits for
    its slowest rank, each pause is everybody's (MegaScale, Jiang et al. 2024, section 5.2). What exists at the beginning
    (the model, libraries) is not looked at again.

    Args:
        every: steps between collections; 0: leave it to Python.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._was_enabled = gc.isenabled()

    def __enter__(self) -> GarbageCollection:
        if self._every:
            gc.collect()
            gc.freeze()
            gc.disable()
        return self

    def at(self, step: int) -> None:
        """Collect, if `step` is due."""
        if self._every and step % self._every == 0:
            gc.collect()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._every:
            gc.unfreeze()
            if self._was_enabled:
                gc.enable()
