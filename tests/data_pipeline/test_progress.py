"""The page of a run while it works, and after it stopped."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from data_pipeline import progress
from data_pipeline.flow.names import DOES, SHARES
from data_pipeline.stage import Stage, State


def touch_tasks(logs: Path, tasks: int, documents: int) -> None:
    for name in ("completions", "counts", "logs"):
        (logs / name).mkdir(parents=True, exist_ok=True)
    for i in range(tasks):
        (logs / "completions" / f"{i:05d}").touch()
        (logs / "counts" / f"{i:05d}.json").write_text(json.dumps({"documents": documents}))


def test_page_shows_where_a_run_stands_and_why_it_stopped(tmp_path: Path) -> None:
    stages = [Stage(name, print, tasks, ()) for name, tasks in (("read", 2), ("signals", 4), ("pack", 1))]
    touch_tasks(tmp_path / "logs" / "read", 2, 5)
    with pytest.raises(ValueError, match="something"), progress.Page(tmp_path, stages, [100, 100]) as page:
        page.begin(stages[0])
        page.end(stages[0], State("x", True, {"read": 10}, 2.0), False)
        page.begin(stages[1])
        touch_tasks(tmp_path / "logs" / "signals", 3, 7)
        page._write()
        facts = json.loads((tmp_path / "logs" / "progress.json").read_text())
        assert [(s["state"], s["done_tasks"], s["tasks"]) for s in facts["stages"]] == [
            ("done", 2, 2), ("running", 3, 4), ("waiting", 0, 1)
        ]  # fmt: skip
        assert facts["stages"][0]["documents_per_second"] == 5.0 and facts["stages"][1]["counts"] == {
            "documents": 21
        }
        assert facts["stages"][1]["eta_seconds"] is not None and facts["input_bytes_read"] == 200
        running = (tmp_path / "logs" / "progress.html").read_text()
        assert 'http-equiv="refresh"' in running and "documents 21" in running
        assert "src=" not in running and "href=" not in running  # needs nothing but itself
        log = tmp_path / "logs" / "signals" / "logs" / "task_00003.log"
        log.write_text("task 3\n2026-01-01 failed\nTraceback\nValueError: <script>\n")
        raise ValueError("something <b>else</b>")
    assert "memory of the driver" in running
    stopped = (tmp_path / "logs" / "progress.html").read_text()
    assert "memory" not in stopped  # of a process that has ended
    assert "refresh" not in stopped
    assert "something &lt;b&gt;else" in stopped and "ValueError: &lt;script&gt;" in stopped
    assert json.loads((tmp_path / "logs" / "progress.json").read_text())["stages"][1]["state"] == "stopped"


def test_a_stage_that_was_not_needed_says_so_beside_its_counts(tmp_path: Path) -> None:
    stages = [Stage(name, print, 1, ()) for name in ("read", "copies")]
    with progress.Page(tmp_path, stages, [100]) as page:
        for stage, counts in zip(stages, ({"read": 10}, {}), strict=True):
            page.begin(stage)
            page.end(stage, State("x", True, counts, 2.0), True)
    rows = re.findall(r"<tr class=.*</tr>", (tmp_path / "logs" / "progress.html").read_text())
    assert len(rows) == 2 and all('data-name="time">unchanged<' in row for row in rows)
    assert 'class="counts">read 10</tr>' in rows[0] and 'class="counts"></tr>' in rows[1]
    assert all(re.match(r'<tr class="unchanged"><td class=n>\d', row) for row in rows)  # no number is broken


def test_the_time_left_covers_the_stages_that_wait() -> None:
    def row(name: str, state: str, **more: float | None) -> dict[str, Any]:
        return {"name": name, "state": state, **more}

    waiting = [row("tokens", "waiting"), row("pack", "waiting")]
    usual = SHARES["tokens"] + SHARES["pack"]
    assert progress.time_left([row("read", "running", seconds=1.0, eta_seconds=None), *waiting]) is None
    # Reading took twice what it usually takes, and so will the rest.
    done = row("read", "done", seconds=2 * SHARES["read"])
    assert progress.time_left([done, *waiting]) == pytest.approx(2 * usual, abs=0.1)
    # Half of the reading is done in the time that all of it usually takes.
    half = row("read", "running", seconds=SHARES["read"], eta_seconds=SHARES["read"])
    assert progress.time_left([half, *waiting]) == pytest.approx(SHARES["read"] + 2 * usual, abs=0.1)
    assert progress.time_left([row("read", "done", seconds=5.0)]) == 0


def test_every_stage_is_explained() -> None:
    flow = Path(progress.__file__).parent / "flow"
    names = {n for p in flow.glob("*.py") for n in re.findall(r'Stage\(\s*"([a-z_]+)"', p.read_text())}
    assert len(names) > 30 and names == set(DOES)
    assert set(SHARES) <= set(DOES)
