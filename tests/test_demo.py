"""The main job, end to end, as `make demo` runs it, with fewer steps."""

from __future__ import annotations

import json
import lzma
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch.demo import xz9

OVERRIDES = ["train.steps=8", "checkpoint.every=3", "train.eval_sequences=2", "tracker=none"]


def demo(runs: Path) -> str:
    command = [sys.executable, "-m", "launch.demo", "--runs", str(runs), *OVERRIDES]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            printed, _ = process.communicate(timeout=2400)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, printed[-6000:]
    return printed


@pytest.mark.timeout(5400)
def test_raw_documents_become_a_report_and_a_second_run_reuses_everything(tmp_path: Path) -> None:
    printed = demo(tmp_path)
    run = tmp_path / "demo"
    assert (
        "this is intended" in printed
        and "kill -9 of process" in printed
        and "xz -9 each" in printed
        and "report.html" in printed
    )
    events = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    names = [e["event"] for e in events]
    assert "failed" in names and names[-1] == "finished"
    assert any(e["event"] == "restored" and e["step"] > 0 for e in events)
    steps = {json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()}
    assert steps == set(range(1, 9))
    assert {"config.yaml", "checkpoints", "report.html"} <= {p.name for p in run.iterdir()}
    documents = [json.loads(line) for line in (run / "heldout_documents.jsonl").read_text().splitlines()]
    for source in ("code", "prose"):
        assert (
            sum(d["bytes"] for d in documents if d["source"] == source) >= 450_000
        )  # less on a slow machine
    funnel = json.loads((tmp_path / "demo-data/funnel.json").read_text())
    assert sum(s["kept_documents"] for s in funnel["sources"].values()) > 1000

    before = (tmp_path / "demo-data/packed/manifest.json").stat().st_mtime_ns
    again = demo(tmp_path)
    assert "kill -9" not in again
    assert (tmp_path / "demo-data/packed/manifest.json").stat().st_mtime_ns == before


def test_xz_with_a_smaller_window_is_as_small_as_xz_9(tmp_path: Path) -> None:
    content = Path(xz9.__code__.co_filename).read_bytes()
    assert xz9(content) == len(lzma.compress(content, preset=9))
