"""The GPUs of this node and their health, as `nvidia-smi` (part of the driver) and the kernel's log tell it.

torch, which would open a context on each device, is not asked. Without `nvidia-smi` nothing is known or refused.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
import xml.etree.ElementTree as xml
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 60.0
"""Seconds that `nvidia-smi` may take: without the persistence daemon the driver wakes up every device first."""
RECENT = 900.0
"""Seconds: an Xid that is older than this did not end the attempt before. What it has left behind the driver still says."""
FATAL_XIDS = {
    48: "uncorrectable ECC error",
    62: "internal micro-controller halt",
    64: "row remapping or page retirement failed",
    74: "NVLink error",
    79: "fallen off the bus",
    95: "uncontained ECC error",
    119: "the GPU's system processor does not answer",
    120: "the GPU's system processor failed",
    140: "unrecovered ECC error",
    143: "initialization error",
}
"""Xids that point to the device or its links; others (13, 31, 43, 45, …) are mostly errors of a program."""

ROOT = Path("/")


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use."""

    uuid: str
    address: str
    """On the PCI bus as sysfs writes it, such as `0000:19:00.0`."""
    problems: tuple[str, ...] = ()
    """Why nothing should be computed on it."""


@dataclass(frozen=True)
class Node:
    """What was found on a node."""

    gpus: tuple[Gpu, ...] = ()
    """In the order of their PCI addresses."""
    problems: tuple[str, ...] = ()
    """Of the node and of all of its GPUs; none: it is fit for training, or nothing is known of it."""


def look(expected: int, root: Path = ROOT) -> Node:
    """Look at the GPUs of this node.

    Args:
        expected: GPUs that there must be.
        root: where `/dev` is looked for.
    """
    try:
        done = subprocess.run(
            ["nvidia-smi", "-q", "-x"], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except FileNotFoundError:
        return Node()
    except subprocess.TimeoutExpired:
        return Node(problems=(f"nvidia-smi gave no answer within {PATIENCE:.0f} s",))
    try:
        gpus = read(done.stdout)
    except xml.ParseError:
        said = (done.stdout + done.stderr).strip().splitlines()
        return Node(problems=(f"nvidia-smi failed with status {done.returncode}: {' '.join(said[-2:])}",))
    problems = [f"GPU {gpu.address}: {problem}" for gpu in gpus for problem in gpu.problems]
    if len(gpus) < expected:
        problems.append(f"{len(gpus)} of {expected} GPUs answer")
    problems += recent_xids(kernel_log(root), {gpu.address for gpu in gpus}, time.monotonic())
    return Node(tuple(gpus), tuple(problems))


def read(text: str) -> list[Gpu]:
    """GPUs in the answer of `nvidia-smi -q -x`, ordered by address.

    Drivers say more or less; what one does not say is taken for well.

    Raises:
        ParseError: it is no XML.
    """
    gpus = [
        Gpu(gpu.findtext("uuid", "").strip(), _address(gpu.get("id", "")), tuple(_problems(gpu)))
        for gpu in xml.fromstring(text).iter("gpu")
    ]
    return sorted(gpus, key=lambda gpu: gpu.address)


def _address(text: str) -> str:
    """`00000000:19:00.0` in sysfs' writing."""
    domain, _, rest = text.strip().lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _problems(gpu: xml.Element) -> list[str]:
    def said(path: str) -> str:
        value = (gpu.findtext(path) or "").strip()
        return "" if value in ("N/A", "None") or value.startswith("Requested functionality") else value

    problems = []
    if action := said("gpu_recovery_action"):
        problems.append(f"the driver asks for an action: {action}")
    for path, words in (
        ("gpu_reset_status/reset_required", "it must be reset"),
        ("retired_pages/pending_retirement", "pages wait to be retired; it must be reset"),
        ("remapped_rows/remapped_row_pending", "rows wait to be remapped; it must be reset"),
        ("remapped_rows/remapped_row_failure", "rows could not be remapped; it must be replaced"),
        ("ecc_errors/aggregate/sram_threshold_exceeded", "too many uncorrectable errors of its SRAM"),
    ):
        if said(path) == "Yes":
            problems.append(words)
    # Since the driver was loaded; those of its whole life (`aggregate`) were dealt with by remapping.
    uncorrectable = sum(
        int(count.text or 0)
        for count in gpu.iterfind("ecc_errors/volatile//*")
        if ("uncorrectable" in count.tag or count.tag == "double_bit")
        and (count.text or "").strip().isdigit()
    )
    if uncorrectable:
        problems.append(f"{uncorrectable} uncorrectable ECC errors")
    for name in ("clocks_event_reason", "clocks_throttle_reason"):  # the same before driver 535
        for reason, words in (
            ("hw_thermal_slowdown", "heat"),
            ("hw_power_brake_slowdown", "the power supply"),
        ):
            if said(f"{name}s/{name}_{reason}") == "Active":
                problems.append(f"its clocks are lowered because of {words}")
    state, status = said("fabric/state"), said("fabric/status")
    if (state and state != "Completed") or (status and status != "Success"):
        problems.append(f"NVLink's fabric is not set up (state {state or 'N/A'}, status {status or 'N/A'})")
    return problems


def kernel_log(root: Path = ROOT) -> str:
    """The kernel's log as `/dev/kmsg` gives it; empty where it may not be read."""
    try:
        file = os.open(root / "dev" / "kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    records = []
    try:
        while True:
            try:
                record = os.read(file, 2**16)  # one record of the device at a time
            except BrokenPipeError:  # it was overwritten meanwhile; the next read goes on behind the gap
                continue
            if not record:
                break
            records.append(record)
    except OSError:  # BlockingIOError: there is no more; others: it may be opened, and not read
        pass
    finally:
        os.close(file)
    return b"".join(records).decode(errors="replace")


def recent_xids(log: str, addresses: set[str], now: float) -> list[str]:
    """Errors of the device among the Xids of the last `RECENT` seconds.

    Args:
        log: lines `6,1234,98765432,-;NVRM: Xid (PCI:0000:19:00): 79, …`; the third number is in microseconds.
        addresses: of the GPUs that count; another job may use others.
        now: seconds on the clock of the log.
    """
    found = dict[str, None]()
    buses = {address.rpartition(".")[0] for address in addresses}
    for stamp, bus, number in re.findall(
        r"^\d+,\d+,(\d+),[^;]*;NVRM: Xid \(PCI:([0-9a-fA-F:]+)\): (\d+)", log, re.MULTILINE
    ):
        fresh = now - int(stamp) / 1e6 < RECENT
        if fresh and int(number) in FATAL_XIDS and bus.lower() in buses:
            found[f"GPU {bus.lower()}: Xid {number} ({FATAL_XIDS[int(number)]})"] = None
    return list(found)
