"""GPUs of a node: their health as nvidia-smi and the kernel tell it, and the NUMA nodes that ranks are bound to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.schema.train import ClusterConfig
from launch import gpus, local, numa
from launch.cli import EXIT_BAD_NODE
from launch.gpus import Gpu
from launch.processes import free_port
from launch.supervisor import classify

ROOT = Path(__file__).parents[2]
ADDRESSES = ("0000:19:00.0", "0000:3b:00.0", "0000:9b:00.0", "0000:bb:00.0")
HEALTHY = """
<gpu id="0000{address}">
  <product_name>NVIDIA H100 80GB HBM3</product_name>
  <uuid>GPU-{number}a</uuid>
  <fabric><state>Completed</state><status>Success</status></fabric>
  <gpu_reset_status><reset_required>No</reset_required></gpu_reset_status>
  <gpu_recovery_action>None</gpu_recovery_action>
  <clocks_event_reasons>
    <clocks_event_reason_sw_power_cap>Active</clocks_event_reason_sw_power_cap>
    <clocks_event_reason_hw_thermal_slowdown>Not Active</clocks_event_reason_hw_thermal_slowdown>
    <clocks_event_reason_hw_power_brake_slowdown>Not Active</clocks_event_reason_hw_power_brake_slowdown>
  </clocks_event_reasons>
  <ecc_errors>
    <volatile>
      <sram_correctable>3</sram_correctable>
      <sram_uncorrectable_parity>0</sram_uncorrectable_parity>
      <dram_uncorrectable>0</dram_uncorrectable>
    </volatile>
    <aggregate>
      <dram_uncorrectable>2</dram_uncorrectable><sram_threshold_exceeded>No</sram_threshold_exceeded>
    </aggregate>
  </ecc_errors>
  <retired_pages><pending_retirement>N/A</pending_retirement></retired_pages>
  <remapped_rows>
    <remapped_row_pending>No</remapped_row_pending><remapped_row_failure>No</remapped_row_failure>
  </remapped_rows>
</gpu>"""
OLD = """
<gpu id="00000000:19:00.0"><uuid>GPU-0a</uuid>
  <clocks_throttle_reasons>
    <clocks_throttle_reason_hw_thermal_slowdown>Active</clocks_throttle_reason_hw_thermal_slowdown>
  </clocks_throttle_reasons>
  <ecc_errors><volatile><double_bit><total>N/A</total></double_bit></volatile></ecc_errors>
</gpu>"""
"""Of a driver before 535 and a card without most of it."""


def log(*gpus: str) -> str:
    return f'<?xml version="1.0" ?><nvidia_smi_log>{"".join(gpus)}</nvidia_smi_log>'


def healthy(count: int = 4) -> list[str]:
    return [HEALTHY.format(address=a, number=n) for n, a in enumerate(ADDRESSES[:count])]


def smi(folder: Path, text: str, status: int = 0) -> dict[str, str]:
    """An environment in which nvidia-smi says this."""
    folder.mkdir(exist_ok=True)
    (folder / "answer").write_text(text)
    program = folder / "nvidia-smi"
    program.write_text(f'#!/bin/sh\n[ "$*" = "-q -x" ] && cat {folder}/answer\nexit {status}\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def machine(root: Path, cores: dict[int, str], nodes: dict[str, int]) -> Path:
    """A tree of sysfs: cores of NUMA nodes, and the node of each PCI address."""
    for node, text in cores.items():
        folder = root / f"sys/devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(f"{text}\n")
    for address, node in nodes.items():
        folder = root / f"sys/bus/pci/devices/{address}"
        folder.mkdir(parents=True)
        (folder / "numa_node").write_text(f"{node}\n")
    return root


def test_healthy_gpus_have_no_problems() -> None:
    read = gpus.read(log(*reversed(healthy())))
    assert [(gpu.address, gpu.uuid, gpu.problems) for gpu in read] == [
        (address, f"GPU-{n}a", ()) for n, address in enumerate(ADDRESSES)
    ]


@pytest.mark.parametrize(
    ("well", "ill", "says"),
    [
        ("<gpu_recovery_action>None", "<gpu_recovery_action>Drain and Reset", "asks for an action: Drain and Reset"),
        ("<reset_required>No", "<reset_required>Yes", "must be reset"),
        ("<dram_uncorrectable>0", "<dram_uncorrectable>5", "5 uncorrectable ECC errors"),
        ("<sram_threshold_exceeded>No", "<sram_threshold_exceeded>Yes", "SRAM"),
        ("<pending_retirement>N/A", "<pending_retirement>Yes", "pages wait"),
        ("<remapped_row_pending>No", "<remapped_row_pending>Yes", "rows wait"),
        ("<remapped_row_failure>No", "<remapped_row_failure>Yes", "must be replaced"),
        ("thermal_slowdown>Not Active", "thermal_slowdown>Active", "because of heat"),
        ("brake_slowdown>Not Active", "brake_slowdown>Active", "the power supply"),
        ("<state>Completed", "<state>In Progress", "NVLink's fabric"),
    ],
)  # fmt: skip
def test_what_ails_a_gpu_is_named(well: str, ill: str, says: str) -> None:
    assert well in HEALTHY
    (gpu,) = gpus.read(log(healthy(1)[0].replace(well, ill)))
    assert len(gpu.problems) == 1 and says in gpu.problems[0]


def test_an_older_driver_is_understood() -> None:
    (gpu,) = gpus.read(log(OLD))
    assert gpu.address == ADDRESSES[0] and gpu.problems == ("its clocks are lowered because of heat",)


def test_xids_of_the_device_count_while_they_are_fresh() -> None:
    lines = (
        "6,1,100000000,-;NVRM: Xid (PCI:0000:19:00): 79, pid=1, GPU has fallen off the bus.\n"  # 1,900 s ago
        "6,2,1990000000,-;NVRM: Xid (PCI:0000:3B:00): 31, pid=1, name=python, MMU Fault\n"  # a program's
        "6,3,1990000000,-;NVRM: Xid (PCI:0000:e1:00): 79, pid=1\n"  # of another job
        "4,4,1990000000,-,caller=T9;NVRM: Xid (PCI:0000:3B:00): 74, pid=1, NVLink\n SUBSYSTEM=pci\n"
    )
    assert gpus.recent_xids(lines, set(ADDRESSES), 2000.0) == ["GPU 0000:3b:00: Xid 74 (NVLink error)"]


def test_the_kernels_log_is_read_to_its_end(tmp_path: Path) -> None:
    assert gpus.kernel_log(tmp_path) == ""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kmsg").write_text("6,1,1,-;one\n" * 10000)
    assert gpus.kernel_log(tmp_path).count("one") == 10000
    gpus.kernel_log()  # the machine's own, which may forbid it; it must end


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        (log(*healthy(3)), 0, "3 of 4 GPUs answer"),
        ("Unable to determine the device handle for GPU0000:19:00.0: GPU is lost.", 15, "GPU is lost"),
        (log(*healthy()).replace("row_failure>No", "row_failure>Yes", 1), 0, "GPU 0000:19:00.0: rows"),
    ],
)
def test_nothing_is_started_on_a_bad_node(tmp_path: Path, answer: str, status: int, says: str) -> None:
    """Through the agent, as an attempt begins; and what the supervisor makes of it."""
    environment = smi(tmp_path / "bin", answer, status) | {"SLURM_NODEID": "3", "SLURMD_NODENAME": "gpu0004"}
    command = local.agent(ClusterConfig(), tmp_path, 1.0, gpus=4)
    assert "--check" in command and "--check" not in local.agent(
        ClusterConfig(gpu_health=False), tmp_path, 1.0, 4
    )
    done = subprocess.run([*command, "--no-such-option"], env=environment, capture_output=True, text=True)
    assert done.returncode == EXIT_BAD_NODE, done.stderr
    failures = json.loads((tmp_path / "node-3.json").read_text())["failures"]
    echo = {"rank": 0, "exit_code": -6, "host": "gpu0001"}
    outcome = classify(1, [echo, *failures])
    assert outcome.kind == "bad node" and says in str(outcome) and list(outcome.bad_nodes) == ["gpu0004"]


def test_on_healthy_gpus_each_worker_learns_the_numa_nodes(tmp_path: Path) -> None:
    """Also across nodes that are told their numbers instead of agreeing on them."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, sys, pathlib\n"
        "pathlib.Path(sys.argv[1], 'rank-' + os.environ['RANK']).write_text(' '.join(sys.argv[2:]))\n"
    )
    environment = smi(tmp_path / "bin", log(*healthy()))
    meeting = ["--rdzv-backend=static", f"--rdzv-endpoint=localhost:{free_port()}", "--rdzv-id=test"]
    command = [
        *local.agent(ClusterConfig(), tmp_path, 1.0, gpus=4),
        *("--nnodes=2", "--nproc-per-node=2", *meeting, str(script), str(tmp_path)),
    ]
    nodes = [
        subprocess.Popen(command, env={**environment, "SLURM_NODEID": str(node)}, stderr=subprocess.PIPE)
        for node in (1, 0)
    ]
    for node in nodes:
        _, errors = node.communicate()
        assert node.returncode == 0, errors.decode()
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in range(4)] == ["numa=,,,"] * 4


def test_without_nvidia_smi_nothing_is_known_and_nothing_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.look(8) == gpus.Node()


def test_ranks_are_given_the_numa_nodes_of_their_gpus(tmp_path: Path) -> None:
    root = machine(tmp_path, {}, dict(zip(ADDRESSES, (0, 0, 1, -1), strict=True)))
    found = gpus.read(log(*healthy()))
    assert numa.numa_nodes(found, 4, {}, root) == [0, 0, 1, None]
    # As CUDA counts them: in the order that the user, or Slurm, has given.
    assert numa.numa_nodes(found, 3, {"CUDA_VISIBLE_DEVICES": "2,GPU-0a"}, root) == [1, 0, None]
    assert numa.numa_nodes(found, 1, {"CUDA_VISIBLE_DEVICES": "MIG-7"}, root) == [None]
    assert numa.numa_nodes([Gpu("GPU-x", "0000:ff:00.0")], 1, {}, root) == [None]


BIND = """
import ctypes, os, sys, threading
from pathlib import Path
from launch import numa
stop = threading.Event()
other = threading.Thread(target=stop.wait)
other.start()
said = numa.bind(int(sys.argv[2]), Path(sys.argv[1]))
masks = {tuple(sorted(os.sched_getaffinity(int(t)))) for t in os.listdir("/proc/self/task")}
mode, nodes = ctypes.c_int(), (ctypes.c_ulong * 16)()
got = ctypes.CDLL(None).syscall(239 if os.uname().machine == "x86_64" else 236, ctypes.byref(mode), nodes, 1024, None, 0)
stop.set()
print(said, masks, (mode.value, nodes[0]) if got == 0 else None, sep="|")
"""


def bound(root: Path, node: int) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", BIND, str(root), str(node)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be divided into two NUMA nodes")
def test_a_rank_runs_on_the_cores_and_memory_of_its_node_with_all_its_threads(tmp_path: Path) -> None:
    first, *others = sorted(os.sched_getaffinity(0))
    root = machine(tmp_path, {0: str(first), 1: ",".join(map(str, others)), 2: ""}, {})
    said, masks, memory = bound(root, 0)
    assert said.startswith("bound to NUMA node 0, 1 cores") and masks == f"{{({first},)}}"
    # 1: preferred, of node 0; where the container forbids the call, it says so.
    assert memory == "(1, 1)" or "first touched" in said
    assert bound(root, 1)[1] == f"{{{tuple(others)}}}"
    assert "no core of NUMA node 7" in bound(root, 7)[0]


def test_a_rank_that_somebody_bound_stays_as_it_is(tmp_path: Path) -> None:
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    root = machine(tmp_path, {0: cores, 1: "900-901"}, {})
    said, masks, _ = bound(root, 1)
    assert "its cores are of one NUMA node" in said and masks == str({tuple(sorted(os.sched_getaffinity(0)))})
    for option in ("cpu-bind", "cpu_bind", "--mem-bind"):
        assert not local.binds(ClusterConfig(srun_options={option: "cores"}))
    assert local.binds(ClusterConfig()) and not local.binds(ClusterConfig(numa_binding=False))
