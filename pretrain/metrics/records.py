"""Everything a run writes down, on rank 0: ledger, metrics, evaluations, trackers, console. Silent on other ranks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from configs.schema.train import TrainRun
from pretrain.distributed import on_rank0
from pretrain.ledger import Ledger
from pretrain.metrics.console import Console
from pretrain.metrics.trackers import Trackers
from pretrain.rundir import JsonlLog, check_metrics, read_evaluations


class Records:
    """The records of one process; opened once the process owns the run directory."""

    def __init__(self, config: TrainRun, is_rank0: bool):
        self.console = Console(is_rank0, config.run.progress)
        self.ledger: Ledger | None = None
        self._config, self._run_dir, self._is_rank0 = config, Path(config.run.dir), is_rank0
        self._metrics: JsonlLog | None = None
        self._evaluations: JsonlLog | None = None
        self._trackers: Trackers | None = None
        self._flushed = time.time()
        self._last_step = 0

    def open(self) -> None:
        """Open the files; on rank 0 alone.

        Raises:
            ConfigError: the run directory's metrics are those of an earlier version.
        """
        check_metrics(self._run_dir)
        self.ledger = Ledger(self._run_dir / "ledger.jsonl")
        self._metrics = JsonlLog(self._run_dir / "metrics.jsonl")
        self._evaluations = JsonlLog(self._run_dir / "eval.jsonl")

    def start_trackers(self, config: TrainRun) -> None:
        """Start the trackers with the resolved configuration; later than the files, because importing them takes a while
        and slows down the rest."""
        if self._is_rank0:
            self._trackers = Trackers(config, self._run_dir, self.console.warn)

    def event(self, name: str, step: int, **fields: object) -> None:
        """Append to the ledger."""
        self._last_step = step
        if self.ledger is not None:
            self.ledger.event(name, step, **fields)

    @property
    def ledger_position(self) -> int:
        """Bytes in the ledger; 0 where there is none."""
        return self.ledger.position if self.ledger is not None else 0

    def steps(self, rows: list[dict[str, Any]], first_n: int, last_n: int) -> None:
        """Take the rows of steps of one batch size, which consumed the sequences [first_n, last_n) of the plan."""
        if not rows or self._metrics is None or self.ledger is None:
            return
        step = self._last_step = rows[-1]["step"]
        self._metrics.write(rows)
        seconds = sum(row["step_seconds"] for row in rows)
        self.ledger.event(
            "step_range",
            step,
            first_step=rows[0]["step"],
            last_step=step,
            first_n=first_n,
            last_n=last_n,
            seconds=seconds,
        )
        total, every = self._config.train.steps, self._config.run.log_every
        for row in rows:
            self.console.step(row, total, row["step"] % every == 0 or row["step"] in (1, total))
            if self._trackers is not None:
                shown = {
                    k: v for k, v in row.items() if k not in ("step", "time_unix_seconds") and v is not None
                }
                self._trackers.log(row["step"], shown)

    def evaluation(self, rows: list[dict[str, Any]], step: int, seconds: float) -> None:
        """Take held-out losses by source."""
        if self._evaluations is None:
            return
        self._evaluations.write([{"step": step, **row} for row in rows])
        loss = {row["source"]: row["nats_per_token"] for row in rows}
        self.event("evaluated", step, loss=loss, seconds=seconds)
        for row in rows:
            self.console.say(
                f"step {step:>7}  held-out {row['source']}: {row['nats_per_token']:.4f} nats a token, "
                f"{row['bits_per_byte']:.4f} bits a byte"
            )
        if self._trackers is not None and rows:
            shown = {
                f"heldout/{row['source']}/{k}": row[k]
                for row in rows
                for k in ("nats_per_token", "bits_per_byte")
            }
            self._trackers.log(step, shown)

    def evaluated(self, step: int) -> bool:
        """Whether the whole held-out split was evaluated at the last step already; collective."""
        return on_rank0(lambda: any(row["step"] == step for row in read_evaluations(self._run_dir)))

    def failed(self, error: str, exit_code: int) -> None:
        """Write down why the run ends, as far as the disk lets; trackers get a moment to close."""
        if self.ledger is not None:
            try:
                self.ledger.event("failed", self._last_step, error=error, exit_code=exit_code)
            except OSError as full:
                self.console.warn(f"the ledger could not take the event `failed`: {full}")
        if self._trackers is not None:
            self._trackers.close(timeout=5.0)

    def close(self) -> None:
        """Close the trackers and the ledger."""
        if self._trackers is not None:
            self._trackers.close()
        if self.ledger is not None:
            self.ledger.close()
