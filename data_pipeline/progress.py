"""Progress of a run: a bar on a terminal, and a page that refreshes itself while the run works.

`DIR/logs/progress.html` needs nothing but itself; `DIR/logs/progress.json` holds the same for programs. Both are written
every few seconds by the driver, atomically, and say at the end how the run ended.
"""

from __future__ import annotations

import contextlib
import html
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import psutil
from tqdm import tqdm

from data_pipeline import policy
from data_pipeline.flow.names import RARE, SHARES, does
from data_pipeline.packed.files import write_atomically
from data_pipeline.stage import Stage, State

EVERY = 2.0
"""Seconds between two versions of the page."""
HIDDEN = ("repaired_characters", "bytes")
DOCUMENTS = ("read", "documents", "considered", "signed")
"""Counts of a stage that say how many documents it has seen, in order of preference."""


@contextlib.contextmanager
def bar(logs: Path, stage: Stage) -> Iterator[None]:
    """A progress bar over finished tasks, on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    over = threading.Event()

    def show() -> None:
        with tqdm(total=stage.tasks, desc=f"{stage.name:<16}", unit="task", leave=False) as shown:
            while not over.wait(0.2):
                shown.update(_completed(logs) - shown.n)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _completed(logs: Path) -> int:
    """Tasks of a stage that are done."""
    try:
        return len(os.listdir(logs / "completions"))  # noqa: PTH208
    except FileNotFoundError:
        return 0


class Page:
    """The page of a run: a context in which stages begin and end."""

    def __init__(self, run_dir: Path, stages: Sequence[Stage], unit_bytes: Sequence[int]) -> None:
        self._run_dir, self._stages, self._unit_bytes = run_dir, stages, unit_bytes
        self._folder = run_dir / "logs"
        self._rows: dict[str, dict[str, Any]] = {
            s.name: {
                "name": s.name,
                "does": does(s.name),
                "state": "waiting",
                "tasks": s.tasks,
                "done_tasks": 0,
            }
            for s in stages
        }
        self._began, self._stage_began, self._done_before = time.time(), 0.0, 0
        self._current: str | None = None
        self._counts: tuple[int, Counter[str]] = (0, Counter())
        self._status = "running"
        self._error = ""
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Page:
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._over.set()
        self._thread.join()
        self._status = "finished" if error is None else "stopped"
        self._error = f"{error or kind.__name__}" if error is not None else ""
        if self._current is not None:
            self._rows[self._current]["state"] = "stopped"
        self._write()

    def begin(self, stage: Stage) -> None:
        """A stage starts."""
        with self._lock:
            self._current, self._stage_began = stage.name, time.monotonic()
            self._done_before = _completed(self._folder / stage.name)
            self._counts = (0, Counter())
            self._rows[stage.name]["state"] = "running"

    def end(self, stage: Stage, state: State, unchanged: bool) -> None:
        """A stage is done, or was not needed."""
        with self._lock:
            self._current = None
            counts = _shown(state.counts)
            self._rows[stage.name].update(
                state="unchanged" if unchanged else "done",
                done_tasks=stage.tasks,
                seconds=round(state.seconds, 1),
                counts=counts,
                documents_per_second=_rate(counts, state.seconds),
                eta_seconds=None,
            )

    def _watch(self) -> None:
        # A run of a second needs no page.
        while not self._over.wait(EVERY):
            # Without the page the run is the same: a full disk shows where it matters.
            with contextlib.suppress(OSError):
                self._write()

    def _write(self) -> None:
        with self._lock:
            self._refresh()
            facts = self._facts()
        with contextlib.suppress(OSError):
            write_atomically(self._folder / "progress.json", orjson.dumps(facts, option=orjson.OPT_INDENT_2))
            write_atomically(self._folder / "progress.html", render(facts).encode())

    def _refresh(self) -> None:
        """What the running stage has done so far."""
        if self._current is None:
            return
        row, logs = self._rows[self._current], self._folder / self._current
        row["done_tasks"] = _completed(logs)
        seconds = time.monotonic() - self._stage_began
        row["seconds"] = round(seconds, 1)
        seen, counts = self._counts
        files = sorted((logs / "counts").glob("[0-9]*.json"), key=lambda p: p.stat().st_mtime)
        for path in files[seen:]:
            with contextlib.suppress(OSError, orjson.JSONDecodeError):
                counts.update(orjson.loads(path.read_bytes()))
        self._counts = (len(files), counts)
        row["counts"] = _shown(counts)
        row["documents_per_second"] = _rate(row["counts"], seconds)
        fresh = row["done_tasks"] - self._done_before
        left = row["tasks"] - row["done_tasks"]
        row["eta_seconds"] = round(seconds / fresh * left, 1) if fresh > 0 else None

    def _facts(self) -> dict[str, Any]:
        rows = list(self._rows.values())
        read = self._rows.get("read", {})
        done_bytes = sum(self._unit_bytes[: read.get("done_tasks", 0)])
        failed = []
        if self._status == "stopped":
            failed = [row["name"] for row in rows if row["state"] == "stopped"]
        return {
            "run": str(self._run_dir),
            "status": self._status,
            "error": self._error,
            "time_unix_seconds": time.time(),
            "seconds": round(time.time() - self._began, 1),
            "eta_seconds": time_left(rows) if self._status == "running" else None,
            "units": len(self._unit_bytes),
            "input_bytes": sum(self._unit_bytes),
            "input_bytes_read": done_bytes,
            "memory_bytes": _memory(),
            "stages": rows,
            "failed_logs": [text for name in failed if (text := failure(self._folder / name))],
        }


def _shown(counts: dict[str, int]) -> dict[str, int]:
    hidden = (policy.NOT_RUN, policy.ASKED)
    return {k: v for k, v in counts.items() if v and k not in HIDDEN and not k.startswith(hidden)}


def _rate(counts: dict[str, int], seconds: float) -> float | None:
    decided = counts.get("kept", 0) + counts.get("dropped", 0)
    documents = next((counts[name] for name in DOCUMENTS if name in counts), decided)
    return round(documents / seconds, 1) if documents and seconds > 0 else None


def time_left(rows: Sequence[dict[str, Any]]) -> float | None:
    """Seconds until the last stage ends, as far as the stages so far can tell; None: none of them can yet.

    A running stage is extrapolated from its finished tasks. A waiting one takes what it usually takes beside the others
    (`SHARES`), on the scale of the stages that are done here.
    """
    known = [r for r in rows if r["state"] in ("done", "unchanged") and r.get("seconds")]
    spent, usual = sum(r["seconds"] for r in known), sum(SHARES.get(r["name"], RARE) for r in known)
    left = 0.0
    for row in rows:
        running = row["state"] == "running"
        if running and row.get("eta_seconds") is not None:
            left += row["eta_seconds"]
            spent += row["seconds"]
            usual += (
                SHARES.get(row["name"], RARE) * row["seconds"] / max(row["seconds"] + row["eta_seconds"], 0.1)
            )
    if not usual:
        return None
    scale = spent / usual
    for row in rows:
        whole = SHARES.get(row["name"], RARE) * scale
        if row["state"] == "waiting":
            left += whole
        elif row["state"] == "running" and row.get("eta_seconds") is None:
            left += max(0.0, whole - row.get("seconds", 0.0))
    return round(left, 1)


def _memory() -> list[int]:
    """Resident bytes of the driver and of its workers."""
    found = []
    driver = psutil.Process()
    for process in [driver, *driver.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            found.append(process.memory_info().rss)
    return found


def failure(logs: Path) -> str | None:
    """The end of the newest log of a task of a stage that failed."""
    for path in sorted((logs / "logs").glob("task_*.log"), key=lambda p: p.stat().st_mtime, reverse=True):
        text = path.read_text(errors="replace")[-20_000:]
        if " failed\n" in text:
            return f"{path}\n{text[-3000:]}"
    return None


def render(facts: dict[str, Any]) -> str:
    """The page."""
    running = facts["status"] == "running"
    rows = "\n".join(_row(i, row) for i, row in enumerate(facts["stages"], 1))
    tasks = sum(row["tasks"] for row in facts["stages"])
    done = sum(row["done_tasks"] for row in facts["stages"])
    left = facts["eta_seconds"]
    tiles = [
        (
            "stages",
            f"{sum(r['state'] in ('done', 'unchanged') for r in facts['stages'])} / {len(facts['stages'])}",
        ),
        ("tasks", f"{done:,} / {tasks:,}"),
        ("input read", f"{facts['input_bytes_read'] / 1e6:,.1f} / {facts['input_bytes'] / 1e6:,.1f} MB"),
        ("time so far", _time(facts["seconds"])),
    ]
    if running:
        memory = " + ".join(f"{size / 2**20:,.0f}" for size in facts["memory_bytes"])
        tiles += [
            ("left, about", _time(left) if left is not None else "not known yet"),
            ("memory of the driver and its processes", f"{memory} MiB"),
        ]
    shown = "".join(f"<div><b>{html.escape(v)}</b><span>{html.escape(k)}</span></div>" for k, v in tiles)
    logs = "".join(f"<pre>{html.escape(text)}</pre>" for text in facts["failed_logs"])
    error = f'<p class="error">{html.escape(facts["error"])}</p>' if facts["error"] else ""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts["time_unix_seconds"]))
    refresh = '<meta http-equiv="refresh" content="3">' if running else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{refresh}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(facts["status"])} · {html.escape(Path(facts["run"]).name)}</title>
<style>{STYLE}</style></head><body>
<h1><i class="{facts["status"]}"></i>{html.escape(facts["status"])} <code>{html.escape(facts["run"])}</code></h1>
{error}<section>{shown}</section>
<table><thead><tr><th>#<th>stage<th>tasks<th>done<th>time<th>left<th>documents/s<th>counts</tr></thead><tbody>
{rows}
</tbody></table>
{logs}
<footer>{stamp}{" · refreshes itself" if running else ""}</footer>
</body></html>
"""


def _row(number: int, row: dict[str, Any]) -> str:
    share = row["done_tasks"] / max(row["tasks"], 1)
    counts = ", ".join(f"{html.escape(k)} {v:,}" for k, v in list(row.get("counts", {}).items())[:8])
    eta = row.get("eta_seconds")
    left = _time(eta) if row["state"] == "running" and eta is not None else ""
    seconds = _time(row["seconds"]) if "seconds" in row else ""
    if row["state"] == "unchanged":  # it has its counts from an earlier run
        seconds = "unchanged"
    state = "" if row["state"] in ("done", "unchanged") else row["state"]
    rate = f"{row['documents_per_second']:,.0f}" if row.get("documents_per_second") else ""
    numbers = "".join(
        f'<td class=n data-name="{name}">{value}' for name, value in (("time", seconds), ("left", left))
    )
    return (
        f'<tr class="{row["state"]}"><td class=n>{number}<td class=name><b>{html.escape(row["name"])}</b>'
        f"<small>{html.escape(row['does'])}</small>"
        f'<td class=n data-name="tasks">{row["done_tasks"]:,} / {row["tasks"]:,}'
        f'<td class=bar><meter title="{row["state"]}" value="{share:.4f}"></meter>{numbers}'
        f'<td class=n data-name="documents/s">{rate}<td class="counts">{counts or state}</tr>'
    )


def _time(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #667080; --paper: #fbfbfa; --line: #e3e5e8; --fill: #2f6fb2;
  --good: #2b8a4b; --bad: #b3372f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #96a0ad; --paper: #16191d; --line: #2c3138;
  --fill: #6aa7e8; --good: #63c384; --bad: #ef8279; } }
body { margin: 2rem auto; max-width: 78rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h1 { font-size: 1.25rem; font-weight: 600; } h1 code { color: var(--soft); font-weight: 400; font-size: 1rem; }
h1 i { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em; background: var(--fill); }
h1 i.finished { background: var(--good); } h1 i.stopped { background: var(--bad); }
.error { color: var(--bad); white-space: pre-wrap; }
section { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1rem 0 1.5rem; }
section div { display: flex; flex-direction: column; } section b { font-size: 1.15rem; font-weight: 600; }
section span, footer, th { color: var(--soft); font-size: .85rem; font-weight: 400; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; }
td, th { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: baseline; }
td.n, th:nth-child(3), th:nth-child(n+5):nth-child(-n+7) { text-align: right; white-space: nowrap; }
td.name b { font-weight: 400; } small { display: block; color: var(--soft); font-size: .8rem; line-height: 1.3; }
tr.waiting { color: var(--soft); } tr.running td.name b { font-weight: 600; } tr.stopped td { color: var(--bad); }
meter { width: 6rem; height: .7rem; }
meter::-webkit-meter-bar { background: var(--line); border: 0; border-radius: 4px; }
meter::-webkit-meter-optimum-value { background: var(--fill); border-radius: 4px; }
meter::-moz-meter-bar { background: var(--fill); }
td.counts { color: var(--soft); font-size: .85rem; }
@media (max-width: 46rem) {
  body { margin: 1rem auto; }
  thead { display: none; } table, tbody { display: block; }
  tr { display: flex; flex-wrap: wrap; gap: .1rem .9rem; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  td { border: 0; padding: 0; } td.name { flex: 1 1 70%; } td.bar, td.counts { flex: 1 1 100%; }
  td.bar meter { width: 100%; } td.n:empty { display: none; }
  td.n::before { content: attr(data-name) " "; color: var(--soft); font-size: .8rem; }
}
pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line); border-radius: 6px; font-size: .8rem; }
footer { margin-top: 1rem; }
"""
