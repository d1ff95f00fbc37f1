"""Run a training under the supervisor, on this machine or on Slurm, restarted until it is done.

Takes every key of `arriero train`, and `cluster`. The run goes on from its newest checkpoint that verifies whenever
it is launched again; `resilience.max_restarts` bounds the restarts without a new checkpoint.

Examples:

    # two processes on this machine
    arriero launch cluster=local cluster.nproc=2 model=debug data.path=data/web/packed run.dir=runs/b train.steps=200

    # two Slurm nodes with eight GPUs each: show the script first, then submit and follow it
    arriero launch cluster=slurm cluster.nodes=2 cluster.nproc=8 dry_run=true \\
        model=8b data.path=data/web/packed run.dir=runs/c

    # stop the submitted job of a run
    arriero launch cluster=slurm cancel=true data.path=data/web/packed run.dir=runs/c
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import ClusterConfig, LaunchRun
from launch.cli import EXIT_CONFIG
from pretrain.advice import block
from pretrain.rundir import RunLock

if TYPE_CHECKING:
    from launch.preflight import Preflight


def run(config: LaunchRun) -> int:
    """Launch, show (`dry_run`) or cancel (`cancel`) a run; returns the exit status."""
    check(config)
    run_dir = Path(config.run.dir).absolute()
    if config.cancel:
        return cancel(config, run_dir)
    print(f"launch: checking {config.model.name} on {config.data.path} for {run_dir}", flush=True)
    if not config.dry_run and (run_dir / "supervisor.lock").exists() and config.cluster.kind == "local":
        # A run that is under way in this folder is what is wrong, whatever else the checks would find.
        lock = RunLock(run_dir / "supervisor.lock")
        lock.acquire()
        lock.release()
    from launch.preflight import preflight

    found = preflight(config, run_dir)
    if config.dry_run:
        return show(config, run_dir, found)
    if found.errors:
        raise ConfigError("\n  ".join(found.errors))
    for text in (found.plan, block(found.warnings)):
        if text and config.cluster.kind == "slurm":  # on this machine the ranks show them
            print(text, flush=True)
    if config.cluster.kind == "slurm":
        from launch import slurm

        if slurm.active_job(run_dir) is None and (refused := slurm.refusal(config, run_dir)[0]):
            raise ConfigError(f"Slurm refuses the job: {refused}")  # before anything is written
        return slurm.launch(config, run_dir)

    from launch import local
    from launch.supervisor import Place, Supervisor

    gpus, grace = local.gpus(config), local.grace(config)
    place = Place(
        command=lambda exits: local.command(config.cluster, run_dir, exits, grace, gpus),
        environment=local.environment(config.cluster, local.for_gpus(run_dir) if gpus else None),
        kill=local.kill,
        grace=grace,
    )
    return Supervisor(config, run_dir, place).run()


def cancel(config: LaunchRun, run_dir: Path) -> int:
    """Cancel the submitted job of a run."""
    if config.cluster.kind != "slurm":
        raise ConfigError(
            "`cancel` is for cluster=slurm; a local run is stopped with Ctrl-C, or SIGTERM to its supervisor"
        )
    from launch import slurm

    return slurm.cancel(run_dir)


def show(config: LaunchRun, run_dir: Path, found: Preflight) -> int:
    """Print what would be run or submitted, or everything that is known to be wrong with it; returns the exit status."""
    errors, shown = list(found.errors), ""
    if config.cluster.kind == "slurm":
        from launch import slurm

        try:
            shown = slurm.show(config, run_dir, slurm.wanted(config))
            refused, start = slurm.refusal(config, run_dir)
            errors += [f"Slurm refuses the job: {refused}"] if refused else []
            shown += f"\n\nSlurm: {start}" if start else "\n"
        except ConfigError as refusal:  # no node has what the job needs; `preflight` found it too
            errors = list(dict.fromkeys([*errors, str(refusal)]))
    else:
        from launch import local

        shown = local.show(config, run_dir)
    # A script that must not be submitted is not shown: it would be taken for one that may.
    for text in (*([] if errors else [shown]), found.plan, block(found.warnings)):
        if text:
            print(text, flush=True)
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return EXIT_CONFIG if errors else 0


def check(config: LaunchRun) -> None:
    """Refuse what makes no launch at all.

    Raises:
        ConfigError: a cluster that is no number of processes, or steps on trial.
    """
    if config.train.dry_run:
        raise ConfigError(
            "`train.dry_run` tries steps in a process group and keeps no records, so no supervisor runs it: start it with "
            "torchrun (or srun) and -m pretrain.train; to see what would be submitted, use dry_run=true"
        )
    cluster = config.cluster
    for key in ("nodes", "nproc", "threads"):
        value = getattr(cluster, key)
        if value is not None and value < 1:
            raise ConfigError(f"`cluster.{key}` must be at least 1, but it is {value}")
    if cluster.kind == "local" and cluster.nodes != 1:
        raise ConfigError(
            f"`cluster.nodes` is {cluster.nodes}, but cluster=local is one machine; use cluster=slurm"
        )


def derive(data: dict[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    """The dial; without one, on Slurm, batch and layout for the ranks of `cluster` where they were not set."""
    from pretrain.sizing import fill

    world_size, accelerator = fill.cluster_of(data)
    if data["cluster"]["kind"] != "slurm" or data.get("cancel"):
        return fill.for_cluster(data, chosen)
    from launch import slurm_request

    cluster = edge.build(ClusterConfig, data["cluster"], "cluster")
    if data.get("accelerator", "auto") == "auto" and accelerator() != "cpu":
        known = slurm_request.accelerator(slurm_request.nodes_of(cluster) or [])
        data = {**data, "accelerator": known or accelerator()}
    if data["model"].get("size") is not None or data.get("budget") is not None:
        return fill.for_cluster(data, chosen)
    try:
        fill.dataset(data)
    except ConfigError:
        return data  # the checks say so, together with what else is wrong
    try:
        return fill.fill_open(data, chosen, world_size, accelerator(), lambda text: print(text, flush=True))
    except ConfigError:
        if data.get("accelerator", "auto") != "auto" or accelerator() != "cpu":
            raise
        return data  # how much memory the nodes have is known to the checks


def main(argv: Sequence[str] | None = None) -> int:
    """`arriero launch`."""
    return edge.main("launch", LaunchRun, run, __doc__, argv, derive=derive)


if __name__ == "__main__":
    from launch.cli import guarded

    sys.exit(guarded(main))
