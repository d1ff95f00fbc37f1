"""Ports that are chosen long before somebody listens on them."""

from __future__ import annotations

import socket
from pathlib import Path

from configs.schema.train import ClusterConfig
from launch import local
from launch.processes import free_port


def test_a_free_port_is_none_that_the_kernel_gives_to_others(tmp_path: Path) -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(20):
        port = free_port()
        assert 1024 < port < lowest
        with socket.socket() as s:
            s.bind(("", port))


def test_a_run_on_this_machine_listens_where_torchrun_finds_room(tmp_path: Path) -> None:
    assert "--rdzv-endpoint=localhost:0" in local.command(ClusterConfig(), tmp_path, tmp_path)
    assert "--rdzv-endpoint=localhost:7" in local.command(ClusterConfig(port=7), tmp_path, tmp_path)
