"""The process that local workers are forked from: what it imports, and when it starts.

It starts as soon as the configuration is known and imports beside the driver, which plans meanwhile. So this module imports
next to nothing, and neither does `data_pipeline.run` before it calls it.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

from configs import children
from configs.schema.pipeline import DataRun
from data_pipeline import compiling

PRELOAD = [
    "data_pipeline.stage",
    "data_pipeline.collect",
    "data_pipeline.read.warc",
    "data_pipeline.heuristics.annotate",
    "data_pipeline.policy",
    "data_pipeline.pretokenize",
    "data_pipeline.flow",
    "data_pipeline.executors.local",
]
"""Imported once by the process that workers are forked from, instead of once by each worker."""
KERNELS = ["extract"]
"""Folders whose kernels are loaded with them: those of the first stage."""


def number(config: DataRun) -> int:
    """Worker processes of a run on this machine."""
    return config.executor.workers or os.cpu_count() or 1


def start(config: DataRun) -> None:
    """Start the process, if the run has workers on this machine and the kernels that it loads are compiled.

    It begins with nothing else: a run whose stages are all done lets it end with itself.
    """
    if config.executor.kind == "local" and number(config) > 1 and compiling.is_compiled(KERNELS):
        context()


def context() -> ForkServerContext:
    """What processes are made by; starts the process that they are forked from."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([*PRELOAD, *map(compiling.module_name, compiling.needed(KERNELS))])
    with children.safe_path():
        forkserver.ensure_running()
    return made
