"""What a run asks of Slurm: a node's share that fits its processes, the batch script, and the srun of an attempt."""

from __future__ import annotations

import os
import re
import shutil
import string
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from configs import children
from configs import slurm as asked
from configs.edge import ConfigError
from configs.schema.train import ClusterConfig, LaunchRun
from launch import local

TEMPLATE = Path(__file__).parent / "templates" / "job.sbatch"
WHOLE_NODE = 8
"""GPUs that are taken for a whole node where Slurm cannot be asked."""
CPUS_A_GPU = 8
"""CPUs for each GPU where Slurm cannot be asked: of 64 to 128 CPUs and 8 GPUs a node, what surely is there."""
MEETING = 1800
"""Seconds that nodes wait for each other: thousands read Python and torch from one file system before."""
OURS = (
    "nodes", "ntasks", "ntasks-per-node", "output", "error", "open-mode", "signal", "chdir", "array", "wrap", "parsable",
    "test-only",
)  # fmt: skip
"""Options of sbatch that the supervisor depends on."""
OURS_SRUN = ("nodes", "ntasks", "ntasks-per-node", "kill-on-bad-exit", "wait", "multi-prog")
"""Options of srun that the supervisor depends on."""


@dataclass(frozen=True)
class Node:
    """The smallest node of a partition that has enough GPUs."""

    name: str
    cpus: int
    memory_mb: int
    gpus: int
    gpu: str | None = None
    """Type of its GPUs as the cluster calls it, such as `h100`; None: it has no name for them."""


@dataclass(frozen=True)
class Request:
    """What the job asks for on each node."""

    gpus: int
    cpus: int | None
    """CPUs of the node's task; None: all that the job has there."""
    memory: str | None
    """As sbatch takes it; `0`: all of the node; None: the cluster's default."""
    exclusive: bool
    why: str
    """Where the numbers come from."""
    node: Node | None
    """The node that was asked about; None: Slurm is not on this machine."""


def nodes_of(cluster: ClusterConfig) -> list[Node] | None:
    """Nodes of the partition as sinfo lists them; None: Slurm is not on this machine, or does not answer."""
    return _listed(cluster.options.get("partition", cluster.partition), os.environ.get("SLURM_CONF"))


@lru_cache(maxsize=8)
def _listed(wanted: str | None, conf: str | None) -> list[Node] | None:
    """Asked once for each partition (and configuration of Slurm): a large cluster takes a while to answer."""
    if shutil.which("sinfo") is None:
        return None
    where = [f"--partition={wanted}"] if wanted else []
    command = ["sinfo", "--noheader", "--Node", "--format=%P|%N|%c|%m|%G", *where]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        return None
    rows = [line.split("|") for line in done.stdout.splitlines() if line.count("|") >= 4]
    if not wanted and any(row[0].endswith("*") for row in rows):  # the default partition alone
        rows = [row for row in rows if row[0].endswith("*")]
    return [node_of(*row[1:5]) for row in rows]


def node_of(name: str, cpus: str, memory_mb: str, gres: str) -> Node:
    """A row of sinfo; `gres` is such as `gpu:h100:8(S:0-1),lscratch:100` or `(null)`."""
    found = re.findall(r"gpu:(?:([A-Za-z][\w.-]*):)?(\d+)", gres)
    kinds = {kind for kind, _ in found if kind}
    gpus = sum(int(count) for _, count in found)
    plain = [int(re.match(r"\d+", text)[0]) for text in (cpus, memory_mb)]  # type: ignore[index]
    return Node(name, plain[0], plain[1], gpus, kinds.pop() if len(kinds) == 1 else None)


def accelerator(nodes: list[Node]) -> str | None:
    """The device of the table that the cluster's own names of its GPUs hold; None: it has no name for them."""
    from pretrain.sizing.footprint import ACCELERATORS

    kinds = " ".join(node.gpu or "" for node in nodes).lower()
    return next((name for name in ACCELERATORS if name != "cpu" and name in kinds), None)


def request(cluster: ClusterConfig, device: str, nodes: list[Node] | None) -> Request:
    """What a job asks for on each node: all of it where its processes use all GPUs, else the share that goes with them.

    Args:
        device: of the run; GPUs are asked for unless it is `cpu`.
        nodes: of the partition, from `nodes_of`; None: not known.

    Raises:
        ConfigError: no node of the partition has that many GPUs or CPUs.
    """
    gpus = asked.gpus_per_node(cluster, device)
    if device == "cuda" and gpus < cluster.nproc:
        raise ConfigError(
            f"`cluster.gpus_per_node` is {gpus}, but cluster.nproc={cluster.nproc} processes want one each; leave it out"
        )
    least = cluster.cpus_per_task or (0 if gpus else cluster.nproc * (cluster.threads or 1))
    node = None
    if nodes:
        node = min(
            (n for n in nodes if n.gpus >= gpus and n.cpus >= least),
            key=lambda n: (n.gpus, n.cpus, n.memory_mb),
            default=None,
        )
        if node is None:
            raise ConfigError(_too_much(cluster, device, gpus, least, nodes))
    given = asked.options(cluster.options, "cluster.options", OURS)
    whole = gpus > 0 and (gpus == node.gpus if node else gpus >= WHOLE_NODE)
    exclusive = given["exclusive"] is not None if "exclusive" in given else whole
    if exclusive:
        cpus = cluster.cpus_per_task or (node.cpus if node else None)
        why = "whole nodes"
    elif gpus:
        cpus = cluster.cpus_per_task or (max(1, node.cpus * gpus // node.gpus) if node else CPUS_A_GPU * gpus)
        why = f"{gpus} of {node.gpus} GPUs, with their share" if node else f"{CPUS_A_GPU} CPUs a GPU"
    else:
        cpus = cluster.cpus_per_task or cluster.nproc * (cluster.threads or 1)
        why = f"{cluster.nproc} processes of {cluster.threads or 1} threads"
    memory = cluster.mem
    if memory is None and exclusive:
        memory = "0"
    elif memory is None and node and node.memory_mb > 1024:  # 1: the cluster does not look after memory
        share = gpus / node.gpus if gpus else (cpus or 1) / node.cpus
        memory = f"{int(node.memory_mb * min(1.0, share))}M"
    return Request(gpus, cpus, memory, exclusive, f"{why} of {node.name}" if node else why, node)


def _too_much(cluster: ClusterConfig, device: str, gpus: int, cpus: int, nodes: list[Node]) -> str:
    where = f"partition {cluster.partition}" if cluster.partition else "the default partition"
    most = max(n.gpus for n in nodes)
    if gpus and not most:
        return (
            f"{where} has no GPUs (its nodes: {', '.join(n.name for n in nodes[:4])}…); set cluster.partition to one that "
            "has, or device=cpu"
        )
    if gpus > most:
        return (
            f"cluster.nproc={cluster.nproc} asks for {gpus} GPUs a node, but nodes of {where} have at most {most}; lower "
            "cluster.nproc and raise cluster.nodes, or set cluster.partition"
        )
    return (
        f"{cpus} CPUs a node are asked for (cluster.cpus_per_task, or cluster.nproc × cluster.threads), but nodes of "
        f"{where} have at most {max(n.cpus for n in nodes)}; lower them, or set cluster.partition"
    )


def job_options(config: LaunchRun, run_dir: Path, wanted: Request) -> dict[str, str]:
    """The options of sbatch, those of `cluster.options` included, by their long names."""
    cluster = config.cluster
    own = {
        "job-name": f"arriero-{config.run.name or run_dir.name}",
        "nodes": str(cluster.nodes),
        "ntasks-per-node": "1",
        "cpus-per-task": None if wanted.cpus is None else str(wanted.cpus),
        "gpus-per-node": str(wanted.gpus) if wanted.gpus else None,
        "mem": wanted.memory,
        "exclusive": "" if wanted.exclusive else None,
        "time": cluster.time,
        "partition": cluster.partition,
        "account": cluster.account,
        "exclude": ",".join(cluster.exclude) or None,
        "chdir": str(Path.cwd()),
        "output": f"{run_dir}/logs/slurm.log",
        "open-mode": "append",
        "requeue": "",
        "signal": f"B:USR1@{cluster.signal_before}" if cluster.signal_before else None,
    }
    return asked.merge(own, asked.options(cluster.options, "cluster.options", OURS))


def render(config: LaunchRun, run_dir: Path, wanted: Request) -> str:
    """The batch script of a run."""
    template = string.Template(TEMPLATE.read_text())
    return template.substitute(
        options=asked.directives(job_options(config, run_dir, wanted)),
        prolog=config.cluster.prolog.rstrip("\n"),
        command=children.in_shell("launch.slurm", str(run_dir)),
    )


def step_command(
    cluster: ClusterConfig,
    run_dir: Path,
    exits: Path,
    endpoint: str,
    rendezvous: str,
    cpus: str,
    grace: float,
    gpus: int,
) -> list[str]:
    """The command of one attempt inside the job: `srun` of one torchrun a node, with `cpus` CPUs each; its workers
    get `grace` seconds after one of them has failed, and compute on `gpus` GPUs of a node."""
    own = {"mpi": "none"}  # torchrun needs none, and a site's default may set one up on every node
    if gpus and local.binds(cluster):
        own["cpu-bind"] = "none"  # the task has all ranks of its node, and binds each of them
    more = asked.merge(own, asked.options(cluster.srun_options, "cluster.srun_options", OURS_SRUN))
    # The nodes are known, and none joins or leaves: each is told its number. torchrun's elastic rendezvous keeps the list of
    # all nodes in one value of a store, which every node rewrites when it joins and every few seconds after: with thousands
    # it is all that the first node does. The order of nodes is Slurm's, which follows the network's topology.
    meeting = [
        "--rdzv-backend=static",
        f"--rdzv-endpoint={endpoint}",
        f"--rdzv-id={rendezvous}",
        f"--rdzv-conf=timeout={MEETING}",
    ]
    return [
        "srun",
        f"--nodes={cluster.nodes}",
        f"--ntasks={cluster.nodes}",
        "--ntasks-per-node=1",
        *([] if "cpus-per-task" in more else [f"--cpus-per-task={cpus}"]),
        # The supervisor ends a step whose worker failed, after every node has reported.
        "--kill-on-bad-exit=0",
        "--wait=0",
        *asked.words(more),
        *local.agent(cluster, exits, grace, gpus),
        *local.torchrun(cluster.nproc, cluster.nodes, meeting, run_dir),
    ]


def cpus_of_job(text: str) -> str:
    """CPUs that every node of a job has, from SLURM_JOB_CPUS_PER_NODE such as `72(x2),36`."""
    counts = re.findall(r"(\d+)(?:\(x\d+\))?", text)
    return str(min(int(count) for count in counts)) if counts else "1"
