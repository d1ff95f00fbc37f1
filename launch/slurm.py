"""A run on Slurm: the batch script, its submission, following and cancelling; and the supervisor inside the job.

Outside the job, `launch` submits at most one job for a run directory (`job.json` holds its id) and follows it. Inside,
`python -m launch.slurm RUN_DIR` is the batch process: the supervisor, whose attempts are `srun` steps of one torchrun
a node. Slurm requeues the job after a node was lost; `--signal=B:USR1@N` before the time limit makes the supervisor
checkpoint and requeue.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from configs import edge
from configs.schema.train import LaunchRun
from data_pipeline.packed.files import write_atomically
from launch import local
from launch.processes import free_port
from launch.slurm_request import Request, cpus_of_job, nodes_of, render, request, step_command
from launch.supervisor import Place, Supervisor, Tail, newest_committed, say
from pretrain.ledger import Ledger, read_ledger
from pretrain.rundir import RunLock

POLL = 2.0  # seconds between looks at the queue
QUEUE_PATIENCE = 300.0  # seconds that the controller may not answer before following ends
ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
)


def wanted(config: LaunchRun) -> Request:
    """What the job asks for on each node, after a look at the cluster where it is here.

    Raises:
        ConfigError: no node has that much.
    """
    return request(config.cluster, config.device, nodes_of(config.cluster))


def show(config: LaunchRun, run_dir: Path, asks: Request) -> str:
    """What is submitted: the script, and the command of an attempt."""
    port = str(config.cluster.port or "FREE_PORT")
    exits = run_dir / "logs" / "exits" / "ATTEMPT"
    command = step_command(
        config.cluster,
        run_dir,
        exits,
        f"FIRST_NODE:{port}",
        "${SLURM_JOB_ID}-${SLURM_RESTART_COUNT:-0}-ATTEMPT",
        str(asks.cpus or "ALL_OF_THE_NODE"),
        local.grace(config),
        local.gpus(config),
    )
    nproc, threads = config.cluster.nproc, config.cluster.threads
    share = str(max(1, asks.cpus // nproc)) if asks.cpus else f"ALL_OF_THE_NODE/{nproc}"
    set_here = {"OMP_NUM_THREADS": share if threads is None else str(threads)}
    set_here |= local.for_gpus(run_dir) if local.on_gpus(config) else {}
    variables = "".join(f"# {name}={value}\n" for name, value in set_here.items())
    return f"{render(config, run_dir, asks)}\n# each attempt of the supervisor:\n{variables}# {' '.join(command)}"


def refusal(config: LaunchRun, run_dir: Path) -> tuple[str | None, str]:
    """Whether Slurm would refuse the job, without submitting it.

    Returns:
        (its message; None: it takes the job, or there is no Slurm here), and what it says of the start.
    """
    if shutil.which("sbatch") is None or nodes_of(config.cluster) is None:
        return None, "there is no Slurm on this machine, so nobody was asked whether the job could start"
    script = render(config, run_dir, wanted(config))
    done = subprocess.run(
        ["sbatch", "--test-only"], input=script, capture_output=True, text=True, check=False, timeout=60
    )
    said = (done.stderr.strip() or done.stdout.strip()).removeprefix("sbatch: ")
    return (said, "") if done.returncode else (None, said)


def launch(config: LaunchRun, run_dir: Path) -> int:
    """Submit the job of a run, or find the one that is queued or running, and follow it; returns the exit status."""
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    log = Tail(run_dir / "logs" / "slurm.log")
    lock = RunLock(run_dir / "submit.lock")
    lock.acquire()
    try:
        job = active_job(run_dir)
        if job is not None:
            say(f"job {job} of {run_dir} is queued or running: following it (nothing is submitted)")
        else:
            job = submit(config, run_dir)
            say(f"submitted job {job}; its log is {run_dir}/logs/slurm.log")
    finally:
        lock.release()
    return follow(job, run_dir, log) if config.cluster.follow else 0


def submit(config: LaunchRun, run_dir: Path) -> str:
    """Write the configuration and the batch script, submit it, and store the job's id in `job.json`."""
    write_atomically(run_dir / "launch.yaml", edge.to_yaml(config))
    script = run_dir / "job.sbatch"
    write_atomically(script, render(config, run_dir, wanted(config)))
    job = slurm("sbatch", "--parsable", str(script)).split(";")[0].strip()
    # A job whose id is lost would be submitted twice.
    record = json.dumps({"job_id": job, "submitted": time.time()})
    write_atomically(run_dir / "job.json", record, durable=True)
    return job


def active_job(run_dir: Path) -> str | None:
    """Id of the run's job while it is queued or running."""
    record = run_dir / "job.json"
    if not record.exists():
        return None
    job = str(json.loads(record.read_text())["job_id"])
    state = job_state(job)
    return None if state is None or state[0] in ENDED else job


def job_state(job: str) -> tuple[str, str] | None:
    """State and nodes (or the reason for waiting) of a job; None: Slurm no longer knows it.

    Raises:
        RuntimeError: the controller does not answer.
    """
    try:
        text = slurm("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T|%R").strip()
    except RuntimeError as error:
        if "Invalid job id" in str(error):
            return None
        raise
    if not text:
        return None
    state, _, where = text.splitlines()[0].partition("|")
    return state, where


def follow(job: str, run_dir: Path, log: Tail) -> int:
    """Show the job's log and changes of its state until it ends. Ctrl-C leaves the job alone."""
    shown, ended, answered = "", 0, time.monotonic()
    try:
        while ended < 2:  # seen twice: a job that Slurm requeues shows the state of its loss for a moment
            log.show()
            try:
                state = job_state(job)
                answered = time.monotonic()
            except RuntimeError as error:
                if time.monotonic() - answered > QUEUE_PATIENCE:
                    raise RuntimeError(
                        f"{error} (job {job} may still run; the same command follows it)"
                    ) from None
                time.sleep(POLL)
                continue
            text = "is gone from the queue" if state is None else f"{state[0]} {state[1]}".strip()
            if text != shown:
                say(f"job {job}: {text}")
                shown = text
            ended = ended + 1 if state is None or state[0] in ENDED else 0
            time.sleep(POLL)
    except KeyboardInterrupt:
        say(f"job {job} goes on; the same command follows it again, with cancel=true it ends")
        return 130
    log.show()
    events = read_ledger(run_dir)
    if events and events[-1]["event"] == "finished":
        return 0
    last = f"; the last event is `{events[-1]['event']}`" if events else ""
    print(
        f"error: job {job} ended before the run was finished ({shown}){last}; see {run_dir}/logs",
        file=sys.stderr,
    )
    return 1


def cancel(run_dir: Path, patience: float | None = None) -> int:
    """Cancel the run's job; a running one gets `patience` seconds (its signal_before) to checkpoint first."""
    job = active_job(run_dir)
    if job is None:
        print(f"no job of {run_dir} is queued or running")
        return 0
    if patience is None:
        patience = float(edge.read(run_dir / "launch.yaml", LaunchRun).cluster.signal_before)
    state = job_state(job)
    if state is not None and state[0] == "RUNNING":
        say(f"job {job}: asked to checkpoint and stop, at most {patience:.0f} s")
        slurm("scancel", "--batch", "--signal=TERM", job)
        end = time.monotonic() + patience
        while active_job(run_dir) is not None and time.monotonic() < end:
            time.sleep(POLL / 4)
    if active_job(run_dir) is not None:
        slurm("scancel", job)
        Ledger(run_dir / "ledger.jsonl").event(
            "stopped", step=newest_committed(run_dir), reason=f"job {job} cancelled"
        )
    say(f"job {job} is cancelled; the newest checkpoint is step {newest_committed(run_dir)}")
    return 0


def slurm(*command: str) -> str:
    """Output of a Slurm command.

    Raises:
        RuntimeError: it is not installed, or failed; with its own message.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        raise RuntimeError(
            f"`{command[0]}` is not on this machine; run this on a login node of the cluster, or use cluster=local"
        ) from None
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"`{shlex.join(command)}` gave no answer within 60 s") from None
    if done.returncode:
        raise RuntimeError(f"`{shlex.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def supervise(run_dir: Path) -> int:
    """The batch process: supervise the run inside this allocation."""
    config = edge.read(run_dir / "launch.yaml", LaunchRun)
    job, restarts = os.environ["SLURM_JOB_ID"], int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    node = os.environ["SLURMD_NODENAME"]  # the batch host is the first node of the allocation
    cpus = cpus_of_job(os.environ.get("SLURM_JOB_CPUS_PER_NODE", ""))
    say(f"job {job}, restart {restarts}, on {os.environ['SLURM_JOB_NODELIST']}")

    grace, gpus = local.grace(config), local.gpus(config)

    def command(exits: Path) -> list[str]:
        port = config.cluster.port or free_port()
        rendezvous = f"{job}-{restarts}-{exits.name}"
        return step_command(config.cluster, run_dir, exits, f"{node}:{port}", rendezvous, cpus, grace, gpus)

    def kill(process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            for step in slurm("squeue", "--noheader", "--steps", f"--jobs={job}", "--format=%i").split():
                if step.rpartition(".")[2].isdigit():  # not the batch step: that is this process
                    with contextlib.suppress(RuntimeError):  # it ended by itself
                        slurm("scancel", "--signal=KILL", step)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        local.kill(process)

    place = Place(
        command=command,
        environment=local.environment(config.cluster, local.for_gpus(run_dir) if gpus else None),
        kill=kill,
        grace=grace,
        requeue=lambda hosts: requeue(job, hosts),
    )
    return Supervisor(config, run_dir, place, requeued=restarts > 0).run()


def requeue(job: str, hosts: Collection[str]) -> None:
    """Put this job back into the queue, to run on none of these hosts; Slurm then ends this process.

    A job that waits may be changed, one that runs may not: the hosts are excluded in the seconds that it ends in. Slurm then
    sends SIGTERM to all processes of the job, and what these commands inherit is to ignore it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    told = re.search(r"ExcNodeList=(\S+)", slurm("scontrol", "show", "job", job)) if hosts else None
    before = [] if told is None or told[1] == "(null)" else [told[1]]
    print(slurm("scontrol", "requeue", job), end="")
    if hosts:
        print(
            slurm("scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join([*before, *hosts])}"), end=""
        )


def main(argv: Sequence[str] | None = None) -> int:
    (run_dir,) = sys.argv[1:] if argv is None else argv
    return supervise(Path(run_dir))


if __name__ == "__main__":
    from launch.cli import guarded

    sys.exit(guarded(main))
