"""Traces of chosen steps: where their time and memory went, as files for Perfetto and as a short table."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from configs.schema.train import ProfileConfig
from data_pipeline.packed.files import atomic_file
from pretrain.distributed import Process
from pretrain.trace import read_trace, summarise

SNAPSHOT_EVENTS = 200_000
"""Allocations that a CUDA memory snapshot remembers."""


class Profiler:
    """Traces the steps that the configuration names, on the ranks that it names; elsewhere it does nothing.

    A traced step waits for the device at its end, so it takes longer than its neighbours.
    """

    def __init__(self, config: ProfileConfig, run_dir: Path, process: Process, say: Callable[[str], None]):
        self._config, self._run_dir, self._process, self._say = config, run_dir, process, say
        self._here = not config.ranks or process.rank in config.ranks
        self._open = contextlib.ExitStack()
        self._trace: profile | None = None

    def begin(self, step: int) -> None:
        """Start to trace, if this step is due here."""
        written = step in self._config.steps
        measured = bool(self._config.every) and step % self._config.every == 0
        if not self._here or not (written or measured):
            return
        # Else each trace prints `USDT: profiler_start`; read by torch at the first trace, and the user's own value wins.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        on_cuda = self._process.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
        memory = self._config.memory and written
        if on_cuda:
            torch.cuda.synchronize(self._process.device)
            if memory:
                torch.cuda.memory._record_memory_history(max_entries=SNAPSHOT_EVENTS)
        self._trace = profile(activities=activities, profile_memory=memory and not on_cuda)
        self._open.enter_context(self._trace)
        self._open.enter_context(record_function("step"))

    def end(self, step: int) -> float | None:
        """End the trace of this step and write it down; returns its share of communication, None if not traced."""
        trace, self._trace = self._trace, None
        if trace is None:
            return None
        if self._process.device.type == "cuda":
            torch.cuda.synchronize(self._process.device)
        self._open.close()
        written = step in self._config.steps
        rank = self._process.rank
        with tempfile.TemporaryDirectory() as temporary:
            folder = self._run_dir / "profiles" / f"step-{step}" if written else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"rank-{rank}.json.gz"
            # An interrupted run leaves no half trace under the final name; torch wants the ending.
            exported = Path(temporary) / f"exported-{path.name}"
            trace.export_chrome_trace(str(exported))
            with atomic_file(path) as partial:
                shutil.copyfile(exported, partial)
            summary = summarise(read_trace(path))
        if written:
            if self._config.memory:
                self._write_memory(folder, trace)
            text = f"Step {step}, rank {rank}: {summary}"
            name = "summary.txt" if rank == 0 else f"summary-rank-{rank}.txt"
            (folder / name).write_text(text + "\n")
            self._say(f"{text}\nTrace for ui.perfetto.dev: {path}")
        return summary.communication

    def _write_memory(self, folder: Path, trace: profile) -> None:
        rank = self._process.rank
        if self._process.device.type == "cuda":
            torch.cuda.memory._dump_snapshot(str(folder / f"memory-rank-{rank}.pickle"))
            torch.cuda.memory._record_memory_history(enabled=None)
        else:
            table = trace.key_averages().table(sort_by="self_cpu_memory_usage", row_limit=40)
            (folder / f"memory-rank-{rank}.txt").write_text(table + "\n")
