"""The GPU benchmark runs where there is no GPU, on the same code with tiny shapes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_gpu_benchmark_prints_its_table_on_the_cpu() -> None:
    command = [sys.executable, "benchmarks/gpu_step.py", "--device", "cpu", "--only", "1B"]
    command += ["--warm", "1", "--steps", "1", "--parity-steps", "3"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| Llama")]
    assert [row[1].strip() for row in rows] == ["Llama-3.2-1B", "Llama-3.2-1B, packed"]
    assert all(float(row[5].replace(",", "")) > 0 and len(row) == 11 for row in rows)
    assert re.search(r"packed: .*× as fast as full causal, .*% of what it allows", done.stdout)
    # Without a GPU both sides of the comparison are the same computation.
    assert "on cpu and on cpu differ by at most 0.0000" in done.stdout
