"""Weights of sources: from what a person writes to shares that sum to one."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping


class MixtureError(ValueError):
    """A mixture that does not fit the sources; the message names the source and the nearest valid one."""


def _known(names: Mapping[str, float], sources: Mapping[str, int], what: str) -> None:
    for name in names:
        if name not in sources:
            close = difflib.get_close_matches(name, list(sources), n=1)
            hint = f"; did you mean `{close[0]}`?" if close else ""
            raise MixtureError(
                f"{what} names the source `{name}`, but the dataset holds training sequences of "
                f"{', '.join(f'`{s}`' for s in sorted(sources)) or 'no source'}{hint}"
            )


def resolve_weights(weights: Mapping[str, float], sizes: Mapping[str, int]) -> dict[str, float]:
    """Share of sequences of each source, in name order, summing to 1.

    weights: what was asked for, by source; sizes: sequences by source. Sources that `weights` leaves out share
    1 − sum(weights) by their size; where it names all, it is scaled to sum to 1. Empty weights: all by size.
    Raises MixtureError for unknown sources, weights that are negative or not finite, and a sum above 1 that leaves
    the others nothing.
    """
    _known(weights, sizes, "mixture.weights")
    for name, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise MixtureError(f"mixture.weights.{name} is {weight}; expected a number of at least 0")
        if weight > 0 and sizes[name] == 0:
            raise MixtureError(
                f"mixture.weights.{name} is {weight}, but the dataset holds no training sequence of `{name}`; "
                "add documents or take the weight out"
            )
    given = math.fsum(weights.values())
    others = {name: size for name, size in sizes.items() if name not in weights and size > 0}
    if others and given > 1 + 1e-9:
        raise MixtureError(
            f"mixture.weights sum to {given:g}, which leaves less than nothing to "
            f"{', '.join(f'`{s}`' for s in sorted(others))}; give them a weight (0 leaves them out)"
        )
    rest = max(0.0, 1.0 - given) if others else 0.0
    total = sum(others.values())
    raw = {
        name: weights[name] if name in weights else rest * others.get(name, 0) / max(total, 1)
        for name in sorted(sizes)
    }
    scale = math.fsum(raw.values())
    if scale <= 0:
        raise MixtureError(f"all weights are 0; sources with sequences: {', '.join(sorted(sizes)) or 'none'}")
    return {name: value / scale for name, value in raw.items()}


def resolve_epochs(max_epochs: Mapping[str, float], sizes: Mapping[str, int]) -> dict[str, float]:
    """Checked epoch caps by source; MixtureError for unknown sources and caps that are not positive."""
    _known(max_epochs, sizes, "mixture.max_epochs")
    for name, cap in max_epochs.items():
        if not math.isfinite(cap) or cap <= 0:
            raise MixtureError(f"mixture.max_epochs.{name} is {cap}; expected a number above 0")
    return {name: float(max_epochs[name]) for name in sorted(max_epochs)}
