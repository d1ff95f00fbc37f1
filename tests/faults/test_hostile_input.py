"""A whole run over a folder of everything that means harm: it ends well, and accounts for every record."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import hostile
import pyarrow.parquet as pq
from toyrun import PATIENCE, ROOT


def test_a_folder_of_harm_is_accounted_for(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    expected: dict[str, int | None] = {}
    for kind in ("archives", "lines", "tables", "others"):
        (source / kind).mkdir(parents=True)
        expected |= getattr(hostile, kind)(source / kind)
    # Gigabytes of text in a small file: read in bounded memory too, but not in the time of a test.
    (source / "tables" / "shared.parquet").unlink()
    for i in range(4, 24):
        (source / "tables" / f"flipped-{i}.parquet").unlink()
    (source / "left").mkdir()
    left_out = hostile.left_out(source / "left")
    hostile.loops(source / "left")
    words = ["recipe=web", f"input={source}", f"output={output}", "recipe.max_record_bytes=8388608",
             "executor.workers=2", "stop_after=final", "filter@recipe.filter=none"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "launch.cli", "data", *words], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    account = json.loads((output / "funnel.json").read_text())
    web = account["sources"]["web"]
    assert (
        web["read_documents"]
        == web["set_aside_documents"] + sum(web["dropped_documents"].values()) + web["kept_documents"]
    )
    rows = [json.loads(line) for path in (output / "rejected").glob("*.jsonl") for line in path.open()]
    assert len(rows) == web["set_aside_documents"] > 40
    assert all(row["file"] and row["reason"] and row["expected"] and row["record"] >= 0 for row in rows)
    documents = len(
        {i for p in (output / "documents").glob("*.parquet") for i in pq.read_table(p)["id"].to_pylist()}
    )
    assert (
        documents + web["set_aside_documents"] + web["dropped_documents"].get("identity.copy", 0)
        == web["read_documents"]
    )
    assert documents >= 200  # the sound ones behind the harm; equal ones are one
    assert {Path(f["file"]).name for f in account["unknown_files"]} == left_out
    # Nothing that a record says becomes the name of a file.
    names = [p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file()]
    assert all(re.fullmatch(r"[\w.,=-]+(/[\w.,=-]+)*", name) for name in names)
    assert not [name for name in names if "passwd" in name]
    peaks = [int(p) for log in (output / "logs").glob("*/logs/*.log")
             for p in re.findall(r"peak memory of the process (\d+) MiB", log.read_text())]  # fmt: skip
    assert max(peaks) < 1500, "MiB"
