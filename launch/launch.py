"""Run a training under the supervisor, on this machine or on Slurm, restarted until it is done.

Takes every key of `arriero train`, and `cluster`. The run goes on from its newest checkpoint that verifies whenever
it is launched again; `resilience.max_restarts` bounds the restarts without a new checkpoint.

Examples:

    # two processes on this machine
    arriero launch cluster=local cluster.nproc=2 model=debug data.path=data/web/packed run.dir=runs/b train.steps=200

    # two Slurm nodes with eight GPUs each: show the script first, then submit and follow it
    arriero launch cluster=slurm cluster.nodes=2 cluster.nproc=8 cluster.gpus_per_node=8 dry_run=true \\
        model=8b data.path=data/web/packed run.dir=runs/c

    # stop the submitted job of a run
    arriero launch cluster=slurm cancel=true data.path=data/web/packed run.dir=runs/c
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import LaunchRun


def run(config: LaunchRun) -> int:
    """Launch, show (`dry_run`) or cancel (`cancel`) a run; returns the exit status."""
    check(config)
    run_dir = Path(config.run.dir).absolute()
    if config.cluster.kind == "slurm":
        from launch import slurm

        if config.cancel:
            return slurm.cancel(run_dir)
        if config.dry_run:
            print(slurm.show(config, run_dir))
            return 0
        # On this machine the ranks say it within seconds; a job may wait for days to say it.
        from launch.worker import train_config
        from pretrain.resume import check as check_run

        check_run(train_config(config), config.cluster.nodes * config.cluster.nproc)
        return slurm.launch(config, run_dir)

    from launch import local

    if config.cancel:
        raise ConfigError(
            "`cancel` is for cluster=slurm; a local run is stopped with Ctrl-C, or SIGTERM to its supervisor"
        )
    if config.dry_run:
        print(shlex.join(local.command(config.cluster, run_dir, run_dir / "logs" / "exits")))
        return 0
    from launch.supervisor import Place, Supervisor

    place = Place(
        command=lambda exits: local.command(config.cluster, run_dir, exits),
        environment=local.environment(config.cluster),
        kill=local.kill,
    )
    return Supervisor(config, run_dir, place).run()


def check(config: LaunchRun) -> None:
    """Refuse what cannot work before anything starts.

    Raises:
        ConfigError: no packed dataset at `data.path`, a batch or a cluster that is no number of processes.
    """
    if config.train.dry_run:
        raise ConfigError(
            "`train.dry_run` tries steps in a process group and keeps no records, so no supervisor runs it: start it with "
            "torchrun (or srun) and -m pretrain.train; to see what would be submitted, use dry_run=true"
        )
    cluster = config.cluster
    for key in ("nodes", "nproc", "threads"):
        if getattr(cluster, key) < 1:
            raise ConfigError(f"`cluster.{key}` must be at least 1, but it is {getattr(cluster, key)}")
    if cluster.kind == "local" and cluster.nodes != 1:
        raise ConfigError(
            f"`cluster.nodes` is {cluster.nodes}, but cluster=local is one machine; use cluster=slurm"
        )
    if not config.cancel and not config.dry_run and not (Path(config.data.path) / "manifest.json").is_file():
        raise ConfigError(
            f"`data.path={config.data.path}` holds no manifest.json, so it is no packed dataset; "
            "expected the folder `packed` of an `arriero data` run"
        )


def main(argv: Sequence[str] | None = None) -> int:
    from pretrain.sizing.fill import for_cluster

    return edge.main("launch", LaunchRun, run, __doc__, argv, derive=for_cluster)


if __name__ == "__main__":
    from launch.cli import guarded

    sys.exit(guarded(main))
