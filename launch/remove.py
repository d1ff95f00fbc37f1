"""`arriero remove`: take documents out of a packed dataset, and say which training steps consumed them.

The tokens become padding where they stand: every other token keeps its place, so a training in progress goes on with the
same data plan from its next start (processes that are running read the old files until then). The manifest records ids,
date and reason; packing again leaves the documents out. Steps come from the data plan and the ledger of each run.

Examples:
  arriero remove ids=[5f2b0e6c1d7a4e0f9b3c8d2a6e1f4c7b] data.path=out/packed reason='asked by its author'
  arriero remove file=ids.txt data.path=out/packed runs=[runs/a,runs/b] dry_run=true
"""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from configs import edge
from configs.edge import ConfigError
from configs.schema.data_verbs import RemoveRun
from data_pipeline import remove
from data_pipeline.packed import PackedDataset
from data_pipeline.packed.files import recover

SHOWN = 20


def main(argv: Sequence[str] | None = None) -> int:
    """`arriero remove`."""
    return edge.main("remove", RemoveRun, run, __doc__, argv)


def run(config: RemoveRun) -> int:
    """Print where the documents stand and what consumed them, then take them out; returns the exit status."""
    ids = _ids(config)
    date = config.date or datetime.date.today().isoformat()
    recover(Path(config.data.path))
    packed = PackedDataset(config.data.path)
    gone = {i: removal for removal in packed.manifest.removals for i in removal.documents}
    places = remove.find(packed, ids)
    there = {place.id for place in places}
    missing = [i for i in ids if i not in there and i not in gone]
    for i in ids:
        if i in gone and i not in there:
            print(f"{i}: removed already, on {gone[i].date} ({gone[i].reason})")
    for place in places[:SHOWN]:
        print(
            f"{place.id}: {place.stream}, {place.tokens:,} tokens in {len(place.sequences)} "
            f"sequence{'s' if len(place.sequences) != 1 else ''}: {_ranges(place.sequences)}"
        )
    if len(places) > SHOWN:
        print(f"… and {len(places) - SHOWN:,} more")
    if missing:
        listed = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        print(f"error: {len(missing):,} not in {packed.path}: {listed}", file=sys.stderr)
        if not config.ignore_missing:
            print(
                "nothing was done; take them out of the list, or write ignore_missing=true", file=sys.stderr
            )
            return 1
    # Also where documents stood that are removed already: runs may be named later.
    earlier = {id(gone[i]): gone[i] for i in ids if i in gone and i not in there}.values()
    sequences = {(p.stream, s) for p in places for s in p.sequences}
    sequences |= {
        (name, s) for removal in earlier for name, found in removal.sequences.items() for s in found
    }
    for run_dir in config.runs:
        _consumed(Path(run_dir), packed, sequences)
    shards = {
        (p.stream, s // packed.stream(p.stream).shards[0].sequences) for p in places for s in p.sequences
    }
    what = (
        f"{len(there):,} documents, {sum(p.tokens for p in places):,} tokens, "
        f"{sum(len(p.sequences) for p in places):,} sequences in {len(shards):,} shards"
    )
    if config.dry_run or not places:
        print(f"{'would remove' if places else 'nothing to remove:'} {what}")
        return 0
    remove.remove(packed, places, config.reason, date)
    print(f"removed {what}: {packed.path}")
    return 0


def _ids(config: RemoveRun) -> list[str]:
    given = list(config.ids)
    if config.file is not None:
        lines = Path(config.file).read_text(encoding="utf-8-sig").splitlines()
        given += [line.split("#")[0].strip() for line in lines]
    ids = list(dict.fromkeys(i.lower() for i in given if i))
    if not ids:
        raise ConfigError("no documents: write ids=[ID,…] or file=FILE")
    for i in ids:
        if not re.fullmatch(r"[0-9a-f]{32}", i):
            raise ConfigError(f"an id has 32 hexadecimal digits, but one is {i!r}")
    if config.date is not None:
        try:
            datetime.date.fromisoformat(config.date[:10])
        except ValueError:
            raise ConfigError(
                f"`date` must be ISO 8601, such as 2026-01-31, but it is {config.date!r}"
            ) from None
    return ids


def _consumed(run_dir: Path, packed: PackedDataset, sequences: set[tuple[str, int]]) -> None:
    from launch.consumed import steps

    found = steps(run_dir, packed, sequences)
    trained = f"of {found.trained:,} trained"
    if not found.steps:
        print(f"{run_dir}: no step {trained} consumed them")
    else:
        print(f"{run_dir}: {len(found.steps):,} steps {trained} consumed them: {_ranges(found.steps)}")
    for line in found.notes:
        print(f"  {line}")


def _ranges(numbers: Sequence[int]) -> str:
    """`3, 7–9, 12` of ascending numbers; at most SHOWN ranges."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][1] + 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    shown = [str(a) if a == b else f"{a}–{b}" for a, b in parts[:SHOWN]]
    return ", ".join(shown) + (f", … ({len(parts) - SHOWN:,} more)" if len(parts) > SHOWN else "")


if __name__ == "__main__":
    sys.exit(main())
