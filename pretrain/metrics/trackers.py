"""wandb, trackio and TensorBoard: views of the metrics, continued under the same run id after a restart.

They live on a thread of their own, because starting wandb takes seconds and a slow disk or server must not hold a step
up; and nothing that goes wrong in them ends a run, whose truth is the run directory.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from configs import edge
from configs.schema.train import TrainRun
from data_pipeline.packed.files import write_atomically

INSTALL = {"wandb": "wandb", "trackio": "trackio", "tensorboard": "tensorboard"}
GIVE_UP_AFTER = 20
"""Failed calls in a row after which a tracker is left alone."""


@dataclass(frozen=True)
class Tracker:
    """One open tracker."""

    name: str
    log: Callable[[int, dict[str, float]], None]
    close: Callable[[], None]


class Trackers:
    """Sends rows to the trackers of the configuration; used on rank 0 alone."""

    def __init__(self, config: TrainRun, run_dir: Path, warn: Callable[[str], None]):
        self.failures: dict[str, int] = {}
        self._warn = warn
        self._config, self._run_dir = config, run_dir
        wanted = [name for name in INSTALL if getattr(config.tracker, name)]
        if config.tracker.wandb_mode == "disabled" and "wandb" in wanted:
            wanted.remove("wandb")
        self._wanted = [name for name in wanted if self._installed(name)]
        self._rows: queue.Queue[tuple[int, dict[str, float]] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        if self._wanted:
            self._thread = threading.Thread(target=self._run, name="trackers", daemon=True)
            self._thread.start()

    def log(self, step: int, row: dict[str, float]) -> None:
        """Hand over numbers of a step; returns at once."""
        if self._thread is not None:
            self._rows.put((step, row))

    def close(self, timeout: float = 30.0) -> None:
        """Send what is left and close; gives up after `timeout` seconds."""
        if self._thread is None:
            return
        self._rows.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._warn(f"trackers did not close within {timeout:.0f} s; the run directory has all metrics")

    def _installed(self, name: str) -> bool:
        if importlib.util.find_spec(INSTALL[name]) is not None:
            return True
        self._warn(
            f"tracker.{name}=true, but the package `{INSTALL[name]}` is not installed: nothing goes there "
            "(pip install 'arriero[track]', or tracker=none)"
        )
        return False

    def _run(self) -> None:
        trackers = []
        for name in self._wanted:
            opened = self._try(name, partial(OPEN[name], self._config, self._run_dir))
            if opened is not None:
                trackers.append(opened)
        while (item := self._rows.get()) is not None:
            step, row = item
            for tracker in trackers:
                if self.failures.get(tracker.name, 0) < GIVE_UP_AFTER:
                    self._try(tracker.name, partial(tracker.log, step, row))
        for tracker in trackers:
            self._try(tracker.name, tracker.close)

    def _try(self, name: str, call: Callable[[], Any]) -> Any:
        """Call into a tracker; whatever it raises is counted, and told the first time."""
        try:
            result = call()
        # A library at the end of a network may raise anything, and none of it is worth a training run.
        except Exception as error:
            self.failures[name] = self.failures.get(name, 0) + 1
            if self.failures[name] == 1:
                self._warn(f"tracker {name} failed ({type(error).__name__}: {error}); training goes on")
            return None
        self.failures.pop(name, None)
        return result


def run_id(run_dir: Path) -> str:
    """The id under which the trackers know this run, made once and kept in `tracker_ids.json`."""
    path = run_dir / "tracker_ids.json"
    if path.exists():
        return str(orjson.loads(path.read_bytes())["run_id"])
    made = uuid.uuid4().hex[:12]
    write_atomically(path, orjson.dumps({"run_id": made}))
    return made


def _open_wandb(config: TrainRun, run_dir: Path) -> Tracker:
    # wandb sends its own crashes to its makers otherwise, offline runs included; it is read when wandb is imported.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    (run_dir / "logs").mkdir(exist_ok=True)
    run = wandb.init(
        project=config.tracker.project,
        name=config.run.name or run_dir.name,
        id=run_id(run_dir),
        resume="allow" if config.tracker.wandb_mode == "online" else None,
        mode=config.tracker.wandb_mode,
        dir=str(run_dir / "logs"),
        config=edge.to_dict(config),
        # Our signals and our console stay ours.
        settings=wandb.Settings(console="off", silent=True),
    )
    # Steps may repeat after a rewind, which wandb's own counter refuses.
    run.define_metric("*", step_metric="step")
    return Tracker("wandb", lambda step, row: run.log({"step": step, **row}), run.finish)


def _open_trackio(config: TrainRun, run_dir: Path) -> Tracker:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # trackio reads its folder when it is imported; without one it writes to the user's cache.
    os.environ.setdefault("TRACKIO_DIR", str(run_dir.absolute() / "trackio"))
    import trackio
    import trackio.run
    import trackio.utils

    for module in (trackio, trackio.run, trackio.utils):
        # Our console stays ours; redirecting stdout would catch the lines of the other threads too.
        vars(module)["print"] = _say_nothing
    trackio.init(
        project=config.tracker.project,
        name=f"{config.run.name or run_dir.name}-{run_id(run_dir)}",
        config=edge.to_dict(config),
        resume="allow",
        auto_log_cpu=False,
        auto_log_gpu=False,
    )
    return Tracker("trackio", lambda step, row: trackio.log(row, step=step), trackio.finish)


def _say_nothing(*_: object, **__: object) -> None:
    """In the place of `print`."""


def _open_tensorboard(config: TrainRun, run_dir: Path) -> Tracker:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run_dir / "tensorboard"))

    def log(step: int, row: dict[str, float]) -> None:
        for key, value in row.items():
            writer.add_scalar(key, value, step)

    return Tracker("tensorboard", log, writer.close)


OPEN: dict[str, Callable[[TrainRun, Path], Tracker]] = {
    "wandb": _open_wandb,
    "trackio": _open_trackio,
    "tensorboard": _open_tensorboard,
}
