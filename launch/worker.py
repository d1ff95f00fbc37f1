"""One rank of a launched run: `python -m launch.worker RUN_DIR [numa=NODES]`, started by torchrun.

Reads the configuration that the supervisor resolved, sends its output to `RUN_DIR/logs/rank-N.log` (one file a rank,
appended over restarts), and calls the trainer. Exit statuses are those of the trainer: 0 done, 75 preempted after a
checkpoint, 2 wrong configuration, 1 failed; and 69 where another rank was lost, which is the cause.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from configs import edge
from configs.schema.train import LaunchRun, TrainRun
from launch import numa
from launch.cli import EXIT_LOST_PEER, guarded
from launch.processes import die_with_parent

_LOST_PEER = re.compile(
    r"(?i)connection (was )?(reset|closed|refused)|broken pipe|remote process exited|ncclRemoteError|timed? ?out waiting"
    r"|timeout caused pair closure|watchdog caught collective operation timeout"
)
"""What Gloo and NCCL say when the rank at the other end is gone, or silent."""


def main(argv: Sequence[str] | None = None) -> int:
    run_dir, *more = sys.argv[1:] if argv is None else argv
    die_with_parent()
    logs = Path(run_dir) / "logs"
    redirect_output(logs / f"rank-{os.environ['RANK']}.log")
    for option in more:  # of the agent: the NUMA node of each local rank's GPU, empty where it is not known
        node = option.removeprefix("numa=").split(",")[int(os.environ["LOCAL_RANK"])]
        print("---", numa.bind(int(node)) if node else "not bound: the NUMA node of its GPU is not known")
    return guarded(
        lambda: told(lambda: train(Path(run_dir)), logs / f"traceback-rank-{os.environ['RANK']}.txt")
    )


def told(call: Callable[[], int], file: Path) -> int:
    """Call; when another rank is gone, say so in one line, because the cause is there and the supervisor names it.

    Args:
        call: trains, and returns the exit status.
        file: where the traceback is appended.
    """
    try:
        return call()
    except RuntimeError as error:  # of torch.distributed, or a subclass
        if not _LOST_PEER.search(str(error)):
            raise
        with file.open("a") as out:
            out.write(traceback.format_exc())
        print(f"This rank ends: it lost another one while they communicated (traceback: {file})", flush=True)
        return EXIT_LOST_PEER


def train(run_dir: Path) -> int:
    """Run the trainer with the configuration of `launch.yaml`."""
    config = train_config(edge.read(run_dir / "launch.yaml", LaunchRun))
    import pretrain.train

    return pretrain.train.run(config, supervised=True)


def train_config(config: LaunchRun) -> TrainRun:
    """The part of a launch that the trainer sees."""
    return TrainRun(**{f.name: getattr(config, f.name) for f in dataclasses.fields(TrainRun)})


def redirect_output(log: Path) -> None:
    """Append stdout and stderr, those of native code included, to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(
        descriptor, f"--- {time.strftime('%F %T')} {socket.gethostname()} process {os.getpid()}\n".encode()
    )
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


if __name__ == "__main__":
    status = main()
    from pretrain.distributed import end  # imported by now, unless the run could not begin

    end(status)
