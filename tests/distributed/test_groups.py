"""The process groups of a mesh: which ranks connect, and how long they wait for each other."""

from __future__ import annotations

from pathlib import Path

import group_cases
import pytest
import ranks

from launch import local


def test_groups_connect_no_ranks_before_they_exchange_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_GLOO_LAZY_INIT", "0")
    assert ranks.run(group_cases.connections, 4)["mesh"] > 0
    monkeypatch.delenv("TORCH_GLOO_LAZY_INIT")
    monkeypatch.setenv("TORCH_GLOO_LAZY_INIT", local.for_gpus(tmp_path)["TORCH_GLOO_LAZY_INIT"])
    lazy = ranks.run(group_cases.connections, 4)
    assert lazy["mesh"] == 0 and lazy["collective"] > 0 and lazy["right"]


def test_steps_have_a_limit_of_their_own_in_every_group() -> None:
    limits = ranks.run(group_cases.timeouts, 4)
    assert len(limits) > 3 and set(limits) == {77.0}
