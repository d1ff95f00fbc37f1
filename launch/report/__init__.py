"""`arriero report`: one self-contained HTML page of a run and of the data behind it.

Data funnel with samples of what each rule dropped, mixture, loss curves, throughput, goodput with the ledger's
timeline, held-out loss by source, text samples, configuration. The page holds everything it shows, its charting
library too, and asks nothing of a network. A part that is missing says why.

Examples:
  arriero report run.dir=runs/a                              # runs/a/report.html
  arriero report run.dir=runs/a output=/tmp/a.html
  arriero report run.dir=runs/a data.path=data/web/packed    # where the dataset was moved
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from configs import edge
from configs.schema.train import ReportRun


def main(argv: Sequence[str] | None = None) -> int:
    """`arriero report`."""
    return edge.main("report", ReportRun, run, __doc__, argv)


def run(config: ReportRun) -> int:
    """Write the page; returns the exit status."""
    run_dir = Path(config.run.dir)
    path = Path(config.output) if config.output else run_dir / "report.html"
    page = render(run_dir, Path(config.data.path) if config.data.path else None)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(page, encoding="utf-8", errors="replace")
    temporary.replace(path)
    print(f"{path} ({path.stat().st_size / 2**20:.1f} MB)")
    return 0


def render(run_dir: Path, packed: Path | None = None) -> str:
    """The page of a run as one HTML document.

    Args:
        run_dir: the run directory.
        packed: packed dataset; None: the one in the run's config. The data run is the folder above it.

    Raises:
        ConfigError: `run_dir` is not a directory.
    """
    from plotly.offline import get_plotlyjs

    from launch.report.page import page
    from launch.report.read import read
    from launch.report.sections import all_sections
    from launch.report.summary import key_figures, subtitle

    record = read(run_dir, packed)
    name = (record.config.get("run") or {}).get("name") or run_dir.resolve().name
    return page(name, subtitle(record), key_figures(record), all_sections(record), get_plotlyjs())
