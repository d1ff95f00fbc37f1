"""Compare training runs: what was configured and run differently, and what came out.

Prints a table (final losses by source, speed, goodput, differences of configuration and environment) and writes one
self-contained HTML page with the curves of all runs on common charts, over steps, tokens or time.

Examples:
  arriero compare runs/a runs/b                        # also: runs=[runs/a,runs/b]
  arriero compare runs/a runs/b runs/c output=/tmp/abc.html
  arriero compare runs/lr-*                            # a sweep's runs
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import CompareRun
from data_pipeline.packed.files import write_atomically


def run(config: CompareRun) -> int:
    """Print the comparison and write the page; returns the exit status.

    Raises:
        ConfigError: fewer than two runs, one twice, or one that is no run directory.
    """
    folders = [Path(name) for name in config.runs]
    if len(folders) < 2:
        raise ConfigError("`arriero compare` needs two runs or more: arriero compare runs/a runs/b")
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a directory; give the directories of runs")
        if not any((folder / name).exists() for name in ("config.yaml", "metrics.jsonl")):
            raise ConfigError(f"{folder} is no run directory: it has neither config.yaml nor metrics.jsonl")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError(f"one run is named twice: {', '.join(map(str, folders))}")
    print(f"compare: reading {len(folders)} runs", flush=True)
    # What takes a large part of a second to import, after the first line.
    from launch.report.compared import compare, page_of, text_of

    found = compare(folders)
    print(text_of(found))
    path = Path(config.output) if config.output else folders[0].resolve().parent / default_name(found.names)
    write_atomically(path, page_of(found).encode("utf-8", "replace"))
    print(f"\n{path} ({path.stat().st_size / 2**20:.1f} MB)")
    return 0


def default_name(names: Sequence[str]) -> str:
    """File name of the page of some runs, not longer than file systems take."""
    return f"compare-{'-'.join(names)}"[:180].replace("/", "_") + ".html"


def main(argv: Sequence[str] | None = None) -> int:
    """`arriero compare`: words without `=` are run directories."""
    words = sys.argv[1:] if argv is None else argv
    if not {"--help", "-h"} & set(words):
        words = edge.gather("runs", words)
    return edge.main("compare", CompareRun, run, __doc__ or "", words)


if __name__ == "__main__":
    from launch.cli import guarded

    sys.exit(guarded(main))
