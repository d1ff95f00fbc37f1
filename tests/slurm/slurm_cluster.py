"""A real Slurm cluster on one machine, for the tests: a controller and several nodes, without systemd.

Each node is a `slurmd` in PID, mount and host-name namespaces of its own, so that powering a node off
(`Cluster.power_off`) takes its daemon and every process of its jobs with it, at once, as losing power does. Also by
hand: `python tests/slurm/slurm_cluster.py DIR` starts one, prints its SLURM_CONF, and stops it at Ctrl-C or SIGTERM.

Resource confinement by cgroups is left out (`proctrack/linuxproc`, `task/none`): containers rarely allow it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from launch.processes import free_port

PATIENCE = 900.0
"""Seconds for what takes a few on an idle machine."""

PROGRAMS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "squeue",
    "scancel",
    "scontrol",
    "unshare",
    "setpriv",
)

# Daemons die with the process that started them, however it ends.
BOUND = ("setpriv", "--pdeathsig", "KILL")

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket,cred_expire=15
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
JobRequeue=1
KillWait=5
SlurmdTimeout=20
SlurmctldTimeout=60
MessageTimeout=60
TCPTimeout=10
BatchStartTimeout=300
MinJobAge=600
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,batch_sched_delay=0,sched_min_interval=0,sched_interval=1,requeue_setup_env_fail
PartitionName=main Nodes={nodes} Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
"""
LARGE = """\
TreeWidth=4096
PrivateData=cloud
SuspendTime=INFINITE
SuspendProgram=/bin/true
ResumeProgram=/bin/true
NodeName=gpu[0001-2048] NodeAddr=127.0.0.1 CPUs=192 Sockets=2 CoresPerSocket=48 ThreadsPerCore=2 RealMemory=2000000 \
Gres=gpu:h200:8 State=CLOUD
PartitionName=gpu Nodes=gpu[0001-2048] MaxTime=INFINITE State=UP
"""
"""Nodes that are to be had, as far as the controller knows, for what it says of large jobs; nothing is started on them."""


def missing() -> str | None:
    """Why no cluster can be started here; None: it can."""
    if os.geteuid() != 0:
        return "a Slurm cluster needs root"
    absent = [p for p in PROGRAMS if shutil.which(p) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)} missing); run tests/slurm/install.sh"
    probe = subprocess.run(
        ["unshare", "--mount", "--pid", "--uts", "--fork", "true"], capture_output=True, text=True
    )
    return None if probe.returncode == 0 else f"namespaces are not allowed here: {probe.stderr.strip()}"


class Cluster:
    """Nodes `node1` … `nodeN` with 4 CPUs and 2 GPUs each (as far as Slurm knows), partition `main`; and those of LARGE.

    The GPUs are character devices that no CUDA looks at: what Slurm hands out is real, what it hands out is not.
    """

    def __init__(self, root: Path, nodes: int = 4, cpus: int = 4, gpus: int = 2):
        self.root, self.cpus, self.gpus = root, cpus, gpus
        self.names = [f"node{i}" for i in range(1, nodes + 1)]
        self.config = root / "slurm.conf"
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, patience: float = PATIENCE) -> None:
        """Start everything; returns when all nodes are idle."""
        for folder in ("munge", "state", "spool", "log"):
            (self.root / folder).mkdir(parents=True)
        self.root.chmod(0o755)
        (self.root / "munge" / "key").write_bytes(os.urandom(128))
        (self.root / "munge" / "key").chmod(0o600)
        self._write_config()
        munge = self.root / "munge"
        self._daemon(
            "munged", "--foreground", "--force", f"--key-file={munge}/key", f"--socket={munge}/socket",
            f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed", "--num-threads=2",
        )  # fmt: skip
        _wait(lambda: (munge / "socket").exists(), patience, "munged opened no socket")
        self._daemon("slurmctld", "-D", "-c", "-f", str(self.config))
        for name in self.names:
            self.power_on(name)
        _wait(
            lambda: self.states().count("idle") == len(self.names),
            patience,
            f"nodes are not idle; logs: {self.root}/log",
        )

    def stop(self) -> None:
        """Power everything off."""
        for name in list(self._nodes):
            self.power_off(name)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(5)
            daemon.kill()
            daemon.wait()

    def power_on(self, name: str) -> None:
        """Start a node."""
        (self.root / "spool" / name).mkdir(parents=True, exist_ok=True)
        boot = (
            f"hostname {name} && mount --bind {self.root}/hosts /etc/hosts && "
            f"exec slurmd -D -N {name} -f {self.config}"
        )
        self._nodes[name] = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--uts",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                boot,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def power_off(self, name: str) -> None:
        """Cut a node's power: its daemon and all processes of its jobs die at once."""
        node = self._nodes.pop(name)
        node.send_signal(
            signal.SIGKILL
        )  # --kill-child takes the namespace's init, and so the whole namespace, along
        node.wait()

    def states(self) -> list[str]:
        """State of each node, as sinfo says it."""
        done = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--partition=main", "--format=%T"],
            env={**os.environ, "SLURM_CONF": str(self.config)},
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    def _write_config(self) -> None:
        ports = set[int]()
        while len(ports) < len(self.names) + 1:
            ports.add(free_port())
        text = CONFIG.format(
            root=self.root, port=ports.pop(), host=socket.gethostname(), nodes=",".join(self.names)
        )
        hosts = Path("/etc/hosts").read_text()
        for name in self.names:
            text += (
                f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={ports.pop()} CPUs={self.cpus} "
                f"CoresPerSocket={self.cpus} RealMemory=64000 Gres=gpu:h100:{self.gpus} State=UNKNOWN\n"
            )
            hosts += f"127.0.0.1 {name}\n"
        self.config.write_text(text + LARGE)
        devices = []
        for number in range(self.gpus):
            devices.append(self.root / f"gpu{number}")
            os.mknod(
                devices[-1], 0o666 | stat.S_IFCHR, os.makedev(1, 3)
            )  # as /dev/null; a plain file is refused
        (self.root / "gres.conf").write_text(
            f"NodeName={','.join(self.names)} Name=gpu Type=h100 File={self.root}/gpu[0-{self.gpus - 1}]\n"
            if devices
            else ""
        )
        (self.root / "hosts").write_text(hosts)

    def _daemon(self, *command: str) -> None:
        log = (self.root / "log" / f"{command[0]}.out").open("wb")
        self._daemons.append(
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        )
        log.close()


@contextlib.contextmanager
def running(root: Path, nodes: int = 4) -> Iterator[Cluster]:
    """A cluster for the time of the block, with SLURM_CONF set in this process."""
    cluster = Cluster(root, nodes)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(cluster.config)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


def _wait(condition: object, patience: float, otherwise: str) -> None:
    assert callable(condition)
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {patience:.0f} s: {otherwise}")
        time.sleep(0.1)


if __name__ == "__main__":
    if (reason := missing()) is not None:
        sys.exit(f"error: {reason}")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with running(Path(sys.argv[1]).absolute()) as started:
        print(f"export SLURM_CONF={started.config}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
