"""The held-out split: whole groups, chosen by a hash, at least so many bytes of each source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from data_pipeline.keyed import rank

Sizes = Mapping[str, Mapping[str, int]]


def heldout_groups(sizes: Sizes, fraction: float, min_bytes: int, seed: int) -> set[str]:
    """Groups that are held out.

    sizes: source → group → bytes of text. Groups are ranked by hash of (seed, group), the same for every source, so a
    group that several sources share (a module's code and its documentation) is held out from all of them. Each source
    holds out the groups below `fraction` of the hash's range, at least one where it has two, and further ones by rank
    until they hold `min_bytes`, where the source has twice as much. Never a source's last group.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"pack.heldout_fraction is {fraction}; expected at least 0 and less than 1")
    held: set[str] = set()
    if fraction == 0 and min_bytes == 0:
        return held
    for groups in sizes.values():
        ranked = sorted((rank("heldout", seed, group), group) for group in groups)
        target = min_bytes if sum(groups.values()) >= 2 * min_bytes else 0
        taken = 0
        for number, (order, group) in enumerate(ranked[:-1]):
            chosen = order < fraction * 2**64 or taken < target or (number == 0 and fraction > 0)
            if not chosen:
                break
            held.add(group)
            taken += groups[group]
    return held


def sizes_by_group(rows: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    """(source, group, bytes) rows → source → group → bytes."""
    sizes: dict[str, dict[str, int]] = {}
    for source, group, size in rows:
        groups = sizes.setdefault(source, {})
        groups[group] = groups.get(group, 0) + size
    return sizes
