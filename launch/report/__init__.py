"""`arriero report`: one self-contained HTML page of a run and of the data behind it.

Data funnel with samples of what each rule dropped, mixture, loss curves, throughput, goodput with the ledger's
timeline, held-out loss by source, text samples, configuration. The page holds everything it shows, its charting
library too, and asks nothing of a network. A part that is missing says why.

Examples:
  arriero report run.dir=runs/a                              # runs/a/report.html
  arriero report run.dir=runs/a output=/tmp/a.html
  arriero report run.dir=runs/a data.path=data/web/packed    # where the dataset was moved
  arriero report data.path=data/web                          # a data run alone: data/web/report.html
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import ReportRun
from data_pipeline.packed.files import write_atomically

OF_A_RUN = ("config.yaml", "environment.jsonl", "ledger.jsonl", "metrics.jsonl")
"""Files of a run directory, one of which is there as soon as a run has begun."""


def main(argv: Sequence[str] | None = None) -> int:
    """`arriero report`."""
    return edge.main("report", ReportRun, run, __doc__, argv)


def run(config: ReportRun) -> int:
    """Write the page; returns the exit status."""
    run_dir = Path(config.run.dir) if config.run.dir else None
    data = Path(config.data.path) if config.data.path else None
    if run_dir is None and data is None:
        raise ConfigError("give run.dir=DIR of a run, or data.path=DIR of a data run")
    print(f"report: reading {' and '.join(str(path) for path in (run_dir, data) if path)}", flush=True)
    if run_dir is not None and run_dir.is_dir() and not any((run_dir / name).exists() for name in OF_A_RUN):
        raise ConfigError(
            f"`run.dir={run_dir}` is no run directory: it holds none of {', '.join(OF_A_RUN)}; a data run is "
            "reported on with data.path=DIR"
        )
    if run_dir is not None and (run_dir / "units.json").exists() and not (run_dir / "metrics.jsonl").exists():
        raise ConfigError(f"`run.dir={run_dir}` is a data run; write data.path={run_dir}")
    page = render(run_dir, data)
    home = run_dir or (
        data if data is not None and (data / "funnel.json").exists() else (data or Path()).parent
    )
    path = Path(config.output) if config.output else home / "report.html"
    write_atomically(path, page.encode("utf-8", "replace"))
    print(f"{path} ({path.stat().st_size / 2**20:.1f} MB)")
    return 0


def render(run_dir: Path | None, packed: Path | None = None) -> str:
    """The page of a run as one HTML document.

    Args:
        run_dir: the run directory; None: a page of the data alone.
        packed: packed dataset (the data run is the folder above it), or the directory of a data run; None: the one in
            the run's config.

    Raises:
        ConfigError: `run_dir` is not a directory, or there is nothing to show.
    """
    from plotly.offline import get_plotlyjs

    from launch.report.page import page
    from launch.report.read import read
    from launch.report.sections import all_sections
    from launch.report.summary import key_figures, subtitle

    record = read(run_dir, packed)
    home = run_dir or record.data_dir
    name = (record.config.get("run") or {}).get("name") or (home.resolve().name if home else "data")
    return page(name, subtitle(record), key_figures(record), all_sections(record), get_plotlyjs())
