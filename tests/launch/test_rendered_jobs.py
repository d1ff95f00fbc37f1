"""Jobs from one node to 2,048, as files that can be read."""

from __future__ import annotations

import subprocess

import pytest
import rendered_jobs

from launch import local


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*local.for_gpus(rendered_jobs.HERE), "PYTORCH_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("nodes", rendered_jobs.NODES)
def test_a_job_is_rendered_as_its_file_shows_it(nodes: int) -> None:
    """After a change that is meant: `python tests/rendered_jobs.py`."""
    text = rendered_jobs.text(nodes)
    assert text == rendered_jobs.file(nodes).read_text()
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_jobs_differ_in_nothing_but_their_nodes() -> None:
    one = rendered_jobs.text(1)
    for nodes in rendered_jobs.NODES[1:]:
        text = rendered_jobs.text(nodes)
        for option in ("--nodes", "--ntasks", "--nnodes"):
            text = text.replace(f"{option}={nodes}", f"{option}=1")
        assert text == one
